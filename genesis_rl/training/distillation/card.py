"""Model card of a student, from the report of its distillation."""

from typing import Any

from huggingface_hub import ModelCardData

from genesis_rl.checkpoints.loading import Pretrained
from genesis_rl.training.folder import portable_settings
from genesis_rl.utils.tables import figure, markdown


def public_report_settings(report: dict[str, Any]) -> dict[str, Any]:
    """Return a distillation's settings without machine-specific values."""
    return portable_settings(report["settings"], ("teacher", "data"))


def student_card(
    report: dict[str, Any],
    loaded: Pretrained,
    *,
    rounded: bool,
    load_by: str | None,
    title: str | None,
    license: str,
) -> str:
    """Build the card.

    Args:
        report: report of the distillation.
        loaded: the student.
        rounded: whether the weights are stored in bfloat16.
        load_by: name for genesis_rl.load; None: a placeholder.
        title: title of the card; None: a default.
        license: license of the weights.

    Returns:
        Markdown with the Hub's front matter.
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
        f"An encoder of {flops['student'] / 1e6:.0f} MFLOP per frame, distilled from "
        f"{report['teacher']} ({flops['teacher'] / 1e6:,.0f} MFLOP) by genesis_rl. It infers "
        f"{slots} slots, their latents and coarse masks. Decoders and prior are the teacher's.",
        f"## Use\n\n```python\nimport genesis_rl\n"
        f'model = genesis_rl.load("{name}")\n'
        f"slots = model.infer(images)  # (B, 3, {size}, {size}) in [0, 1] -> {slots} slots each\n"
        "```",
        "## Fidelity\n\nOn held-out images; r2 is the explained share of the teacher's variance."
        + " The weights were rounded to bfloat16 afterwards." * rounded
        + "\n\n"
        + markdown(("score", "value"), _rows(report["fidelity"])),
        f"## Speed\n\nMilliseconds per batch on {report['hardware']}.\n\n"
        + markdown(
            ("frames", "teacher", "student"),
            [
                (str(row["batch"]), *(f"{row['ms'][role]:.2f}" for role in ("teacher", "student")))
                for row in report["speed"]
            ],
        ),
        f"## Training\n\n{report['steps']:,} updates in {report['minutes']:.1f} minutes, seed "
        f"{report['settings']['seed']}.",
        f"## Limits\n\nFrames are resized to {size} x {size} px ({loaded.preprocessing.resize}). "
        "The student is trained on the images of its distillation only and reproduces the errors "
        "of its teacher. Not for safety-critical use.",
    )
    return f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"


def _rows(scores: dict[str, float | None]) -> list[tuple[str, str]]:
    return [(name, figure(value, 4)) for name, value in scores.items()]
