"""Named settings for pretrain/train.py: instances of PretrainConfig, changed by flags."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from genesis_rl.models import (
    MODELS,
    BdVaeConfig,
    DcVaeConfig,
    GenesisConfig,
    GenesisSConfig,
    GenesisV2Config,
    IodineConfig,
    ModelConfig,
    MonetConfig,
)
from genesis_rl.models.geco import GecoConfig
from genesis_rl.training import PretrainConfig

# Half the paper's channels: a tenth of the work at 32 px of a paper-size model at 64 px.
_SMALL = GenesisConfig(
    image_size=32,
    encoder_channels=(16, 16, 32, 32, 32),
    decoder_channels=(32, 16, 16, 16, 16),
    component_encoder_channels=(16, 16, 32, 32),
    component_decoder_channels=16,
    feature_size=128,
    component_encoder_size=128,
    prior_lstm_size=128,
    prior_mlp_size=128,
)


class Preset(NamedTuple):
    """Settings with a line on what they are for, and those of the stages before, if any."""

    about: str
    config: PretrainConfig
    before: tuple[PretrainConfig, ...] = ()


_PAPER = PretrainConfig(out=Path("runs/multi-dsprites"))
_SHORT = PretrainConfig(
    model=_SMALL,
    data_options=json.dumps({"image_size": 32}),
    steps=50_000,
    batch_size=16,
    learning_rate=1e-3,
    warmup_steps=100,
    schedule="cosine",
    geco=GecoConfig(step_size=1e-4, beta_init=1e-3, beta_min=1e-3),
    eval_every=2_500,
    save_every=500,
    out=Path("runs/multi-dsprites-small"),
)

# The other models at the size of _SMALL; those of the paper train as GENESIS does.
_VAE_SMALL: dict[str, Any] = {
    "image_size": 32,
    "encoder_channels": _SMALL.encoder_channels,
    "feature_size": _SMALL.feature_size,
}
_OTHERS: dict[str, tuple[str, ModelConfig, dict[str, Any]]] = {
    "genesis_s": (
        "GENESIS-S",
        GenesisSConfig(
            image_size=32,
            encoder_channels=_SMALL.encoder_channels,
            decoder_channels=_SMALL.decoder_channels,
            component_decoder_channels=16,
            feature_size=128,
            prior_lstm_size=128,
        ),
        {},
    ),
    "monet": (
        "MONet",
        MonetConfig(
            image_size=32,
            attention_channels=16,
            component_encoder_channels=_SMALL.component_encoder_channels,
            component_encoder_size=128,
            component_decoder_channels=16,
        ),
        {},
    ),
    "bd_vae": ("BD-VAE", BdVaeConfig(**_VAE_SMALL, decoder_channels=32), {}),
    "dc_vae": (
        "DC-VAE",
        DcVaeConfig(**_VAE_SMALL, decoder_channels=_SMALL.decoder_channels),
        {},
    ),
    "genesis_v2": (
        "GENESIS-V2",
        GenesisV2Config(
            image_size=32, encoder_channels=32, decoder_channels=32, prior_lstm_size=128
        ),
        {},
    ),
    "iodine": (
        "IODINE",
        IodineConfig(
            image_size=32,
            kernel_size=3,
            decoder_channels=16,
            refinement_channels=(16, 16, 16),
            refinement_size=64,
            refinement_lstm_size=64,
        ),
        {"objective": "elbo", "clip_norm": 5.0, "learning_rate": 3e-4},
    ),
}

# What a model's authors train with, where it is not what GENESIS is trained with. Greff et al.'s
# learning rate is 3e-4 for a batch of 128, and goes with the root of the batch's size.
_TRAINING: dict[str, dict[str, Any]] = {
    "iodine": {"objective": "elbo", "clip_norm": 5.0, "learning_rate": 1.5e-4},
}
# Fields that do not say how large a model is.
_SHARED = ("image_size", "num_slots", "sigma_x", "mixture", "posterior_sigma_min")

#: Options of genesis_rl/ObjectComparison-v0 (and of its scenes) for the demonstration: few, large
#: objects, of which all but one are identical.
DEMO_WORLD: dict[str, Any] = {
    "image_size": 64,
    "num_objects": 3,
    "object_scale": 0.2,
    "agent_scale": 0.2,
}


# Sprites are of one colour each, and there are many alike. A component of one colour leaves every
# edge to the masks; a broadcast mask decoder moves a mask by moving a latent; a posterior that
# starts out sure says something from the first update on; and 8 latents with a noise of at least .2
# hold about one object, so that two in a slot cost more than two slots.
_SPRITES = replace(
    _SMALL,
    num_slots=6,
    mask_latent_size=8,
    component_latent_size=4,
    mask_decoder="broadcast",
    mask_broadcast_channels=16,
    component_decoder="flat",
    decoder_channels=(32, 16, 16, 8, 8),
    sigma_x=0.3,
    mixture="pixel",
    posterior_sigma_min=0.2,
    posterior_sigma_bias=-2.0,
    # At first the last slot has all of the background: with -2 another one kept a share for good in
    # one seed of three.
    mask_logit_bias=-4.0,
)
_LARGE_SPRITES = PretrainConfig(
    model=_SPRITES,
    data="sprite_scenes",
    data_options=json.dumps(
        {
            "image_size": 32,
            "object_scale": 0.3,
            "num_objects": 4,
            "centre_distance": 0.25,
            "colours": ["blue", "lime", "yellow", "red"],
            "background": "grey",
        }
    ),
    steps=3_000,
    batch_size=16,
    learning_rate=1e-3,
    warmup_steps=100,
    schedule="cosine",
    objective="elbo",
    beta=0.02,
    beta_end=0.2,
    beta_anneal_fraction=0.2,
    eval_every=500,
    eval_images=300,
    save_every=500,
    out=Path("runs/sprites-large"),
)


def _task_scenes(centre_distance: float, image_size: int = 32, num_images: int = 200_000) -> str:
    """Options of the relational tasks' published scenes with a least distance of centres."""
    return json.dumps(
        {
            "image_size": image_size,
            "num_images": num_images,
            "centre_distance": centre_distance,
            "wall_margin": 0.02,
        }
    )


