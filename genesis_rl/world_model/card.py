"""A world model's card, from the report of its training."""

from typing import Any

from huggingface_hub import ModelCardData

from genesis_rl.files import json_text
from genesis_rl.text_tables import markdown
from genesis_rl.training.folder import without_machine
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.program import tables


def public_settings(report: dict[str, Any]) -> dict[str, Any]:
    """A training's settings without what they say about the machine."""
    return without_machine(report["settings"], ("encoder", "data"))


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
        report: the training's.
        world: the model.
        load_by: what WorldModel.from_pretrained takes; None: to be filled in.
        title: the title; None: what it is.
        license: of the weights.

    Returns:
        Markdown with the front matter that the Hub reads.
    """
    settings, form = public_settings(report), world.form
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
        f"{form.num_slots} slots of {form.num_features} features and an action to the next slots, "
        f"the reward and whether the episode ends. {weights:,} weights, by genesis_rl.",
        f"## Use\n\n```python\nimport gymnasium as gym\n\nimport genesis_rl\n\n"
        f'env = gym.make(\n    "genesis_rl/Imagination-v0", encoder="{settings["encoder"]}", '
        f'world_model="{load_by or "FOLDER"}"\n)\n```\n\n'
        f"It knows the slots of one encoder alone, `{settings['encoder']}`, whose fingerprint is "
        f"{form.encoder_fingerprint[:12]}.",
        "## What it foretells",
        *(f"{t['caption']}\n\n{markdown(t['head'], t['rows'])}" for t in tables(report)),
        "*copy*: the last known slots; *mlp*: a network over all latents in a row, with the same "
        "heads, data and training; *encoded*: what decoding allows at best.",
        f"## Training\n\nOn recorded steps ({steps}), on {report['hardware']}.",
        "```json\n" + json_text(settings, indent=2) + "\n```",
        "## Limits\n\nIt knows the environment that was recorded, as far as the policy that "
        "recorded it came. Not for anything that people's safety depends on.",
    ]
    return f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"
