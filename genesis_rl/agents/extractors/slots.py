"""What all features extractors share: the form of the slots and their scale."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

# A latent that hardly varies carries noise; scaled up to a spread of 1 it would drown the others.
_MIN_SCALE = 0.1


class SlotScale(nn.Module):
    """Brings slots (B, K, D) to a common scale: (slot - mean) / scale for each of the D features.

    Latents come as they are, some hundred times wider than others. The mean and the scale are
    fixed buffers, the same for all slots, so that the order of the slots stays without meaning,
    and they are saved with the policy. Until `fit` is called nothing changes.

    Slots that are stacked over time, (B, T, K, D'), become (B, K, D) first, with D = T * D'.

    Attributes:
        mean: (D,).
        scale: (D,), greater than 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        """Start with mean 0 and scale 1.

        Args:
            num_features: D.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    @torch.no_grad()
    def fit(self, slots: Tensor) -> None:
        """Take mean and standard deviation from observations.

        A standard deviation below a tenth of the widest feature's is raised to that.

        Args:
            slots: (N, K, D) or (N, T, K, D'), for example of random steps.

        Raises:
            ValueError: for another shape.
        """
        given, slots = tuple(slots.shape), _through_time(slots)
        if slots.ndim != 3 or slots.shape[-1] != len(self.mean) or not len(slots):
            raise ValueError(f"slots has shape {given}; wanted (N, K, {len(self.mean)}).")
        flat = slots.flatten(0, 1).to(self.mean)
        spread = flat.std(0, correction=0)
        widest = float(spread.max())
        self.mean.copy_(flat.mean(0))
        # Where nothing varies there is nothing to scale.
        self.scale.copy_(spread.clamp(min=_MIN_SCALE * widest) if widest else spread + 1)

    def forward(self, slots: Tensor) -> Tensor:
        """Scale slots (B, K, D) or (B, T, K, D'); the result is (B, K, D)."""
        return (_through_time(slots) - self.mean) / self.scale


class SlotExtractor(BaseFeaturesExtractor):
    """The base of all features extractors for slots.

    Attributes:
        scale: what the observations go through first.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int | None = None
    ) -> None:
        """Read the space.

        Args:
            observation_space: Box (K, D), as GenesisObs and VecGenesisObs make it, or (T, K, D).
            features_dim: size of the result; None for all slots in a row.

        Raises:
            ValueError: if the space is no set of slots.
        """
        num_slots, num_features = _read(observation_space)
        super().__init__(observation_space, features_dim or num_slots * num_features)
        self.scale = SlotScale(num_features)

    @property
    def num_features(self) -> int:
        """D of the slots as the network sees them: T times as many when stacked over time."""
        return len(self.scale.mean)

    def fit_scale(self, observations: Tensor) -> None:
        """Set the scale by observations, for example of random steps; see `SlotScale.fit`."""
        self.scale.fit(observations)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless all sizes are positive."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; wanted at least 1.")


def _through_time(slots: Tensor) -> Tensor:
    """Bring slots (B, T, K, D') to (B, K, T * D'), as VecFrameStack lays them out."""
    return slots.transpose(1, 2).flatten(2) if slots.ndim == 4 else slots


def _read(space: spaces.Space[Any]) -> tuple[int, int]:
    """K and D of a space of slots."""
    # Frames have three axes, too, but are bytes or bounded.
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind == "f":
        if len(space.shape) == 2:
            return space.shape[0], space.shape[1]
        if len(space.shape) == 3 and not space.is_bounded("both"):
            return space.shape[1], space.shape[0] * space.shape[2]
    raise ValueError(
        f'observation_space is {space}; wanted a Box (K, D): the layout "set" of GenesisObs, also '
        "stacked over time, (T, K, D)."
    )
