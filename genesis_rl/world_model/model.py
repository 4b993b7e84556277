"""The world model: Gaussian residual dynamics of slots, with reward and termination."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.checks import LARGEST, check_limits, check_range
from genesis_rl.files import current_folder, read_folder, read_json
from genesis_rl.set_layers import SlotScale
from genesis_rl.slots import check_shape
from genesis_rl.weights import (
    CONFIG,
    WEIGHTS,
    build,
    load_weights,
    pick_device,
    shipped,
    shipped_folder,
    write_module,
)
from genesis_rl.world_model.actions import ActionSpec
from genesis_rl.world_model.trunks import FlatTrunk, SlotTrunk

_FORMAT, _KIND = 1, "world_model"
# Standard deviations of the dynamics, in units of how much the features change in a step.
_LEAST_SIGMA, _LARGEST_SIGMA = 1e-2, 30.0

Trunk = Literal["slots", "mlp"]


@dataclass(frozen=True)
class WorldModelConfig:
    """Shape of a world model."""

    trunk: Trunk = "slots"
    """a transformer over slots, or an MLP over all latents in a row"""
    width: int = 64
    """size of the tokens"""
    layers: int = 2
    """transformer blocks, or hidden layers of the MLP"""
    attention_heads: int = 4
    """heads of the attention; they divide the width"""
    ensemble: int = 4
    """heads of the dynamics, whose disagreement is the uncertainty"""

    def __post_init__(self) -> None:
        """Check values."""
        if self.trunk not in get_args(Trunk):
            raise ValueError(f"trunk is {self.trunk!r}; wanted one of {get_args(Trunk)}.")
        for name in ("width", "layers", "attention_heads", "ensemble"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 1.")
        if self.width % self.attention_heads:
            raise ValueError(
                f"attention_heads is {self.attention_heads}; wanted a divisor of width,"
                f" {self.width}."
            )
        check_limits(self)


@dataclass(frozen=True)
class SlotForm:
    """The slots that a world model knows: whose they are, and what they consist of.

    Attributes:
        encoder_fingerprint: SHA-256 of the scene model that makes them.
        num_slots: K.
        latent_sizes: (D_m, D_c).
        mask_geometry: whether each slot ends with its mask's centroid and area (3 features).
        aligned: whether objects were kept in their slots from frame to frame.
    """

    encoder_fingerprint: str
    num_slots: int
    latent_sizes: tuple[int, int]
    mask_geometry: bool = False
    aligned: bool = True

    def __post_init__(self) -> None:
        """Check values."""
        if not isinstance(self.encoder_fingerprint, str):
            raise ValueError(f"encoder_fingerprint must be text, got {self.encoder_fingerprint!r}.")
        for name in ("mask_geometry", "aligned"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}.")
        check_range("num_slots", self.num_slots, 1, LARGEST["num_slots"])
        if len(self.latent_sizes) != 2 or not sum(self.latent_sizes):
            raise ValueError(f"latent_sizes must be two, not both 0, got {self.latent_sizes}.")
        for size in self.latent_sizes:
            check_range("latent_sizes", size, 0, LARGEST["latent_size"])

    @property
    def num_features(self) -> int:
        """D of a slot."""
        return sum(self.latent_sizes) + 3 * self.mask_geometry


class Prediction(NamedTuple):
    """What follows an action.

    Attributes:
        features: (B, K, D), the next slots.
        reward: (B,), expected.
        terminated: (B,), probability.
        uncertainty: (B,), how far the ensemble's heads are apart: the standard deviation of their
            means, in units of the features' own, root of the mean square over all features.
    """

    features: Tensor
    reward: Tensor
    terminated: Tensor
    uncertainty: Tensor


class Outlook(NamedTuple):
    """What the network gives, in scaled units; for the training.

    Attributes:
        means: (B, E, K, D), the next slots as each head expects them.
        sigma: (B, K, D), standard deviation of the next slots.
        event: (B,), logit of a reward other than the usual one, as trained.
        payment: (B,), such a reward less the usual one, in units of ``reward_scale``.
        end: (B,), logit of the termination, as trained.
    """

    means: Tensor
    sigma: Tensor
    event: Tensor
    payment: Tensor
    end: Tensor


class WorldModel(nn.Module):
    """Slots and an action to the next slots, a reward and the probability of an end.

    The next slots are Gaussian around the slots plus a change, in units of the features' standard
    deviations; an ensemble of heads on one trunk says the change. The reward is mostly one value
    (the usual reward): the model says with which probability it differs, and how much it then is.

    Rare events are learned with more weight, which raises their odds by just that weight; the
    logits are brought back to the data's odds by ``event_bias`` and ``end_bias``.

    Attributes:
        config: its shape.
        action_spec: the actions it takes.
        form: the slots it knows.
        scale: the features' mean and standard deviation.
        change_scale: (D,), root mean square of their changes in a step, in scaled units.
    """

    change_scale: Tensor
    usual_reward: Tensor
    reward_scale: Tensor
    event_bias: Tensor
    end_bias: Tensor

    def __init__(self, config: WorldModelConfig, action_spec: ActionSpec, form: SlotForm) -> None:
        """Build the network, untrained.

        Args:
            config: its shape.
            action_spec: the actions.
            form: the slots.
        """
        super().__init__()
        self.config, self.action_spec, self.form = config, action_spec, form
        num_slots, num_features, width = form.num_slots, form.num_features, config.width
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
        """SHA-256 of the scene model whose slots these are."""
        return self.form.encoder_fingerprint

    @property
    def mask_geometry(self) -> bool:
        """Whether the slots end with their masks' geometry."""
        return self.form.mask_geometry

    def forward(self, slots: Tensor, action: Tensor) -> Outlook:
        """Look one step ahead, in scaled units, without checks.

        Args:
            slots: (B, K, D), scaled.
            action: as the action space has them.
        """
        seen, whole = self.trunk(slots, self.action_spec.encode(action))
        hidden = F.relu(self.hidden(seen)).chunk(self.config.ensemble, dim=-1)
        changes = [head(part) for head, part in zip(self.change, hidden, strict=True)]
        means = slots[:, None] + torch.stack(changes, 1) * self.change_scale
        sigma = self.log_sigma(seen).exp().clamp(_LEAST_SIGMA, _LARGEST_SIGMA) * self.change_scale
        event, payment, end = self.outcome(whole).unbind(-1)
        return Outlook(means, sigma, event, payment, end)

    @torch.no_grad()
    def step(
        self,
        features: Tensor,
        action: Tensor,
        *,
        noise: Tensor | None = None,
        head: Tensor | None = None,
    ) -> Prediction:
        """Imagine one step of B scenes.

        Args:
            features: (B, K, D), slots as the encoder gives them.
            action: (B,) integers or (B, A) floats.
            noise: (B, K, D), standard normal; None takes the mean.
            head: (B,) int64, the head of the ensemble that each scene follows; None follows their
                mean.

        Raises:
            ValueError: if slots or actions are of another form.
        """
        form, b = self.form, len(features)
        check_shape(features, (None, form.num_slots, form.num_features), "features")
        self.action_spec.check(action)
        check_shape(action, (b, *action.shape[1:]), "action")
        outlook = self(self.scale(features), action)
        mean = outlook.means.mean(1)
        # Not Tensor.var, which takes as long as the whole network over a dimension in the middle.
        spread = (outlook.means - mean[:, None]).square().mean((1, 2, 3)).sqrt()
        slots = mean
        if head is not None:
            check_shape(head, (b,), "head")
            slots = outlook.means[torch.arange(b, device=head.device), head]
        if noise is not None:
            check_shape(noise, tuple(features.shape), "noise")
            slots = slots + noise * outlook.sigma
        return Prediction(
            slots * self.scale.scale + self.scale.mean,
            self.expected_reward(outlook),
            torch.sigmoid(outlook.end - self.end_bias),
            spread,
        )

    def expected_reward(self, outlook: Outlook) -> Tensor:
        """The usual reward plus the probability of another times what that pays, (B,)."""
        other = torch.sigmoid(outlook.event - self.event_bias)
        return self.usual_reward + other * outlook.payment * self.reward_scale

    # ---- files ---------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Write model.safetensors and config.json into a folder, which is made if missing.

        Args:
            folder: destination; its other files are left alone.
            extra: more JSON data for config.json.
        """
        config = {
            **(extra or {}),
            "format": _FORMAT,
            "kind": _KIND,
            "config": dataclasses.asdict(self.config),
            "action_spec": self.action_spec.to_json(),
            "form": dataclasses.asdict(self.form),
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
            folder: of save_pretrained; a run of pretrain/train_world_model.py, whose best model is
                taken; or the name of a world model that comes with the package, see
                `genesis_rl.weights.shipped`.
            encoder_fingerprint: of the encoder that it is to be used with
                (SlotEncoder.fingerprint); None takes any.
            device: "auto" takes a GPU if there is one.

        Raises:
            ValueError: if no world model lies there, it is damaged, or it was trained on the slots
                of another encoder.
        """
        model = read_folder(_find(folder), lambda place: cls._read(place, encoder_fingerprint))
        return model.to(pick_device(device)).eval()

    @classmethod
    def _read(cls, folder: Path, encoder_fingerprint: str | None) -> Self:
        """Read a world model's folder, to the CPU."""
        path = folder / CONFIG
        data = read_json(path)
        if not isinstance(data, dict) or data.get("kind") != _KIND:
            raise ValueError(f"{path} is not of a world model.")
        if data.get("format") != _FORMAT:
            raise ValueError(f"{path} has format {data.get('format')!r}; wanted {_FORMAT}.")
        try:
            sizes = tuple(data["form"]["latent_sizes"])
            config = WorldModelConfig(**data["config"])
            actions = ActionSpec.from_json(data["action_spec"])
            form = SlotForm(**data["form"] | {"latent_sizes": sizes})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} does not fit this version: {error}") from error
        if encoder_fingerprint not in (None, form.encoder_fingerprint):
            raise ValueError(
                f"the world model {folder} knows the slots of the encoder"
                f" {form.encoder_fingerprint[:12]}..., not of {encoder_fingerprint[:12]}...;"
                " wanted the encoder that it was trained with."
            )
        model = build(lambda: cls(config, actions, form), folder)
        load_weights(model, folder)
        return model


def _find(path_or_name: str | os.PathLike[str]) -> Path:
    path = Path(path_or_name).expanduser()
    for folder in (path, path / "best", path / "last"):
        if (current_folder(folder) / CONFIG).is_file():
            return folder
    coming_along = shipped_folder(str(path_or_name), world_models=True)
    if coming_along is None or path.exists():
        raise ValueError(
            f"{path} holds no world model: wanted a folder with {CONFIG} and {WEIGHTS}, or one of"
            f" those that come with genesis_rl: {', '.join(shipped(world_models=True))}."
        )
    return coming_along
