"""The world model: Gaussian residual dynamics of slots, with reward and termination."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.checkpoints.weights import (
    CONFIG,
    WEIGHTS,
    build,
    find_folder,
    load_weights,
    rename_old_keys,
    shipped,
    shipped_folder,
    write_module,
)
from genesis_rl.models.set_layers import SlotScale, TransformerBlock
from genesis_rl.slots import ALIGN, MASK_GEOMETRY, check_shape
from genesis_rl.utils.checks import LARGEST, Checked, Count, Must, check_fields, within
from genesis_rl.utils.files import read_folder, read_json
from genesis_rl.utils.process import pick_device
from genesis_rl.world_model.actions import ActionSpec

# Hidden units of the MLP per unit of the transformer's width.
_FLAT_FACTOR = 4
_FORMAT, _KIND = 1, "world_model"
# Range of the dynamics' standard deviations, relative to the features' change in a step.
_MIN_SIGMA, _MAX_SIGMA = 1e-2, 30.0
Trunk = Literal["slots", "mlp"]
_Flag = Annotated[bool, Must("true or false", lambda value: isinstance(value, bool))]
_Width = Annotated[int, within(0, LARGEST["latent_size"])]


class SlotTrunk(nn.Module):
    """A transformer over the slots, an action token and a CLS token.

    It has no positional encoding, so predictions are equivariant to permutations of the slots.
    """

    def __init__(self, num_features: int, action_width: int, width: int, layers: int, heads: int):
        """Build the network; D features of a slot, ``width`` of a token."""
        super().__init__()
        self.slot = nn.Linear(num_features, width)
        self.action = nn.Linear(action_width, width)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, slots: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features of slots and scene.

        Args:
            slots: (B, K, D), scaled.
            action: (B, action_width).

        Returns:
            Features of the slots, (B, K, width), and of the scene, (B, width).
        """
        token = self.action(action)[:, None]
        # The action is also added to all tokens, because reading it by attention takes much longer
        # to learn. Its own token is the last, and is not updated by the last block.
        x = torch.cat([self.cls + token, self.slot(slots) + token, token], dim=1)
        for i, block in enumerate(self.blocks):
            last = i + 1 == len(self.blocks)
            x = block(x, num_queries=x.shape[1] - last)
        x = self.norm(x)
        return x[:, 1:], x[:, 0]


