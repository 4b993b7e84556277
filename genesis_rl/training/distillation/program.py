"""Distillation program: training, evaluation and report."""

import json
from dataclasses import asdict, replace
from typing import Any

import torch

from genesis_rl.checkpoints.loading import Pretrained, fingerprint, load_pretrained, pick_device
from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.convert import parse_options
from genesis_rl.models.distilled import Distilled, DistilledConfig
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training.distillation.config import DistillConfig
from genesis_rl.training.distillation.fidelity import (
    encode,
    fidelity,
    segmentation,
    speed,
)
from genesis_rl.training.distillation.training import DistillTrainer
from genesis_rl.training.folder import REPORT, portable_settings
from genesis_rl.training.run import Run
from genesis_rl.utils.files import write_json
from genesis_rl.utils.process import StoppedError, hardware, keep_freed_memory, versions
from genesis_rl.utils.tables import figure
from genesis_rl.utils.timing import infer_operations


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
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
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
    trainer.run()
    if trainer.stopped:
        raise StoppedError(
            f"stopped at step {trainer.step}; --resume continues", trainer.stop_status
        )
    best = SlotEncoder(trainer.folder.best, device=device)
    held_out = packs["test"]
    predicted = encode(best.model, held_out, config.eval_images)
    target = encode(encoder.model, held_out, config.eval_images, config.refine_steps)
    scores = fidelity(predicted, target, student.latent_sizes)
    if config.refine_steps:
        unrefined = encode(encoder.model, held_out, config.eval_images)
        scores |= segmentation(unrefined, "encoder_")
    report: dict[str, Any] = {
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
        "settings": json.loads(json.dumps(asdict(config), default=str)),
        "hardware": hardware(device),
        "versions": versions(),
    }
    report["tables"] = tables(report)
    write_json(config.out / REPORT, report)
    return report


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
    options = parse_options(config.data_options)
    if split != "train" and "num_images" in options:
        options["num_images"] = min(options["num_images"], config.eval_images)
    return open_dataset(config.data, split, **options)


def tables(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Format fidelity, segmentation and speed as tables for the results page."""
    scores = report["fidelity"]
    explained = {name: value for name, value in scores.items() if name.startswith("r2")}
    result = [
        {
            "caption": "Explained share of the teacher's variance on held-out images: of the "
            "latents, of the masks' centroids and areas, and of all latents, each standardised.",
            "head": [name.removeprefix("r2_") for name in explained],
            "rows": [[figure(value, 4) for value in explained.values()]],
        }
    ]
    if "msc" in scores:
        names = ("ari", "ari_fg", "msc")
        prefixes = {"teacher": "teacher_", "student": ""}
        if "encoder_msc" in scores:
            refined = f"teacher, refined by {report['settings']['refine_steps']} steps"
            prefixes = {"teacher": "encoder_", refined: "teacher_", "student": ""}
        result.append(
            {
                "caption": "Segmentation of the same images by decoded masks.",
                "head": ["", *names],
                "rows": [
                    [label, *(figure(scores[prefix + name], 3) for name in names)]
                    for label, prefix in prefixes.items()
                ],
            }
        )
    mflop = {role: f"{count / 1e6:,.1f}" for role, count in report["flops"].items()}
    result.append(
        {
            "caption": f"Milliseconds from frames to slots, {report['hardware']}; teacher "
            f"{mflop['teacher']} MFLOP per frame, student {mflop['student']}.",
            "head": ["frames", "teacher", "student", "speedup"],
            "rows": [
                [
                    str(row["batch"]),
                    *(f"{row['ms'][role]:.2f}" for role in ("teacher", "student")),
                    f"{row['ms']['teacher'] / row['ms']['student']:.1f}",
                ]
                for row in report["speed"]
            ],
        }
    )
    return result


def public_report_settings(report: dict[str, Any]) -> dict[str, Any]:
    """Return a distillation's settings without machine-specific values."""
    return portable_settings(report["settings"], ("teacher", "data"))
