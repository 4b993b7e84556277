"""Thresholds of the checks, each with its reason."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the checks.

    "Own runs" are the project's trainings on sprite scenes at 32 and 64 px (docs/notes/demo.md has
    some). Thresholds derived from them rest on few seeds, so all are configurable.
    """

    min_active_slots: float = 1.5
    """fewest slots with at least 1 % of an image's pixels, mean over images; below it, one slot
    explains most images whole. Objects of the published tasks cover at least 1.6 %"""
    min_background_share: float = 0.8
    """smallest share of the background in its largest slot: own runs that later separated objects
    had passed it; runs that split the image by position had not"""
    max_mask_entropy: float = 0.5
    """largest entropy of a pixel's mask probabilities divided by log K; at 0.5 each pixel is spread
    over sqrt(K) slots, as before training"""
    max_objects_lost: float = 0.15
    """largest share of objects that are assigned to the background's slot and not drawn by it; one
    object in a scene of six is 0.17"""
    max_background_drawn_objects: float = 0.15
    """largest share of objects drawn by the background's component; one object in a scene of six is
    0.17"""
    min_drawn_contrast: float = 0.5
    """smallest share of an object's squared difference from the background that the background's
    component must remove for the object to count as drawn by it"""
    max_merged_objects: float = 0.3
    """largest share of pairs of objects in one slot: a fixed grid has 0.05 on the published tasks;
    own runs that segmented by colour had 0.4 to 0.6 of the same-coloured pairs"""
    min_kl: float = 1.0
    """smallest KL of the mask or component latents per image, in nats; 1 nat distinguishes fewer
    than e = 2.7 images"""
    min_variance: float = 0.01
    """variance over images of a latent's posterior mean above which the latent is active (Burda,
    Grosse, Salakhutdinov 2016, section 5.2)"""
    max_kl: float = 2000.0
    """largest KL per image in nats: own runs beyond it did not recover; successful ones had 50 to
    800"""
    beta_low: float = 1e-6
    """beta below which the KL has practically no weight: beta * max_kl is then 0.002 nats per
    image"""
    beta_high: float = 1e3
    """beta above which GECO's constraint has no effect: the clipping limit of
    github.com/pemami4911/genesis.pytorch"""
    goal_margin: float = 0.0032
    """distance of the paper's goal from the smallest possible error, in nats per pixel and channel:
    0.5655 - (log 0.7 + 0.5 log 2 pi); it corresponds to a mean squared error of 0.0031, which the
    goals suggested for other sigma_x keep"""
    early_goal_fraction: float = 0.01
    """fraction of the training before which a goal that is met has no effect"""
    max_amortisation_gap: float = 0.2
    """largest share of the squared error that five gradient steps on the latents remove: own runs
    on small sprites with posterior noise of 0.2 had 0.31 to 0.37; runs on larger sprites, limited
    by their decoders, had 0.13"""
    max_relative_mse: float = 0.9
    """largest squared error relative to an image without objects (the mean of all images, or each
    image's median colour)"""
    min_updates: int = 2_000
    """fewest updates at 32 px: own runs began to separate objects after 2,000 to 3,000"""
    min_updates_large: int = 20_000
    """fewest updates above 32 px: own runs at 64 px had separated nothing after 2,000; the paper
    uses 500,000"""
    max_late_decrease: float = 0.2
    """relative decrease of the validation's squared error over the last third of the training above
    which the training has not converged"""
    max_overfit: float = 0.1
    """increase of the validation's nll from its minimum, relative to its decrease until then, above
    which the model is overfitted, if the training's nll kept decreasing"""
    grid_margin: float = 0.02
    """smallest difference of mSC to a fixed grid's: the variation between two sets of 300
    validation images"""

    def __post_init__(self) -> None:
        """Validate values."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 0:
                raise ValueError(f"{field.name} must be at least 0, got {value}.")
