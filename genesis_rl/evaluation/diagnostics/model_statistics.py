"""Inputs of the checks: a run's log, and statistics of its model on held-out images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genesis_rl.data import Pack
from genesis_rl.evaluation import metrics
from genesis_rl.evaluation.diagnostics.findings import Thresholds
from genesis_rl.models.refinement import refine
from genesis_rl.slots import SceneModel
from genesis_rl.training import PretrainConfig
from genesis_rl.training.validate import device_of, eval_mode, labelled_images

# Without masks, pixels within this distance of the image's median colour count as background if
# they cover at least this share of the image, as for the training's foreground_weight.
_MAX_DISTANCE, _MIN_SHARE = 0.1, 0.3
# Smallest mean squared difference between an object and the background to count the object.
_MIN_CONTRAST = 0.01
#: Refinement steps that measure the amortisation gap of an encoder.
REFINE_STEPS = 5


@dataclass(frozen=True)
class ModelStatistics:
    """Statistics of a model on held-out images; NaN where one is undefined.

    Attributes:
        num_images: number of images.
        finite: whether the weights and the model's outputs are finite.
        latent_sizes: (D_m, D_c).
        num_slots: K.
        mse: squared error of the reconstruction per pixel and channel.
        mse_refined: the same after refinement of the latents (`REFINE_STEPS`).
        mse_mean_image: squared error of the mean of all images.
        mse_flat: squared error of each image's median colour.
        active_slots: slots with at least 1 % of an image's pixels, mean over images.
        dead_slots: slots with at least 1 % of the pixels in no image.
        mask_entropy: entropy of a pixel's mask probabilities divided by log K.
        background_share: share of the background in its largest slot.
        background_masks: whether the background comes from true masks, not the median colour.
        num_segments: true segments of an image, background included, mean over images.
        lost: share of objects in the background's slot, not drawn by its component.
        lost_drawn: share of objects in the background's slot, drawn by its component.
        taken_drawn: share of objects in another slot, drawn by the background's component.
        same_colour_shared: share of pairs of objects of the same colour in one slot.
        other_colour_shared: share of pairs of objects of different colours in one slot.
        kl_m: KL of the mask latents per image, nats.
        kl_c: KL of the component latents per image, nats.
        variance_m: largest variance over images of a mask latent's posterior mean.
        variance_c: largest variance over images of a component latent's posterior mean.
        msc: the model's mSC.
        msc_baselines: mSC of the baselines, by name.
    """

    num_images: int
    finite: bool
    latent_sizes: tuple[int, int]
    num_slots: int
    mse: float
    mse_refined: float
    mse_mean_image: float
    mse_flat: float
    active_slots: float
    dead_slots: int
    mask_entropy: float
    background_share: float
    background_masks: bool
    num_segments: float
    lost: float
    lost_drawn: float
    taken_drawn: float
    same_colour_shared: float
    other_colour_shared: float
    kl_m: float
    kl_c: float
    variance_m: float
    variance_c: float
    msc: float
    msc_baselines: dict[str, float]


@dataclass(frozen=True)
class CheckInputs:
    """Inputs of every check.

    Attributes:
        config: the run's settings.
        updates: the log's rows of updates, oldest first (`Run.updates`).
        validations: the log's rows of validations (`Run.validations`).
        statistics: the model's statistics on held-out images; None without a model.
    """

    config: PretrainConfig
    updates: list[dict[str, float]]
    validations: list[dict[str, float]]
    statistics: ModelStatistics | None = None


@torch.inference_mode()
def compute_statistics(
    model: SceneModel,
    pack: Pack,
    num_images: int,
    *,
    seed: int = 0,
    min_drawn_contrast: float = Thresholds.min_drawn_contrast,
) -> ModelStatistics:
    """Compute a model's statistics on the first images of a pack.

    Args:
        model: a scene model; its training mode is restored.
        pack: held-out images; some statistics need their masks.
        num_images: number of images.
        seed: seed of the posterior's noise.
        min_drawn_contrast: see `Thresholds`.

    Raises:
        ValueError: if there are fewer than 2 images: variances need two.
    """
    if min(num_images, len(pack)) < 2:
        raise ValueError(f"num_images must be at least 2, got {min(num_images, len(pack))}.")
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(seed)
    batches: list[dict[str, Tensor]] = []
    for images, masks in labelled_images(pack, num_images, device):
        with eval_mode(model):
            terms = model.elbo(images, generator=generator)
            slots = model.infer(images)
            decoded = model.decode(slots)
            # NaN is reported by the check non_finite and must not raise here.
            pred = metrics.segment(model.segmentation_masks(slots).nan_to_num())
            refined = model.decode(refine(model, images, slots, REFINE_STEPS)).image
        parts = {
            "images": images,
            "mse_refined": (refined - images).square().mean((1, 2, 3)),
            "mse": (decoded.image - images).square().mean((1, 2, 3)),
            "mse_flat": (median_colours(images) - images).square().mean((1, 2, 3)),
            "active_slots": metrics.active_slots(pred),
            "area": _areas(pred, slots.log_pi.shape[1]),
            "mask_entropy": _entropy(slots.log_pi),
            "kl_m": terms.kl_m.sum(1),
            "kl_c": terms.kl_c.sum(1),
            "z_m": slots.z_m,
            "z_c": slots.z_c,
            "background_share": _background_share(_background(images, masks), slots.log_pi),
        }
        if masks is not None:
            parts |= _scores_with_masks(images, masks, pred, decoded.mu_x, min_drawn_contrast)
        batches.append(parts)
    values = {name: each.double() for name, each in metrics.join_batches(batches).items()}
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    finite = all(bool(w.isfinite().all()) for w in weights) and all(
        bool(values[name].isfinite().all()) for name in ("mse", "kl_m", "kl_c", "z_m", "z_c")
    )
    return _aggregate(values, finite)


def _aggregate(values: dict[str, Tensor], finite: bool) -> ModelStatistics:
    def mean(name: str) -> float:
        return float(values[name].nanmean()) if name in values else math.nan

    def variance(z: Tensor) -> float:
        return float(z.flatten(1).var(0).max()) if z.numel() else 0.0

    images = values["images"]
    baselines = [name for name in values if name.startswith("msc_")]
    return ModelStatistics(
        num_images=len(images),
        finite=finite,
        latent_sizes=(values["z_m"].shape[2], values["z_c"].shape[2]),
        num_slots=values["area"].shape[1],
        mse_mean_image=float((images - images.mean(0)).square().mean()),
        dead_slots=int((values["area"] < 0.01).all(0).sum()),
        background_masks="num_segments" in values,
        variance_m=variance(values["z_m"]),
        variance_c=variance(values["z_c"]),
        msc_baselines={name.removeprefix("msc_"): mean(name) for name in baselines},
        **{name: mean(name) for name in _MEANS},
    )


_MEANS = (
    *("mse", "mse_refined", "mse_flat", "active_slots", "mask_entropy"),
    *("background_share", "num_segments"),
    *("lost", "lost_drawn", "taken_drawn", "same_colour_shared", "other_colour_shared"),
    *("kl_m", "kl_c", "msc"),
)


def _scores_with_masks(
    images: Tensor, masks: Tensor, pred: Tensor, mu_x: Tensor, min_drawn_contrast: float
) -> dict[str, Tensor]:
    """Compute the statistics that need true masks, each (B,)."""
    scores = {"msc": metrics.image_scores(masks, pred)["msc"]}
    for name, labels in metrics.baselines(images, mu_x.shape[1]).items():
        scores[f"msc_{name}"] = metrics.image_scores(masks, labels)["msc"]
    binding = metrics.binding_scores(masks, pred, images)
    shared = {name: binding[name] for name in ("same_colour_shared", "other_colour_shared")}
    exists = _areas(masks.clamp_min(0), int(masks.max()) + 1) > 0
    segments = exists.sum(1).double()
    objects = background_drawn(images, masks, pred, mu_x, min_drawn_contrast)
    return scores | shared | objects | {"num_segments": segments}


def background_drawn(
    images: Tensor, masks: Tensor, pred: Tensor, mu_x: Tensor, min_drawn_contrast: float
) -> dict[str, Tensor]:
    """Compute the shares of objects lost to, and drawn by, the background's component.

    The background's slot is the slot with most of the true background. Its component draws an
    object if it removes at least the share ``min_drawn_contrast`` of the object's squared
    difference from the background's median colour.

    Args:
        images: (B, 3, H, W) in [0, 1].
        masks: true labels (B, H, W); 0 = background, < 0 = ignored.
        pred: slot of every pixel, (B, H, W).
        mu_x: components, (B, K, 3, H, W).
        min_drawn_contrast: smallest share of contrast removed for a drawn object.

    Returns:
        Shares of an image's objects, each (B,), NaN without objects in contrast to the background:
        ``lost`` (in the background's slot, not drawn), ``lost_drawn`` (in it, drawn),
        ``taken_drawn`` (in another slot, drawn).
    """
    num_segments = int(masks.max()) + 1
    num_slots = mu_x.shape[1]
    labels = masks.where(masks >= 0, num_segments).flatten(1)  # (B, H*W)
    cells = labels * num_slots + pred.flatten(1)
    table = _sums(cells, torch.ones_like(cells), (num_segments + 1) * num_slots)
    slots = table.unflatten(1, (-1, num_slots)).argmax(2)  # (B, segments + 1)
    background_slot = slots[:, :1]
    background = mu_x[torch.arange(len(mu_x), device=mu_x.device), background_slot[:, 0]]
    inside = images.masked_fill((masks != 0).unsqueeze(1), math.nan)
    colour = inside.flatten(2).nanmedian(-1).values[:, :, None, None]
    size = num_segments + 1
    pixels = _sums(labels, torch.ones_like(labels), size)
    contrast = _sums(labels, (images - colour).square().mean(1).flatten(1), size)
    error = _sums(labels, (images - background).square().mean(1).flatten(1), size)
    visible = (pixels > 0) & (contrast > _MIN_CONTRAST * pixels)  # False without a background
    visible, drawn = visible[:, 1:-1], (error <= (1 - min_drawn_contrast) * contrast)[:, 1:-1]
    lost = (slots == background_slot)[:, 1:-1]
    count = visible.sum(1).double()
    return {
        "lost": (visible & lost & ~drawn).sum(1) / count,
        "lost_drawn": (visible & lost & drawn).sum(1) / count,
        "taken_drawn": (visible & ~lost & drawn).sum(1) / count,
    }


def median_colours(images: Tensor) -> Tensor:
    """Return the median of every channel of images (B, 3, H, W): (B, 3, 1, 1)."""
    return images.flatten(2).median(-1).values[:, :, None, None]


def _background(images: Tensor, masks: Tensor | None) -> Tensor:
    """Return the background (B, H, W); empty without both masks and a common colour."""
    if masks is not None:
        return masks == 0
    near = (images - median_colours(images)).abs().amax(1) <= _MAX_DISTANCE
    return near & (near.double().mean((1, 2), keepdim=True) >= _MIN_SHARE)


def _background_share(background: Tensor, log_pi: Tensor) -> Tensor:
    """Return the background's probability mass in its largest slot, (B,); NaN if it is empty."""
    pi = log_pi[:, :, 0].double().exp() * background.unsqueeze(1)
    return pi.sum((2, 3)).amax(1) / background.sum((1, 2))


def _areas(labels: Tensor, count: int) -> Tensor:
    """Return the share of pixels of every label 0..count - 1, (B, count)."""
    flat = labels.flatten(1)
    return _sums(flat, torch.ones_like(flat), count) / flat.shape[1]


def _sums(index: Tensor, values: Tensor, size: int) -> Tensor:
    """Sum values (B, N) by index (B, N): (B, size), float64."""
    sums = torch.zeros(len(index), size, dtype=torch.float64, device=index.device)
    return sums.scatter_add_(1, index, values.double())


def _entropy(log_pi: Tensor) -> Tensor:
    """Return the mean entropy of pixels' mask probabilities / log K, (B,); NaN for K = 1."""
    num_slots = log_pi.shape[1]
    if num_slots == 1:
        return log_pi.new_full((len(log_pi),), math.nan)
    log_pi = log_pi.clamp_min(-100.0)  # 0 * -inf is NaN
    return -(log_pi.exp() * log_pi).sum(1).mean((1, 2, 3)) / math.log(num_slots)
