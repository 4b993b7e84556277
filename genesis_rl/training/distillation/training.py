"""Training of a student."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.data import Pack
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.models.distilled import Distilled
from genesis_rl.models.refinement import refine
from genesis_rl.slots import SceneModel
from genesis_rl.training.distillation.config import DistillConfig
from genesis_rl.training.distillation.fidelity import encode, fidelity
from genesis_rl.training.folder import TrainingFolder
from genesis_rl.training.loop import State, Task, Training, Validation
from genesis_rl.training.validate import decomposition
from genesis_rl.utils.log import ProgressBar

_BATCH = 64
# Smallest standard deviation of a latent relative to the largest, so that nearly constant latents
# are not amplified.
_MIN_SPREAD = 0.05
_WARMUP = 100


class Targets(NamedTuple):
    """A teacher's slots of n images, on its device.

    Attributes:
        latents: (n, K, D) float32, posterior means, refined if set.
        masks: (n, K, s, s) float16, masks averaged to the student's resolution.
    """

    latents: Tensor
    masks: Tensor

    def spread(self) -> Tensor:
        """Return the standard deviation of every latent over images and slots, clamped, (D,)."""
        spread = self.latents.flatten(0, 1).std(0)
        return spread.clamp_min(_MIN_SPREAD * float(spread.max()) + 1e-6)


@torch.inference_mode()
def infer_targets(
    teacher: SceneModel, feed: ImageFeed, count: int, *, stride: int, refine_steps: int = 0
) -> Targets:
    """Infer a teacher's slots of the first ``count`` images.

    Args:
        teacher: the teacher, in eval mode.
        feed: the images.
        count: number of images.
        stride: factor by which masks are downsampled.
        refine_steps: refinement steps on the latents, see `genesis_rl.models.refinement`.

    Raises:
        ValueError: if latents are not finite.
    """
    latents, masks = [], []
    with ProgressBar(total=count, desc="teacher", unit="img") as bar:
        for first in range(0, count, _BATCH):
            rows = torch.arange(first, min(first + _BATCH, count))
            x = feed(rows)
            slots = refine(teacher, x, teacher.infer(x), refine_steps)
            latents.append(slots.features.float())
            masks.append(coarse(slots.log_pi.float(), stride).half())
            bar.update(len(rows))
    targets = Targets(torch.cat(latents), torch.cat(masks))
    if not bool(targets.latents.isfinite().all()):
        raise ValueError("the teacher's latents must be finite, got NaN or infinity.")
    return targets


def coarse(log_pi: Tensor, stride: int) -> Tensor:
    """Average log masks (B, K, 1, S, S) as masks over squares of side ``stride``: (B, K, s, s)."""
    return F.avg_pool2d(log_pi[:, :, 0].exp(), stride)


class DistillFolder(TrainingFolder):
    """The run directory of a distillation, identified also by the teacher."""

    identity = (
        *("teacher_fingerprint", "refine_steps", "data", "data_options", "num_images"),
        *("channels", "halvings", "context_size", "slot_size", "seed", "batch_size"),
    )

    def __init__(self, config: DistillConfig, teacher: str) -> None:
        """Open the directory; raises as `TrainingFolder`."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
        super().__init__(
            config.out, {**plain, "teacher_fingerprint": teacher}, resume=config.resume
        )

    def _stored(self) -> dict[str, Any]:
        # Defaults of settings that older runs lack.
        return {"halvings": 3, "refine_steps": 0} | super()._stored()


class DistillTrainer(Training):
    """Trainer of one distillation.

    The loss is the squared error of the standardised latents plus the cross-entropy of the
    downsampled masks per position.
    """

    config: DistillConfig

    def __init__(
        self,
        config: DistillConfig,
        model: Distilled,
        teacher: SceneModel,
        fingerprint: str,
        packs: Mapping[str, Pack],
    ) -> None:
        """Compute the teacher's targets, and load the last checkpoint to resume.

        Args:
            config: the settings.
            model: the student, with the teacher's weights inside.
            teacher: the teacher, optimised for inference.
            fingerprint: fingerprint of the teacher.
            packs: packs of the splits "train" and "validation".

        Raises:
            ValueError: if the directory contains another run, or there are fewer images than
                batch_size.
        """
        folder = DistillFolder(config, fingerprint)
        device = next(model.parameters()).device
        self.held_out = packs["validation"]
        self.count = min(config.num_images, len(packs["train"]))
        if self.count < config.batch_size:
            raise ValueError(
                f"batch_size must be at most the {self.count} images, got {config.batch_size}."
            )
        self.feed = ImageFeed(packs["train"], device)
        self.targets = infer_targets(
            teacher,
            self.feed,
            self.count,
            stride=model.config.mask_stride,
            refine_steps=config.refine_steps,
        )
        self._spread = self.targets.spread()
        self._encoded = encode(teacher, self.held_out, config.eval_images, config.refine_steps)
        self.model = model
        self.optimiser = torch.optim.Adam(
            model.student.parameters(), lr=config.learning_rate, fused=True
        )
        task = Task(
            model=model,
            stateful={"optimiser": self.optimiser},
            terms=("latents", "masks"),
            train_step=self._train_step,
            describe=self._describe,
            validate=self._validate,
            title="student",
        )
        super().__init__(config, folder, task)
        model.teacher.requires_grad_(False)

    def _train_step(self, state: State) -> Tensor:
        config = self.config
        rate = config.learning_rate * min(1.0, (state.step + 1) / _WARMUP)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * state.progress))
        rows = batch_indices(state.step, config.batch_size, self.count, config.seed)
        latents, log_pi = self.model.student(self.feed(rows))
        rows = rows.to(latents.device)
        error = (latents - self.targets.latents[rows]) / self._spread
        masks = -(self.targets.masks[rows] * log_pi[:, :, 0]).sum(1).mean()
        squared = error.square().mean()
        self.optimiser.zero_grad()
        (squared + config.mask_weight * masks).backward()
        self.optimiser.step()
        return torch.stack([squared, masks]).detach()

    def _describe(self, state: State, means: Mapping[str, float]) -> tuple[dict[str, float], str]:
        rate = state.step * self.config.batch_size / max(state.seconds, 1e-9)
        text = f"{rate:.0f} img/s, latents {means['latents']:.3f}, masks {means['masks']:.3f}"
        return {"images_per_second": rate}, text

    def _validate(self, state: State) -> Validation:
        self.model.eval()
        encoded = encode(self.model, self.held_out, self.config.eval_images)
        scores = fidelity(encoded, self._encoded, self.model.latent_sizes)
        pictures = {"decomposition": decomposition(self.model, self.held_out)}
        self.model.train()
        return Validation(scores, pictures, scores["r2"])
