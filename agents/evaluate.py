"""Evaluate an agent and a random policy on the same episodes.

    python agents/evaluate.py runs/agent
    python agents/evaluate.py runs/agent --episodes 500 --no-deterministic --out runs/evaluation

Writes evaluation.json and video.mp4 (video.gif with --video-format gif) with the frames and the
slots' masks.
"""

import sys

import tyro

from genesis_rl.agents.config import EvaluationConfig
from genesis_rl.agents.evaluation import Scores, evaluate_agent
from genesis_rl.utils.flags import program


@program("evaluate.py", tyro.conf.PositionalRequiredArgs[EvaluationConfig], __doc__)
def main(config: EvaluationConfig) -> int:
    """Evaluate; return the exit status."""
    result = evaluate_agent(config)
    for name in ("agent", "deterministic", "random"):
        if name in result:
            print(f"{name:14}{Scores(**result[name])}")
    print(f"wrote {config.out or config.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
