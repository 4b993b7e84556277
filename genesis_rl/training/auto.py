"""Inference of training settings from statistics of the training images.

Measured are changes of the camera, contrast, and the number and size of objects.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from genesis_rl.checkpoints.loading import load_pretrained
from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.convert import parse_options
from genesis_rl.models import build_model
from genesis_rl.models.attention import SlotAttention
from genesis_rl.models.background import (
    BackgroundNetwork,
    background_distance,
    foreground_gate,
    overlay_opacity,
)
from genesis_rl.models.blocks import check_image_size
from genesis_rl.perception.region import region_of
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import Run
from genesis_rl.training.loop import State
from genesis_rl.training.pretraining import select_modules, train_terms
from genesis_rl.training.stages import stage_folder

# Side of objects in pixels below which to record larger images, and share of the frame that changes
# below which to record a crop.
_SMALL_OBJECT, _SMALL_REGION = 4.0, 0.5
_TIMED_UPDATES = 3
# Number of measured images, at equal intervals of the training split.
_IMAGES = 512
_BATCH = 64
# A background is static if objects cover less than this share of the pixels, and if in most images
# the camera has moved by less than this distance in pixels.
_STATIC_SHARE, _STATIC_SHIFT = 0.15, 0.5
# Least response of a phase correlation, in [0, 1], that shows a common shift of two images.
_LEAST_RESPONSE = 0.5
# Squared colour distance above which a pixel differs from the background: above soft shadows,
# compression and the error of a network; in recordings without such pixels, above rounding.
_NOISE, _ROUNDING = 0.01, 0.002
# Bounds of the squared colour distance at which a pixel shows an object, and its share of the
# contrast.
_LEAST_THRESHOLD, _THRESHOLD, _THRESHOLD_SHARE = 0.01, 0.08, 0.75
# Lower bound of the standard deviation of pixels, and its share of the contrast per channel.
_LEAST_SIGMA, _SIGMA_SHARE = 0.04, 0.5
# Upper bound of that standard deviation.
_SIGMA = 0.12
# Neighbouring pixels whose unit RGB vectors are at most this far apart belong to one component.
_HUE = 0.25
# Least area in pixels of a component, the area-weighted quantile of their areas that is typical:
# large objects may be composed of several slots, but small ones must not be merged. Squared colour
# distance of clear foreground, without shadows. Bounds of the object size in halves of the frame's
# side.
_LEAST_AREA, _TYPICAL, _CLEAR, _LEAST_SIZE, _SIZE = 4, 0.25, 0.08, 0.2, 0.45
_MOST_OBJECTS, _SPARE_SLOTS = 15, 2
# A highlight lets the background shine through: the greatest opacity, the share of differing pixels
# that it explains and of their squared distance that remains, the least variance of the background
# below it, and the range of opacities and of the background's weight.
_OPACITY, _HIGHLIGHTED, _UNEXPLAINED, _LEAST_VARIANCE, _OPACITY_RANGE = 0.6, 0.3, 0.1, 1e-3, 0.1
# Settings of the attention with which objects smaller than a cell, or much smaller than the typical
# one, get slots too, and similar colours slots of their own.
_SEEDING: dict[str, Any] = {"seed_threshold": 0.2, "least_area": 0.01, "hue_distance": 0.25}
# Least area in cells of the attention of a slot in use.
_LEAST_CELLS = 0.5


@dataclass(frozen=True)
class ObjectStatistics:
    """Statistics of the pixels that differ from a background.

    Attributes:
        highlight_opacity: opacity of highlights, in [0, 1); 0 without them. Pixels that only they
            or shadows change are not counted below.
        contrast: lower quartile of the squared colour distances to the background of pixels that
            differ from it, so that small objects count beside large ones.
        share: share of the pixels above ``threshold``.
        side: root of the typical (area-weighted lower quartile) area of the connected components
            of one hue, in pixels.
        object_size: the same in halves of the frame's side, within the attention's limits.
        count: 95th percentile of the number of objects in an image, as the attention finds them.
    """

    highlight_opacity: float
    contrast: float
    share: float
    side: float
    object_size: float
    count: int

    @property
    def threshold(self) -> float:
        """Squared colour distance to the background at which a pixel shows an object."""
        return _round_2(_threshold(self.contrast))

    @property
    def sigma_x(self) -> float:
        """Standard deviation of pixels at which the likelihood favours a slot for an object."""
        deviation = _SIGMA_SHARE * math.sqrt(self.contrast / 3)
        return _round_2(min(max(deviation, _LEAST_SIGMA), _SIGMA))

    @property
    def num_slots(self) -> int:
        """K: the objects, spare slots and the background."""
        return self.count + _SPARE_SLOTS + 1


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of images before any training.

    Attributes:
        num_images: number of training images.
        image_size: their side in pixels.
        mean_image_mse: mean squared error of the mean image, per channel; values in [0, 1].
        shift: distance in pixels by which the camera has moved in at least a quarter of the images.
        region: region in which images differ from the median image, with a margin: (top, left,
            height, width) in pixels of the recorded frames; of the images if that size is unknown.
        region_share: the region's share of the frame's area.
        objects: statistics of the pixels that differ from the median image.
    """

    num_images: int
    image_size: int
    mean_image_mse: float
    shift: float
    region: tuple[int, int, int, int]
    region_share: float
    objects: ObjectStatistics

    @property
    def static(self) -> bool:
        """Whether the median image is the background of all images, as for a static camera."""
        return self.objects.share < _STATIC_SHARE and self.shift < _STATIC_SHIFT


