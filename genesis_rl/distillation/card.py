"""A student's model card, from the report of its distillation."""

from typing import Any

from huggingface_hub import ModelCardData

from genesis_rl.checkpoint import Pretrained
from genesis_rl.text_tables import figure, markdown
from genesis_rl.training.folder import without_machine


def public_report_settings(report: dict[str, Any]) -> dict[str, Any]:
    """A distillation's settings without what they say about the machine."""
    return without_machine(report["settings"], ("teacher", "data"))


def student_card(
    report: dict[str, Any],
    loaded: Pretrained,
    *,
    rounded: bool,
    load_by: str | None,
    title: str | None,
    license: str,
) -> str:
    """Write the card.

    Args:
        report: the distillation's.
        loaded: the student.
        rounded: whether the weights are stored in bfloat16.
        load_by: what genesis_rl.load takes; None: to be filled in.
        title: the title; None: what it is.
        license: of the weights.

    Returns:
        Markdown with the front matter that the Hub reads.
    """
    model: Any = loaded.model
    size, slots = model.config.image_size, model.config.num_slots
    title = title or f"Student of {report['teacher']}, {size} px"
    name = load_by or "OWNER/NAME"
    front = ModelCardData(
        license=license,
        library_name="genesis_rl",
        pipeline_tag="image-feature-extraction",
        tags=["object-centric", "reinforcement-learning", "distilled", report["teacher"]],
        model_name=title,
    ).to_yaml()
    flops = report["flops"]
    sections = (
        f"# {title}",
        f"A network of {flops['student'] / 1e6:.0f} MFLOP that infers what {report['teacher']} "
        f"({flops['teacher'] / 1e6:,.0f} MFLOP) infers: {slots} slots, their latents and coarse "
        "masks. Decoders and prior are its teacher's. Distilled by genesis_rl.",
        f"## Use\n\n```python\nimport genesis_rl\n"
        f'model = genesis_rl.load("{name}")\n'
        f"slots = model.infer(images)  # (B, 3, {size}, {size}) in [0, 1] -> {slots} slots each\n"
        "```",
        "## Fidelity\n\nOn held-out images; r2 is the share of the teacher's variance that it "
        "explains."
        + " The weights were rounded to bfloat16 after this." * rounded
        + "\n\n"
        + markdown(("score", "value"), _rows(report["fidelity"])),
        f"## Speed\n\nMilliseconds for a batch on {report['hardware']}.\n\n"
        + markdown(
            ("frames", "teacher", "student"),
            [
                (str(row["batch"]), *(f"{row['ms'][who]:.2f}" for who in ("teacher", "student")))
                for row in report["speed"]
            ],
        ),
        f"## Training\n\n{report['steps']:,} updates in {report['minutes']:.1f} minutes, seed "
        f"{report['settings']['seed']}.",
        f"## Limits\n\nFrames are brought to {size} x {size} px "
        f"({loaded.preprocessing.resize}). It knows the images of its distillation only, and every "
        "flaw of its teacher is its own. Not for anything that people's safety depends on.",
    )
    return f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"


def _rows(scores: dict[str, float | None]) -> list[tuple[str, str]]:
    return [(name, figure(value, 4)) for name, value in scores.items()]
