"""Training and evaluation of a world model in one call, with a report and images."""

import dataclasses
import json
from typing import Any

from huggingface_hub import ModelCardData

from genesis_rl.training.folder import REPORT, portable_settings
from genesis_rl.utils.files import json_text, new_file, write_json
from genesis_rl.utils.process import StoppedError, hardware, versions
from genesis_rl.utils.tables import figure, markdown
from genesis_rl.visualization import curves, save_gif, save_png
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.evaluation import evaluate, rollout_picture, rollout_video
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.sequences import WorldModelData
from genesis_rl.world_model.training import WorldTrainer

_BASELINE = "mlp"


def train_world_model(config: WorldTrainConfig) -> dict[str, Any]:
    """Train the world model and, optionally, the baseline; evaluate both, and draw rollouts.

    In addition to the files of `WorldTrainer`, the run directory contains ``report.json``,
    ``rollouts.png``, ``rollouts.gif``, ``errors.png`` and, in ``baseline-mlp``, the training of the
    baseline.

    Returns:
        The content of report.json.

    Raises:
        ValueError: if encoder, data and settings do not match each other or an existing run.
        NonFiniteError: if the training diverges.
        StoppedError: after SIGINT or SIGTERM.
    """
    data = WorldModelData.load(config)
    runs = {"world model": config}
    if config.baseline == "mlp":
        model = dataclasses.replace(config.model, trunk="mlp")
        out = config.out / f"baseline-{_BASELINE}"
        runs[_BASELINE] = dataclasses.replace(config, model=model, out=out, baseline="none")
    models = {}
    for name, run in runs.items():
        trainer = WorldTrainer(run, data)
        trainer.run()
        if trainer.stopped:
            raise StoppedError(
                f"stopped at step {trainer.step}; --resume continues", trainer.stop_status
            )
        models[name] = WorldModel.from_pretrained(trainer.folder.best, device=data.device)
    result = evaluate(models, data, steps=config.report_horizon, count=config.report_windows)
    report: dict[str, Any] = {
        "encoder_fingerprint": data.slot_spec.encoder_fingerprint,
        "steps": {split: len(steps.starts) for split, steps in data.sequences.items()},
        "parameters": {
            name: sum(p.numel() for p in model.parameters()) for name, model in models.items()
        },
        **result,
        "settings": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "hardware": hardware(data.device),
        "versions": versions(),
    }
    report["tables"] = tables(report)
    write_json(config.out / REPORT, report)
    world_model = models["world model"]
    save_png(config.out / "rollouts.png", rollout_picture(world_model, data, "test"))
    frames = rollout_video(world_model, data, "test", config.report_horizon)
    save_gif(config.out / "rollouts.gif", frames, fps=4)
    with new_file(config.out / "errors.png") as temporary:
        temporary.write_bytes(_curves(result["open_loop"]))
    return report


def _curves(rows: list[dict[str, Any]]) -> bytes:
    """Plot the errors over the horizon."""
    horizons = [float(row["horizon"]) for row in rows]
    panels = {
        title: {name: (horizons, [row[key][name] for row in rows]) for name in rows[0][key]}
        for title, key in (("latent error", "latent_error"), ("PSNR, dB", "psnr"))
    }
    return curves(panels, xlabel="steps ahead")


def tables(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a report for the results page: errors by horizon, rewards and ends."""
    rows = report["open_loop"]
    names = list(rows[0]["latent_error"]) if rows else []
    errors = {
        "caption": "Errors of open-loop rollouts on held-out episodes: latents (root mean square "
        "in units of the features' standard deviations, lower is better) and decoded against "
        "recorded frames (PSNR in dB, higher is better).",
        "head": [
            "steps ahead",
            "windows",
            *(f"latents: {name}" for name in names),
            *(f"PSNR: {name}" for name in [*names, "encoded"]),
        ],
        "rows": [
            [
                str(row["horizon"]),
                str(row["windows"]),
                *(figure(row["latent_error"][name], 3) for name in names),
                *(figure(row["psnr"][name], 1) for name in [*names, "encoded"]),
            ]
            for row in rows
        ],
    }
    keys = {"rate": "share", "auc": "AUC", "balanced_accuracy": "balanced accuracy", "f1": "F1"}
    events = {
        "caption": "Prediction of rewards other than the usual one and of terminations, one step "
        "from encoded frames and in open-loop rollouts.",
        "head": ["model", "event", "steps", *keys.values()],
        "rows": [
            [
                name,
                event,
                kind.replace("_", " "),
                *(figure(scores[key], 3) for key in keys),
            ]
            for name, by_kind in report["events"].items()
            for kind, by_event in by_kind.items()
            for event, scores in by_event.items()
        ],
    }
    return [errors, events]


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
