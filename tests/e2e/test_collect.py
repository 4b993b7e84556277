"""envs/collect.py as users run it: to the end, stopped, misused."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_rl.data import open_dataset

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
GOAL = ["--env", "genesis_rl/ObjectGoal-v0", "--n-envs", "2", "--vec", "dummy"]


def test_writes_packs(tmp_path: Path, run_program: Run) -> None:
    out = tmp_path / "new" / "data"
    options = '{"image_size": 32, "masks_in_info": true}'
    flags = [*GOAL, "--env-options", options, "--image-size", "16", "--steps", "120"]
    status, printed, errors = run_program("envs/collect.py", *flags, "--out", str(out))
    assert status == 0, errors
    for split in ("train", "validation", "test"):
        pack = open_dataset(out, split)
        assert f"{out / split}: {len(pack)} images" in printed
        assert pack.images.shape[1:] == (16, 16, 3) and pack.masks is not None


def test_empty_splits_are_reported(tmp_path: Path, run_program: Run) -> None:
    flags = [*GOAL, "--steps", "2", "--out", str(tmp_path / "data")]
    status, printed, _ = run_program("envs/collect.py", *flags)
    assert status == 0
    assert "test is empty" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "exactly one of --env, --agent, --from-minari"),
        (["--env", "genesis_rl/Nothing-v0"], "genesis_rl/Nothing-v0"),
        (["--env", "CartPole-v1"], "around each environment, or --render."),
        (["--env", "CartPole-v1", "--env-options", "[]"], "--env-options"),
        (["--agent", "no-such-folder"], "folder must exist, got no-such-folder"),
        (["--from-minari", "none/such-v0"], "--from-minari"),
        ([*GOAL, "--minari", "bad id"], "Malformed dataset ID"),
        ([*GOAL, "--steps", "0"], "steps"),
    ],
)
def test_bad_input_is_one_message(
    tmp_path: Path, flags: list[str], message: str, run_program: Run
) -> None:
    out = tmp_path / "data"
    status, _, errors = run_program("envs/collect.py", *flags, "--out", str(out))
    assert status == 2
    assert message in errors
    assert not out.exists()


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_leaves_nothing(tmp_path: Path, stop: signal.Signals, status: int) -> None:
    program = str(ROOT / "envs" / "collect.py")
    flags = ["--env", "genesis_rl/ObjectGoal-v0", "--n-envs", "2", "--steps", "10000000"]
    process = subprocess.Popen(
        [sys.executable, program, *flags, "--out", str(tmp_path / "data")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ends = time.monotonic() + 100
    while not list(tmp_path.glob(".data-*/.train-*")) and time.monotonic() < ends:
        time.sleep(0.1)
    if stop is signal.SIGINT:  # as a terminal sends it
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "stopped, nothing was written" in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())
