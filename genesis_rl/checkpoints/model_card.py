"""Model cards with the Hub's front matter."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from genesis_rl.checkpoints.loading import Pretrained
from genesis_rl.data import DATASETS
from genesis_rl.evaluation.diagnostics import Finding
from genesis_rl.evaluation.tables import SECTIONS
from genesis_rl.training import PretrainConfig
from genesis_rl.training.folder import settings
from genesis_rl.utils.files import json_text
from genesis_rl.utils.tables import figure, markdown
from genesis_rl.world_model import WorldModel

Scores = Mapping[str, float | None]

#: Title, paper and arXiv number of each model.
_SOURCES = {
    "genesis": ("GENESIS", "Engelcke et al., ICLR 2020", "1907.13052"),
    "genesis_s": ("GENESIS-S", "Engelcke et al., ICLR 2020", "1907.13052"),
    "monet": ("MONet", "Burgess et al. 2019", "1901.11390"),
    "bd_vae": ("BD-VAE", "Watters et al. 2019; Engelcke et al., ICLR 2020", "1907.13052"),
    "dc_vae": ("DC-VAE", "van den Berg et al. 2018; Engelcke et al., ICLR 2020", "1907.13052"),
    "genesis_v2": ("GENESIS-V2", "Engelcke et al., NeurIPS 2021", "2104.09958"),
    "iodine": ("IODINE", "Greff et al., ICML 2019", "1903.00450"),
}
# Scores in the front matter, which the Hub lists.
_INDEXED = ("mse", "ari", "ari_fg", "msc")


@dataclass(frozen=True)
class ModelScores:
    """Scores of a model, of baselines, and diagnostics.

    Attributes:
        images: description of the evaluated images.
        scores: the model's scores, named as in `genesis_rl.evaluation.scoring.score`.
        baselines: scores of baselines by name.
        findings: findings of the diagnostics.
    """

    images: str
    scores: Scores = field(default_factory=dict)
    baselines: Mapping[str, Scores] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class CardOptions:
    """Options of every card.

    Attributes:
        load_by: name or Hub id to load the model by in the example; None: a placeholder.
        title: title of the card; None: a default.
        license: license of the weights, by the Hub's identifiers.
    """

    load_by: str | None = None
    title: str | None = None
    license: str = "apache-2.0"


def data_name(config: PretrainConfig) -> str:
    """Return the dataset's name; the last part for a path, as the rest is private."""
    return config.data if config.data in DATASETS else Path(config.data).expanduser().name


def public_settings(config: PretrainConfig) -> dict[str, Any]:
    """Return the settings without private data: paths are reduced to their last part."""
    public = settings(config)
    del public["out"]
    init = config.init and Path(config.init).expanduser().name
    return public | {"data": data_name(config), "init": init}


def model_card(
    config: PretrainConfig,
    loaded: Pretrained,
    figures: ModelScores,
    options: CardOptions = CardOptions(),
) -> str:
    """Return a model's card as Markdown with the Hub's front matter.

    Args:
        config: settings of the training.
        loaded: the model with its metadata.
        figures: the model's scores.
        options: name, title and license.
    """
    name = loaded.metadata["model"]
    kind, paper, arxiv = _SOURCES[name]
    data, model = data_name(config), config.model
    title = options.title or f"{kind} on {data}, {model.image_size} px"
    sections = (
        f"# {title}",
        f"{kind} ({paper}, [arXiv:{arxiv}](https://arxiv.org/abs/{arxiv})) decomposes frames into "
        f"{model.num_slots} slot{'s' * (model.num_slots > 1)}. Trained without labels by "
        "genesis_rl.",
        "## Use",
        _use(options, model.image_size, model.num_slots),
        "## Scores",
        f"On {figures.images}:",
        _score_table(figures),
        *_findings(figures),
        "## Training",
        _training_table(config, loaded),
        "## Limits",
        _limits(config, loaded),
        "## Settings",
        "```json\n" + json_text(public_settings(config), indent=2) + "\n```",
    )
    values = {key: figures.scores.get(key) for key in _INDEXED}
    present = {key: v for key, v in values.items() if v is not None and math.isfinite(v)}
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=data,
            dataset_name=data,
            metric_type=key,
            metric_value=round(value, 5),
        )
        for key, value in present.items()
    ]
    return _card(
        sections,
        license=options.license,
        pipeline_tag="image-feature-extraction",
        tags=["object-centric", "reinforcement-learning", name, f"arxiv:{arxiv}"],
        datasets=[data],
        metrics=list(present),
        model_name=title,
        eval_results=results or None,
    )


