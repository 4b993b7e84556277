"""Distilled scene models: a small student network predicts a teacher's posterior means.

Decoders and prior are the teacher's; only inference from an image to slots is replaced.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.checkpoints.weights import as_tuple, rename_old_keys
from genesis_rl.models import MODELS, build_model
from genesis_rl.models.base import BaseModel, LstmState, at_least_float32
from genesis_rl.models.blocks import NormedConv, coordinate_map
from genesis_rl.models.prior import NextSlot
from genesis_rl.slots import Decoded, ElboTerms, Noise, Slots
from genesis_rl.utils.checks import Count, Counts, check_fields, one_of


@dataclass(frozen=True)
class DistilledConfig:
    """Architecture of a student and of its teacher."""

    teacher: Annotated[str, one_of(MODELS)]
    """name of the teacher's class in `genesis_rl.models.MODELS`"""
    teacher_config: Mapping[str, Any]
    """the teacher's config as plain data"""
    channels: Counts = (16, 32, 64, 64)
    """channels of the 3x3 convolutions"""
    halvings: Count = 3
    """number of convolutions, from the first, with stride 2, which sets the resolution of masks: 2
    instead of 3 costs three to four times as much and resolves objects of half the size"""
    context_size: Count = 128
    """width of the global feature vector that is added at every position"""
    slot_size: Count = 128
    """units of the hidden layer before each slot's latents"""

    def __post_init__(self) -> None:
        """Check values, and complete the teacher's config by its defaults."""
        check_fields(self)
        settings = rename_old_keys(self.teacher_config)
        arguments = {name: as_tuple(value) for name, value in settings.items()}
        try:
            config = MODELS[self.teacher][0](**arguments)
        except TypeError as error:
            raise ValueError(
                f"teacher_config must be the config of a {self.teacher}: {error}"
            ) from error
        object.__setattr__(self, "teacher_config", asdict(config))
        if self.halvings > len(self.channels):
            raise ValueError(
                f"halvings must be 1 to the number of channels, {len(self.channels)}, got "
                f"{self.halvings}."
            )

    @property
    def image_size(self) -> int:
        """Side of the images in pixels, the teacher's."""
        return int(self.teacher_config["image_size"])

    @property
    def mask_stride(self) -> int:
        """Pixels per side of a cell of the masks."""
        return int(2**self.halvings)

    @property
    def num_slots(self) -> int:
        """K, the teacher's."""
        return int(self.teacher_config.get("num_slots", 1))  # a VAE has one


