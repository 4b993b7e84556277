"""The encoder of the settings: trained, or with random weights for comparison."""

from pathlib import Path

import torch

from genesis_rl.agents.config import AgentConfig
from genesis_rl.checkpoint import Pretrained, load_pretrained
from genesis_rl.frames import Preprocessing
from genesis_rl.models import MODELS
from genesis_rl.perception import SlotEncoder
from genesis_rl.presets import PRESETS
from genesis_rl.slots import SceneModel

# The models that obs asks for by a word.
_KINDS = {
    "genesis": ("genesis", "genesis_s", "genesis_v2"),
    "monet": ("monet",),
    "vae": ("bd_vae", "dc_vae"),
}


def load_encoder(config: AgentConfig) -> Pretrained | None:
    """Load the encoder of the settings, with new weights for obs random; None where none is used.

    Raises:
        ValueError: if it cannot be loaded, or is not of the kind that obs names.
    """
    if config.encoder is None:
        return None
    if config.obs == "random":
        return _random_encoder(config.encoder, config.seed)
    pretrained = load_pretrained(config.encoder, device="cpu")
    name = _model_name(pretrained.model)
    if name not in _KINDS.get(config.obs, (name,)):
        raise ValueError(
            f"encoder {config.encoder} is of the kind {name}; obs {config.obs!r} wants one of "
            f"{', '.join(_KINDS[config.obs])} (obs encoder takes any)."
        )
    return pretrained


def _random_encoder(source: str, seed: int) -> Pretrained:
    """A model as in a folder, on the Hub or in a preset, but as untrained as its seed made it."""
    if source in PRESETS and not Path(source).exists():
        like, preprocessing = PRESETS[source].config.model, Preprocessing()
        (cls,) = [cls for config_cls, cls in MODELS.values() if type(like) is config_cls]
    else:
        trained = load_pretrained(source, device="cpu")
        like, preprocessing = trained.model.config, trained.preprocessing
        cls = type(trained.model)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = cls(like).eval()
    return Pretrained(model, preprocessing, {"weights": f"random, of seed {seed}"})


def _model_name(model: SceneModel) -> str:
    """The model's name in MODELS; a student is of its teacher's kind."""
    model = getattr(model, "teacher", model)
    return next(name for name, (_, cls) in MODELS.items() if type(model) is cls)


def make_encoder(
    config: AgentConfig, model: SceneModel | Path, preprocessing: Preprocessing | None = None
) -> SlotEncoder:
    """Make the encoder as the settings want it, of a model in memory or a folder.

    Raises:
        ValueError: if the folder holds no model, or the device is unknown.
    """
    return SlotEncoder(
        model,
        device=config.encoder_device,
        preprocessing=preprocessing,
        dtype="bfloat16" if config.encoder_precision == "bf16" else "float32",
        refine_steps=config.encoder_refine_steps,
    )