def _card(sections: Iterable[str], **front_matter: Any) -> str:
    """Return a card of Markdown sections after the Hub's front matter."""
    front = ModelCardData(library_name="genesis_rl", **front_matter).to_yaml()
    return f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"


def _use(options: CardOptions, side: int, num_slots: int) -> str:
    name = options.load_by or "OWNER/NAME"
    return (
        "```python\n"
        "import genesis_rl\n"
        f'model = genesis_rl.load("{name}")\n'
        f"slots = model.infer(images)  # (B, 3, {side}, {side}) in [0, 1] -> {num_slots} slots each"
        "\n```\n\n"
        "As observations of an agent, from frames of any size: "
        f'`genesis_rl.GenesisObs(env, "{name}")`.'
    )


def _score_table(figures: ModelScores) -> str:
    columns = {"this model": figures.scores, **figures.baselines}
    names = [name.replace("_", " ") for name in columns]
    rows = []
    for row in (row for section in SECTIONS.values() for row in section):
        cells = [scores.get(row.key) for scores in columns.values()]
        if any(cell is not None for cell in cells):
            shown = ["" if cell is None else f"{cell:.4g}" for cell in cells]
            rows.append([row.name, row.better, *shown])
    if not rows:
        return "Not scored."
    note = (
        "\n\nThe other columns are baselines without training on the same images."
        if figures.baselines
        else ""
    )
    return markdown(["score", "better", *names], rows) + note


def _findings(figures: ModelScores) -> tuple[str, ...]:
    """Return the section of diagnostics; empty without findings."""
    if not figures.findings:
        return ()
    lines = [f"- {f.message}" for f in figures.findings]
    return ("Findings of `pretrain/doctor.py`:", "\n".join(lines))


