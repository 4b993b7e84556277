"""What the doctor looks at: a run's log, and its model on held-out images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genesis_rl import metrics
from genesis_rl.data import Pack
from genesis_rl.doctor.thresholds import Thresholds
from genesis_rl.models.base import BaseModel
from genesis_rl.models.distilled import sharp_masks
from genesis_rl.refinement import refine
from genesis_rl.slots import SceneModel
from genesis_rl.training import PretrainConfig
from genesis_rl.training.validate import device_of, eval_mode, labelled_images

# Pixels this near to the image's median colour count as background where there are no masks, if
# they are at least this share of the image: the training's foreground_weight sees it the same way.
_NEAR, _MOST = 0.1, 0.3
# Objects that differ less from the background (squared) cannot be told from it.
_CONTRAST = 0.01
#: Gradient steps by which latents are refined, to see how far behind its decoders an encoder is.
REFINING_STEPS = 5


@dataclass(frozen=True)
class Sight:
    """A model seen on held-out images; NaN is what could not be seen there.

    Attributes:
        num_images: how many.
        finite: whether weights and all that the model made of the images are finite.
        latent_sizes: (D_m, D_c).
        num_slots: K.
        mse: squared error of the reconstruction per pixel and channel.
        mse_refined: that after some gradient steps on the latents (`REFINING_STEPS`).
        mse_mean_image: that of the mean of all images.
        mse_flat: that of every image's median colour.
        active_slots: slots with at least 1 % of an image's pixels, on average.
        dead_slots: slots that have 1 % in no image.
        mask_entropy: entropy of a pixel's mask probabilities as a share of log K.
        background_share: share of the background in its largest slot.
        background_masks: whether the background is the true one, not the median colour's.
        num_segments: true segments of an image, background included, on average.
        lost: share of objects in the background's slot that its component does not draw.
        lost_drawn: share in the background's slot that it draws.
        taken_drawn: share in another slot that the background's component draws all the same.
        same_colour_shared: share of pairs of objects of the same colour in one slot.
        other_colour_shared: share of pairs of objects of different colours in one slot.
        kl_m: KL of the mask latents per image, nats.
        kl_c: KL of the component latents per image, nats.
        variance_m: largest variance over images of a mask latent's posterior mean.
        variance_c: the same of the component latents.
        msc: the model's mSC.
        msc_baselines: mSC of what is no model, by name.
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
class Evidence:
    """All that a check may look at.

    Attributes:
        config: the run's settings.
        updates: rows of the log on updates, oldest first, as of `Run.updates`.
        validations: rows on validations, as of `Run.validations`.
        sight: the model on held-out images; None if it was not looked at.
    """

    config: PretrainConfig
    updates: list[dict[str, float]]
    validations: list[dict[str, float]]
    sight: Sight | None = None


@torch.inference_mode()
def look(
    model: SceneModel,
    pack: Pack,
    count: int,
    *,
    seed: int = 0,
    drawn: float = Thresholds.drawn,
) -> Sight:
    """Look at a model on the first images of a pack.

    Args:
        model: a scene model; its training mode is put back afterwards.
        pack: held-out images; masks make more visible.
        count: number of images.
        seed: of the posterior's noise.
        drawn: see `Thresholds`.

    Raises:
        ValueError: if count is below 2: variances over images need two.
    """
    if min(count, len(pack)) < 2:
        raise ValueError(f"images is {min(count, len(pack))}; wanted at least 2.")
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(seed)
    seen: dict[str, list[Tensor]] = {}
    for images, masks in labelled_images(pack, count, device):
        with eval_mode(model):
            terms = model.elbo(images, generator=generator)
            slots = model.infer(images)
            decoded = model.decode(slots)
            # NaN is a finding of its own, below, and must not end the diagnosis here.
            pred = metrics.segment(sharp_masks(model, slots).nan_to_num())
            refined = images.new_full(images.shape, math.nan)
            if isinstance(model, BaseModel):
                refined = model.decode(refine(model, images, slots, REFINING_STEPS)).image
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
            parts |= _against_truth(images, masks, pred, decoded.mu_x, drawn)
        for name, values in parts.items():
            seen.setdefault(name, []).append(values)
    whole = {name: torch.cat(values).double() for name, values in seen.items()}
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    finite = all(bool(w.isfinite().all()) for w in weights) and all(
        bool(whole[name].isfinite().all()) for name in ("mse", "kl_m", "kl_c", "z_m", "z_c")
    )
    return _summary(whole, finite)


def _summary(whole: dict[str, Tensor], finite: bool) -> Sight:
    def mean(name: str) -> float:
        return float(whole[name].nanmean()) if name in whole else math.nan

    def variance(z: Tensor) -> float:
        return float(z.flatten(1).var(0).max()) if z.numel() else 0.0

    images = whole["images"]
    baselines = [name for name in whole if name.startswith("msc_")]
    return Sight(
        num_images=len(images),
        finite=finite,
        latent_sizes=(whole["z_m"].shape[2], whole["z_c"].shape[2]),
        num_slots=whole["area"].shape[1],
        mse_mean_image=float((images - images.mean(0)).square().mean()),
        dead_slots=int((whole["area"] < 0.01).all(0).sum()),
        background_masks="num_segments" in whole,
        variance_m=variance(whole["z_m"]),
        variance_c=variance(whole["z_c"]),
        msc_baselines={name.removeprefix("msc_"): mean(name) for name in baselines},
        **{name: mean(name) for name in _MEANS},
    )


