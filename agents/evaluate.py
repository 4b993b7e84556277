"""Evaluate an agent and a random policy on the same episodes.

    python agents/evaluate.py runs/agent
    python agents/evaluate.py runs/agent --episodes 500 --no-deterministic --out runs/evaluation

Writes evaluation.json and video.mp4 (video.gif with --video-format gif) with the frames and the
slots' masks.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.agents.config import EvaluationConfig
from genesis_rl.agents.evaluation import Scores, evaluate_agent
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("evaluate.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[EvaluationConfig]
        config = parse_flags(settings, argv, __doc__)
        result = evaluate_agent(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("evaluate.py", error, settings)
        return 2
    for name in ("agent", "deterministic", "random"):
        if name in result:
            print(f"{name:14}{Scores(**result[name])}")
    print(f"wrote {config.out or config.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
