"""Checks of a model's masks, components and latents on held-out images."""

import math
from typing import Literal

from genesis_rl.evaluation.diagnostics.findings import (
    CheckSkippedError,
    Finding,
    Suggestion,
    Thresholds,
    applicable,
    auto_preset,
    half_size,
    higher_final_beta,
    longer,
    lower_beta,
    number,
    smaller_sigma,
)
from genesis_rl.evaluation.diagnostics.model_statistics import (
    REFINE_STEPS,
    CheckInputs,
    ModelStatistics,
)

# Standard deviation of the posterior below which encoders of own runs still learned.
_NOISE = 0.05


def one_slot(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that more than one slot explains an image."""
    stats = _slots(inputs)
    if stats.active_slots >= thresholds.min_active_slots:
        return None
    config = inputs.config
    return Finding(
        "one_slot",
        "error",
        f"One slot explains the whole image: {stats.active_slots:.2f} of {stats.num_slots} slots "
        "cover at least 1 % of its pixels.",
        "slots with at least 1 % of the pixels, mean over images",
        stats.active_slots,
        f"at least {thresholds.min_active_slots:g}",
        applicable(
            config,
            auto_preset(config),
            *lower_beta(config),
            half_size(config, "component_decoder_channels", "limits what one component can draw"),
            Suggestion("foreground_weight", "8", "weights small objects more at first"),
            Suggestion("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
        ),
    )


def background_split(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that one slot explains the background."""
    stats, config = _slots(inputs), inputs.config
    if math.isnan(stats.background_share):
        raise CheckSkippedError("the images have neither masks nor a common background colour")
    if stats.background_share >= thresholds.min_background_share:
        return None
    source = "" if stats.background_masks else " (pixels of the median colour)"
    return Finding(
        "background_split",
        "warning",
        f"Slots split the background{source}: the largest covers {stats.background_share:.0%} of "
        "it. Segments may be regions of the image, not objects.",
        "share of the background in its largest slot",
        stats.background_share,
        f"at least {thresholds.min_background_share:g}",
        applicable(
            config,
            Suggestion("model.mask_logit_bias", "-4", "assigns the background to one slot early"),
            *higher_final_beta(config),
            Suggestion("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
            half_size(config, "mask_latent_size", "limits the detail of masks"),
        ),
    )


def soft_masks(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that pixels are assigned to single slots."""
    stats = _slots(inputs)
    if not stats.mask_entropy > thresholds.max_mask_entropy:
        return None
    return Finding(
        "soft_masks",
        "warning",
        f"Slots share pixels: a pixel is spread over {stats.num_slots**stats.mask_entropy:.1f} of "
        f"{stats.num_slots} slots.",
        "entropy of a pixel's mask probabilities / log K",
        stats.mask_entropy,
        f"at most {thresholds.max_mask_entropy:g}",
        applicable(
            inputs.config,
            Suggestion("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
            smaller_sigma(inputs.config, "penalises a wrong component more"),
            *lower_beta(inputs.config),
        ),
    )


def dead_slots(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that every slot is used in some image."""
    stats = _slots(inputs)
    if not stats.dead_slots or stats.active_slots < thresholds.min_active_slots:
        return None  # the latter is reported by one_slot
    alive = stats.num_slots - stats.dead_slots
    lacking = alive < stats.num_segments  # False with NaN, without true masks
    needed = "" if math.isnan(stats.num_segments) else f" of {stats.num_segments:.1f} segments"
    return Finding(
        "dead_slots",
        "warning" if lacking else "note",
        f"{stats.dead_slots} of {stats.num_slots} slots cover 1 % of the pixels in no image. "
        f"{alive} remain for scenes{needed}" + (", too few for one each." if lacking else "."),
        "unused slots",
        stats.dead_slots,
        "0",
        applicable(
            inputs.config,
            Suggestion("model.mask_logit_bound", "5", "gives every slot a share of every pixel"),
            *(lower_beta(inputs.config) if lacking else ()),
            None if lacking else Suggestion("model.num_slots", str(alive), "the slots in use"),
        ),
    )


def mask_posterior_collapse(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the mask latents depend on the image."""
    return _collapse(inputs, thresholds, "m")


def component_posterior_collapse(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the component latents depend on the image."""
    return _collapse(inputs, thresholds, "c")


def objects_lost(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that objects are reconstructed."""
    stats, config = _objects(inputs), inputs.config
    if not stats.lost > thresholds.max_objects_lost:
        return None
    return Finding(
        "objects_lost",
        "warning",
        f"{stats.lost:.0%} of the objects are assigned to the background's slot and missing from "
        "the reconstruction.",
        "share of objects in the background's slot, not drawn",
        stats.lost,
        f"at most {thresholds.max_objects_lost:g}",
        applicable(
            config,
            auto_preset(config),
            Suggestion("foreground_weight", "8", "weights small objects more at first"),
            smaller_sigma(config, "penalises missing objects more"),
            *lower_beta(config),
        ),
    )


def drawn_by_background(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the background's component draws no objects."""
    stats, config = _objects(inputs), inputs.config
    share = stats.lost_drawn + stats.taken_drawn
    if not share > thresholds.max_background_drawn_objects:
        return None
    return Finding(
        "drawn_by_background",
        "warning",
        f"The background's component draws {share:.0%} of the objects: {stats.lost_drawn:.0%} have "
        f"no slot of their own, {stats.taken_drawn:.0%} have one that contains the mask only. "
        "Their appearance is encoded in the background's slot.",
        "share of objects drawn by the background's component",
        share,
        f"at most {thresholds.max_background_drawn_objects:g}",
        applicable(
            config,
            half_size(config, "component_latent_size", "limits what one component can draw"),
            half_size(config, "component_decoder_channels", "limits what one component can draw"),
            *higher_final_beta(config),
            Suggestion("model.num_slots", str(config.model.num_slots + 1), "one more slot"),
        ),
    )


def objects_merged(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that objects have slots of their own."""
    stats, config = _objects(inputs), inputs.config
    same, other = stats.same_colour_shared, stats.other_colour_shared
    pairs = {"pairs of one colour": same, "pairs of two colours": other}
    shares = {name: share for name, share in pairs.items() if not math.isnan(share)}
    if not shares:
        raise CheckSkippedError("no image has two objects")
    most = max(shares.values())
    if not most > thresholds.max_merged_objects:
        return None
    listed = " and ".join(f"{share:.0%} of the {name}" for name, share in shares.items())
    by_colour = same > thresholds.max_merged_objects and not other > same / 2
    return Finding(
        "objects_merged",
        "warning",
        f"Objects share slots: {listed}." + (" The slots segment by colour." if by_colour else ""),
        "share of pairs of objects in one slot",
        most,
        f"at most {thresholds.max_merged_objects:g}",
        applicable(
            config,
            Suggestion("model.num_slots", str(config.model.num_slots + 1), "one more slot"),
            half_size(config, "mask_latent_size", "favours connected masks")
            if by_colour
            else half_size(config, "component_decoder_channels", "favours single objects"),
            *higher_final_beta(config),
        ),
    )


def reconstruction_not_learnt(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the reconstruction is better than an image without objects."""
    stats, config = _statistics(inputs), inputs.config
    for name, mse, severity, meaning in (
        ("the mean of all images", stats.mse_mean_image, "error", "nothing is learned"),
        ("each image's median colour", stats.mse_flat, "warning", "only the background is learned"),
    ):
        if not stats.mse < thresholds.max_relative_mse * mse:
            chosen: Literal["error", "warning"] = "error" if severity == "error" else "warning"
            return Finding(
                "reconstruction_not_learnt",
                chosen,
                f"The squared error is {stats.mse:.4f}, that of {name} {mse:.4f}: {meaning}.",
                f"squared error / that of {name}",
                stats.mse / mse if mse else math.inf,
                f"below {thresholds.max_relative_mse:g}",
                applicable(
                    config,
                    auto_preset(config),
                    *lower_beta(config),
                    Suggestion("learning_rate", "0.001", "with --warmup-steps 100, for 32 px"),
                    Suggestion("foreground_weight", "8", "weights objects more at first"),
                ),
            )
    return None


def amortisation_gap(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that refinement of the encoder's latents reduces the error only a little."""
    stats, config = _statistics(inputs), inputs.config
    if math.isnan(stats.mse_refined):
        raise CheckSkippedError("the model's latents cannot be refined")
    share = 1 - stats.mse_refined / stats.mse if stats.mse else 0.0
    if not share > thresholds.max_amortisation_gap:
        return None
    floor = getattr(config.model, "posterior_sigma_min", 0.0)
    lower = Suggestion(
        "model.posterior_sigma_min",
        number(floor / 4),
        "differences below the noise are not learned; once objects are separated, with --init",
    )
    last = inputs.updates[-1:] or [{"step": config.steps}]
    return Finding(
        "amortisation_gap",
        "note",
        f"The encoder limits the reconstruction: {REFINE_STEPS} gradient steps on the latents "
        f"remove {share:.0%} of the squared error. SlotEncoder(..., refine_steps=3) refines them.",
        "share of the squared error removed by refinement",
        share,
        f"at most {thresholds.max_amortisation_gap:g}",
        applicable(config, lower if floor > _NOISE else None, *longer(config, last[0])),
    )


def no_better_than_grid(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the segmentation is better than one independent of the image."""
    stats, config = _objects(inputs), inputs.config
    name, baseline = max(
        ((name, stats.msc_baselines[name]) for name in ("one_slot", "fixed_grid")),
        key=lambda pair: pair[1],
    )
    if math.isnan(stats.msc):
        raise CheckSkippedError("no image has an object")
    threshold = baseline + thresholds.grid_margin
    if stats.msc > threshold:
        return None
    return Finding(
        "no_better_than_grid",
        "error",
        f"The segmentation (mSC {stats.msc:.3f}) is no better than {name.replace('_', ' ')} for "
        f"every image ({baseline:.3f}). A high foreground ARI does not contradict this: a grid "
        "has one too.",
        "mSC",
        stats.msc,
        f"above {threshold:.3f}",
        applicable(
            config,
            *lower_beta(config),
            Suggestion("model.mask_logit_bias", "-4", "assigns the background to one slot early"),
            Suggestion("model.mixture", "pixel", "a slot must explain a pixel's whole colour"),
        ),
    )


def no_better_than_palette(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the segmentation is better than one by exact colour."""
    stats = _objects(inputs)
    palette = stats.msc_baselines["colour_palette"]
    if not stats.msc <= palette:
        return None
    return Finding(
        "no_better_than_palette",
        "note",
        f"The segmentation (mSC {stats.msc:.3f}) is no better than one by exact colour "
        f"({palette:.3f}), a strong baseline on uniformly coloured sprites. Scores on such images "
        "do not measure object discovery.",
        "mSC",
        stats.msc,
        f"above {palette:.3f}",
    )


def _collapse(
    inputs: CheckInputs, thresholds: Thresholds, kind: Literal["m", "c"]
) -> Finding | None:
    stats, config = _statistics(inputs), inputs.config
    word = "mask" if kind == "m" else "component"
    if not stats.latent_sizes[kind == "c"]:
        raise CheckSkippedError(f"the model has no {word} latents")
    kl = stats.kl_m if kind == "m" else stats.kl_c
    variance = stats.variance_m if kind == "m" else stats.variance_c
    dead = variance < thresholds.min_variance
    if not dead and kl >= thresholds.min_kl:
        return None
    lost = "where objects are" if kind == "m" else "the appearance of objects"
    return Finding(
        f"{word}_posterior_collapse",
        "error",
        f"z_{kind} does not encode {lost}: its KL is {kl:.2f} nats per image, and the variance of "
        f"its most active dimension over images {variance:.2g} (inactive below "
        f"{thresholds.min_variance:g}).",
        "largest variance of a posterior mean over images" if dead else "KL per image in nats",
        variance if dead else kl,
        f"at least {thresholds.min_variance if dead else thresholds.min_kl:g}",
        applicable(config, *lower_beta(config)),
    )


def _statistics(inputs: CheckInputs) -> ModelStatistics:
    if inputs.statistics is None:
        raise CheckSkippedError("no model was evaluated")
    if not inputs.statistics.finite:
        raise CheckSkippedError("the model is not finite")
    return inputs.statistics


def _slots(inputs: CheckInputs) -> ModelStatistics:
    stats = _statistics(inputs)
    if stats.num_slots < 2:
        raise CheckSkippedError("the model has one slot")
    return stats


def _objects(inputs: CheckInputs) -> ModelStatistics:
    stats = _slots(inputs)
    if math.isnan(stats.num_segments):
        raise CheckSkippedError("the images have no true masks")
    return stats
