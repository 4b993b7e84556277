r"""Train a world model that predicts next slots, reward and termination from slots and an action.

    python envs/collect.py --env genesis_rl/ObjectGoal-v0 --out data/goal
    python pretrain/train_world_model.py --encoder runs/encoder --data data/goal --out runs/world
    python pretrain/train_world_model.py --encoder runs/encoder --data data/goal --out runs/world \
        --resume

The recording is encoded once and cached. The model is unrolled on its own predictions; the best
model on held-out windows is saved in best/. At the end it is evaluated on the test split, with the
last state and, with --baseline mlp, a network without slots as baselines. The results are in
report.json, with pictures of imagined and real rollouts.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch

from genesis_rl.training.program import run_and_report
from genesis_rl.utils.flags import parse_flags
from genesis_rl.utils.process import keep_freed_memory, report_stop
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.program import train_world_model


@report_stop("train_world_model.py", "add --resume to resume")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a world model; return the exit status."""

    def train() -> dict[str, Any]:
        config = parse_flags(WorldTrainConfig, argv, __doc__)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        keep_freed_memory()
        return train_world_model(config)

    return run_and_report("train_world_model.py", WorldTrainConfig, train)


if __name__ == "__main__":
    sys.exit(main())
