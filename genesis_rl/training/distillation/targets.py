"""Training targets of a student: the teacher's latents and downsampled masks."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.data.feed import ImageFeed
from genesis_rl.models.refinement import refine
from genesis_rl.slots import SceneModel
from genesis_rl.utils.log import ProgressBar

_BATCH = 64
# Smallest standard deviation of a latent relative to the largest, so that nearly constant latents
# are not amplified.
_MIN_SPREAD = 0.05


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
