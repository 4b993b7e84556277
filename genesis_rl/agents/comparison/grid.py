"""A resumable grid of runs: task x observation x seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from genesis_rl.agents.bundle import SETTINGS
from genesis_rl.agents.config import (
    MACHINE,
    AgentConfig,
    EvaluationConfig,
    check_same_settings,
    obs_label,
    with_obs,
)
from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.agents.observations import load_encoder
from genesis_rl.agents.stack import EnvMaker
from genesis_rl.envs import TASKS
from genesis_rl.utils import log
from genesis_rl.utils.checks import DIFFERENT, NOT_EMPTY, Count, Names, check_fields
from genesis_rl.utils.files import FolderLock, read_json, write_json
from genesis_rl.utils.jobs import JobsConfig, run_jobs

RECORD = "run.json"
# Points of a stored curve.
_POINTS = 200
_SCORES = ("ari", "ari_fg", "ari_fg_2plus", "msc", "sc", "mse")


@dataclass(frozen=True)
class CompareConfig(JobsConfig):
    """Settings of a comparison."""

    tasks: Names = tuple(f"genesis_rl/{name}-v0" for name in TASKS)
    """ids of environments"""
    obs: Names = ("state", "pixels")
    """observations, as agents/train.py --obs, with the encoder where one is needed, e.g.
    genesis=runs/encoder"""
    seeds: Annotated[tuple[int, ...], NOT_EMPTY, DIFFERENT] = (0, 1, 2)
    """seeds; one run per task, observation and seed"""
    agent: AgentConfig = field(default_factory=lambda: AgentConfig(obs="pixels"))
    """other settings of the runs; env, obs, encoder, seed and out are set by the grid"""
    episodes: Count = 200
    """episodes of the final evaluation, the same for all agents of a task"""
    out: Path = Path("runs/compare")
    """folder of the runs and, by default, of the summary"""
    include: tuple[str, ...] = ()
    """folders of other comparisons to include in the summary; NAME=FOLDER appends NAME to the
    labels of their runs, to distinguish other settings"""
    summary: Path | None = None
    """JSON file of the summary, with the images in the same folder; None: comparison.json in out"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        labels = [obs_label(obs) for obs in self.obs]
        if len(set(labels)) < len(labels):
            raise ValueError(
                "obs must have encoders whose folders have different names, got the names "
                f"{', '.join(labels)}."
            )


class GridRun(NamedTuple):
    """One run of the grid.

    Attributes:
        task: id of the environment.
        label: observation, with the name of the encoder's folder if there is one.
        config: settings of the training; ``out`` is its run directory.
        folder: folder of the training and its evaluation.
        first: whether it is the first run of its task, which also scores a random policy.
    """

    task: str
    label: str
    config: AgentConfig
    folder: Path
    first: bool


def grid_runs(config: CompareConfig) -> list[GridRun]:
    """Return the runs of the grid, ordered by seed, so that partial results are balanced.

    Raises:
        ValueError: if an obs is unknown, its encoder is missing, or it takes no encoder.
    """
    result = []
    for seed in config.seeds:
        for task in config.tasks:
            for obs in config.obs:
                label = obs_label(obs)
                folder = config.out / task.replace(":", "_").replace("/", "_") / label / str(seed)
                agent = replace(
                    with_obs(config.agent, obs),
                    env=task,
                    seed=seed,
                    out=folder / "agent",
                    # Progress bars of parallel runs would overlap.
                    progress=config.agent.progress and config.in_process,
                )
                first = (seed, obs) == (config.seeds[0], config.obs[0])
                result.append(GridRun(task, label, agent, folder, first))
    return result


