"""Features extractors for images: slots of a scene model that is trained, or a CNN feature map."""

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor, nn

from genesis_rl.agents.extractors.slots import SlotExtractor, SlotSetExtractor
from genesis_rl.checkpoints.loading import load_pretrained
from genesis_rl.envs.wrappers.frame_source import find_frames
from genesis_rl.models.set_layers import SlotScale
from genesis_rl.slots import MASK_GEOMETRY, SceneModel


class EncoderExtractor(BaseFeaturesExtractor):
    """Frames to slots to features, with a scene model trained with the policy.

    Observations are frames of the model's image size. The slots are the posterior's mean, and
    batch norm uses fixed statistics; otherwise action probabilities would differ between rollouts
    and updates.

    This is much slower than a frozen encoder in a wrapper: frames are encoded in rollouts and again
    with gradients in each epoch of PPO, and buffers contain frames.

    The weights are saved with the policy. Before loading them, `PPO.load` rebuilds the model from
    its folder or Hub id, which must still exist, or from a model in memory, which Stable-Baselines3
    pickles into its file.

    Example:
        >>> PPO("CnnPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=EncoderExtractor,
        ...     features_extractor_kwargs=dict(encoder="runs/encoder"), net_arch=[]))

    Attributes:
        encoder: the SceneModel; `genesis_rl.checkpoints.loading.save_pretrained` saves it
            separately.
        pool: the extractor from slots to features.
    """

    encoder: SceneModel

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        encoder: str | os.PathLike[str] | SceneModel,
        pool: type[SlotExtractor] = SlotSetExtractor,
        pool_kwargs: Mapping[str, Any] | None = None,
        mask_geometry: bool = MASK_GEOMETRY,
    ) -> None:
        """Load the model and build the extractor.

        Args:
            observation_space: Box of one RGB frame; uint8 if the policy's ``normalize_images`` is
                True (default).
            encoder: folder of a pretrained model, Hub id, or a model in memory, which is copied.
            pool: one of EXTRACTORS.
            pool_kwargs: arguments of ``pool``.
            mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area.

        Raises:
            TypeError: if ``encoder`` is of another type.
            ValueError: if the encoder cannot be loaded, or the space is no RGB frame of its size.
        """
        super().__init__(observation_space, features_dim=1)  # set below, when the pool is known
        if isinstance(encoder, (str, os.PathLike)):
            model = load_pretrained(encoder, device="cpu").model
        else:
            model = copy.deepcopy(encoder)
        if not (isinstance(model, SceneModel) and isinstance(model, nn.Module)):
            raise TypeError(
                f"encoder must be a path, a Hub id or a scene model, got {type(encoder).__name__}."
            )
        source = find_frames(observation_space, key=None, layout="auto")
        size: int = model.config.image_size
        if source.key is not None or "".join(sorted(source.layout)) != "CHW":
            raise ValueError(f"observation_space must be one RGB frame, got {observation_space}.")
        if source.size != (size, size) or source.shape[source.layout.index("C")] != 3:
            raise ValueError(
                f"observation_space must be RGB frames of the encoder's image size, {size} x "
                f"{size}, got {observation_space}. Wrap each environment with "
                f"gymnasium.wrappers.ResizeObservation(env, ({size}, {size})), or use "
                "VecGenesisObs, which resizes."
            )
        self.encoder = model.eval()
        self.mask_geometry = mask_geometry
        self._axes = [0, *(1 + source.layout.index(axis) for axis in "CHW")]
        # Policies normalise image spaces of Stable-Baselines3 to [0, 1].
        self._white = 1 if is_image_space(observation_space) else source.white
        width = sum(model.latent_sizes) + (3 if mask_geometry else 0)
        shape = (model.config.num_slots, width)
        self.pool = pool(spaces.Box(-torch.inf, torch.inf, shape), **(pool_kwargs or {}))
        self._features_dim = self.pool.features_dim

    @property
    def scale(self) -> SlotScale:
        """The scale of the slots."""
        return self.pool.scale

    def slots(self, observations: Tensor) -> Tensor:
        """Infer the slots (B, K, D) of frames preprocessed by the policy."""
        slots = self.encoder.infer(observations.permute(self._axes) / self._white)
        if not self.mask_geometry:
            return slots.features
        return torch.cat([slots.features, slots.mask_geometry()], dim=-1)

    @torch.no_grad()
    def fit_scale(self, observations: Tensor) -> None:
        """Fit the scale to the slots of frames, for example of random steps."""
        self.pool.fit_scale(self.slots(observations))

    def forward(self, observations: Tensor) -> Tensor:
        """Compute the features (B, features_dim) of frames."""
        features: Tensor = self.pool(self.slots(observations))
        return features

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Apply a function to the pool only, because policies initialise weights by `apply`."""
        self.pool.apply(fn)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the pool; the encoder stays in eval mode."""
        super().train(mode)
        cast("nn.Module", self.encoder).eval()
        return self


class FeatureMapExtractor(BaseFeaturesExtractor):
    """The cells of NatureCNN's feature map, pooled like a set of slots.

    Each cell has a learned positional embedding. At 64 px there are 16 cells of 64 features.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], pool: type[SlotExtractor], **sizes: int
    ) -> None:
        """Build the network.

        Args:
            observation_space: Box (3, S, S), uint8, S >= 36.
            pool: one of `EXTRACTORS`.
            **sizes: arguments of ``pool``.
        """
        cnn = NatureCNN(observation_space).cnn[:-1]  # without its Flatten
        with torch.no_grad():
            example = torch.zeros(1, *observation_space.sample().shape)
            _, channels, height, width = cnn(example).shape
        cells = spaces.Box(-np.inf, np.inf, (height * width, channels), np.float32)
        pooled = pool(cells, **sizes)
        super().__init__(observation_space, pooled.features_dim)
        self.cnn, self.pool = cnn, pooled
        self.places = nn.Parameter(0.02 * torch.randn(height * width, channels))

    def forward(self, observations: Tensor) -> Tensor:
        """Compute features (B, features_dim) of frames (B, 3, S, S) in [0, 1]."""
        cells = self.cnn(observations).flatten(2).transpose(1, 2)  # (B, cells, channels)
        features: Tensor = self.pool(cells + self.places)
        return features
