"""An encoder inside the policy: a scene model that is trained by the agent's rewards."""

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from genesis_rl.agents.extractors.slots import SlotExtractor
from genesis_rl.agents.extractors.transformer import SlotSetExtractor
from genesis_rl.checkpoint import load_pretrained
from genesis_rl.envs.frame_source import find_frames
from genesis_rl.set_layers import SlotScale
from genesis_rl.slots import SceneModel


class EncoderExtractor(BaseFeaturesExtractor):
    """Frames to slots to features: a scene model of the policy's own, trained with it.

    The environments stay as they are: they show frames of the model's size. The slots are the
    posterior's mean, and the averages of the model's batch norm stay fixed, or the probabilities
    of actions would differ between acting and learning.

    It costs far more than a frozen encoder in a wrapper: every frame is inferred to act, again
    with gradients in each of PPO's epochs, and buffers hold pixels.

    The weights are saved with the policy. `PPO.load` builds the model before it loads them: from
    the folder or Hub id, which must still be there, or from the model in memory, which
    Stable-Baselines3 pickles into its file.

    Example:
        >>> PPO("CnnPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=EncoderExtractor,
        ...     features_extractor_kwargs=dict(encoder="runs/eyes"), net_arch=[]))

    Attributes:
        encoder: the SceneModel; `genesis_rl.checkpoint.save_pretrained` saves it alone.
        pool: the extractor that turns its slots into features.
    """

    encoder: SceneModel

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        encoder: str | os.PathLike[str] | SceneModel,
        pool: type[SlotExtractor] = SlotSetExtractor,
        pool_kwargs: Mapping[str, Any] | None = None,
        mask_geometry: bool = False,
    ) -> None:
        """Load the model and build the network behind it.

        Args:
            observation_space: Box of one RGB frame; of bytes, if the policy's ``normalize_images``
                is True, as it is by default.
            encoder: folder of a saved model, hub id, or a model in memory, which is copied.
            pool: one of EXTRACTORS.
            pool_kwargs: its arguments.
            mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area.

        Raises:
            TypeError: if ``encoder`` is none of these.
            ValueError: if it is no checkpoint, or the space holds no frames of its size.
        """
        super().__init__(observation_space, features_dim=1)  # until the pool says how many
        if isinstance(encoder, (str, os.PathLike)):
            model = load_pretrained(encoder, device="cpu").model
        else:
            model = copy.deepcopy(encoder)
        if not (isinstance(model, SceneModel) and isinstance(model, nn.Module)):
            raise TypeError(
                f"encoder is {type(encoder).__name__}; wanted a path, a hub id or a scene model."
            )
        source = find_frames(observation_space, key=None, layout="auto")
        size: int = model.config.image_size
        if source.key is not None or "".join(sorted(source.layout)) != "CHW":
            raise ValueError(f"observation_space is {observation_space}; wanted one RGB frame.")
        if source.size != (size, size) or source.shape[source.layout.index("C")] != 3:
            raise ValueError(
                f"observation_space is {observation_space}, but the encoder takes RGB frames of "
                f"{size} x {size}; wanted gymnasium.wrappers.ResizeObservation(env, "
                f"({size}, {size})) around each environment, or VecGenesisObs, which resizes."
            )
        self.encoder = model.eval()
        self.mask_geometry = mask_geometry
        self._axes = [0, *(1 + source.layout.index(axis) for axis in "CHW")]
        # Policies bring what Stable-Baselines3 takes for images to [0, 1] themselves.
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
        """Infer the slots (B, K, D) of frames as the policy hands them on."""
        slots = self.encoder.infer(observations.permute(self._axes) / self._white)
        if not self.mask_geometry:
            return slots.features
        return torch.cat([slots.features, slots.mask_geometry()], dim=-1)

    @torch.no_grad()
    def fit_scale(self, observations: Tensor) -> None:
        """Set the scale by the slots of frames, for example of random steps."""
        self.pool.fit_scale(self.slots(observations))

    def forward(self, observations: Tensor) -> Tensor:
        """Turn frames into features (B, features_dim)."""
        features: Tensor = self.pool(self.slots(observations))
        return features

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Apply a function to the pool only: policies initialise their networks by it."""
        self.pool.apply(fn)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the pool; the encoder's batch norm stays in that of evaluation."""
        super().train(mode)
        cast("nn.Module", self.encoder).eval()
        return self