_LIKE_SPRITES = replace(
    _LARGE_SPRITES,
    # Five objects and the background, and one to spare.
    model=replace(_SPRITES, num_slots=7),
    init="runs/sprites-large",
    # The published scenes, but no two objects touch, as at the start of the tasks.
    data_options=_task_scenes(0.23),
    steps=36_000,
    beta=0.2,
    beta_end=0.03,
    beta_anneal_fraction=0.7,
    eval_every=2_000,
    save_every=1_000,
    out=Path("runs/sprites"),
)

_FLAT_MULTI_DSPRITES = replace(
    _LARGE_SPRITES,
    model=replace(_SPRITES, num_slots=5),
    init="runs/sprites-large",
    data="multi_dsprites",
    data_options=json.dumps({"image_size": 32}),
    steps=12_000,
    learning_rate=2e-3,
    # Low until masks have moved to the objects; then high, so that a slot without an object is
    # worth leaving empty instead of sharing another's.
    beta=0.05,
    beta_end=0.3,
    beta_anneal_fraction=0.15,
    eval_every=1_000,
    out=Path("runs/multi-dsprites-flat"),
)


# Scenes of compact objects before a background that can be predicted from the frame: the background
# is learned first, then frozen, and slots attend to what differs from it.
_OBJECTS = GenesisConfig(
    num_slots=9,
    mask_latent_size=16,
    component_latent_size=8,
    background="predicted",
    posterior="attention",
    posterior_passes=2,
    prior_components=8,
    mask_decoder="local",
    component_decoder="shaded",
    sigma_x=0.12,
    mixture="pixel",
    posterior_sigma_min=0.01,
    posterior_sigma_bias=-2.0,
    prior_lstm_size=128,
    prior_mlp_size=128,
)
_SCENES = PretrainConfig(
    model=_OBJECTS,
    data="towers",
    data_options=json.dumps({"image_size": 64, "scenarios": 1600}),
    trained_modules="objects",
    objective="elbo",
    steps=2_400,
    batch_size=16,
    learning_rate=2e-3,
    schedule="cosine",
    clip_norm=500.0,
    beta=0.02,
    beta_end=0.05,
    beta_anneal_fraction=0.7,
    sigma_x_start=0.25,
    likelihood_stride=2,
    precision="fp32",
    eval_every=600,
    eval_images=300,
    save_every=200,
    out=Path("runs/towers"),
)
_MANY_TOWERS = json.dumps({"image_size": 64, "scenarios": 4500})
_BACKGROUND = replace(
    _SCENES,
    trained_modules="background",
    steps=3_000,
    batch_size=48,
    warmup_steps=500,
    clip_norm=50.0,
    beta=0.002,
    beta_end=None,
    sigma_x_start=None,
    likelihood_stride=1,
    eval_every=1_000,
)

