"""Comparison of PPO in imagination with PPO on as many real steps, over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from genesis_rl.agents.bundle import IMAGINATION, SETTINGS
from genesis_rl.agents.comparison.grid import RECORD, train_and_evaluate
from genesis_rl.agents.comparison.summary import show_success, success_cell
from genesis_rl.agents.config import MACHINE, AgentConfig, check_same_settings
from genesis_rl.agents.imagination.config import ImaginationConfig
from genesis_rl.agents.imagination.trainer import ImaginationTrainer
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.checkpoints.weights import rename_old_keys
from genesis_rl.training import NonFiniteError
from genesis_rl.utils import log
from genesis_rl.utils.files import FolderLock, new_file, read_json, write_json
from genesis_rl.utils.jobs import run_jobs
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
    progress = config.progress and config.in_process
    imagined = [
        replace(config, seed=seed, out=config.out / "imagination" / str(seed), progress=progress)
        for seed in config.seeds
    ]
    records = _train_group(imagined, config, report)
    real = [
        replace(
            run.agent,
            out=config.out / "real" / str(run.seed),
            total_timesteps=record["real_steps"],
            eval_every=max(config.eval_every * record["real_steps"] // record["imagined_steps"], 1),
        )
        for run, record in zip(imagined, records, strict=True)
    ]
    pairs = zip(records, _train_group(real, config, report), strict=True)
    return [record for pair in pairs for record in pair]


def _train_group(
    runs: Sequence[AgentConfig], config: ImaginationConfig, report: Callable[[str], None]
) -> list[Record]:
    """Complete the missing runs of one label, and return the records of all."""
    failed: list[str] = []

    def ended(run: AgentConfig, problem: str | None) -> None:
        name = f"{_label(run)}, seed {run.seed}"
        if _completed(run):
            mean = _read(run)["evaluation"]["agent"]["mean_return"]
            report(f"{name}: real return {mean:.3g}")
        else:
            failed.append(f"{name}{': ' if problem else ''}{problem or ''}")

    missing = [run for run in runs if not _completed(run)]
    for run in runs:
        if run not in missing:
            _check(run)
            ended(run, None)
    if missing:
        _check(missing[0])
    run_jobs(
        _attempt,
        [(run, config) for run in missing],
        config,
        config.out / "jobs",
        lambda index, problem: ended(missing[index], problem),
    )
    if failed:
        raise TrainingError(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}.")
    return [_read(run) for run in runs]


def _check(run: AgentConfig) -> None:
    """Check the settings, also against those of an existing run.

    Raises:
        ValueError: if the run cannot start, or has other settings.
    """
    if isinstance(run, ImaginationConfig):
        ImaginationTrainer(run).close()
    elif _completed(run):
        settings = read_json(run.out / RECORD)["settings"]
        check_same_settings(run, settings, run.out, ignore=MACHINE)


def _attempt(run: AgentConfig, config: ImaginationConfig) -> str | None:
    """Complete a run, or return the reason of its failure."""
    try:
        if isinstance(run, ImaginationConfig):
            _train_imagined(run)
        else:
            _train_real(run, config)
    except (TrainingError, NonFiniteError, ValueError) as error:
        return str(error)
    return None


def _train_imagined(config: ImaginationConfig) -> None:
    trainer = ImaginationTrainer(config)
    scores = train_and_evaluate(trainer, config.episodes, random=False, out=config.out)
    _write(
        config,
        scores,
        label=_IMAGINED,
        real_steps=trainer.real_steps,
        imagined_steps=trainer.model.num_timesteps,
        imagined_return=trainer.metrics["last"]["imagined_return"],
    )


def _train_real(agent: AgentConfig, config: ImaginationConfig) -> None:
    trainer = AgentTrainer(agent, resume=True)
    first = agent.seed == config.seeds[0]
    scores = train_and_evaluate(trainer, config.episodes, random=first, out=agent.out)
    steps = trainer.model.num_timesteps
    _write(agent, scores, label=_REAL, real_steps=steps, imagined_steps=0, imagined_return=None)


def _write(config: AgentConfig, scores: Record, **figures: Any) -> None:
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
    write_json(config.out / RECORD, record)


def _label(run: AgentConfig) -> str:
    return _IMAGINED if isinstance(run, ImaginationConfig) else _REAL


def _completed(run: AgentConfig) -> bool:
    return (run.out / RECORD).exists()


def _read(run: AgentConfig) -> Record:
    """Read a record, also of an earlier version, whose labels were different."""
    record = rename_old_keys(read_json(run.out / RECORD))
    return {**record, "label": _label(run), "curve": rename_old_keys(record["curve"])}


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
