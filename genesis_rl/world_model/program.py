"""Training and evaluation of a world model in one call, with a report and images."""

import dataclasses
import json
from typing import Any

from genesis_rl.training.folder import REPORT
from genesis_rl.utils.files import new_file, write_json
from genesis_rl.utils.process import StoppedError, hardware, versions
from genesis_rl.utils.tables import figure
from genesis_rl.visualization import curves, save_gif, save_png
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.data import WorldModelData
from genesis_rl.world_model.evaluation import evaluate
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.pictures import rollout_picture, rollout_video
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
