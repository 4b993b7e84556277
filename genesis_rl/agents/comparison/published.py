"""Published success rates on the four relational tasks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResults:
    """A published table of success rates.

    Attributes:
        source: citation.
        settings: settings of the training.
        tasks: columns, named like the ids of this package's environments.
        success: observation to success rates in the order of the tasks.
    """

    source: str
    settings: str
    tasks: tuple[str, ...]
    success: dict[str, tuple[float, ...]]


PUBLISHED = PublishedResults(
    source=(
        "Yoon et al., An Investigation into Pre-Training Object-Centric Representations for "
        "Reinforcement Learning, ICML 2023, arXiv:2302.04419; values from the files in the "
        "authors' repository (github.com/jsikyoon/OCRL), whose column of Object Interaction was "
        "inferred from the order"
    ),
    settings=(
        "PPO, 2,000,000 environment steps, sparse reward, 4 environments, rollouts of 2048 steps, "
        "minibatches of 32, learning rate 3e-4, entropy coefficient 0.01; a transformer with a CLS "
        "token on 6 slots"
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
