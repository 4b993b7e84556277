"""Comparison of PPO in imagination with PPO on as many real steps, over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genesis_rl.agents.bundle import IMAGINATION, SETTINGS
from genesis_rl.agents.comparison.grid import RECORD, train_and_evaluate
from genesis_rl.agents.comparison.summary import show_success, success_cell
from genesis_rl.agents.config import MACHINE, AgentConfig, check_same_settings
from genesis_rl.agents.imagination.config import ImaginationConfig
from genesis_rl.agents.imagination.trainer import ImaginationTrainer
from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.checkpoints.weights import rename_old_keys
from genesis_rl.utils import log
from genesis_rl.utils.files import FolderLock, new_file, read_json, write_json
from genesis_rl.visualization import curves

# Labels of the runs: trained in imagination, or in the real environment.
_IMAGINED, _REAL = "imagination", "real environment"
_REPS = 50_000

Record = dict[str, Any]


def compare(config: ImaginationConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Complete the missing runs, evaluate their last agents, and write a table and curves.

    Interrupted runs resume from their last checkpoint.

    Args:
        config: the settings, with seeds.
        report: called with a line of text for each completed run.

    Returns:
        The summary: ``tables`` for the results page and all ``runs``.

    Raises:
        ValueError: if a run cannot start, or the folder contains one of other settings or is in use
            by another process.
        TrainingError: if a run fails.
        StoppedError: after SIGINT or SIGTERM.
    """
    with FolderLock(config.out):
        records = _train_all(config, report)
        path = config.summary or config.out / IMAGINATION
        summary = {"tables": [_table(records)], "runs": records}
        with new_file(path.with_suffix(".png")) as temporary:
            temporary.write_bytes(curves(_panels(records), xlabel="training steps"))
        write_json(path, summary)
        return summary


def _train_all(config: ImaginationConfig, report: Callable[[str], None]) -> list[Record]:
    """Complete the missing runs, and return the records of all."""
    records = []
    for seed in config.seeds:
        imagined = _train_imagined(
            replace(config, seed=seed, out=config.out / "imagination" / str(seed))
        )
        agent = replace(config.agent, seed=seed, out=config.out / "real" / str(seed))
        steps = imagined["real_steps"]
        real = replace(
            agent,
            total_timesteps=steps,
            eval_every=max(config.eval_every * steps // imagined["imagined_steps"], 1),
        )
        records += [imagined, _train_real(real, config, first=seed == config.seeds[0])]
        for record in records[-2:]:
            mean = record["evaluation"]["agent"]["mean_return"]
            report(f"{record['label']}, seed {seed}: real return {mean:.3g}")
    return records


def _train_imagined(config: ImaginationConfig) -> Record:
    path = config.out / RECORD
    trainer = ImaginationTrainer(config)  # checks the settings of an existing run
    if path.exists():
        trainer.close()
        return _read(path, _IMAGINED)
    scores = train_and_evaluate(trainer, config.episodes, random=False, out=config.out)
    return _write(
        path,
        config,
        scores,
        label=_IMAGINED,
        real_steps=trainer.real_steps,
        imagined_steps=trainer.model.num_timesteps,
        imagined_return=trainer.metrics["last"]["imagined_return"],
    )


def _train_real(agent: AgentConfig, config: ImaginationConfig, *, first: bool) -> Record:
    path = agent.out / RECORD
    if path.exists():
        record = _read(path, _REAL)
        check_same_settings(agent, record["settings"], agent.out, ignore=MACHINE)
        return record
    trainer = AgentTrainer(agent, resume=True)
    scores = train_and_evaluate(trainer, config.episodes, random=first, out=agent.out)
    steps = trainer.model.num_timesteps
    return _write(
        path, agent, scores, label=_REAL, real_steps=steps, imagined_steps=0, imagined_return=None
    )


def _write(path: Path, config: AgentConfig, scores: Record, **figures: Any) -> Record:
    """Write the record of a run: figures, settings, scores, learning curve and origin."""
    rows = [row for row in log.read(config.out) if "eval/mean_reward" in row]
    names = {
        "return": "mean_reward",
        "success": "success_rate",
        "imagined_return": "imagined_return",
    }
    curve = {
        name: [row[f"eval/{key}"] for row in rows]
        for name, key in names.items()
        if all(f"eval/{key}" in row for row in rows)
    }
    stored = read_json(config.out / "last" / SETTINGS)
    record = {
        **figures,
        "seed": config.seed,
        "settings": config.to_json(),
        "evaluation": scores,
        "curve": {"steps": [row["step"] for row in rows], **curve},
        "encoder_fingerprint": stored["encoder_fingerprint"],
        "hardware": stored["hardware"],
        "versions": stored["versions"],
    }
    write_json(path, record)
    return record


def _read(path: Path, label: str) -> Record:
    """Read a record, also of an earlier version, whose labels were different."""
    record = rename_old_keys(read_json(path))
    return {**record, "label": label, "curve": rename_old_keys(record["curve"])}


def _table(records: Sequence[Record]) -> dict[str, Any]:
    rows = []
    for label in dict.fromkeys(record["label"] for record in records):
        runs = [record for record in records if record["label"] == label]
        imagined = [r["imagined_return"] for r in runs if r["imagined_return"] is not None]
        steps = [f"{runs[0][name]:,}" for name in ("real_steps", "imagined_steps")]
        rows.append(
            [label, *_scores([r["evaluation"]["agent"] for r in runs]), _mean(imagined), *steps]
        )
    chance = [r["evaluation"]["random"] for r in records if "random" in r["evaluation"]]
    rows.append(["*random policy*", *_scores(chance), "", "0", "0"])
    first = records[0]["settings"]
    caption = (
        f"PPO on {first['env']}: trained only in imagination, against trained on as many real "
        "steps as were recorded (rounded up to whole rollouts). Final agents with sampled actions: "
        "success as the interquartile mean over seeds with its 95 % bootstrap interval (one seed: "
        "Wilson's interval), returns as means (minimum to maximum). Imagined returns are of whole "
        "episodes from recorded initial frames. Real steps do not include evaluations."
    )
    head = [
        *("trained in", "success", "return", "imagined return"),
        *("real steps", "imagined steps"),
    ]
    return {"caption": caption, "head": head, "rows": rows}


def _scores(scores: Sequence[Record]) -> list[str]:
    """Format success, if the environment reports it, and return."""
    has_success = scores[0]["success_rate"] is not None
    success = show_success(success_cell(scores, _REPS)) if has_success else ""
    return [success, _mean([score["mean_return"] for score in scores])]


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else ""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _panels(records: Sequence[Record]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Return the mean curves over seeds of real and, where available, imagined returns."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for label in dict.fromkeys(record["label"] for record in records):
        runs = [record["curve"] for record in records if record["label"] == label]
        x = runs[0]["steps"]
        panels[f"trained in {label}"] = {
            title: (x, np.mean([np.interp(x, r["steps"], r[name]) for r in runs], axis=0).tolist())
            for name, title in (("return", "real return"), ("imagined_return", "imagined return"))
            if all(name in run for run in runs)
        }
    return panels
