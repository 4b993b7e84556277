"""How close a student's slots are to its teacher's, and how much sooner they are there."""

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from genesis_rl import metrics
from genesis_rl.data import Pack
from genesis_rl.perception import SlotEncoder
from genesis_rl.slots import SceneModel
from genesis_rl.training.validate import device_of, labelled_images

#: Batch sizes whose latency is told.
BATCHES = (1, 8, 32)
_REPEATS, _WARMUP = 15, 3


@torch.inference_mode()
def fidelity(student: SceneModel, teacher: SceneModel, pack: Pack, count: int) -> dict[str, float]:
    """Compare slots on the first images of a pack; both models are in eval mode.

    Returns:
        ``r2_z_m``, ``r2_z_c``, ``r2_geometry`` (as far as there are such latents): the share of
        the teacher's variance over images, all slots and dimensions together, that the student
        explains, 1 at best (what differs between slots in every image explains nothing); ``r2``,
        that of all latents, each in units of its standard deviation; and with true masks ``ari``,
        ``msc`` and so on of both, the teacher's as ``teacher_...``.
    """
    device = device_of(student)
    seen: list[list[Tensor]] = [[], []]
    scores: dict[str, list[Tensor]] = {}
    for images, masks in labelled_images(pack, count, device):
        for prefix, model, parts in (("", student, seen[0]), ("teacher_", teacher, seen[1])):
            slots = model.infer(images)
            parts.append(torch.cat([slots.features, slots.mask_geometry()], dim=2).double())
            if masks is not None:
                segmented = metrics.image_scores(masks, metrics.segment(slots.log_pi))
                for name, values in segmented.items():
                    scores.setdefault(prefix + name, []).append(values)
    mine, theirs = (torch.cat(parts) for parts in seen)  # (n, K, D + 3)
    d_m, d_c = student.latent_sizes
    result = {}
    first = 0
    for name, width in (("z_m", d_m), ("z_c", d_c), ("geometry", 3)):
        if width:
            part = slice(first, first + width)
            result[f"r2_{name}"] = _explained(mine[..., part], theirs[..., part])
        first += width
    mine, theirs = mine[..., : d_m + d_c], theirs[..., : d_m + d_c]
    spread = theirs.flatten(0, 1).std(0).clamp_min(1e-6)
    result["r2"] = _explained(mine / spread, theirs / spread)
    averages = metrics.average({name: torch.cat(parts) for name, parts in scores.items()})
    return result | {k: v for k, v in averages.items() if not k.endswith("_images")}


def _explained(mine: Tensor, theirs: Tensor) -> float:
    rest = (mine - theirs).square().sum()
    return float(1 - rest / (theirs - theirs.mean(0)).square().sum().clamp_min(1e-12))


def speed(encoders: dict[str, SlotEncoder]) -> list[dict[str, Any]]:
    """Medians of the time that encoders take for frames, in turns.

    Returns:
        A row each for every batch size of `BATCHES`: ``batch``, and by name ``ms`` for the batch
        (uint8 frames in, slots with mask geometry as an array out).
    """
    rows = []
    for batch in BATCHES:
        times: dict[str, list[float]] = {name: [] for name in encoders}
        for turn in range(_WARMUP + _REPEATS):
            for name, encoder in encoders.items():
                size = encoder.image_size
                frames = np.random.default_rng(turn).integers(
                    0, 256, (batch, size, size, 3), dtype=np.uint8
                )
                began = time.perf_counter()
                encoder.features(frames, mask_geometry=True)
                if turn >= _WARMUP:
                    times[name].append(time.perf_counter() - began)
        ms = {name: 1e3 * statistics.median(values) for name, values in times.items()}
        rows.append({"batch": batch, "ms": ms})
    return rows


def flops(model: SceneModel) -> int:
    """Floating-point operations of convolutions and matrix products to infer one image's slots."""
    size = model.config.image_size
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.infer(torch.zeros(1, 3, size, size, device=device_of(model)))
    return int(counter.get_total_flops())