def train_all(config: CompareConfig, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Train and evaluate the missing runs, and return the records of all.

    Completed runs are not repeated. Interrupted ones resume from their last checkpoint; those whose
    training is completed are only evaluated.

    Args:
        config: the grid.
        report: called with a line of text at the end of each run.

    Returns:
        The records of all successful runs, in the grid's order.

    Raises:
        ValueError: if a run cannot start, or the folder contains one of other settings or is in use
            by another process.
        TrainingError: if runs failed, after all others have ended.
        StoppedError: after SIGINT or SIGTERM.
    """
    grid = grid_runs(config)
    failed: list[str] = []

    def ended(index: int, problem: str | None) -> None:
        run = missing[index]
        record = read_record(run)
        name = f"{run.task}, {run.label}, seed {run.config.seed}"
        if record is None:
            failed.append(name)
            report(f"{name}: failed{': ' if problem else ''}{problem or ''}")
        else:
            report(f"{name}: success {record['success']:.3f}, {record['steps']:,} steps")

    with FolderLock(config.out):
        missing = [run for run in grid if read_record(run) is None]
        _check(missing)
        calls = [(run, config.episodes) for run in missing]
        run_jobs(_attempt, calls, config, config.out / "jobs", ended)
    if failed:
        raise TrainingError(f"{len(failed)} of {len(grid)} runs failed: {'; '.join(failed)}.")
    return [record for run in grid if (record := read_record(run)) is not None]


def read_included(config: CompareConfig) -> list[dict[str, Any]]:
    """Read the completed runs of the comparisons in ``include``.

    Raises:
        ValueError: if a folder contains no completed run, or a file is damaged.
    """
    records = []
    for entry in config.include:
        name, _, folder = entry.rpartition("=")
        paths = sorted(Path(folder).glob(f"*/*/*/{RECORD}"))
        if not paths:
            raise ValueError(f"include must be folders with completed runs, got {entry}.")
        for path in paths:
            record = read_json(path)
            records.append(record | {"label": f"{record['label']}, {name}"} if name else record)
    return records


def read_record(run: GridRun) -> dict[str, Any] | None:
    """Read the record of a completed run; None if it is not completed.

    Raises:
        ValueError: if the run has other settings.
    """
    path = run.folder / RECORD
    if not path.exists():
        return None
    record: dict[str, Any] = read_json(path)
    check_same_settings(run.config, record["config"], run.folder, ignore=MACHINE)
    return record


def _check(missing: Sequence[GridRun]) -> None:
    """Load all encoders and create all environments, to fail before the first training."""
    encoders = {(run.config.obs, run.config.encoder): run.config for run in missing}
    for config in encoders.values():
        load_encoder(config)
    for config in {(run.task, run.config.obs): run.config for run in missing}.values():
        EnvMaker(config)().close()


def _attempt(run: GridRun, episodes: int) -> str | None:
    """Complete a run, or return the reason of its failure."""
    try:
        _complete(run, episodes)
    except (TrainingError, ValueError) as error:
        return str(error)
    return None


def _complete(run: GridRun, episodes: int) -> None:
    """Train, unless the training is completed, evaluate, and write the record."""
    trainer = AgentTrainer(run.config, resume=True)
    scores = train_and_evaluate(trainer, episodes, random=run.first, out=run.folder)
    if scores["agent"]["success_rate"] is None:
        raise ValueError(f"task must be an environment with info is_success, got {run.task!r}.")
    write_json(run.folder / RECORD, _record(run, scores))


def train_and_evaluate(
    trainer: AgentTrainer, episodes: int, *, random: bool, out: Path
) -> dict[str, Any]:
    """Train to the end, and evaluate the last agent, which is not selected by evaluations.

    Args:
        trainer: trainer of a new or interrupted run.
        episodes: episodes of the evaluation.
        random: also evaluate a random policy.
        out: folder of the evaluation's files.

    Returns:
        The scores of `evaluate_agent`.

    Raises:
        StoppedError: after SIGINT or SIGTERM.
    """
    trainer.run_to_end()
    config = trainer.config
    return evaluate_agent(
        EvaluationConfig(
            config.out / "last",
            episodes=episodes,
            random=random,
            video_episodes=0,
            n_envs=min(8, episodes),
            device=config.device,
            encoder_device=config.encoder_device,
            threads=config.threads,
            out=out,
            trust_remote_code=True,  # the settings come from the command line
        )
    )


def _record(run: GridRun, scores: dict[str, Any]) -> dict[str, Any]:
    """Return settings, scores, learning curve and origin of a run as JSON data."""
    agent = read_json(run.config.out / "last" / SETTINGS)
    rows = [row for row in log.read(run.config.out) if "time/fps" in row]
    # Start of the run, estimated from the first row's time of day.
    began = rows[0]["time"] - rows[0]["step"] / max(rows[0]["time/fps"], 1) if rows else 0

    def seconds(row: dict[str, float]) -> float:
        # Earlier versions logged only the time of day.
        return round(row.get("time/seconds", row["time"] - began), 1)

    evaluated = [row for row in rows if "rollout/success_rate" in row]
    points = evaluated[:: -(-len(evaluated) // _POINTS) or 1]
    shares = ("env", "encode", "evaluate", "learn")
    return {
        "task": run.task,
        "label": run.label,
        "seed": run.config.seed,
        "success": scores["agent"]["success_rate"],
        "steps": agent["steps"],
        "seconds": seconds(rows[-1]) if rows else None,
        "shares": {name: rows[-1][f"time/{name}_share"] for name in shares} if rows else None,
        "curve": {
            "steps": [row["step"] for row in points],
            "seconds": [seconds(row) for row in points],
            "success": [row["rollout/success_rate"] for row in points],
        },
        "evaluation": scores,
        "encoder": _encoder(run.config, agent),
        "hardware": agent.get("hardware"),
        "versions": agent["versions"],
        "config": agent["config"],
    }


def _encoder(config: AgentConfig, agent: dict[str, Any]) -> dict[str, Any] | None:
    """Return the encoder's identity and the scores of its last validation; None without one."""
    if config.encoder is None:
        return None
    stored = read_json(config.out / "last" / "encoder" / "config.json")
    scores = stored.get("validation", {})
    return {
        "source": config.encoder,
        "model": stored["model"],
        "fingerprint": agent["encoder_fingerprint"],
        "scores": {name: scores[name] for name in _SCORES if name in scores},
    }