def _training_table(config: PretrainConfig, loaded: Pretrained) -> str:
    metadata, geco = loaded.metadata, config.geco
    if config.objective == "geco":
        objective = (
            f"GECO, goal {geco.goal:g} nats per pixel and channel, beta >= {geco.beta_min:g}"
        )
    elif config.beta_end is None:
        objective = f"ELBO, KL weighted {config.beta:g}"
    else:
        objective = f"ELBO, KL weighted {config.beta:g} to {config.beta_end:g}"
    step = int(metadata.get("step", 0))
    versions = metadata.get("versions", {"genesis_rl": metadata["genesis_rl"]})
    rows = {
        "data": f"{data_name(config)} {config.data_options.replace('{}', '')}",
        "initial weights": str(public_settings(config)["init"] or "random"),
        "objective": objective,
        "updates": f"{step:,} of {config.batch_size} images ({step * config.batch_size:,} seen)",
        "wall time": f"{metadata.get('seconds', 0.0) / 60:,.1f} minutes",
        "hardware": str(metadata.get("hardware", "not recorded")),
        "precision": config.precision,
        "seed": str(config.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return markdown(["", ""], [[name, value.strip()] for name, value in rows.items()])


def _limits(config: PretrainConfig, loaded: Pretrained) -> str:
    model = config.model
    lines = [
        f"Trained on {data_name(config)} only. Unseen objects are encoded as similar objects of "
        "that dataset: pretrain on frames of your own environment.",
        f"Frames are resized to {model.image_size} x {model.image_size} px "
        f"({loaded.preprocessing.resize}); objects of a few pixels are lost.",
    ]
    if model.num_slots > 1:
        lines += [
            f"{model.num_slots} slots, one of them for the background: of more than "
            f"{model.num_slots - 1} objects, some share a slot.",
            "The assignment of objects to slots may change from frame to frame.",
        ]
    lines.append("Not for safety-critical use.")
    return "\n".join(f"- {line}" for line in lines)


def portable_settings(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report's settings without folders of this machine, of which only names are kept."""
    settings = {k: v for k, v in report["settings"].items() if k not in ("out", "cache")}
    paths = ("teacher", "encoder", "data")
    return settings | {k: v and Path(v).name for k, v in settings.items() if k in paths}


def student_card(
    report: Mapping[str, Any],
    loaded: Pretrained,
    options: CardOptions = CardOptions(),
    *,
    rounded: bool = False,
) -> str:
    """Build the card of a student, from the report of its distillation.

    Args:
        report: report of the distillation.
        loaded: the student.
        options: name, title and license.
        rounded: whether the weights are stored in bfloat16.
    """
    model: Any = loaded.model
    size, slots = model.config.image_size, model.config.num_slots
    title = options.title or f"Student of {report['teacher']}, {size} px"
    flops = report["flops"]
    sections = (
        f"# {title}",
        f"An encoder of {flops['student'] / 1e6:.0f} MFLOP per frame, distilled from "
        f"{report['teacher']} ({flops['teacher'] / 1e6:,.0f} MFLOP) by genesis_rl. It infers "
        f"{slots} slots, their latents and coarse masks. Decoders and prior are the teacher's.",
        "## Use",
        _use(options, size, slots),
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
    return _card(
        sections,
        license=options.license,
        pipeline_tag="image-feature-extraction",
        tags=["object-centric", "reinforcement-learning", "distilled", report["teacher"]],
        model_name=title,
    )


def _rows(scores: dict[str, float | None]) -> list[tuple[str, str]]:
    return [(name, figure(value, 4)) for name, value in scores.items()]


def world_model_card(
    report: Mapping[str, Any], world: WorldModel, options: CardOptions = CardOptions()
) -> str:
    """Build the card of a world model, from the report of its training.

    Args:
        report: report of the training.
        world: the world model.
        options: name, title and license.
    """
    settings, spec = portable_settings(report), world.slot_spec
    title = options.title or f"World model on the slots of {settings['encoder']}"
    weights = sum(p.numel() for p in world.parameters())
    steps = ", ".join(f"{count:,} of {split}" for split, count in report["steps"].items())
    sections = [
        f"# {title}",
        f"Predicts the next slots, reward and termination from {spec.num_slots} slots of "
        f"{spec.num_features} features and an action. {weights:,} parameters; trained with "
        "genesis_rl.",
        f"## Use\n\n```python\nimport gymnasium as gym\n\nimport genesis_rl\n\n"
        f'env = gym.make(\n    "genesis_rl/Imagination-v0", encoder="{settings["encoder"]}", '
        f'world_model="{options.load_by or "FOLDER"}"\n)\n```\n\n'
        f"It requires the slots of its encoder, `{settings['encoder']}`, with the fingerprint "
        f"{spec.encoder_fingerprint[:12]}.",
        "## Prediction errors",
        *(f"{t['caption']}\n\n{markdown(t['head'], t['rows'])}" for t in report["tables"]),
        "*copy*: the initial slots; *mlp*: an MLP over all concatenated latents, with the same "
        "heads, data and training; *encoded*: the slots of the recorded frame, an upper bound for "
        "decoded frames.",
        f"## Training\n\nOn recorded steps ({steps}), on {report['hardware']}.",
        "```json\n" + json_text(settings, indent=2) + "\n```",
        "## Limitations\n\nPredictions are valid for the recorded environment and the states that "
        "the recorded policy visited. Not for safety-critical use.",
    ]
    return _card(
        sections,
        license=options.license,
        pipeline_tag="reinforcement-learning",
        tags=["object-centric", "reinforcement-learning", "world-model"],
        model_name=title,
    )
