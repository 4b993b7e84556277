"""What a teacher sees in images: the latents, and the masks on the student's coarse map."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from genesis_rl.data.feed import ImageFeed
from genesis_rl.refinement import refine
from genesis_rl.slots import SceneModel

_BATCH = 64
# A latent that hardly varies is not blown up to count as much as the others.
_LEAST_SPREAD = 0.05


class Targets(NamedTuple):
    """A teacher's slots of n images, on its device.

    Attributes:
        latents: (n, K, D) float32, the posterior's means, or what they were refined to.
        masks: (n, K, s, s) float16, means of the masks over the squares of the student's map.
    """

    latents: Tensor
    masks: Tensor

    def spread(self) -> Tensor:
        """Standard deviation of every latent over images and slots, bounded below: (D,)."""
        spread = self.latents.flatten(0, 1).std(0)
        return spread.clamp_min(_LEAST_SPREAD * float(spread.max()) + 1e-6)


@torch.inference_mode()
def infer_targets(
    teacher: SceneModel, feed: ImageFeed, count: int, *, stride: int, refine_steps: int = 0
) -> Targets:
    """Let a teacher see the first ``count`` images.

    Args:
        teacher: in eval mode.
        feed: the images.
        count: how many.
        stride: side of the squares of pixels that share a mask's value.
        refine_steps: gradient steps on its latents, see `genesis_rl.refinement`.

    Raises:
        ValueError: if its latents are not finite.
    """
    latents, masks = [], []
    with tqdm(total=count, desc="teacher", unit="img", disable=None) as bar:
        for first in range(0, count, _BATCH):
            rows = torch.arange(first, min(first + _BATCH, count))
            x = feed(rows)
            slots = refine(teacher, x, teacher.infer(x), refine_steps)
            latents.append(slots.features.float())
            masks.append(coarse(slots.log_pi.float(), stride).half())
            bar.update(len(rows))
    targets = Targets(torch.cat(latents), torch.cat(masks))
    if not bool(targets.latents.isfinite().all()):
        raise ValueError("the teacher's latents are not finite on some images; is it trained?")
    return targets


def coarse(log_pi: Tensor, stride: int) -> Tensor:
    """Means of masks (B, K, 1, S, S) over the squares of the student's map: (B, K, s, s)."""
    return F.avg_pool2d(log_pi[:, :, 0].exp(), stride)
