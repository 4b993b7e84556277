"""Inputs of state probes: the simulator's state of a frame and the latents of all slots."""

from collections.abc import Mapping

import torch
from torch import Tensor

from genesis_rl.evaluation.probes.heads import LEAST_STD, ProbeTarget, standardise
from genesis_rl.evaluation.probes.latents import Sample
from genesis_rl.evaluation.probes.scenes import STATE, ImageInputs


class StateInputs(ImageInputs):
    """Targets and features of state probes.

    Attributes:
        kind: "state".
        heads: ridge regression and an MLP on the concatenated slots, and attention over slots.
        targets: ``state_i`` for each column i of the factor `STATE` that varies.
    """

    kind = "state"
    heads: tuple[str, ...] = ("linear", "mlp", "attention")

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Read the states from the packs' factors.

        Args:
            samples: the images by split; "train" and "test" at least.

        Raises:
            ValueError: if a pack has no states, or they do not vary.
        """
        super().__init__(samples)
        values: dict[str, Tensor] = {}
        for split, (pack, rows) in samples.items():
            if not has_states(pack.factors):
                raise ValueError(
                    f"{pack.folder} must have the factor {STATE!r} of shape (images, d), got "
                    f"{', '.join(pack.factors) or 'no factors'}."
                )
            values[split] = torch.from_numpy(pack.factors[STATE][rows]).float()
        columns = (values["train"].std(0) > LEAST_STD).nonzero()[:, 0].tolist()
        if not columns:
            raise ValueError(f"the factor {STATE!r} must vary, got constant states.")
        self.targets = [
            ProbeTarget(f"state_{i}", standardise({s: v[:, i : i + 1] for s, v in values.items()}))
            for i in columns
        ]

    def masks(self) -> None:
        """Return None: true masks are not needed."""

    def state(self) -> None:
        """Return None: the state is the target."""


def has_states(factors: Mapping[str, object]) -> bool:
    """Return whether factors contain a state vector per image."""
    return getattr(factors.get(STATE), "ndim", 0) == 2
