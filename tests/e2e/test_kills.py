"""Programs killed at random moments: nothing is lost, nothing of the user's is touched.

GENESIS_RL_KILLS=100 kills that often; a few times by default.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as iio
import pytest
import torch

from genesis_rl.checkpoints.loading import load
from genesis_rl.utils import log
from genesis_rl.utils.files import PRIVATE, read_folder, read_json
from genesis_rl.worlds.offscreen import require_gl

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("GENESIS_RL_KILLS", "12"))
# Kills of one run before it is left to end.
KILLS_OF_A_RUN = 4
NEIGHBOURS = (
    *("{}.old", "{}-1", ".{}", "{}.bak", "{}~", ".{}.old", ".{}.partial", ".{}-abc12345"),
    *("{}.partial", ".{}.lock", "{}.lock", "{}.new", ".{}.new", ".{}.tmp", "{}.tmp", "{}2"),
    *("{}-old", ".{}.genesis", "{}.genesis_rl", "..{}.genesis_rl"),
)
# What the time of a run, or that it was resumed, changes.
VOLATILE = (
    *("metrics.jsonl", "config.json", "agent.json", "train.json", "run.json", "evaluation.json"),
    *("training.pt", "training.json", "comparison.json", "comparison-steps.png"),
    *("comparison-minutes.png", "report.json"),
)

# Starts programs as forks of a process that has imported everything: an import takes seconds.
SERVER = """
import json, os, runpy, sys
import genesis_rl.agents.comparison.grid, genesis_rl.envs.recording.recorder
import genesis_rl.worlds.towers.tree, genesis_rl.training, genesis_rl.world_model.training
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    status = 70
    try:
        os.setsid()
        os.chdir(job["cwd"])
        file = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (file, 1), (file, 2)):
            os.dup2(source, target)
        status = runpy.run_path(job["program"])["main"](job["argv"])
    except SystemExit as error:
        status = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 71)
"""

TRAIN = [
    *("--preset", "smoke", "--out", "run", "--no-tensorboard", "--device", "cpu", "--threads", "1"),
    *("--precision", "fp32", "--steps", "16", "--save-every", "2", "--eval-every", "4"),
    *("--eval-images", "4", "--data-options", '{"image_size": 32, "num_images": 64}'),
]
AGENTS = [
    *("--out", "run", "--tasks", "genesis_rl/ObjectGoal-v0", "--obs", "state", "--seeds", "0"),
    *("--episodes", "2", "--agent.n-envs", "2", "--agent.vec", "dummy", "--agent.threads", "1"),
    *("--agent.ppo.n-steps", "16", "--agent.ppo.batch-size", "16", "--agent.policy.width", "8"),
    *("--agent.total-timesteps", "96", "--agent.eval-every", "32", "--agent.eval-episodes", "1"),
    *("--agent.no-tensorboard", "--agent.no-progress"),
    *("--agent.env-options", '{"image_size": 32, "max_episode_steps": 10}'),
]
COLLECT = [
    *("--env", "genesis_rl/ObjectGoal-v0", "--vec", "dummy", "--n-envs", "2"),
    *("--steps", "1000", "--image-size", "32", "--out", "run"),
]
RENDER = [
    *("--out", "run", "--scenarios", "6", "--cameras", "13", "--workers", "1", "--seed", "3"),
    *("--heights", "2", "3"),
]


class Program(NamedTuple):
    """A program that is killed.

    Attributes:
        path: below the root.
        argv: its flags; writes the folder "run".
        inside: folders in "run" that have neighbours, too.
    """

    path: str
    argv: list[str]
    inside: tuple[str, ...] = ()


AGENT = "genesis_rl_ObjectGoal-v0/state/0/agent"
PROGRAMS = {
    "training": Program("pretrain/train.py", TRAIN, ("last", "best")),
    "agents": Program("agents/compare.py", AGENTS, (f"{AGENT}/last", f"{AGENT}/best")),
    "collecting": Program("envs/collect.py", COLLECT),
    "rendering": Program("envs/render_shapestacks.py", RENDER),
}


class Server:
    """Starts and awaits programs."""

    def __init__(self, data: Path) -> None:
        environment = os.environ | {"GENESIS_RL_DATA": str(data), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def _ask(self, **job: Any) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, program: Program, cwd: Path, *more: str) -> int:
        """Start a program in a folder; return its process id."""
        path, argv = str(ROOT / program.path), [*program.argv, *more]
        return self._ask(program=path, argv=argv, cwd=str(cwd), log=str(cwd) + ".log")

    def wait(self, pid: int) -> int:
        """Wait for a program; return its exit status."""
        return self._ask(wait=pid)

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"))
    yield server
    server.close()


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder; b"" for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def add_neighbours(cwd: Path, program: Program) -> dict[str, bytes]:
    """Put the user's folders beside everything that the program replaces."""
    for name in ("run", *(f"run/{name}" for name in program.inside)):
        path = cwd / name
        for pattern in NEIGHBOURS:
            folder = path.with_name(pattern.format(path.name))
            folder.mkdir(parents=True)
            (folder / "thesis.txt").write_text(f"{name}, {pattern}")
    return files(cwd)


