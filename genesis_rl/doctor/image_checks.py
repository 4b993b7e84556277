"""What held-out images show: checks of masks, components and latents."""

import math
from typing import Literal

from genesis_rl.doctor.evidence import REFINING_STEPS, Evidence, Sight
from genesis_rl.doctor.findings import CannotTellError, Finding
from genesis_rl.doctor.knobs import (
    Knob,
    cheaper_kl,
    dearer_kl,
    halve,
    knobs,
    longer,
    number,
    smaller_sigma,
)
from genesis_rl.doctor.thresholds import Thresholds

# Noise of the posterior that an encoder has been seen to learn below.
_NOISE = 0.05


def one_slot(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """One slot explains everything."""
    sight = _slots(evidence)
    if sight.active_slots >= limits.min_active_slots:
        return None
    config = evidence.config
    return Finding(
        "one_slot",
        "error",
        f"One slot explains everything: of {sight.num_slots} slots {sight.active_slots:.2f} have "
        "at least 1 % of an image's pixels.",
        "slots with at least 1 % of the pixels, mean over images",
        sight.active_slots,
        f"at least {limits.min_active_slots:g}",
        knobs(
            config,
            *cheaper_kl(config),
            halve(config, "component_decoder_channels", "one component cannot draw everything"),
            Knob("foreground_weight", "8", "small objects count more at first"),
            Knob("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
        ),
    )


def background_split(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Several slots share the background."""
    sight, config = _slots(evidence), evidence.config
    if math.isnan(sight.background_share):
        raise CannotTellError("the images have neither masks nor a common background colour")
    if sight.background_share >= limits.min_background_share:
        return None
    source = "" if sight.background_masks else " (pixels of the median colour)"
    return Finding(
        "background_split",
        "warning",
        f"Slots split the background{source}: the largest has {sight.background_share:.0%} of it. "
        "What looks like objects may be territories.",
        "share of the background in its largest slot",
        sight.background_share,
        f"at least {limits.min_background_share:g}",
        knobs(
            config,
            Knob("model.mask_logit_bias", "-4", "leaves the background to one slot early"),
            *dearer_kl(config),
            Knob("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
            halve(config, "mask_latent_size", "masks that cannot follow every border"),
        ),
    )


def soft_masks(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Slots share pixels instead of taking them."""
    sight = _slots(evidence)
    if not sight.mask_entropy > limits.max_mask_entropy:
        return None
    return Finding(
        "soft_masks",
        "warning",
        f"Slots share pixels: a pixel is spread over {sight.num_slots**sight.mask_entropy:.1f} of "
        f"{sight.num_slots} slots.",
        "entropy of a pixel's mask probabilities / log K",
        sight.mask_entropy,
        f"at most {limits.max_mask_entropy:g}",
        knobs(
            evidence.config,
            Knob("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
            smaller_sigma(evidence.config, "makes a wrong component dearer"),
            *cheaper_kl(evidence.config),
        ),
    )


def dead_slots(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Slots that take nothing in any image."""
    sight = _slots(evidence)
    if not sight.dead_slots or sight.active_slots < limits.min_active_slots:
        return None  # the latter is said by one_slot
    alive = sight.num_slots - sight.dead_slots
    lacking = alive < sight.num_segments  # never with NaN: how many are needed is not known
    needed = "" if math.isnan(sight.num_segments) else f" of {sight.num_segments:.1f} segments"
    return Finding(
        "dead_slots",
        "warning" if lacking else "note",
        f"Never used: {sight.dead_slots} of {sight.num_slots} slots, which take 1 % of the pixels "
        f"in no image. {alive} are left for scenes{needed}"
        + (", too few for one each." if lacking else "."),
        "slots that are never used",
        sight.dead_slots,
        "0",
        knobs(
            evidence.config,
            Knob("model.mask_logit_bound", "5", "leaves every slot a share of every pixel"),
            *(cheaper_kl(evidence.config) if lacking else ()),
            None if lacking else Knob("model.num_slots", str(alive), "as many as are used"),
        ),
    )


def mask_posterior_collapse(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """The mask latents tell nothing about the image."""
    return _collapse(evidence, limits, "m")


def component_posterior_collapse(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """The component latents tell nothing about the image."""
    return _collapse(evidence, limits, "c")


def objects_lost(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Objects in the background's slot that nothing draws."""
    sight, config = _objects(evidence), evidence.config
    if not sight.lost > limits.max_objects_lost:
        return None
    return Finding(
        "objects_lost",
        "warning",
        f"{sight.lost:.0%} of the objects lie in the background's slot, which draws background in "
        "their place: the model does not see them.",
        "share of objects in the background's slot, not drawn",
        sight.lost,
        f"at most {limits.max_objects_lost:g}",
        knobs(
            config,
            Knob("foreground_weight", "8", "small objects count more at first"),
            smaller_sigma(config, "makes missing them dearer"),
            *cheaper_kl(config),
        ),
    )


def painted_by_background(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Objects drawn by the component of the background's slot."""
    sight, config = _objects(evidence), evidence.config
    share = sight.lost_drawn + sight.taken_drawn
    if not share > limits.max_objects_painted:
        return None
    return Finding(
        "painted_by_background",
        "warning",
        f"The background's component draws {share:.0%} of the objects: {sight.lost_drawn:.0%} have "
        f"no slot of their own, {sight.taken_drawn:.0%} have one that holds the mask only. Their "
        "latents then lie in the background's slot.",
        "share of objects drawn by the background's component",
        share,
        f"at most {limits.max_objects_painted:g}",
        knobs(
            config,
            halve(config, "component_latent_size", "less room for objects in a component"),
            halve(config, "component_decoder_channels", "one component cannot draw everything"),
            *dearer_kl(config),
            Knob("model.num_slots", str(config.model.num_slots + 1), "room for one more"),
        ),
    )


def objects_merged(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Several objects share a slot."""
    sight, config = _objects(evidence), evidence.config
    same, other = sight.same_colour_shared, sight.other_colour_shared
    pairs = {"pairs of one colour": same, "pairs of two colours": other}
    shares = {name: share for name, share in pairs.items() if not math.isnan(share)}
    if not shares:
        raise CannotTellError("no image has two objects")
    most = max(shares.values())
    if not most > limits.max_objects_merged:
        return None
    told = " and ".join(f"{share:.0%} of the {name}" for name, share in shares.items())
    by_colour = same > limits.max_objects_merged and not other > same / 2
    return Finding(
        "objects_merged",
        "warning",
        f"Objects share slots: {told}." + (" It is the colour that binds." if by_colour else ""),
        "share of pairs of objects in one slot",
        most,
        f"at most {limits.max_objects_merged:g}",
        knobs(
            config,
            Knob("model.num_slots", str(config.model.num_slots + 1), "room for one more"),
            halve(config, "mask_latent_size", "masks of one piece")
            if by_colour
            else halve(config, "component_decoder_channels", "components of one object"),
            *dearer_kl(config),
        ),
    )


def reconstruction_not_learnt(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """The reconstruction is no better than a picture that shows no objects."""
    sight, config = _sight(evidence), evidence.config
    for name, mse, severity, means in (
        ("the mean of all images", sight.mse_mean_image, "error", "nothing is learnt"),
        ("each image's median colour", sight.mse_flat, "warning", "only the background is"),
    ):
        if not sight.mse < limits.max_relative_mse * mse:
            chosen: Literal["error", "warning"] = "error" if severity == "error" else "warning"
            return Finding(
                "reconstruction_not_learnt",
                chosen,
                f"The squared error is {sight.mse:.4f}, that of {name} {mse:.4f}: {means}.",
                f"squared error / that of {name}",
                sight.mse / mse if mse else math.inf,
                f"below {limits.max_relative_mse:g}",
                knobs(
                    config,
                    *cheaper_kl(config),
                    Knob("learning_rate", "0.001", "with --warmup-steps 100: worked at 32 px"),
                    Knob("foreground_weight", "8", "objects count more at first"),
                ),
            )
    return None


def encoder_lags(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Gradient steps find latents that fit the images much better than the encoder's."""
    sight, config = _sight(evidence), evidence.config
    if math.isnan(sight.mse_refined):
        raise CannotTellError("the model's latents cannot be refined")
    share = 1 - sight.mse_refined / sight.mse if sight.mse else 0.0
    if not share > limits.max_encoder_gap:
        return None
    floor = getattr(config.model, "posterior_sigma_floor", 0.0)
    lower = Knob(
        "model.posterior_sigma_floor",
        number(floor / 4),
        "what differs less than the noise is not learned; once slots are apart, with --init",
    )
    last = evidence.updates[-1:] or [{"step": config.steps}]
    return Finding(
        "encoder_lags",
        "note",
        f"The encoder lags behind its decoders: {REFINING_STEPS} gradient steps on the latents "
        f"take away {share:.0%} of the squared error. SlotEncoder(..., refine_steps=3) makes some.",
        "share of the squared error that refinement takes away",
        share,
        f"at most {limits.max_encoder_gap:g}",
        knobs(config, lower if floor > _NOISE else None, *longer(config, last[0])),
    )


def no_better_than_grid(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """The segmentation is no better than one that never saw the image."""
    sight, config = _objects(evidence), evidence.config
    name, blind = max(
        ((name, sight.msc_baselines[name]) for name in ("one_slot", "fixed_grid")),
        key=lambda pair: pair[1],
    )
    if math.isnan(sight.msc):
        raise CannotTellError("no image has an object")
    if sight.msc > blind + limits.grid_margin:
        return None
    return Finding(
        "no_better_than_grid",
        "error",
        f"The segmentation (mSC {sight.msc:.3f}) is no better than {name.replace('_', ' ')} for "
        f"every image ({blind:.3f}). Its foreground ARI may look high all the same: a grid's does.",
        "mSC",
        sight.msc,
        f"above {blind + limits.grid_margin:.3f}",
        knobs(
            config,
            *cheaper_kl(config),
            Knob("model.mask_logit_bias", "-4", "leaves the background to one slot early"),
            Knob("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
        ),
    )


def no_better_than_palette(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Telling pixels apart by their exact colour segments better."""
    sight = _objects(evidence)
    palette = sight.msc_baselines["colour_palette"]
    if not sight.msc <= palette:
        return None
    return Finding(
        "no_better_than_palette",
        "note",
        f"The segmentation (mSC {sight.msc:.3f}) is no better than each pixel's exact colour as "
        f"its slot ({palette:.3f}). On flat sprites that is hard to beat; scores on such images "
        "say little about objects.",
        "mSC",
        sight.msc,
        f"above {palette:.3f}",
    )


def _collapse(evidence: Evidence, limits: Thresholds, kind: Literal["m", "c"]) -> Finding | None:
    sight, config = _sight(evidence), evidence.config
    word = "mask" if kind == "m" else "component"
    if not sight.latent_sizes[kind == "c"]:
        raise CannotTellError(f"the model has no {word} latents")
    kl = sight.kl_m if kind == "m" else sight.kl_c
    variance = sight.variance_m if kind == "m" else sight.variance_c
    dead = variance < limits.min_variance
    if not dead and kl >= limits.min_kl:
        return None
    lost = "where things are" if kind == "m" else "what things look like"
    return Finding(
        f"{word}_posterior_collapse",
        "error",
        f"z_{kind} tells nothing about {lost}: its KL is {kl:.2f} nats per image, and its most "
        f"active dimension varies by {variance:.2g} over images (below {limits.min_variance:g} is "
        "dead).",
        "largest variance of a posterior mean over images" if dead else "KL per image in nats",
        variance if dead else kl,
        f"at least {limits.min_variance if dead else limits.min_kl:g}",
        knobs(config, *cheaper_kl(config)),
    )


def _sight(evidence: Evidence) -> Sight:
    if evidence.sight is None:
        raise CannotTellError("the model was not looked at")
    if not evidence.sight.finite:
        raise CannotTellError("the model is not finite")
    return evidence.sight


def _slots(evidence: Evidence) -> Sight:
    sight = _sight(evidence)
    if sight.num_slots < 2:
        raise CannotTellError("the model has one slot")
    return sight


def _objects(evidence: Evidence) -> Sight:
    sight = _slots(evidence)
    if math.isnan(sight.num_segments):
        raise CannotTellError("the images have no true masks")
    return sight
