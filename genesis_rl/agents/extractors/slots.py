"""Features extractors for slots: transformer, deep sets, relation networks, concatenation.

`DictExtractor` is for slots, or frames, with other entries of a Dict observation.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from genesis_rl.models.set_layers import SlotScale, TransformerBlock

_ENCODED = ("slots", "frames")


class SlotExtractor(BaseFeaturesExtractor):
    """Base class of features extractors for slots.

    Arguments of its subclasses:

    - observation_space: Box (K, D) of GenesisObs or VecGenesisObs, or (T, K, D);
    - features_dim: size of the features;
    - width: size of the hidden layers, or of the transformer's tokens;
    - layers: number of hidden layers, or of transformer blocks.

    They raise ValueError if the space is not a set of slots, or a size is not positive.

    Attributes:
        scale: normalisation of the observations.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int | None = None
    ) -> None:
        """Validate the space and create the scale; K * D features for ``features_dim`` None."""
        num_slots, num_features = _read(observation_space)
        super().__init__(observation_space, features_dim or num_slots * num_features)
        self.scale = SlotScale(num_features)

    @property
    def num_features(self) -> int:
        """Features per slot: D, or T * D when stacked over time."""
        return len(self.scale.mean)

    def fit_scale(self, observations: Tensor) -> None:
        """Fit the scale to observations, for example of random steps; see `SlotScale.fit`."""
        self.scale.fit(observations)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless all sizes are positive."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def _read(space: spaces.Space[Any]) -> tuple[int, int]:
    """Return K and D of a space of slots."""
    # Frames also have three axes, but are uint8 or bounded.
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind == "f":
        if len(space.shape) == 2:
            return space.shape[0], space.shape[1]
        if len(space.shape) == 3 and not space.is_bounded("both"):
            return space.shape[1], space.shape[0] * space.shape[2]
    raise ValueError(
        f'observation_space must be a Box (K, D), the layout "set" of GenesisObs, or stacked over '
        f"time, (T, K, D), got {space}."
    )


class DeepSetsExtractor(SlotExtractor):
    """Slots as a set: rho(mean_k phi(slot_k)), with MLPs phi and rho (Zaheer et al., 2017).

    The fastest of the permutation-invariant extractors. The paper's sum is replaced by the mean, so
    that the magnitude of the features does not depend on the number of slots. ``layers`` is of phi;
    rho has one more hidden layer.

    Example:
        >>> PPO("MlpPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=DeepSetsExtractor, net_arch=[]))
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        width: int = 64,
        layers: int = 2,
    ) -> None:
        """Build the network; see `SlotExtractor` for arguments and errors."""
        check_sizes(features_dim=features_dim, width=width, layers=layers)
        super().__init__(observation_space, features_dim)
        self.phi = nn.Sequential(_layer(self.num_features, width), _layers(width, layers - 1))
        self.rho = nn.Sequential(_layer(width, width), _layer(width, features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """Pool slots (B, K, D) into features (B, features_dim)."""
        features: Tensor = self.rho(self.phi(self.scale(observations)).mean(1))
        return features


class RelationExtractor(SlotExtractor):
    """Relation network over pairs of slots: f(mean_ij g(slot_i, slot_j)).

    g and f are MLPs; the mean is over all K * K ordered pairs, including i = j (Santoro et al.,
    2017, whose sum differs by a constant factor). ``layers`` is of g; f has one more hidden layer.

    Example:
        >>> PPO("MlpPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=RelationExtractor, net_arch=[]))
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        width: int = 64,
        layers: int = 2,
    ) -> None:
        """Build the network; see `SlotExtractor` for arguments and errors."""
        check_sizes(features_dim=features_dim, width=width, layers=layers)
        super().__init__(observation_space, features_dim)
        # The first layer of g on (slot_i, slot_j) is the sum of two layers on single slots, which
        # reduces its cost by a factor of K.
        self.first = nn.Linear(self.num_features, width)
        self.second = nn.Linear(self.num_features, width, bias=False)
        self.pair = _layers(width, layers - 1)
        self.out = nn.Sequential(_layer(width, width), _layer(width, features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """Pool slots (B, K, D) into features (B, features_dim)."""
        slots = self.scale(observations)
        pairs = F.relu(self.first(slots)[:, :, None] + self.second(slots)[:, None])  # (B, K, K, .)
        features: Tensor = self.out(self.pair(pairs).mean((1, 2)))
        return features


class FlatSlotsExtractor(SlotExtractor):
    """Concatenated slots for an MLP policy, which depends on their order.

    FlattenExtractor of Stable-Baselines3 with scaled slots.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        """Create the scale; see `SlotExtractor` for arguments and errors."""
        super().__init__(observation_space)

    def forward(self, observations: Tensor) -> Tensor:
        """Flatten slots (B, K, D) into features (B, K * D)."""
        flat: Tensor = self.scale(observations).flatten(1)
        return flat


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())


def _layers(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_layer(width, width) for _ in range(count)))


class SlotSetExtractor(SlotExtractor):
    """A small transformer that pools slots into a CLS token.

    It has no positional encoding, so the features are invariant to the order of the slots.
    ``heads`` is the number of attention heads, a divisor of ``width``.

    Example:
        >>> PPO("MlpPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=SlotSetExtractor, net_arch=[]))
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
    ) -> None:
        """Build the network; see `SlotExtractor` for arguments and errors."""
        check_sizes(features_dim=features_dim, width=width, layers=layers)
        if heads < 1 or width % heads:
            raise ValueError(f"heads must be a divisor of width {width}, got {heads}.")
        super().__init__(observation_space, features_dim)
        self.embed = nn.Linear(self.num_features, width)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Pool slots (B, K, D) into features (B, features_dim)."""
        tokens = self.embed(self.scale(observations))
        tokens = torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], dim=1)  # (B, K + 1, .)
        for i, block in enumerate(self.blocks):
            # Only the CLS token of the last block is used.
            last = i + 1 == len(self.blocks)
            tokens = block(tokens, num_queries=1 if last else tokens.shape[1])
        pooled: Tensor = F.relu(self.out(self.norm(tokens[:, 0])))
        return pooled


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