def is_written(cwd: Path) -> bool:
    """Whether a writer is at work."""
    return any(
        name.endswith(PRIVATE) and ".genesis_rl" != name and "thesis.txt" not in names
        for _, names, _ in os.walk(cwd)
        for name in names
        if name.startswith(".") and not name.startswith("..")
    )


def rows(folder: Path) -> list[dict[str, float]]:
    """A log without times."""
    times = ("time", "seconds", "per_second", "_share", "fps")
    return [
        {name: value for name, value in row.items() if not name.endswith(times)}
        for row in log.read(folder)
    ]


def end_state(kind: str, cwd: Path) -> dict[str, Any]:
    """What a program has written, as far as it is deterministic."""
    run = cwd / "run"
    state: dict[str, Any] = {
        name: None if Path(name).name in VOLATILE else data for name, data in files(run).items()
    }
    for path in run.rglob("metrics.jsonl"):
        state[str(path.relative_to(run))] = rows(path.parent)
    if kind == "agents":  # a resumed agent has met other episodes
        return dict.fromkeys(state) | {"step": checkpoint_step(kind, cwd)}
    for path in run.rglob("training.pt"):
        optimiser = torch.load(path, weights_only=True)["optimiser"]["state"]
        state["optimiser"] = {
            f"{number}.{name}": value.tolist()
            for number, values in optimiser.items()
            for name, value in values.items()
        }
    return state


def differ(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> str:
    """Describe a difference."""
    if not name.endswith(".png"):
        return name
    first, second = (iio.imread(state[name]).astype(int) for state in (wanted, found))
    return f"{name}: by {abs(first - second).max()} in {(first != second).mean():.1%}"


def checkpoint_step(kind: str, cwd: Path) -> int:
    """Return the step of the last checkpoint, all of which can be read; 0 without one."""
    last = cwd / "run" / (f"{AGENT}/last" if kind == "agents" else "last")
    if kind not in ("training", "agents") or not read_folder(last, Path.exists):
        return 0
    state = read_folder(last, lambda home: torch.load(home / "training.pt", weights_only=True))
    if kind == "training":
        load(cwd / "run", device="cpu")
        return int(state["step"])
    return int(read_folder(last, lambda home: read_json(home / "agent.json"))["steps"])


def resume(kind: str, step: int) -> list[str]:
    """Return the flags that continue a run; the other programs need none."""
    return ["--resume"] if kind == "training" and step else []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_random_kills(
    kind: str, server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if kind == "rendering":
        try:
            require_gl()
        except RuntimeError as error:
            pytest.skip(str(error))
    program, rng = PROGRAMS[kind], random.Random(0)
    whole = tmp_path / "whole"
    whole.mkdir()
    for _ in range(2):  # the first one also makes the data
        shutil.rmtree(whole / "run", ignore_errors=True)
        began = time.monotonic()
        status = server.wait(server.start(program, whole))
        seconds = time.monotonic() - began
        assert status == 0, Path(f"{whole}.log").read_text()
    wanted = end_state(kind, whole)
    assert not any(PRIVATE in name for name in wanted)

    kills = runs = left_over = 0
    while kills < KILLS // len(PROGRAMS):
        cwd = tmp_path / f"run-{runs}"
        cwd.mkdir()
        mine, step, runs = add_neighbours(cwd, program), 0, runs + 1
        for _ in range(KILLS_OF_A_RUN):
            pid = server.start(program, cwd, *resume(kind, step))
            time.sleep(rng.uniform(0, 0.9 * seconds))
            if rng.random() < 0.5:  # while something is written
                deadline = time.monotonic() + 0.3 * seconds
                while not is_written(cwd) and time.monotonic() < deadline:
                    pass
                time.sleep(rng.uniform(0, 0.003))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = server.wait(pid)
            assert status in (0, -signal.SIGKILL), Path(f"{cwd}.log").read_text()
            now = files(cwd)
            assert all(now.get(name) == data for name, data in mine.items())
            before, step = step, checkpoint_step(kind, cwd)
            assert step >= before
            left_over += is_written(cwd)
            if status == 0:
                break
            kills += 1
            if kills == KILLS // len(PROGRAMS):
                break
        if status:
            status = server.wait(server.start(program, cwd, *resume(kind, step)))
            assert status == 0, Path(f"{cwd}.log").read_text()
        now = files(cwd)
        assert all(now.get(name) == data for name, data in mine.items())
        for name in sorted(mine, reverse=True):  # the deepest first
            if name.endswith("thesis.txt"):
                shutil.rmtree((cwd / name).parent)
        assert not [name for name in files(cwd) if PRIVATE in name]
        found = end_state(kind, cwd)
        assert found.keys() == wanted.keys()
        assert [differ(name, wanted, found) for name in wanted if found[name] != wanted[name]] == []
    record_property("kills", kills)
    print(f"{kind}: {kills} kills, {runs} runs to the end, {left_over} left something unfinished")