class FlatTrunk(nn.Module):
    """An MLP over all concatenated latents: the baseline without slots."""

    def __init__(
        self, num_slots: int, num_features: int, action_width: int, width: int, layers: int
    ) -> None:
        """Build the network, from K slots of D features to ``width`` features per slot."""
        super().__init__()
        self.num_slots = num_slots
        hidden = _FLAT_FACTOR * width
        sizes = [num_slots * num_features + action_width] + layers * [hidden]
        self.hidden = nn.ModuleList(
            nn.Linear(size, following) for size, following in pairwise(sizes)
        )
        self.norm = nn.LayerNorm(hidden)
        self.slots = nn.Linear(hidden, num_slots * width)
        self.whole = nn.Linear(hidden, width)

    def forward(self, slots: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features of slots and scene, as `SlotTrunk.forward`."""
        x = torch.cat([slots.flatten(1), action], dim=1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        x = self.norm(x)
        return self.slots(x).unflatten(1, (self.num_slots, -1)), self.whole(x)


@dataclass(frozen=True)
class WorldModelConfig:
    """Architecture of a world model."""

    trunk: Trunk = "slots"
    """transformer over slots, or MLP over all concatenated latents"""
    width: Count = 64
    """size of the tokens"""
    layers: Count = 2
    """transformer blocks, or hidden layers of the MLP"""
    attention_heads: Count = 4
    """attention heads, a divisor of width"""
    ensemble: Count = 4
    """heads of the dynamics, whose standard deviation is the uncertainty"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if self.width % self.attention_heads:
            raise ValueError(
                f"attention_heads must be a divisor of width {self.width}, got "
                f"{self.attention_heads}."
            )


@dataclass(frozen=True)
class SlotSpec(Checked):
    """The slots of a world model: their encoder and their features.

    Attributes:
        encoder_fingerprint: SHA-256 of the encoder.
        num_slots: K.
        latent_sizes: (D_m, D_c).
        mask_geometry: whether each slot has its mask's centroid and area (3 features, the last).
        aligned: whether objects keep their slots within an episode.
    """

    encoder_fingerprint: Annotated[str, Must("a string", lambda value: isinstance(value, str))]
    num_slots: Count
    latent_sizes: Annotated[tuple[_Width, _Width], Must("not both 0", any)]
    mask_geometry: _Flag = MASK_GEOMETRY
    aligned: _Flag = ALIGN

    @property
    def num_features(self) -> int:
        """D, the number of features of a slot."""
        return sum(self.latent_sizes) + 3 * self.mask_geometry


class Prediction(NamedTuple):
    """Prediction of a step.

    Attributes:
        features: (B, K, D), the next slots.
        reward: (B,), expected reward.
        terminated: (B,), probability of termination.
        uncertainty: (B,), ensemble standard deviation of the next slots, in units of the features'
            standard deviations (root mean square over all features).
    """

    features: Tensor
    reward: Tensor
    terminated: Tensor
    uncertainty: Tensor


class NetworkOutput(NamedTuple):
    """Output of the network in scaled units, for training.

    Attributes:
        means: (B, E, K, D), mean of the next slots by each head.
        sigma: (B, K, D), standard deviation of the next slots.
        event_logit: (B,), logit of a reward other than the usual one, as trained.
        event_reward: (B,), that reward minus the usual one, in units of ``reward_scale``.
        end_logit: (B,), logit of the termination, as trained.
    """

    means: Tensor
    sigma: Tensor
    event_logit: Tensor
    event_reward: Tensor
    end_logit: Tensor


class WorldModel(nn.Module):
    """Prediction of the next slots, reward and termination from slots and an action.

    The next slots are Gaussian; their mean is the slots plus a change, in units of the features'
    standard deviations, predicted by an ensemble of heads on one trunk. Most rewards have one value
    (the usual reward): the model predicts the probability of another reward and its value.

    Rare events have a higher weight in training, which multiplies their odds by that weight;
    ``event_bias`` and ``end_bias`` correct the logits for it.

    Attributes:
        config: the architecture.
        action_spec: the action space.
        slot_spec: the slots.
        scale: mean and standard deviation of the features.
        change_scale: (D,), root mean square of their changes in a step, in scaled units.
    """

    change_scale: Tensor
    usual_reward: Tensor
    reward_scale: Tensor
    event_bias: Tensor
    end_bias: Tensor

    def __init__(
        self, config: WorldModelConfig, action_spec: ActionSpec, slot_spec: SlotSpec
    ) -> None:
        """Initialise the network.

        Args:
            config: the architecture.
            action_spec: the action space.
            slot_spec: the slots.
        """
        super().__init__()
        self.config, self.action_spec, self.slot_spec = config, action_spec, slot_spec
        num_slots, num_features, width = slot_spec.num_slots, slot_spec.num_features, config.width
        self.scale = SlotScale(num_features)
        self.register_buffer("change_scale", torch.ones(num_features))
        for name, value in (("usual_reward", 0), ("reward_scale", 1)):
            self.register_buffer(name, torch.tensor(float(value)))
        for name in ("event_bias", "end_bias"):
            self.register_buffer(name, torch.tensor(0.0))
        self.trunk: nn.Module
        if config.trunk == "slots":
            self.trunk = SlotTrunk(
                num_features, action_spec.width, width, config.layers, config.attention_heads
            )
        else:
            self.trunk = FlatTrunk(num_slots, num_features, action_spec.width, width, config.layers)
        self.hidden = nn.Linear(width, config.ensemble * width)
        self.change = nn.ModuleList(nn.Linear(width, num_features) for _ in range(config.ensemble))
        self.log_sigma = nn.Linear(width, num_features)
        self.outcome = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))

    @property
    def encoder_fingerprint(self) -> str:
        """SHA-256 of the encoder."""
        return self.slot_spec.encoder_fingerprint

    @property
    def mask_geometry(self) -> bool:
        """Whether the features include mask geometry."""
        return self.slot_spec.mask_geometry

    def forward(self, slots: Tensor, action: Tensor) -> NetworkOutput:
        """Predict one step in scaled units, without checks.

        Args:
            slots: (B, K, D), scaled.
            action: (B,) integers or (B, A) floats.
        """
        tokens, scene = self.trunk(slots, self.action_spec.encode(action))
        hidden = F.relu(self.hidden(tokens)).chunk(self.config.ensemble, dim=-1)
        changes = [head(part) for head, part in zip(self.change, hidden, strict=True)]
        means = slots[:, None] + torch.stack(changes, 1) * self.change_scale
        sigma = self.log_sigma(tokens).exp().clamp(_MIN_SIGMA, _MAX_SIGMA) * self.change_scale
        return NetworkOutput(means, sigma, *self.outcome(scene).unbind(-1))

    @torch.no_grad()
    def step(
        self,
        features: Tensor,
        action: Tensor,
        *,
        noise: Tensor | None = None,
        head: Tensor | None = None,
    ) -> Prediction:
        """Predict one step of B scenes.

        Args:
            features: (B, K, D), slots of the encoder.
            action: (B,) integers or (B, A) floats.
            noise: (B, K, D), standard normal noise of the next slots; None for their mean.
            head: (B,) int64, head of the ensemble per scene; None for the mean of all heads.

        Raises:
            ValueError: if an argument has another shape, or the actions are of another space.
        """
        spec, b = self.slot_spec, len(features)
        check_shape(features, (None, spec.num_slots, spec.num_features), "features")
        self.action_spec.check(action)
        check_shape(action, (b, *action.shape[1:]), "action")
        output = self(self.scale(features), action)
        mean = output.means.mean(1)
        # Tensor.var over a middle dimension takes as long as the whole network.
        uncertainty = (output.means - mean[:, None]).square().mean((1, 2, 3)).sqrt()
        slots = mean
        if head is not None:
            check_shape(head, (b,), "head")
            slots = output.means[torch.arange(b, device=head.device), head]
        if noise is not None:
            check_shape(noise, tuple(features.shape), "noise")
            slots = slots + noise * output.sigma
        return Prediction(
            slots * self.scale.scale + self.scale.mean,
            self.expected_reward(output),
            torch.sigmoid(output.end_logit - self.end_bias),
            uncertainty,
        )

    def expected_reward(self, output: NetworkOutput) -> Tensor:
        """Compute the expected reward, (B,)."""
        probability = torch.sigmoid(output.event_logit - self.event_bias)
        return self.usual_reward + probability * output.event_reward * self.reward_scale

    # ---- files ---------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Write model.safetensors and config.json to a folder, which is created if missing.

        Args:
            folder: destination; its other files are kept.
            extra: additional JSON data for config.json.
        """
        config = {
            **(extra or {}),
            "format": _FORMAT,
            "kind": _KIND,
            "config": dataclasses.asdict(self.config),
            "action_spec": self.action_spec.to_json(),
            "slot_spec": dataclasses.asdict(self.slot_spec),
        }
        write_module(self, folder, config)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        encoder_fingerprint: str | None = None,
        device: str | torch.device = "auto",
    ) -> Self:
        """Load a world model in eval mode.

        Args:
            folder: folder of save_pretrained; run directory of pretrain/train_world_model.py,
                whose best model is loaded; or name of a shipped world model, see
                `genesis_rl.checkpoints.weights.shipped`.
            encoder_fingerprint: fingerprint of the encoder (SlotEncoder.fingerprint), to check;
                None for any.
            device: "auto" for a GPU if available.

        Raises:
            ValueError: if the folder contains no world model, a file is damaged, or the world model
                was trained on the slots of another encoder.
        """
        model = read_folder(_find(folder), lambda path: cls._read(path, encoder_fingerprint))
        return model.to(pick_device(device)).eval()

    @classmethod
    def _read(cls, folder: Path, encoder_fingerprint: str | None) -> Self:
        """Read a world model's folder to the CPU."""
        path = folder / CONFIG
        data = read_json(path)
        if not isinstance(data, dict) or data.get("kind") != _KIND:
            raise ValueError(f"{path} must have kind {_KIND!r}, the one of world models.")
        if data.get("format") != _FORMAT:
            raise ValueError(f"{path} must have format {_FORMAT}, got {data.get('format')!r}.")
        data = rename_old_keys(data)
        try:
            sizes = tuple(data["slot_spec"]["latent_sizes"])
            config = WorldModelConfig(**data["config"])
            actions = ActionSpec.from_json(data["action_spec"])
            slot_spec = SlotSpec(**data["slot_spec"] | {"latent_sizes": sizes})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} does not fit this version: {error}") from error
        if encoder_fingerprint not in (None, slot_spec.encoder_fingerprint):
            raise ValueError(
                "encoder must be the one of the world model's training, with fingerprint "
                f"{slot_spec.encoder_fingerprint[:12]} in {folder}, got {encoder_fingerprint[:12]}."
            )
        model = build(lambda: cls(config, actions, slot_spec), folder)
        load_weights(model, folder)
        return model


def _find(path_or_name: str | os.PathLike[str]) -> Path:
    path = Path(path_or_name).expanduser()
    folder = find_folder(path)
    if folder is not None:
        return folder
    packaged = shipped_folder(str(path_or_name), world_models=True)
    if packaged is None or path.exists():
        raise ValueError(
            f"world_model must be a folder with {CONFIG} and {WEIGHTS} or the name of a shipped "
            f"world model ({', '.join(shipped(world_models=True))}), got {path}."
        )
    return packaged
