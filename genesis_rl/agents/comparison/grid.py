"""A grid of runs (task x what the agent sees x seed) that goes on where it was stopped."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from genesis_rl import log
from genesis_rl.agents.bundle import SETTINGS
from genesis_rl.agents.config import (
    MACHINE,
    AgentConfig,
    EvaluationConfig,
    check_same_settings,
    obs_label,
    seeing,
)
from genesis_rl.agents.encoders import load_encoder
from genesis_rl.agents.env_maker import EnvMaker
from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.checks import check_integers
from genesis_rl.envs import TASKS
from genesis_rl.files import FolderLock, read_json, write_json
from genesis_rl.process import StoppedError, StopSignal

RECORD = "run.json"
# Points of a curve that are kept.
_POINTS = 200
_SCORES = ("ari", "ari_fg", "ari_fg_2plus", "msc", "sc", "mse")


@dataclass(frozen=True)
class CompareConfig:
    """What is compared."""

    tasks: tuple[str, ...] = tuple(f"genesis_rl/{name}-v0" for name in TASKS)
    """ids of environments"""
    obs: tuple[str, ...] = ("state", "pixels")
    """what agents see, as agents/train.py --obs; those that take an encoder with it, for example
    genesis=runs/eyes"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """a run for each"""
    agent: AgentConfig = field(default_factory=lambda: AgentConfig(obs="state"))
    """all other settings of the runs; env, obs, encoder, seed and out come from the grid"""
    episodes: int = 200
    """episodes on which the agents are scored at the end, the same for all of a task"""
    jobs: int = 1
    """runs side by side, each in a process of its own"""
    out: Path = Path("runs/compare")
    """folder of the runs and, unless summary says otherwise, of what they are summed up to"""
    also: tuple[str, ...] = ()
    """folders of other comparisons, whose runs are summed up beside these; NAME=FOLDER puts NAME
    to what their agents see, to tell runs of other settings apart"""
    summary: Path | None = None
    """JSON file of table and curves; the pictures lie beside it; None: comparison.json in out"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("tasks", "obs", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} is {values}; wanted one or more, each once.")
        check_integers(self, 1, "episodes", "jobs")
        labels = [obs_label(obs) for obs in self.obs]
        if len(set(labels)) < len(labels):
            raise ValueError(
                f"obs {self.obs} are named {labels}; wanted encoders whose folders have different "
                "names."
            )


class Run(NamedTuple):
    """One run of the grid.

    Attributes:
        task: id of the environment.
        label: what the agent sees; with the name of the encoder's folder where there is one.
        config: all settings; its ``out`` holds the training.
        folder: holds all of the run.
        first: whether it is the first of its task, which scores a random policy, too.
    """

    task: str
    label: str
    config: AgentConfig
    folder: Path
    first: bool


def runs(config: CompareConfig) -> list[Run]:
    """The runs of the grid, seeds outermost: what is there at any time is balanced.

    Raises:
        ValueError: if an obs is unknown, lacks its encoder, or has one that it does not use.
    """
    result = []
    for seed in config.seeds:
        for task in config.tasks:
            for obs in config.obs:
                label = obs_label(obs)
                folder = config.out / task.replace(":", "_").replace("/", "_") / label / str(seed)
                agent = replace(
                    seeing(config.agent, obs),
                    env=task,
                    seed=seed,
                    out=folder / "agent",
                    # The bars of several runs would mix.
                    progress=config.agent.progress and config.jobs == 1,
                )
                first = (seed, obs) == (config.seeds[0], config.obs[0])
                result.append(Run(task, label, agent, folder, first))
    return result