_MEANS = (
    *("mse", "mse_refined", "mse_flat", "active_slots", "mask_entropy"),
    *("background_share", "num_segments"),
    *("lost", "lost_drawn", "taken_drawn", "same_colour_shared", "other_colour_shared"),
    *("kl_m", "kl_c", "msc"),
)


def _against_truth(
    images: Tensor, masks: Tensor, pred: Tensor, mu_x: Tensor, drawn: float
) -> dict[str, Tensor]:
    """What true masks make visible, per image: shapes (B,)."""
    scores = {"msc": metrics.image_scores(masks, pred)["msc"]}
    for name, labels in metrics.baselines(images, mu_x.shape[1]).items():
        scores[f"msc_{name}"] = metrics.image_scores(masks, labels)["msc"]
    binding = metrics.binding_scores(masks, pred, images)
    shared = {name: binding[name] for name in ("same_colour_shared", "other_colour_shared")}
    exists = _areas(masks.clamp_min(0), int(masks.max()) + 1) > 0
    segments = exists.sum(1).double()
    objects = painted(images, masks, pred, mu_x, drawn)
    return scores | shared | objects | {"num_segments": segments}


def painted(
    images: Tensor, masks: Tensor, pred: Tensor, mu_x: Tensor, drawn: float
) -> dict[str, Tensor]:
    """Find the objects that are drawn by the component of the background's slot.

    The background's slot is the one with most of the true background. An object is drawn by it if
    its component removes at least the share ``drawn`` of the object's squared difference from the
    background's median colour.

    Args:
        images: (B, 3, H, W) in [0, 1].
        masks: true labels (B, H, W), 0 = background, < 0 counts nowhere.
        pred: slot of every pixel, (B, H, W).
        mu_x: components, (B, K, 3, H, W).
        drawn: share from which on an object is drawn.

    Returns:
        Shares of an image's objects, each (B,), NaN without objects that can be told from the
        background: ``lost`` (in the background's slot, not drawn), ``lost_drawn`` (in it, drawn),
        ``taken_drawn`` (in another slot, drawn all the same).
    """
    num_segments = int(masks.max()) + 1
    num_slots = mu_x.shape[1]
    labels = masks.where(masks >= 0, num_segments).flatten(1)  # (B, H*W)
    cells = labels * num_slots + pred.flatten(1)
    table = _sums(cells, torch.ones_like(cells), (num_segments + 1) * num_slots)
    slots = table.unflatten(1, (-1, num_slots)).argmax(2)  # (B, segments + 1)
    home = slots[:, :1]
    background = mu_x[torch.arange(len(mu_x), device=mu_x.device), home[:, 0]]
    inside = images.masked_fill((masks != 0).unsqueeze(1), math.nan)
    colour = inside.flatten(2).nanmedian(-1).values[:, :, None, None]
    size = num_segments + 1
    pixels = _sums(labels, torch.ones_like(labels), size)
    contrast = _sums(labels, (images - colour).square().mean(1).flatten(1), size)
    error = _sums(labels, (images - background).square().mean(1).flatten(1), size)
    visible = (pixels > 0) & (contrast > _CONTRAST * pixels)  # never where there is no background
    visible, is_drawn = visible[:, 1:-1], (error <= (1 - drawn) * contrast)[:, 1:-1]
    lost = (slots == home)[:, 1:-1]
    count = visible.sum(1).double()
    return {
        "lost": (visible & lost & ~is_drawn).sum(1) / count,
        "lost_drawn": (visible & lost & is_drawn).sum(1) / count,
        "taken_drawn": (visible & ~lost & is_drawn).sum(1) / count,
    }


def median_colours(images: Tensor) -> Tensor:
    """Median of every channel of images (B, 3, H, W): (B, 3, 1, 1)."""
    return images.flatten(2).median(-1).values[:, :, None, None]


def _background(images: Tensor, masks: Tensor | None) -> Tensor:
    """Where the background is, (B, H, W); nowhere if there are no masks and no common colour."""
    if masks is not None:
        return masks == 0
    near = (images - median_colours(images)).abs().amax(1) <= _NEAR
    return near & (near.double().mean((1, 2), keepdim=True) >= _MOST)


def _background_share(background: Tensor, log_pi: Tensor) -> Tensor:
    """Share of the background (B, H, W) in its largest slot, by probability, (B,); NaN without."""
    pi = log_pi[:, :, 0].double().exp() * background.unsqueeze(1)
    return pi.sum((2, 3)).amax(1) / background.sum((1, 2))


def _areas(labels: Tensor, count: int) -> Tensor:
    """Share of the pixels of every label 0..count - 1, (B, count)."""
    flat = labels.flatten(1)
    return _sums(flat, torch.ones_like(flat), count) / flat.shape[1]


def _sums(index: Tensor, values: Tensor, size: int) -> Tensor:
    """Add up values (B, N) by an index (B, N): (B, size), float64."""
    sums = torch.zeros(len(index), size, dtype=torch.float64, device=index.device)
    return sums.scatter_add_(1, index, values.double())


def _entropy(log_pi: Tensor) -> Tensor:
    """Mean entropy of pixels' mask probabilities as a share of log K, (B,); NaN for K = 1."""
    num_slots = log_pi.shape[1]
    if num_slots == 1:
        return log_pi.new_full((len(log_pi),), math.nan)
    log_pi = log_pi.clamp_min(-100.0)  # 0 * -inf is NaN
    return -(log_pi.exp() * log_pi).sum(1).mean((1, 2, 3)) / math.log(num_slots)
