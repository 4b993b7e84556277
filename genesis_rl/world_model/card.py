"""Model card of a world model, from the report of its training."""

from typing import Any

from huggingface_hub import ModelCardData

from genesis_rl.training.folder import portable_settings
from genesis_rl.utils.files import json_text
from genesis_rl.utils.tables import markdown
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.program import tables


def public_settings(report: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a training without those of the machine."""
    return portable_settings(report["settings"], ("encoder", "data"))


def card(
    report: dict[str, Any],
    world: WorldModel,
    *,
    load_by: str | None,
    title: str | None,
    license: str,
) -> str:
    """Write the card.

    Args:
        report: report of the training.
        world: the world model.
        load_by: argument of WorldModel.from_pretrained; None for a placeholder.
        title: title; None for a default with the encoder.
        license: license of the weights.

    Returns:
        Markdown with the front matter of the Hub.
    """
    settings, spec = public_settings(report), world.slot_spec
    title = title or f"World model on the slots of {settings['encoder']}"
    front = ModelCardData(
        license=license,
        library_name="genesis_rl",
        pipeline_tag="reinforcement-learning",
        tags=["object-centric", "reinforcement-learning", "world-model"],
        model_name=title,
    ).to_yaml()
    weights = sum(p.numel() for p in world.parameters())
    steps = ", ".join(f"{count:,} of {split}" for split, count in report["steps"].items())
    sections = [
        f"# {title}",
        f"Predicts the next slots, reward and termination from {spec.num_slots} slots of "
        f"{spec.num_features} features and an action. {weights:,} parameters; trained with "
        "genesis_rl.",
        f"## Use\n\n```python\nimport gymnasium as gym\n\nimport genesis_rl\n\n"
        f'env = gym.make(\n    "genesis_rl/Imagination-v0", encoder="{settings["encoder"]}", '
        f'world_model="{load_by or "FOLDER"}"\n)\n```\n\n'
        f"It requires the slots of its encoder, `{settings['encoder']}`, with the fingerprint "
        f"{spec.encoder_fingerprint[:12]}.",
        "## Prediction errors",
        *(f"{t['caption']}\n\n{markdown(t['head'], t['rows'])}" for t in tables(report)),
        "*copy*: the initial slots; *mlp*: an MLP over all concatenated latents, with the same "
        "heads, data and training; *encoded*: the slots of the recorded frame, an upper bound for "
        "decoded frames.",
        f"## Training\n\nOn recorded steps ({steps}), on {report['hardware']}.",
        "```json\n" + json_text(settings, indent=2) + "\n```",
        "## Limitations\n\nPredictions are valid for the recorded environment and the states that "
        "the recorded policy visited. Not for safety-critical use.",
    ]
    return f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"
