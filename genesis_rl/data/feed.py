"""Batches of training images: stored as uint8 on the training device, returned as float."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.data.pack import Pack

# Largest share of a GPU's free memory, and of RAM in bytes; larger packs stay memory-mapped.
_GPU_SHARE, _RAM_BYTES = 0.3, 8 << 30


class ImageFeed:
    """Batches of a pack's images by index, on a device.

    The pack is loaded to the GPU or RAM as uint8 if it fits; otherwise batches are read from disk.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        """Load the images of a pack to ``device`` or RAM if they fit."""
        self.device = device
        self.num_images = len(pack)
        size = pack.images.nbytes
        self._mapped: npt.NDArray[np.uint8] | None = None
        self._images = torch.empty(0)
        if device.type == "cuda" and size < _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self._images = torch.from_numpy(np.array(pack.images)).to(device)
        elif size < _RAM_BYTES:
            self._images = torch.from_numpy(np.array(pack.images))
        else:
            self._mapped = pack.images

    def __call__(self, indices: Tensor) -> Tensor:
        """Return images by index, int64 (B,): float (B, 3, H, W) in [0, 1], channels_last."""
        if self._mapped is not None:
            images = torch.from_numpy(self._mapped[indices.numpy()])
        else:
            images = self._images[indices.to(self._images.device)]
        # (B, H, W, C) permuted is channels_last without a copy.
        return images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


def batch_indices(step: int, batch_size: int, num_images: int, seed: int) -> Tensor:
    """Return the indices of a step's batch, in a random order per (seed, epoch).

    A pure function, so that a resumed training gets the same batches.

    Args:
        step: index of the step, from 0.
        batch_size: images per step, at most ``num_images``.
        num_images: images in the dataset.
        seed: seed of the order.

    Returns:
        int64, shape (batch_size,), on the CPU; an incomplete last batch of an epoch is dropped.
    """
    per_epoch = num_images // batch_size
    epoch, position = divmod(step, per_epoch)
    order = _order(seed, epoch, num_images)
    return torch.from_numpy(order[position * batch_size : (position + 1) * batch_size].copy())


@lru_cache(maxsize=1)  # permuting a million images takes longer than many updates
def _order(seed: int, epoch: int, num_images: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(num_images)
