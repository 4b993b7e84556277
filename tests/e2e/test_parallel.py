"""Two processes train as one would: the same losses, the same weights; one dies, both end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from genesis_rl.training.parallel import SyncedBatchNorm2d, synchronised
from genesis_rl.utils import log

ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--preset", "smoke", "--device", "cpu", "--threads", "1", "--no-tensorboard"),
    *("--precision", "fp32", "--batch-size", "8", "--log-every", "1", "--eval-every", "100000"),
)


def environment(data_root: Path, **more: str) -> dict[str, str]:
    # A test worker's own variables must not make the program one of its processes.
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "GENESIS_RL_DATA": str(data_root), "OMP_NUM_THREADS": "1", **more}


def command(out: Path, *flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "pretrain" / "train.py"), *FLAGS, "--out", str(out), *flags]


def ranks(data_root: Path, out: Path, *flags: str) -> list["subprocess.Popen[str]"]:
    """Two processes that find each other, without a launcher that would end one for the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        subprocess.Popen(
            command(out, *flags),
            env=environment(
                data_root,
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def losses(out: Path) -> dict[int, tuple[float, float, float]]:
    return {
        int(row["step"]): (row["train/nll"], row["train/kl_m"], row["train/kl_c"])
        for row in log.read(out)
        if "train/nll" in row
    }


def wait_for_checkpoint(out: Path) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            step: int = json.loads((out / "last" / "config.json").read_text())["step"]
            return step
        except (OSError, ValueError):
            time.sleep(0.02)
    raise AssertionError("no checkpoint in time")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.slow
def test_two_processes_compute_what_one_does(data_root: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ("--steps", "8", "--save-every", "8")
    alone = subprocess.run(
        command(one, *flags), env=environment(data_root), capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    together = subprocess.run(
        [sys.executable, *launcher, *command(two, *flags)[1:]],
        env=environment(data_root),
        capture_output=True,
        text=True,
    )
    assert together.returncode == 0, together.stderr
    ours, theirs = losses(two), losses(one)
    assert ours.keys() == theirs.keys() == set(range(1, 9))
    for step, terms in theirs.items():
        assert ours[step] == pytest.approx(terms, rel=1e-5, abs=1e-3), step
    first, second = (load_file(out / "last" / "model.safetensors") for out in (one, two))
    assert first.keys() == second.keys()  # norms over both batches add no parameters
    for name, value in first.items():
        # Adam's first updates are as large where gradients are rounding as where they are not, so
        # single weights may part; all together they have not.
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=2e-3, msg=name)
        assert (second[name] - value).double().square().mean().sqrt() < 1e-4, name


@pytest.mark.slow
def test_one_that_dies_ends_the_other_which_can_go_on(data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    survivor, victim = ranks(data_root, out, "--steps", "100000", "--save-every", "3")
    wait_for_checkpoint(out)
    victim.kill()
    victim.communicate()
    _, errors = survivor.communicate(timeout=90)
    assert survivor.returncode == 1
    assert "2 processes" in errors and "--resume" in errors
    step = json.loads((out / "last" / "config.json").read_text())["step"]
    resumed = ranks(data_root, out, "--steps", str(step + 2), "--resume")
    for process in resumed:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert max(losses(out)) == step + 2


@pytest.mark.slow
def test_one_that_is_told_to_stop_stops_both(data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    processes = ranks(data_root, out, "--steps", "100000", "--save-every", "3")
    wait_for_checkpoint(out)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=90)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outputs
    step = json.loads((out / "last" / "config.json").read_text())["step"]
    assert all(f"stopped at step {step}" in errors for errors in outputs)


def test_in_one_process_a_synchronised_norm_is_an_ordinary_one() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    mirror = synchronised(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4))),
        torch.device("cpu"),
    )
    assert sum(isinstance(m, SyncedBatchNorm2d) for m in mirror.modules()) == 2
    mirror.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(mirror(x), plain(x))
    torch.testing.assert_close(mirror.state_dict(), plain.state_dict())