# Blocks are of six hues, and cast shadows on textured floors and walls.
_TOWERS = replace(
    _OBJECTS,
    foreground_threshold=0.03,
    shadow_brightness=0.5,
    background_displacement=1,
    least_area=0.01,
    merge_distance=0.45,
)

_MULTI_DSPRITES_64: dict[str, Any] = {
    "model": replace(
        _OBJECTS, num_slots=6, object_size=0.43, hue_distance=0.25, merge_hue_distance=0.08
    ),
    "data": "multi_dsprites",
    "data_options": json.dumps({"image_size": 64}),
}

# The arm is part of the background, which is learned without objects first. What the network cannot
# predict of it takes slots of its own.
_FETCH: dict[str, Any] = {
    "model": replace(_OBJECTS, num_slots=12, object_size=0.25, seed_threshold=0.2),
    "data": "fetch",
    "data_options": json.dumps({"image_size": 64}),
}
# The nearest objects are ten times as large as the farthest, so that only hues and borders
# distinguish two small objects from one large object.
_ROOMS: dict[str, Any] = {
    "model": replace(
        _OBJECTS,
        num_slots=7,
        object_size=0.8,
        hue_distance=0.25,
        merge_hue_distance=0.08,
        seed_threshold=0.2,
        foreground_threshold=0.06,
        least_area=0.01,
        slot_order="bottom_up",
    ),
    "data": "rooms",
    "data_options": json.dumps({"image_size": 64, "num_images": 20_000}),
}
_EMPTY_TABLE = json.dumps({"image_size": 64, "num_images": 8_000, "empty_table": True})


def _small_preset(model: str) -> str:
    """Name of the small preset of a model of MODELS."""
    name = "multi-dsprites" if model == "genesis" else model.replace("_", "-")
    return f"{name}-small"


#: Preset whose settings are completed by those inferred from the images, see `training.auto`.
AUTO = "auto"

