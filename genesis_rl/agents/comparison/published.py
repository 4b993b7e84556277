"""Published success rates on the four relational tasks: what our table stands beside."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published table.

    Attributes:
        source: where it is from.
        settings: how the agents were trained.
        tasks: names of the columns, as the ids of our environments name them.
        success: what the agent sees, to success rates in the order of the tasks.
    """

    source: str
    settings: str
    tasks: tuple[str, ...]
    success: dict[str, tuple[float, ...]]


PUBLISHED = Published(
    source=(
        "Yoon et al., An Investigation into Pre-Training Object-Centric Representations for "
        "Reinforcement Learning, ICML 2023, arXiv:2302.04419; the figures are those of the files "
        "beside the authors' code (github.com/jsikyoon/OCRL). Which of its columns is Object "
        "Interaction was told from their order"
    ),
    settings=(
        "PPO, 2,000,000 environment steps, sparse reward, 4 environments, 2048 steps a rollout, "
        "minibatches of 32, learning rate 3e-4, entropy 0.01; a transformer with a CLS token on 6 "
        "slots"
    ),
    tasks=("ObjectGoal", "ObjectInteraction", "ObjectComparison", "PropertyComparison"),
    success={
        "ground-truth state": (0.974, 0.795, 0.973, 0.968),
        "CNN, end to end": (0.987, 0.784, 0.225, 0.232),
        "CNN feature map + transformer": (0.976, 0.291, 0.192, 0.189),
        "one CNN per slot": (0.974, 0.490, 0.537, 0.567),
        "VAE": (0.674, 0.340, 0.386, 0.387),
        "MAE patches": (0.901, 0.049, 0.216, 0.219),
        "IODINE": (0.916, 0.003, 0.701, 0.624),
        "Slot Attention": (0.983, 0.000, 0.975, 0.947),
        "SLATE": (0.985, 0.787, 0.979, 0.980),
    },
)
