"""From where on the doctor speaks: every threshold with its reason."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Thresholds:
    """Limits of the checks.

    "Own runs" are the project's trainings on sprite scenes at 32 and 64 px (docs/notes/demo.md has
    some): leads from few seeds, not laws, which is why they can be changed.
    """

    min_active_slots: float = 1.5
    """fewest slots with at least 1 % of an image's pixels, on average: below, most images have one
    slot for everything. 1 % is less than one object of the published tasks takes (1.6 %)"""
    min_background_share: float = 0.8
    """least share of the background in its largest slot: own runs that later found the objects had
    passed it, those that stayed below ("territories") had not"""
    max_mask_entropy: float = 0.5
    """largest entropy of a pixel's mask probabilities, as a share of log K: at 0.5 each pixel is
    spread over sqrt(K) slots, as before training"""
    max_objects_lost: float = 0.15
    """largest share of objects in the background's slot that nothing draws: one object of a scene
    of six is 0.17"""
    max_objects_painted: float = 0.15
    """largest share of objects drawn by the background's component: one of six, as above; the
    agent of the demo's scenes, one of four, is 0.25"""
    drawn: float = 0.5
    """share of an object's contrast to the background (squared difference) from which on it counts
    as drawn by the background's component"""
    max_objects_merged: float = 0.3
    """largest share of pairs of objects in one slot: a fixed grid, which knows nothing, has 0.05
    on the published tasks' scenes; own runs that bound by colour had 0.4 to 0.6 of the
    same-coloured pairs"""
    min_kl: float = 1.0
    """least KL of a kind of latent per image, in nats: it bounds what the latents tell about the
    image, and 1 nat tells fewer than e = 2.7 images apart"""
    min_variance: float = 0.01
    """variance over images of a latent's posterior mean from which on it is active (Burda, Grosse,
    Salakhutdinov 2016, section 5.2)"""
    max_kl: float = 2000.0
    """largest KL per image in nats: own runs beyond it did not come back; those that worked had 50
    to 800"""
    beta_low: float = 1e-6
    """beta below which the KL is practically free: beta * max_kl is then 0.002 nats per image; own
    runs without a floor under beta went to 1e-8 and thousands of nats"""
    beta_high: float = 1e3
    """beta above which GECO's constraint no longer moves anything: where others clip GECO's weight
    (github.com/pemami4911/genesis.pytorch)"""
    goal_margin: float = 0.0032
    """what the paper's goal leaves above the least possible error, in nats per pixel and channel:
    0.5655 - (log 0.7 + 0.5 log 2 pi); the goal that is advised for another sigma keeps the mean
    squared error which this stands for, 0.0031"""
    goal_at_once: float = 0.01
    """share of the training before which a met goal asks for nothing"""
    max_encoder_gap: float = 0.2
    """largest share of the squared error that five gradient steps on the latents take away: own
    runs on small sprites whose noise floor of 0.2 held the encoder back had 0.31 to 0.37, those on
    larger ones, limited by their decoders, 0.13"""
    max_relative_mse: float = 0.9
    """largest squared error as a share of that of a picture without objects (the mean of all
    images, or each image's median colour): above, next to nothing is reconstructed"""
    min_updates: int = 2_000
    """fewest updates at 32 px: own runs left the stage of "territories" after 2,000 to 3,000"""
    min_updates_large: int = 20_000
    """fewest updates above 32 px: own runs at 64 px had found nothing after 2,000; the paper's have
    500,000"""
    still_falling: float = 0.2
    """fall of the validation's squared error over the last third of the training from which on the
    training ended too soon"""
    overfit: float = 0.1
    """rise of the validation's nll from its minimum, as a share of its fall until then, from which
    on the model is overfitted, if the training's own kept falling"""
    grid_margin: float = 0.02
    """how much mSC must lie above a fixed grid's: as much as it moves between two sets of 300
    validation images"""

    def __post_init__(self) -> None:
        """Check values."""
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(
                    f"{field.name} is {getattr(self, field.name)}; wanted a value >= 0."
                )
