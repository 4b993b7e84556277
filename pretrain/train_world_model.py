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

from genesis_rl.training.program import run_and_report
from genesis_rl.utils.flags import parse_flags
from genesis_rl.utils.process import report_stop
from genesis_rl.world_model.training import WorldTrainConfig, train_world_model


@report_stop("train_world_model.py", "add --resume to resume")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a world model; return the exit status."""

    def train() -> dict[str, Any]:
        return train_world_model(parse_flags(WorldTrainConfig, argv, __doc__))

    return run_and_report("train_world_model.py", WorldTrainConfig, train)


if __name__ == "__main__":
    sys.exit(main())
