"""Frozen latents of probe images, cached on disk."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from genesis_rl.checkpoints.loading import fingerprint
from genesis_rl.data import Pack
from genesis_rl.evaluation import metrics
from genesis_rl.evaluation.metrics.features import digest
from genesis_rl.evaluation.metrics.segmentation import overlaps
from genesis_rl.slots import SceneModel
from genesis_rl.training.validate import device_of, eval_mode
from genesis_rl.utils.files import new_folder, private_folder
from genesis_rl.utils.log import ProgressBar

_FORMAT = 1  # increment if the cached content of the same model and images changes
_BATCH = 64
_SLOTS, _IOU = "slots.npy", "iou.npy"


class Sample(NamedTuple):
    """A subset of a split's images.

    Attributes:
        pack: the split.
        rows: (n,) int64, ascending indices of its images.
    """

    pack: Pack
    rows: npt.NDArray[np.int64]

    @classmethod
    def draw(cls, pack: Pack, count: int) -> "Sample":
        """Sample at most ``count`` images from the whole split, the same ones at every call.

        Neighbouring images may be views of one scene, so the first ``count`` would be biased.
        """
        order = np.random.default_rng(0).permutation(len(pack))
        return cls(pack, np.sort(order[:count]))

    def chunks(self, size: int = 512) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the rows in parts."""
        for first in range(0, len(self.rows), size):
            yield self.rows[first : first + size]


class EncodedSample(NamedTuple):
    """Latents of the n images of a sample, and their overlap with the ground-truth masks.

    Attributes:
        slots: (n, K, D) float32, `genesis_rl.slots.Slots.features` at the posterior's means.
        iou: (n, K, L) float32 in [0, 1], intersection over union of slot k (the pixels where its
            mask is the largest) and label l + 1; L = 0 without masks.
    """

    slots: npt.NDArray[np.float32]
    iou: npt.NDArray[np.float32]


def encode_sample(model: SceneModel, sample: Sample, cache: Path) -> EncodedSample:
    """Infer the latents of a sample, or load them from the cache.

    The cache key is the model's fingerprint, the pack's content and the images' indices. Concurrent
    calls from several processes are safe.

    Args:
        model: a scene model; its training mode is restored.
        sample: images of the model's size.
        cache: folder of all cached latents, created if missing.

    Raises:
        ValueError: if the images do not fit the model, or the latents are not finite.
        OSError: if the cache cannot be written.
    """
    numbers = hashlib.sha256(sample.rows.tobytes()).hexdigest()
    key = json.dumps([_FORMAT, fingerprint(model), digest(sample.pack), numbers])
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:24]
    if not folder.is_dir():
        with private_folder(folder, wait=True, argument="cache"):
            if not folder.is_dir():
                encoded = _infer(model, sample)
                with new_folder(folder) as temporary:
                    np.save(temporary / _SLOTS, encoded.slots)
                    np.save(temporary / _IOU, encoded.iou)
    try:
        slots, iou = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_SLOTS, _IOU)
        )
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{folder} is damaged ({error}). Delete it to recompute it.") from error
    return EncodedSample(slots, iou)


@torch.inference_mode()
def _infer(model: SceneModel, sample: Sample) -> EncodedSample:
    device, (pack, rows) = device_of(model), sample
    num_slots, width = model.config.num_slots, sum(model.latent_sizes)
    slots = np.empty((len(rows), num_slots, width), np.float32)
    # One growing array: small arrays kept between the model's large ones would fragment the heap,
    # by 25 MB per batch.
    ious = np.zeros((len(rows), num_slots, 0), np.float32)
    bar = ProgressBar(total=len(rows), desc="latents", unit="img")
    with bar, eval_mode(model):
        for number, part in enumerate(sample.chunks(_BATCH)):
            target = slice(number * _BATCH, number * _BATCH + len(part))
            inferred = model.infer(pack.tensor(part).to(device))
            slots[target] = inferred.features.float().cpu().numpy()
            if pack.masks is not None:
                true = torch.from_numpy(pack.masks[part].astype(np.int64))
                pred = metrics.segment(model.segmentation_masks(inferred)).cpu()
                iou = _iou(true, pred, num_slots)
                labels = iou.shape[2]
                if labels > ious.shape[2]:
                    ious = np.pad(ious, ((0, 0), (0, 0), (0, labels - ious.shape[2])))
                ious[target, :, :labels] = iou
            bar.update(len(part))
    if not np.isfinite(slots).all():
        raise ValueError("model must infer finite latents, got NaN or infinity on some images.")
    return EncodedSample(slots, ious)


def _iou(true: torch.Tensor, pred: torch.Tensor, num_slots: int) -> npt.NDArray[np.float32]:
    """Compute the IoU (B, K, labels) of label maps (B, H, W)."""
    both = overlaps(true, pred)  # (B, labels with 0, slots present)
    either = both.sum(1, keepdim=True) + both.sum(2, keepdim=True) - both
    iou = (both / either.clamp_min(1))[:, 1:].transpose(1, 2)
    missing = num_slots - iou.shape[1]
    return torch.nn.functional.pad(iou, (0, 0, 0, missing)).float().numpy()