class SlotRegressor(nn.Module):
    """Network from an image to latents and coarse masks of K slots, about 10 MFLOP.

    Convolutions compute a feature map, by default of an eighth of the image's side, to which a
    global feature vector is added, since the order of slots depends on all objects. Each slot's
    mask pools the map; an MLP shared by all slots, with a bias per slot, predicts the latents from
    the pooled features and the position and size of the mask.
    """

    positions: Tensor

    def __init__(self, config: DistilledConfig, latent_size: int) -> None:
        """Build from the architecture and the total width of both latents."""
        super().__init__()
        layers, before = [], 3
        for i, width in enumerate(config.channels):
            layers.append(NormedConv(before, width, 3, stride=2 if i < config.halvings else 1))
            before = width
        self.trunk = nn.Sequential(*layers)
        side = config.image_size // config.mask_stride
        self.context = nn.Linear(side * side * before, config.context_size)
        self.from_context = nn.Linear(config.context_size, before)
        self.masks = nn.Conv2d(before, config.num_slots, 1)
        self.hidden = nn.Linear(before + 3, config.slot_size)
        self.hidden_context = nn.Linear(config.context_size, config.slot_size, bias=False)
        self.slot_bias = nn.Parameter(torch.zeros(config.num_slots, config.slot_size))
        self.head = nn.Linear(config.slot_size, latent_size)
        nn.init.normal_(self.slot_bias, std=0.5)
        # Constant, row and column at each position of the map: (3, positions).
        positions = F.pad(coordinate_map(side)[0], (0, 0, 0, 0, 1, 0), value=1.0).flatten(1)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, S, S) to latents (B, K, D) and log masks (B, K, 1, s, s), s = S / stride."""
        y = self.trunk(x)  # (B, C, s, s)
        context = F.relu(self.context(y.permute(0, 2, 3, 1).flatten(1)))
        y = F.relu(y + self.from_context(context)[:, :, None, None])
        log_pi = F.log_softmax(at_least_float32(self.masks(y)), dim=1)
        pi = log_pi.flatten(2).to(y.dtype)  # (B, K, positions)
        pi = pi.exp()
        pooled = pi @ y.flatten(2).transpose(1, 2)  # (B, K, C)
        # (B, K, 3): mass, and mass-weighted row and column
        moments = pi @ self.positions.to(y.dtype).T
        mass = moments[..., :1].clamp_min(1e-3)
        summary = torch.cat([pooled / mass, moments[..., 1:] / mass, mass / pi.shape[2]], dim=2)
        hidden = self.hidden(summary) + self.hidden_context(context)[:, None] + self.slot_bias
        return self.head(F.relu(hidden)), log_pi[:, :, None]


class Distilled(BaseModel):
    """A teacher model whose posterior means a student network predicts.

    Masks of inferred slots are those of the student's map, upsampled by repetition. Inference is
    deterministic: the student has no posterior variance, so ``infer`` ignores ``sample``. ``elbo``
    and ``log_weight`` are the teacher's, under its own posterior.
    """

    model_name = "distilled"
    config_class = DistilledConfig
    config: DistilledConfig

    def __init__(self, config: DistilledConfig) -> None:
        """Build teacher and student with randomly initialised weights."""
        super().__init__()
        self.config = config
        config_class, _ = MODELS[config.teacher]
        self.teacher: BaseModel = build_model(config_class(**config.teacher_config))
        self.student = SlotRegressor(config, sum(self.latent_sizes))
        self.refine_step_size = self.teacher.refine_step_size

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c), the teacher's."""
        return self.teacher.latent_sizes

    @property
    def has_prior(self) -> bool:
        """Whether the teacher has an autoregressive prior."""
        return self.teacher.has_prior

    @property
    def has_background(self) -> bool:
        """Whether the teacher's first slot is a background."""
        return self.teacher.has_background

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks by the teacher's decoders."""
        # The slots' masks are coarse, and a MONet would decode with them.
        return self.teacher.decode(self.redraw_masks(slots))

    def nll(self, x: Tensor, decoded: Decoded, *, pixel_weight: Tensor | None = None) -> Tensor:
        """Compute the negative log likelihood under the teacher; see `BaseModel.nll`."""
        return self.teacher.nll(x, decoded, pixel_weight=pixel_weight)

    def log_responsibilities(self, x: Tensor, decoded: Decoded) -> Tensor:
        """Compute log p(k | x, z) under the teacher; see `BaseModel.log_responsibilities`."""
        return self.teacher.log_responsibilities(x, decoded)

    def redraw_masks(self, slots: Slots) -> Slots:
        """Return the slots with the masks that the teacher decodes from the latents alone."""
        return self.teacher.redraw_masks(slots)

    def segmentation_masks(self, slots: Slots) -> Tensor:
        """Decode the masks, since the student's own are coarse."""
        return self.decode(slots).log_pi

    def next_slot(
        self, noise: Noise, previous: Tensor | None = None, state: LstmState | None = None
    ) -> NextSlot:
        """Draw the next slot from the teacher's prior; requires ``has_prior``."""
        builder: Any = self.teacher
        return cast("NextSlot", builder.next_slot(noise, previous, state))

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Noise:
        return self.teacher._noise(like, generator)

    def _infer_slots(self, x: Tensor, noise: Noise | None) -> Slots:
        latents, log_pi = self.student(x)
        d_m, d_c = self.latent_sizes
        z_m, z_c = at_least_float32(latents).split([d_m, d_c], dim=2)
        stride = self.config.mask_stride
        rows = log_pi.repeat_interleave(stride, dim=3)
        return Slots(z_m, z_c, rows.repeat_interleave(stride, dim=4))

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        return self.teacher._score(x, noise, pixel_weight)

    def _log_weight(self, x: Tensor, noise: Noise) -> Tensor:
        return self.teacher._log_weight(x, noise)

    def _generate(self, noise: Noise) -> Slots:
        return self.teacher._generate(noise)