PRESETS: dict[str, Preset] = {
    "multi-dsprites": Preset(
        "the paper's GENESIS on Multi-dSprites, 64 px, K = 5: days on one GPU of 2019", _PAPER
    ),
    "multi-dsprites-s": Preset(
        "the paper's GENESIS-S on Multi-dSprites, 64 px, K = 5",
        replace(_PAPER, model=GenesisSConfig(), out=Path("runs/multi-dsprites-s")),
    ),
    "multi-dsprites-small": Preset(
        "GENESIS with half the channels, Multi-dSprites, 32 px: hours on a CPU", _SHORT
    ),
    **{
        _small_preset(name): Preset(
            f"{title} with half the channels, 32 px; otherwise as multi-dsprites-small",
            replace(_SHORT, model=model, out=Path("runs") / _small_preset(name), **changes),
        )
        for name, (title, model, changes) in _OTHERS.items()
    },
    "demo": Preset(
        "Object Comparison with large objects, 64 px, static background: minutes on a CPU",
        replace(
            _SCENES,
            model=replace(
                _OBJECTS,
                background="static",
                num_slots=5,
                object_size=0.4,
                # Flat objects, and few latents, whose prior is fitted in a minute.
                component_decoder="flat",
                mask_latent_size=10,
                component_latent_size=4,
                # Objects that do not touch need no accurate votes.
                attention_channels=8,
            ),
            data="object_comparison",
            data_options=json.dumps({**DEMO_WORLD, "num_images": 10_000}),
            steps=700,
            prior_steps=1_200,
            eval_every=350,
            out=Path("runs/demo/encoder"),
        ),
    ),
    "sprites-large": Preset(
        "large identical sprites on grey, 32 px: minutes on a CPU; stage 1 of sprites",
        _LARGE_SPRITES,
    ),
    "sprites": Preset(
        "the relational tasks' scenes, 32 px, in stages: an hour on a CPU",
        _LIKE_SPRITES,
        (_LARGE_SPRITES,),
    ),
    "sprites-sharp": Preset(
        "the same scenes with touching objects, in stages: two hours on a CPU",
        replace(
            _LIKE_SPRITES,
            # What differs less than the posterior's noise is not learned. It kept two objects from
            # sharing a slot; now that none do it would hold the encoder back.
            model=replace(_LIKE_SPRITES.model, posterior_sigma_min=0.03),
            init="runs/sprites",
            data_options=_task_scenes(0.16),
            beta=0.03,
            beta_end=0.01,
            out=Path("runs/sprites-sharp"),
        ),
        (_LARGE_SPRITES, _LIKE_SPRITES),
    ),
    "multi-dsprites-flat": Preset(
        "Multi-dSprites, 32 px, in stages: a quarter of an hour on a CPU",
        _FLAT_MULTI_DSPRITES,
        (_LARGE_SPRITES,),
    ),
    "multi-dsprites-sharp": Preset(
        "Multi-dSprites, 32 px, with shapes, in stages: half an hour on a CPU",
        replace(
            _FLAT_MULTI_DSPRITES,
            # A broadcast decoder finds objects but stays with discs; transposed convolutions, once
            # latents contain positions, learn shapes with a second posterior pass.
            model=replace(
                _SPRITES,
                num_slots=5,
                mask_decoder="deconvolution",
                mask_logit_bound=10.0,
                posterior_passes=2,
                posterior_sigma_min=0.05,
            ),
            init="runs/multi-dsprites-flat",
            reinit_modules=("corrector", "mask_decoder"),
            steps=10_000,
            # Below 2e-3 it stays with discs; there, without bounds, one run of two blew up.
            clip_norm=500.0,
            beta=0.1,
            beta_end=0.1,
            out=Path("runs/multi-dsprites-sharp"),
        ),
        (_LARGE_SPRITES, _FLAT_MULTI_DSPRITES),
    ),
    "towers": Preset(
        "towers of ShapeStacks, 64 px, background first: a quarter of an hour on one CPU core",
        replace(_SCENES, model=_TOWERS),
        (replace(_BACKGROUND, model=_TOWERS),),
    ),
    "towers-long": Preset(
        "towers with 50,000 images of 3,150 towers: one and a half hours on one CPU core",
        replace(
            _SCENES,
            model=_TOWERS,
            data_options=_MANY_TOWERS,
            steps=24_000,
            eval_every=4_000,
            save_every=1_000,
            out=Path("runs/towers-long"),
        ),
        (
            replace(
                _BACKGROUND,
                model=_TOWERS,
                data_options=_MANY_TOWERS,
                steps=12_000,
                warmup_steps=2_000,
                eval_every=4_000,
            ),
        ),
    ),
    "sprites-64": Preset(
        "the relational tasks' scenes, 64 px, static background: ten minutes on one CPU core",
        replace(
            _SCENES,
            model=replace(_OBJECTS, background="static", num_slots=8, object_size=0.3),
            data="sprite_scenes",
            data_options=_task_scenes(0.16, image_size=64, num_images=40_000),
            prior_steps=1_500,
            out=Path("runs/sprites-64"),
        ),
    ),
    AUTO: Preset(
        "your own images or recordings: background, slots and object size from the images",
        replace(
            _SCENES,
            model=replace(_OBJECTS, slot_order="hue"),
            data_options="{}",
            out=Path("runs/auto"),
        ),
        (replace(_BACKGROUND, data_options="{}"),),
    ),
    "multi-dsprites-64": Preset(
        "Multi-dSprites, 64 px, background first: a quarter of an hour on one CPU core",
        replace(_SCENES, **_MULTI_DSPRITES_64, out=Path("runs/multi-dsprites-64")),
        (replace(_BACKGROUND, **_MULTI_DSPRITES_64),),
    ),
    "fetch": Preset(
        "multi-object Fetch, 64 px, empty table first: twenty minutes on one CPU core",
        replace(_SCENES, **_FETCH, steps=4_000, eval_every=1_000, out=Path("runs/fetch")),
        (
            replace(_BACKGROUND, **{**_FETCH, "data_options": _EMPTY_TABLE}),
            replace(_BACKGROUND, **_FETCH),
        ),
    ),
    "rooms": Preset(
        "rooms as in GQN, 64 px, background first: ten minutes on one CPU core",
        replace(
            _SCENES,
            **_ROOMS,
            steps=4_000,
            prior_steps=1_500,
            eval_every=1_000,
            out=Path("runs/rooms"),
        ),
        # Objects near the camera are too large to be outliers that a network cannot predict.
        (replace(_BACKGROUND, **_ROOMS, steps=5_000, occluders=4),),
    ),
    "smoke": Preset(
        "a few steps of a tiny model, as a check of the installation",
        replace(
            _SHORT,
            model=replace(
                _SMALL,
                num_slots=3,
                mask_latent_size=8,
                component_latent_size=4,
                encoder_channels=(4, 4, 4, 4, 4),
                decoder_channels=(4, 4, 4, 4, 4),
                component_encoder_channels=(4, 4),
                component_decoder_channels=4,
            ),
            data="object_goal",
            data_options=json.dumps({"image_size": 32, "num_images": 256, "num_objects": 2}),
            steps=20,
            batch_size=4,
            warmup_steps=0,
            log_every=5,
            eval_every=10,
            eval_images=16,
            save_every=5,
            out=Path("runs/smoke"),
        ),
    ),
}