def train_all(config: CompareConfig, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Train and score what is missing, and read all of it.

    A run that ended is not repeated. One that was killed resumes from its last checkpoint; one
    whose training ended is only scored.

    Args:
        config: the grid.
        report: is told of every run that ends.

    Returns:
        The records of all runs that ended well, in the grid's order.

    Raises:
        ValueError: if a run cannot start, or the folder holds one of other settings, or another
            process writes it.
        TrainingError: if runs failed, after all others have ended.
        StoppedError: after SIGINT or SIGTERM.
    """
    with FolderLock(config.out):
        return _train_all(config, report)


def _train_all(config: CompareConfig, report: Callable[[str], None]) -> list[dict[str, Any]]:
    grid = runs(config)
    missing = [run for run in grid if read_record(run) is None]
    _check(missing)
    failed: list[str] = []

    def ended(run: Run, problem: str | None) -> None:
        record = read_record(run)
        name = f"{run.task}, {run.label}, seed {run.config.seed}"
        if record is None:
            failed.append(name)
            report(f"{name}: failed{': ' if problem else ''}{problem or ''}")
        else:
            report(f"{name}: success {record['success']:.3f}, {record['steps']:,} steps")

    if config.jobs == 1:
        for run in missing:
            ended(run, _attempt(run, config.episodes))
    else:
        _train_in_processes(missing, config, ended)
    if failed:
        raise TrainingError(f"{len(failed)} of {len(grid)} runs failed: {'; '.join(failed)}.")
    return [record for run in grid if (record := read_record(run)) is not None]


def read_others(config: CompareConfig) -> list[dict[str, Any]]:
    """Read the runs that ended of the comparisons named by ``also``.

    Raises:
        ValueError: if a folder has none, or a file is damaged.
    """
    records = []
    for given in config.also:
        name, _, folder = given.rpartition("=")
        found = sorted(Path(folder).glob(f"*/*/*/{RECORD}"))
        if not found:
            raise ValueError(f"also has {given}, which holds no run that has ended.")
        for path in found:
            record = read_json(path)
            records.append(record | {"label": f"{record['label']}, {name}"} if name else record)
    return records


def read_record(run: Run) -> dict[str, Any] | None:
    """What a run that ended wrote; None if it has not.

    Raises:
        ValueError: if it was made with other settings.
    """
    path = run.folder / RECORD
    if not path.exists():
        return None
    record: dict[str, Any] = read_json(path)
    check_same_settings(run.config, record["config"], run.folder, ignore=MACHINE)
    return record


def _check(missing: Sequence[Run]) -> None:
    """Try what every run starts with, so that none fails hours later."""
    encoders = {(run.config.obs, run.config.encoder): run.config for run in missing}
    for config in encoders.values():
        load_encoder(config)
    for config in {(run.task, run.config.obs): run.config for run in missing}.values():
        EnvMaker(config)().close()


def _attempt(run: Run, episodes: int) -> str | None:
    """Do a run; the reason if it fails."""
    try:
        _do(run, episodes)
    except (TrainingError, ValueError) as error:
        return str(error)
    return None


def _do(run: Run, episodes: int) -> None:
    """Train, unless that has ended, and score; write the record."""
    config = run.config
    trainer = AgentTrainer(config, resume=True)
    trainer.run()
    if trainer.stopped:
        raise StoppedError(f"stopped in {run.folder}", trainer.stop_status)
    scores = evaluate_agent(
        EvaluationConfig(
            config.out / "last",
            episodes=episodes,
            random=run.first,
            video_episodes=0,
            num_envs=min(8, episodes),
            device=config.device,
            encoder_device=config.encoder_device,
            threads=config.threads,
            out=run.folder,
            trust_remote_code=True,  # its settings are those of the command line
        )
    )
    if scores["agent"]["success_rate"] is None:
        raise ValueError(f"env {run.task!r} reports no is_success; wanted one that does.")
    write_json(run.folder / RECORD, _record(run, scores))


def _record(run: Run, scores: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a run, as JSON data."""
    agent = read_json(run.config.out / "last" / SETTINGS)
    rows = [row for row in log.read(run.config.out) if "time/fps" in row]
    # The rows' times are of the day; the first tells when the run began.
    began = rows[0]["time"] - rows[0]["step"] / max(rows[0]["time/fps"], 1) if rows else 0

    def seconds(row: dict[str, float]) -> float:
        # Runs of earlier versions have only the time of day.
        return round(row.get("time/seconds", row["time"] - began), 1)

    known = [row for row in rows if "rollout/success_rate" in row]
    kept = known[:: -(-len(known) // _POINTS) or 1]
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
            "steps": [row["step"] for row in kept],
            "seconds": [seconds(row) for row in kept],
            "success": [row["rollout/success_rate"] for row in kept],
        },
        "evaluation": scores,
        "encoder": _encoder(run.config, agent),
        "hardware": agent.get("hardware"),
        "versions": agent["versions"],
        "config": agent["config"],
    }


def _encoder(config: AgentConfig, agent: dict[str, Any]) -> dict[str, Any] | None:
    """Which encoder it was, and how good at its last validation as far as its folder tells."""
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


def _train_in_processes(
    missing: Sequence[Run], config: CompareConfig, ended: Callable[[Run, str | None], None]
) -> None:
    """Work the runs off in processes, each of which serves a single run."""
    context = multiprocessing.get_context("spawn")
    waiting, running = list(missing), dict[int, tuple[SpawnProcess, Run]]()
    with StopSignal() as stop:
        while (waiting or running) and not stop.received:
            while waiting and len(running) < config.jobs:
                run = waiting.pop(0)
                process = context.Process(target=_work, args=(run, config.episodes))
                process.start()
                running[process.sentinel] = process, run
            for sentinel in wait(list(running), timeout=1):
                assert isinstance(sentinel, int)  # noqa: S101 (for the type checker)
                process, run = running.pop(sentinel)
                process.join()
                ended(run, None)
        for process, _ in running.values():
            with suppress(OSError):
                process.terminate()
        for process, _ in running.values():
            process.join()
    if stop.received:
        to_go = len(waiting) + len(running)
        raise StoppedError(f"stopped with {to_go} runs to go", stop.status)


def _work(run: Run, episodes: int) -> None:
    """What a process does; its problem goes where its output goes."""
    # Ctrl-C reaches all processes of a terminal; the first one sends SIGTERM to the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        problem = _attempt(run, episodes)
    except (StoppedError, OSError) as error:
        problem = str(error)
    if problem is not None:
        sys.exit(problem)