def measure_images(
    pack: Pack, empty: Pack | None = None, shadow_brightness: float = 1.0
) -> ImageStatistics:
    """Measure a sample of a pack's images.

    Args:
        pack: the images.
        empty: images without objects, of the same size, whose median is the background; None: the
            median of ``pack``.
        shadow_brightness: least brightness of the background in a shadow.

    Raises:
        ValueError: if no image differs from the median image.
    """
    images = _sample_images(pack)
    median = (images if empty is None else _sample_images(empty)).median(0).values
    objects = _measure(images, median.expand_as(images), pack, shadow_brightness)
    size = pack.meta.get("frame_size", images.shape[2:])
    changes = (images - median).square().sum(1) > objects.threshold
    region = region_of(changes.numpy(), size)
    return ImageStatistics(
        num_images=len(pack),
        image_size=images.shape[-1],
        mean_image_mse=float((images - images.mean(0)).square().mean()),
        shift=_camera_shift(images, median),
        region=region,
        region_share=region[2] * region[3] / (size[0] * size[1]),
        objects=objects,
    )


@torch.inference_mode()
def measure_objects(
    pack: Pack, background: BackgroundNetwork, shadow_brightness: float = 1.0
) -> ObjectStatistics:
    """Measure a sample of a pack's images against their backgrounds predicted by a network.

    Raises:
        ValueError: if no image differs from its background.
    """
    images = _sample_images(pack)
    means = [background.decode(background(x).chunk(2, 1)[0]) for x in images.split(_BATCH)]
    return _measure(images, torch.cat(means), pack, shadow_brightness)


def _measure(
    images: Tensor, background: Tensor, pack: Pack, shadow_brightness: float
) -> ObjectStatistics:
    highlight = _highlight_opacity(images, background)
    distance = background_distance(images, background, shadow_brightness, highlight)
    differing = distance[distance > (_NOISE if distance.max() > _NOISE else _ROUNDING)]
    if not len(differing):
        raise ValueError(
            f"data must contain images that differ from their background, got {len(pack)} images "
            f"without objects in {pack.folder}."
        )
    contrast, median = np.quantile(differing.numpy(), (0.25, 0.5)).tolist()
    threshold = _threshold(contrast)
    gate = foreground_gate(images, background, threshold, shadow_brightness, highlight)
    side = _typical_side(images, distance[:, 0] >= min(_CLEAR, median))
    size = _round_2(min(max(2 * side / images.shape[-1], _LEAST_SIZE), _SIZE))
    share = float((gate > 0.5).float().mean())
    count = _count_seeds(images, gate, size)
    return ObjectStatistics(highlight, contrast, share, side, size, count)


def _highlight_opacity(images: Tensor, background: Tensor) -> float:
    """Return the opacity of a white highlight that the background shines through, 0 without one.

    Grey objects on a dark background are such mixtures too, but are the same in front of all of it.
    """
    distance = background_distance(images, background)
    rest = background_distance(images, background, highlight_opacity=_OPACITY)
    differing = distance > _NOISE
    mixed = differing & (rest < _UNEXPLAINED * distance)
    if mixed.sum() <= _HIGHLIGHTED * differing.sum():
        return 0.0
    # The background may be in the highlight in most images.
    brighter = overlay_opacity(images, background) > 0
    light, dark = (torch.where(s, images, background) for s in (brighter, ~brighter))
    low, middle, high = np.quantile(overlay_opacity(light, dark)[mixed].numpy(), (0.1, 0.5, 0.9))
    x, b = (v.movedim(1, -1)[mixed[:, 0]].reshape(-1).double() for v in (light, dark))
    variance = b.var()
    if high - low > _OPACITY_RANGE or variance < _LEAST_VARIANCE:
        return 0.0
    weight = ((b - b.mean()) * (x - x.mean())).mean() / variance
    if abs(weight - (1 - middle)) > _OPACITY_RANGE:
        return 0.0
    return _round_2(float(high) + 0.02)