def preset_config(preset: str, model: str | None = None) -> PretrainConfig:
    """The settings of a preset, for its own model or for another.

    With another model a "-small" preset gives the small preset of that model. Of any other preset
    the data and the training stay; the model is the small one at 32 px and its class's defaults
    above, with the preset's image size, slots and likelihood; what the model's authors train with
    (IODINE: ELBO, clipped gradients) and a folder of its own come on top.

    Args:
        preset: a name of PRESETS.
        model: a name of MODELS, hyphens allowed; None keeps the preset's.

    Raises:
        ValueError: if the preset or the model is unknown.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    config = PRESETS[preset].config
    if model is None:
        return config
    name = model.replace("-", "_")
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}.")
    if type(config.model) is MODELS[name][0]:
        return config
    small = PRESETS[_small_preset(name)].config
    if preset.endswith("-small"):
        return small
    changes, chosen = _TRAINING.get(name, {}), MODELS[name][0]()
    if config.model.image_size == small.model.image_size:
        changes = _OTHERS[name][2] if name in _OTHERS else {}
        chosen = small.model
    return replace(
        config,
        init=None,  # weights of the preset's own model
        reinit_modules=(),
        trained_modules="all",  # no other model has a background by default, or local masks
        likelihood_stride=1,
        prior_steps=0,
        model=replace(chosen, **_unlike_defaults(config.model, chosen)),
        out=config.out.with_name(f"{config.out.name}-{name.replace('_', '-')}"),
        **changes,
    )


def _unlike_defaults(model: ModelConfig, other: ModelConfig) -> dict[str, Any]:
    """Return the fields of _SHARED that both models have, with values other than the default."""
    default, names = type(model)(), {field.name for field in fields(other)}
    return {
        name: getattr(model, name)
        for name in _SHARED
        if name in names and getattr(model, name, None) not in (None, getattr(default, name, None))
    }
