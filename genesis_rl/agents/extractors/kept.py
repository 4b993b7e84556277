"""Features extractor for slots or frames with other entries of a Dict observation."""

from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from genesis_rl.agents.extractors.slots import SlotExtractor, SlotSetExtractor
from genesis_rl.models.set_layers import SlotScale

_ENCODED = ("slots", "frames")


class DictExtractor(BaseFeaturesExtractor):
    """Features of slots or frames, concatenated with the other entries of a Dict observation.

    The entries (proprioception, goals) are flattened and standardised; the policy's net_arch
    processes them.

    Example:
        >>> venv = VecGenesisObs(venv, "runs/encoder", keep=["observation"])  # doctest: +SKIP
        >>> PPO("MultiInputPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=DictExtractor))

    Attributes:
        pool: the extractor from slots or frames to features.
        scale: normalisation of the other entries.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        pool: type[BaseFeaturesExtractor] = SlotSetExtractor,
        pool_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the extractor.

        Args:
            observation_space: Dict with "slots" (K, D) of GenesisObs or VecGenesisObs, or "frames"
                (3, S, S), and other entries without pixels.
            pool: one of EXTRACTORS; for frames an extractor of images, such as NatureCNN.
            pool_kwargs: arguments of ``pool``.

        Raises:
            ValueError: if the space has no "slots" or "frames" or no other entry, or an entry is an
                image.
        """
        entries = getattr(observation_space, "spaces", {})
        encoded = [name for name in _ENCODED if name in entries]
        if not encoded or len(entries) < 2:
            raise ValueError(
                'observation_space must be a Dict of "slots" or "frames" and other entries, got '
                f"{observation_space}."
            )
        self._encoded = encoded[0]
        self._names = [name for name in entries if name != self._encoded]
        for name in self._names:
            if is_image_space(entries[name]):
                raise ValueError(
                    f"keep must be entries without pixels, got {name!r}: {entries[name]}. Use "
                    "image_key for several cameras."
                )
        size = sum(get_flattened_obs_dim(entries[name]) for name in self._names)
        extractor = pool(entries[self._encoded], **(pool_kwargs or {}))
        super().__init__(observation_space, extractor.features_dim + size)
        self.pool, self.scale = extractor, SlotScale(size)

    def fit_scale(self, observations: Mapping[str, Tensor]) -> None:
        """Fit the scales of slots and entries to observations, for example of random steps."""
        if isinstance(self.pool, SlotExtractor):
            self.pool.fit_scale(observations[self._encoded])
        self.scale.fit(self._entries(observations)[:, None])

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Compute features (B, features_dim) of preprocessed observations."""
        entries = self.scale(self._entries(observations)[:, None])[:, 0]
        return torch.cat([self.pool(observations[self._encoded]), entries], dim=-1)

    def _entries(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Return the other entries, flattened, (B, size)."""
        return torch.cat([observations[name].flatten(1).float() for name in self._names], dim=-1)