def _typical_side(images: Tensor, foreground: Tensor) -> float:
    """Return the root of the typical area of the components of a foreground (N, H, W)."""
    parts = [component_areas(x, f) for x, f in zip(images, foreground, strict=True)]
    areas = np.sort(np.concatenate(parts))
    total = np.cumsum(areas)
    return math.sqrt(areas[np.searchsorted(total, _TYPICAL * total[-1])]) if len(areas) else 0.0


def _threshold(contrast: float) -> float:
    return min(max(_THRESHOLD_SHARE * contrast, _LEAST_THRESHOLD), _THRESHOLD)


def _camera_shift(images: Tensor, median: Tensor) -> float:
    """Return the 75th percentile of the shifts in pixels between images and the median image."""
    target = median.mean(0).numpy()
    found = [cv2.phaseCorrelate(target, image) for image in images.mean(1).numpy()]
    shifts = [math.hypot(*shift) * (response > _LEAST_RESPONSE) for shift, response in found]
    return float(np.quantile(shifts, 0.75))


def component_areas(image: Tensor, gate: Tensor) -> npt.NDArray[np.int64]:
    """Return the areas in pixels of the connected foreground components of one hue.

    Args:
        image: (3, H, W) in [0, 1].
        gate: probability that a pixel shows an object, or whether it does, (H, W).
    """
    foreground = (gate > 0.5).numpy()
    hue = F.normalize(image, dim=0, eps=0.1).numpy()
    # SciPy 1.11 cannot search graphs whose indices are int64.
    index = np.arange(foreground.size, dtype=np.int32).reshape(foreground.shape)
    pairs = []
    for a, b in (((slice(1, None),), (slice(-1),)), ((..., slice(1, None)), (..., slice(-1)))):
        near = np.square(hue[:, *a] - hue[:, *b]).sum(0) < _HUE**2
        joined = near & foreground[a] & foreground[b]
        pairs.append(np.stack([index[a][joined], index[b][joined]]))
    rows, columns = np.concatenate(pairs, 1)
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(index.size,) * 2)
    labels = connected_components(graph, directed=False)[1]
    areas: npt.NDArray[np.int64] = np.bincount(labels[foreground.reshape(-1)])
    return areas[areas >= _LEAST_AREA]


def _sample_images(pack: Pack) -> Tensor:
    """Return at most 512 images at equal intervals, (N, 3, H, W) in [0, 1]."""
    rows = np.unique(np.linspace(0, len(pack) - 1, _IMAGES).astype(np.int64))
    return torch.from_numpy(pack.images[rows]).permute(0, 3, 1, 2).float().div_(255)


@torch.inference_mode()
def _count_seeds(images: Tensor, gate: Tensor, object_size: float) -> int:
    """Return the 95th percentile of the number of slots that an untrained attention fills."""
    with torch.random.fork_rng(devices=[]):
        attention = SlotAttention(images.shape[-1], 8, _MOST_OBJECTS, object_size, **_SEEDING)
    filled = [
        (attention(x, g).assignment.flatten(2).sum(2) > _LEAST_CELLS).sum(1)
        for x, g in zip(images.split(_BATCH), gate.split(_BATCH), strict=True)
    ]
    return max(1, int(torch.cat(filled).float().quantile(0.95)))


def _round_2(value: float) -> float:
    """Round to two significant digits."""
    return float(f"{value:.2g}")


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
    shadow = getattr(base.model, "shadow_brightness", 1.0)
    images = measure_images(pack, base.open_background_data(), shadow)
    static = images.static if background is None else background == "static"
    objects: ObjectStatistics | None = images.objects
    if static:
        before = ()
    else:
        before = tuple(auto_config(stage, images, None, static=False) for stage in before)
        network = trained_background(stage_folder(base.out, 1))
        objects = None if network is None else measure_objects(pack, network, shadow)
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
        f"{found.share:.1%} of the pixels differ from the median image"
        f"{', without highlights' if found.highlight_opacity else ''}; the camera moves by "
        f"{images.shift:.1f} px",
        f"    --model.background {'static' if static else 'predicted'}",
    ]
    if objects is None:
        return [*lines, "objects: measured after stage 1, the training of the background"]
    if objects.highlight_opacity:
        lines += [
            "highlights: the background shines through many of the pixels",
            f"    --model.highlight-opacity {objects.highlight_opacity:g}",
        ]
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
            **_SEEDING,
            "highlight_opacity": objects.highlight_opacity,
            "foreground_threshold": objects.threshold,
            "sigma_x": objects.sigma_x,
        }
        start = None if start is None else _round_2(start * objects.sigma_x / _SIGMA)
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
    select_modules(model, config)
    images = _sample_images(pack)[: config.batch_size].to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    times = []
    for _ in range(_TIMED_UPDATES):
        start = time.perf_counter()
        torch.stack(train_terms(model.train(), images, generator)).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times)
