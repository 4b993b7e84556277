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

from genesis_rl.training import NonFiniteError
from genesis_rl.utils.flags import program
from genesis_rl.utils.tables import as_text
from genesis_rl.world_model.training import WorldTrainConfig, train_world_model


@program(
    "train_world_model.py",
    WorldTrainConfig,
    __doc__,
    advice="add --resume to resume",
    failures=(NonFiniteError,),
)
def main(config: WorldTrainConfig) -> int:
    """Train a world model; return the exit status."""
    report = train_world_model(config)
    print(as_text(report["tables"]))
    print(report["settings"]["out"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
