"""One call from settings to trained models, figures and pictures."""

import dataclasses
import json
from typing import Any

from genesis_rl.files import new_file, write_json
from genesis_rl.process import StoppedError, hardware, versions
from genesis_rl.text_tables import figure
from genesis_rl.training.folder import REPORT
from genesis_rl.visualize import curves, save_gif, save_png
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.evaluation import evaluate
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.pictures import rollout_picture, rollout_video
from genesis_rl.world_model.study import Study
from genesis_rl.world_model.training import WorldTrainer

_BASELINE = "mlp"


def train_world_model(config: WorldTrainConfig) -> dict[str, Any]:
    """Train the world model and, if asked for, the baseline; score both, and draw rollouts.

    The folder gets ``report.json``, ``rollouts.png``, ``rollouts.gif`` and ``errors.png`` beside
    what `WorldTrainer` writes; the baseline's training lies in ``baseline-mlp``.

    Returns:
        What report.json holds.

    Raises:
        ValueError: if encoder, data and settings do not fit each other or the run in the folder.
        NonFiniteError: if the training fails.
        StoppedError: after SIGINT or SIGTERM.
    """
    study = Study.open(config)
    runs = {"world model": config}
    if config.baseline == "mlp":
        model = dataclasses.replace(config.model, trunk="mlp")
        out = config.out / f"baseline-{_BASELINE}"
        runs[_BASELINE] = dataclasses.replace(config, model=model, out=out, baseline="none")
    models = {}
    for name, run in runs.items():
        trainer = WorldTrainer(run, study)
        trainer.run()
        if trainer.stopped:
            raise StoppedError(
                f"stopped at step {trainer.step}; go on with --resume", trainer.stop_status
            )
        models[name] = WorldModel.from_pretrained(trainer.folder.best, device=study.device)
    result = evaluate(models, study, steps=config.report_horizon, count=config.report_windows)
    report: dict[str, Any] = {
        "encoder_fingerprint": study.form.encoder_fingerprint,
        "steps": {name: len(data.starts) for name, data in study.sequences.items()},
        "parameters": {
            name: sum(p.numel() for p in model.parameters()) for name, model in models.items()
        },
        **result,
        "settings": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "hardware": hardware(study.device),
        "versions": versions(),
    }
    report["tables"] = tables(report)
    write_json(config.out / REPORT, report)
    chosen = models["world model"]
    save_png(config.out / "rollouts.png", rollout_picture(chosen, study, "test"))
    frames = rollout_video(chosen, study, "test", config.report_horizon)
    save_gif(config.out / "rollouts.gif", frames, fps=4)
    with new_file(config.out / "errors.png") as temporary:
        temporary.write_bytes(_curves(result["open_loop"]))
    return report


def _curves(rows: list[dict[str, Any]]) -> bytes:
    """Errors over the horizon."""
    horizons = [float(row["horizon"]) for row in rows]
    panels = {
        title: {name: (horizons, [row[key][name] for row in rows]) for name in rows[0][key]}
        for title, key in (("latent error", "latent_error"), ("PSNR, dB", "psnr"))
    }
    return curves(panels, xlabel="steps ahead")


def tables(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures as tables for the page of results: errors by horizon, rewards and ends."""
    rows = report["open_loop"]
    names = list(rows[0]["latent_error"]) if rows else []
    errors = {
        "caption": "Errors of open-loop rollouts on held-out episodes: latents (root mean square, "
        "in units of the features' standard deviations, less is better), and decoded frames "
        "against the recorded ones (PSNR in dB, more is better).",
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
        "caption": "Rewards other than the usual one, and ends: one step from encoded frames, and "
        "in open-loop rollouts.",
        "head": ["model", "what", "steps", *keys.values()],
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
