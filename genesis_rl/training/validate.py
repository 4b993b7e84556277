"""Validation on held-out images: scores and image grids."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl import visualization
from genesis_rl.data import Pack
from genesis_rl.evaluation import metrics
from genesis_rl.slots import SceneModel, check_finite

_BATCH = 64
_PICTURES = 8


def labelled_images(
    pack: Pack, count: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Iterate over the first ``count`` images of a pack in batches.

    Yields:
        Images (B, 3, H, W), float in [0, 1], and true labels (B, H, W) int64 or None.
    """
    for first in range(0, min(count, len(pack)), _BATCH):
        part = slice(first, min(first + _BATCH, count))
        images = torch.from_numpy(np.array(pack.images[part])).to(device)
        masks = None
        if pack.masks is not None:
            masks = torch.from_numpy(pack.masks[part].astype(np.int64)).to(device)
        yield images.permute(0, 3, 1, 2).float().div_(255), masks


@torch.inference_mode()
def validate(model: SceneModel, pack: Pack, count: int, *, seed: int = 0) -> dict[str, float]:
    """Evaluate a model in eval mode on the first images of a pack.

    Args:
        model: a scene model; its training mode is restored afterwards.
        pack: held-out images; segmentation scores require masks.
        count: number of images.
        seed: seed of the noise of the ELBO.

    Returns:
        ``mse`` (per pixel and channel, posterior means), ``nll``, ``kl_m``, ``kl_c`` (nats per
        image), and with masks the averages of `metrics.image_scores`.

    Raises:
        ValueError: if a latent or a mask is not finite.
    """
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(seed)
    totals: dict[str, list[Tensor]] = {}
    with eval_mode(model):
        for images, masks in labelled_images(pack, count, device):
            terms = model.elbo(images, generator=generator)
            slots = model.infer(images)
            decoded = model.decode(slots)
            check_finite(slots.z_m, slots.z_c, decoded.mu_x, log_masks=decoded.log_pi)
            scores = {
                "mse": (decoded.image - images).square().mean((1, 2, 3)),
                "nll": terms.nll,
                "kl_m": terms.kl_m.sum(1),
                "kl_c": terms.kl_c.sum(1),
            }
            if masks is not None:
                scores |= metrics.image_scores(
                    masks, metrics.segment(model.segmentation_masks(slots))
                )
            for name, values in scores.items():
                totals.setdefault(name, []).append(values.double())
    averages = metrics.average({name: torch.cat(parts) for name, parts in totals.items()})
    # Drop the counts of images for which a segmentation score is defined.
    return {k: v for k, v in averages.items() if not k.endswith("_images")}


@torch.inference_mode()
def baseline_scores(pack: Pack, count: int, num_slots: int) -> dict[str, dict[str, float]]:
    """Compute averages of `metrics.scene_scores` of baselines on the images of `validate`.

    Returns:
        Scores by name of `metrics.baselines`; empty if the pack has no masks.
    """
    totals: dict[str, dict[str, list[Tensor]]] = {}
    for images, masks in labelled_images(pack, count, torch.device("cpu")):
        if masks is None:
            return {}
        for name, labels in metrics.baselines(images, num_slots).items():
            scores = totals.setdefault(name, {})
            for key, values in metrics.scene_scores(masks, labels, images).items():
                scores.setdefault(key, []).append(values)
    return {
        name: metrics.average({key: torch.cat(parts) for key, parts in scores.items()})
        for name, scores in totals.items()
    }


@torch.inference_mode()
def decomposition(model: SceneModel, pack: Pack) -> npt.NDArray[np.uint8]:
    """Render decompositions of held-out images as an image grid."""
    with eval_mode(model):
        images, _ = next(labelled_images(pack, _PICTURES, device_of(model)))
        decoded = model.decode(model.infer(images))
    return visualization.decomposition_grid(images, decoded, scale=_scale(images.shape[-1]))


def _scale(side: int) -> int:
    """Return the factor by which small images are enlarged."""
    return max(1, 64 // side)


@torch.inference_mode()
def pictures(model: SceneModel, pack: Pack, *, seed: int = 0) -> dict[str, npt.NDArray[np.uint8]]:
    """Render decompositions of held-out images and samples from the prior as image grids."""
    generator = torch.Generator(device_of(model)).manual_seed(seed)
    with eval_mode(model):
        scenes = model.decode(model.sample(_PICTURES, generator=generator))
    return {
        "decomposition": decomposition(model, pack),
        "samples": visualization.sample_grid(scenes, scale=_scale(pack.images.shape[1])),
    }


class eval_mode:  # noqa: N801 - a context manager, named like torch's
    """Context manager that sets a module to eval mode and restores its mode."""

    def __init__(self, model: SceneModel) -> None:
        self.module = model if isinstance(model, nn.Module) else nn.Module()

    def __enter__(self) -> None:
        self.training = self.module.training
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        self.module.train(self.training)


def device_of(model: SceneModel) -> torch.device:
    """Return the device of a model's weights."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}.")
    return next(model.parameters()).device
