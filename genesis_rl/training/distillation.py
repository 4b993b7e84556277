"""Distillation of a pretrained encoder into a small, fast student."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.checkpoints.loading import Pretrained, fingerprint, load_pretrained
from genesis_rl.data import Pack
from genesis_rl.data.convert import parse_options
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.models.distilled import Distilled, DistilledConfig
from genesis_rl.models.refinement import refine
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.slots import SceneModel
from genesis_rl.training.config import RunConfig, open_split
from genesis_rl.training.fidelity import encode, fidelity, segmentation, speed, tables
from genesis_rl.training.folder import Run, TrainingFolder, write_report
from genesis_rl.training.loop import State, Task, Training, Validation, set_learning_rate
from genesis_rl.training.validate import decomposition
from genesis_rl.utils.checks import Count, Natural, Positive
from genesis_rl.utils.log import ProgressBar
from genesis_rl.utils.process import configure_cpu, pick_device
from genesis_rl.utils.timing import infer_operations

_BATCH = 64
# Smallest standard deviation of a latent relative to the largest, so that nearly constant latents
# are not amplified.
_MIN_SPREAD = 0.05
_WARMUP = 100
# Settings of a run that must not change on resumption.
_IDENTITY = (
    *("teacher_fingerprint", "refine_steps", "data", "data_options", "num_images"),
    *("channels", "halvings", "context_size", "slot_size", "seed", "batch_size"),
)


@dataclass(frozen=True)
class DistillConfig(RunConfig):
    """Settings of a distillation."""

    teacher: str
    """teacher: a run directory of pretrain/train.py, a folder of a pretrained model, or a Hub id"""
    _: KW_ONLY
    data: str | None = None
    """name of a dataset or folder of a pack; None: the training data of the teacher's run"""
    data_options: str = "{}"
    """options of the dataset as JSON"""
    num_images: Count = 50_000
    """largest number of training images; the teacher encodes each once before the training"""
    refine_steps: Natural = 0
    """refinement steps on the teacher's latents before the training"""
    channels: tuple[int, ...] = (16, 32, 64, 64)
    """channels of the student's 3x3 convolutions"""
    halvings: int = 3
    """number of these, the first ones, with stride 2; 2 doubles the resolution of the masks and
    costs three to four times as much"""
    context_size: int = 128
    """width of the global context vector at every position"""
    slot_size: int = 128
    """hidden units of the head of each slot's latents"""
    mask_weight: Positive = 1.0
    """weight of the masks in the loss; the latents have weight 1"""
    steps: Count = 20_000
    batch_size: Count = 64
    """images per update"""
    learning_rate: Positive = 2e-3
    """peak learning rate of Adam; warm-up over 100 updates, decay to 0 at the end"""
    out: Path = Path("runs/student")
    log_every: Count = 200
    eval_images: Count = 1_000
    """number of held-out images"""

    def __post_init__(self) -> None:
        """Validate values."""
        super().__post_init__()
        parse_options(self.data_options)


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
        folder = TrainingFolder(
            config,
            {**config.to_json(), "teacher_fingerprint": fingerprint},
            _IDENTITY,
            older={"halvings": 3, "refine_steps": 0},
        )
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
        set_learning_rate(self.optimiser, state.learning_rate(_WARMUP))
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


def distill(config: DistillConfig) -> dict[str, Any]:
    """Train a student, evaluate it on held-out images, and compare its speed with the teacher's.

    Writes ``report.json`` into the run directory, which is a valid encoder (its ``best/``).

    Returns:
        The content of report.json: ``fidelity`` (see `fidelity.fidelity`; with refinement,
        ``encoder_...`` are scores of the teacher's unrefined latents), ``flops`` and ``speed`` of
        both, settings, hardware and versions, and ``tables`` for the results page.

    Raises:
        ValueError: if teacher, data, settings or an existing run do not match.
        NonFiniteError: if the training fails.
        StoppedError: after SIGINT or SIGTERM.
    """
    configure_cpu(config.threads)
    device = pick_device(config.device)
    teacher = load_pretrained(config.teacher, device=device)
    model = teacher.model
    if isinstance(model, Distilled):
        raise ValueError(f"teacher must not be a student, got {config.teacher}.")
    student = _student(config, teacher).to(device)
    packs = {split: _open(config, split) for split in ("train", "validation", "test")}
    for split, pack in packs.items():
        if pack.images.shape[1] != student.config.image_size:
            raise ValueError(
                f"data must have {split} images of {student.config.image_size} px, as the "
                f"teacher, got {pack.images.shape[1]} px."
            )
        pack.check_preprocessing(teacher.preprocessing, f"teacher {config.teacher}")
    encoder = SlotEncoder(model, device=device, preprocessing=teacher.preprocessing)
    trainer = DistillTrainer(config, student, encoder.model, fingerprint(model), packs)
    trainer.run_to_end()
    best = SlotEncoder(trainer.folder.best, device=device)
    held_out = packs["test"]
    predicted = encode(best.model, held_out, config.eval_images)
    target = encode(encoder.model, held_out, config.eval_images, config.refine_steps)
    scores = fidelity(predicted, target, student.latent_sizes)
    if config.refine_steps:
        unrefined = encode(encoder.model, held_out, config.eval_images)
        scores |= segmentation(unrefined, "encoder_")
    figures = {
        "teacher": teacher.metadata["model"],
        "teacher_fingerprint": encoder.fingerprint,
        "fingerprint": best.fingerprint,
        "fidelity": scores,
        "flops": {
            "teacher": infer_operations(encoder.model),
            "student": infer_operations(best.model),
        },
        "parameters": sum(p.numel() for p in student.student.parameters()),
        "speed": speed({"teacher": encoder, "student": best}),
        "threads": torch.get_num_threads(),
        "steps": trainer.step,
        "minutes": trainer.state.seconds / 60,
    }
    return write_report(config, figures, tables, device)


def _student(config: DistillConfig, teacher: Pretrained) -> Distilled:
    """Initialise a student with the teacher's weights inside."""
    model: Any = teacher.model
    torch.manual_seed(config.seed)
    student = Distilled(
        DistilledConfig(
            teacher.metadata["model"],
            asdict(model.config),
            channels=config.channels,
            halvings=config.halvings,
            context_size=config.context_size,
            slot_size=config.slot_size,
        )
    )
    student.teacher.load_state_dict(model.state_dict())
    student.preprocessing = teacher.preprocessing
    return student


def _open(config: DistillConfig, split: str) -> Pack:
    """Open a split of the settings' data, or of the teacher's training data."""
    if config.data is None:
        try:
            run = Run.open(config.teacher)
        except ValueError as error:
            raise ValueError(f"{error} Set data (--data).") from error
        if parse_options(config.data_options):
            raise ValueError("data must be set with data_options, got None.")
        return replace(run.config, eval_images=config.eval_images).open_data(split)
    return open_split(config.data, config.data_options, split, config.eval_images)
