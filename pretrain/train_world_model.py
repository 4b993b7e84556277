r"""Train a world model on recorded steps: slots and an action to the next slots, reward and end.

    python envs/collect.py --env genesis_rl/ObjectGoal-v0 --out data/goal
    python pretrain/train_world_model.py --encoder runs/eyes --data data/goal --out runs/world
    python pretrain/train_world_model.py --encoder runs/eyes --data data/goal --out runs/world \
        --resume

The recording is encoded once and kept. The model is unrolled on its own predictions, and the one
that does so best on held-out windows is kept in the folder's best/. At the end it is scored on the
test split against copying the last state and, with --baseline mlp, against a network without slots:
report.json, and pictures of imagined beside real rollouts.
"""

import sys
from collections.abc import Sequence

import torch
import tyro

from genesis_rl.process import keep_freed_memory, report_stop
from genesis_rl.training.program import run_and_report
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.program import train_world_model


@report_stop("train_world_model.py", "add --resume to resume")
def main(argv: Sequence[str] | None = None) -> int:
    """Train and report; return the exit status."""
    config = tyro.cli(WorldTrainConfig, args=argv, description=__doc__)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    return run_and_report("train_world_model.py", lambda: train_world_model(config))


if __name__ == "__main__":
    sys.exit(main())
