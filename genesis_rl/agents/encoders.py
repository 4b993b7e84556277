"""Loading of an agent's encoder, pretrained or with random weights."""

from pathlib import Path

import torch

from genesis_rl.agents.config import AgentConfig
from genesis_rl.checkpoints.loading import Pretrained, load_pretrained
from genesis_rl.models import MODELS
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.slots import SceneModel
from genesis_rl.training.presets import PRESETS

# Models by the value of obs.
_KINDS = {
    "genesis": ("genesis", "genesis_s", "genesis_v2"),
    "monet": ("monet",),
    "vae": ("bd_vae", "dc_vae"),
}


def load_encoder(config: AgentConfig) -> Pretrained | None:
    """Load the encoder of the settings, with random weights for obs random; None without one.

    Raises:
        ValueError: if it cannot be loaded, or obs requires another model.
    """
    if config.encoder is None:
        return None
    if config.obs == "random":
        return _random_encoder(config.encoder, config.seed)
    pretrained = load_pretrained(config.encoder, device="cpu")
    name = _model_name(pretrained.model)
    if name not in _KINDS.get(config.obs, (name,)):
        raise ValueError(
            f"encoder must be one of {', '.join(_KINDS[config.obs])} for obs {config.obs!r}, got "
            f"{name} in {config.encoder}. Use obs encoder for any model."
        )
    return pretrained


def _random_encoder(source: str, seed: int) -> Pretrained:
    """Initialise a model with the architecture of a folder, Hub id or preset from a seed."""
    if source in PRESETS and not Path(source).exists():
        architecture, preprocessing = PRESETS[source].config.model, Preprocessing()
        (cls,) = [cls for config_cls, cls in MODELS.values() if type(architecture) is config_cls]
    else:
        trained = load_pretrained(source, device="cpu")
        architecture, preprocessing = trained.model.config, trained.preprocessing
        cls = type(trained.model)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = cls(architecture).eval()
    return Pretrained(model, preprocessing, {"weights": f"random, seed {seed}"})


def _model_name(model: SceneModel) -> str:
    """Return the model's name in MODELS; for a student, its teacher's."""
    model = getattr(model, "teacher", model)
    return next(name for name, (_, cls) in MODELS.items() if type(model) is cls)


def make_encoder(
    config: AgentConfig, model: SceneModel | Path, preprocessing: Preprocessing | None = None
) -> SlotEncoder:
    """Create the encoder of the settings from a model in memory or a folder.

    Raises:
        ValueError: if the folder contains no model, or the device is unknown.
    """
    return SlotEncoder(
        model,
        device=config.encoder_device,
        preprocessing=preprocessing,
        dtype="bfloat16" if config.encoder_precision == "bf16" else "float32",
        refine_steps=config.encoder_refine_steps,
    )
