"""Inference of training settings from statistics of the training images."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genesis_rl.checkpoints.loading import load_pretrained
from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.convert import parse_options
from genesis_rl.models import build_model
from genesis_rl.models.background import BackgroundNetwork
from genesis_rl.models.blocks import check_image_size
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.image_statistics import (
    SEED_THRESHOLD,
    SIGMA,
    ImageStatistics,
    ObjectStatistics,
    measure_images,
    measure_objects,
    round_2,
    sample_images,
)
from genesis_rl.training.loop import State
from genesis_rl.training.pretraining import train_terms
from genesis_rl.training.run import Run
from genesis_rl.training.stages import stage_folder

# Side of objects in pixels below which to record larger images, and share of the frame that changes
# below which to record a crop.
_SMALL_OBJECT, _SMALL_REGION = 4.0, 0.5
_TIMED_UPDATES = 3


def infer_settings(
    base: PretrainConfig,
    before: Sequence[PretrainConfig],
    background: str | None = None,
    background_data: str | None = None,
) -> tuple[PretrainConfig, tuple[PretrainConfig, ...], list[str]]:
    """Infer settings from the training images.

    Objects are measured immediately if the background is static. Otherwise the stage ``before``
    trains the background network first, and objects are measured against it when that run has
    finished.

    Args:
        base: settings of the objects' training, with ``data`` and ``out``.
        before: the stage that trains a background network.
        background: "static" or "predicted"; None: inferred.
        background_data: folder of a pack without objects, whose median is a static background.

    Returns:
        The settings of the last stage and of the stages before, and lines that explain them.

    Raises:
        ValueError: if the data are invalid, all images are equal, or no model has their size.
        OSError: if the data cannot be read.
    """
    if background not in (None, "static", "predicted"):
        raise ValueError(
            "model.background must be 'static' or 'predicted' with preset auto, got "
            f"{background!r}."
        )
    pack = open_dataset(base.data, "train", **parse_options(base.data_options))
    height, width = pack.images.shape[1:3]
    if height != width:
        raise ValueError(
            f"data must have square images with preset auto, got {height} x {width} px in "
            f"{base.data!r}."
        )
    check_image_size(height)
    if background_data is not None:
        background = background or "static"
        changes: dict[str, Any] = {"image_size": height, "background": background}
        model = replace(base.model, **changes)
        base = replace(base, model=model, background_data=background_data)
    images = measure_images(pack, base.open_background_data())
    static = images.static if background is None else background == "static"
    objects: ObjectStatistics | None = images.objects
    if static:
        before = ()
    else:
        before = tuple(auto_config(stage, images, None, static=False) for stage in before)
        network = trained_background(stage_folder(base.out, 1))
        objects = None if network is None else measure_objects(pack, network)
    config = auto_config(base, images, objects, static=static)
    # The stages before have been trained if the objects were measured.
    remaining = (config,) if objects is not None else (*before, config)
    seconds = sum(c.steps * seconds_per_update(c, pack) for c in remaining)
    updates = sum(c.steps for c in remaining)
    notes = [
        f"preset auto, from {base.data}:",
        *(f"  {line}" for line in describe(images, objects, static=static)),
        f"  {updates:,} updates take about {max(1, round(seconds / 60))} minutes on this CPU",
    ]
    return config, before, notes


def describe(
    images: ImageStatistics, objects: ObjectStatistics | None, *, static: bool
) -> list[str]:
    """Return lines with the measurements, each followed by the flags inferred from it.

    Args:
        images: statistics of the images.
        objects: statistics of the objects; None before the background network is trained.
        static: whether the background is static.
    """
    found = images.objects
    lines = [
        f"{images.num_images:,} images; squared error of the mean image "
        f"{images.mean_image_mse:.4f}",
        f"    --model.image-size {images.image_size}",
        f"{found.share:.1%} of the pixels differ from the median image; the camera moves by "
        f"{images.shift:.1f} px",
        f"    --model.background {'static' if static else 'predicted'}",
    ]
    if objects is None:
        return [*lines, "objects: measured after stage 1, the training of the background"]
    lines += [
        f"objects: {objects.share:.1%} of the pixels; squared colour distance to the background "
        f"{objects.contrast:.3f}",
        f"    --model.foreground-threshold {objects.threshold:g} --model.sigma-x "
        f"{objects.sigma_x:g}",
        f"objects: at most {objects.count} in 95 % of the images, typical side {objects.side:.1f} "
        "px",
        f"    --model.num-slots {objects.num_slots} --model.object-size {objects.object_size:g}",
    ]
    if static and images.region_share < _SMALL_REGION:
        lines += [
            f"only {images.region_share:.0%} of the frame changes: record it larger, with --crop "
            "auto or",
            f"    --crop {' '.join(map(str, images.region))}",
        ]
    elif objects.side < _SMALL_OBJECT:
        lines += [
            "objects of less than four pixels may be lost: record larger images, with",
            f"    --image-size {2 * images.image_size}",
        ]
    return lines


def auto_config(
    base: PretrainConfig,
    images: ImageStatistics,
    objects: ObjectStatistics | None,
    *,
    static: bool,
) -> PretrainConfig:
    """Return settings inferred from statistics.

    Args:
        base: settings that are not inferred.
        images: statistics of the images.
        objects: statistics of the objects; None before the background network is trained.
        static: whether the background is static.
    """
    changes: dict[str, Any] = {
        "image_size": images.image_size,
        "background": "static" if static else "predicted",
    }
    start = base.sigma_x_start
    if objects is not None:
        changes |= {
            "num_slots": objects.num_slots,
            "object_size": objects.object_size,
            "seed_threshold": SEED_THRESHOLD,
            "foreground_threshold": objects.threshold,
            "sigma_x": objects.sigma_x,
        }
        start = None if start is None else round_2(start * objects.sigma_x / SIGMA)
    return replace(base, model=replace(base.model, **changes), sigma_x_start=start)


def trained_background(run: Path) -> BackgroundNetwork | None:
    """Return the background network of a finished run; None if it has not finished."""
    try:
        config = Run.open(run).config
        model, _, metadata = load_pretrained(run / "last", device="cpu")
    except (ValueError, OSError):
        return None
    finished = State(config, metadata["step"], metadata["seconds"]).progress >= 1
    background = getattr(model, "background", None)
    return background if finished and isinstance(background, BackgroundNetwork) else None


def seconds_per_update(config: PretrainConfig, pack: Pack) -> float:
    """Measure the time of an update on this machine's CPU, without the optimiser, in seconds."""
    with torch.random.fork_rng(devices=[]):
        model: Any = build_model(config.model)
    model.likelihood_stride = config.likelihood_stride
    model.background_only = config.trained_modules == "background"
    images = sample_images(pack)[: config.batch_size].to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    times = []
    for _ in range(_TIMED_UPDATES):
        start = time.perf_counter()
        torch.stack(train_terms(model.train(), images, generator)).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times)
