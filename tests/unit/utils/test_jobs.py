"""Parallel calls in processes and jobs of submitit, on this machine or a simulated cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.utils.extras import MissingExtraError
from genesis_rl.utils.jobs import JobsConfig, run_jobs

# The commands of SLURM that submitit calls; a job runs at once, in the background.
SLURM = {
    "sbatch": 'SLURM_JOB_ID=$$ nohup bash "$1" >/dev/null 2>&1 &\necho "Submitted batch job $$"',
    "srun": 'while [ "${1#*python}" = "$1" ]; do shift; done\n'
    'name=$(dirname "${!#}")/jobs/${SLURM_JOB_ID}_0_log\n"$@" >"$name.out" 2>"$name.err"',
    "sacct": "true",
    "scancel": 'kill "$1"',
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated SLURM cluster."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def run(
    function: Callable[..., Any], folder: Path, *calls: str, **settings: Any
) -> dict[int, str | None]:
    """The results of calls with one argument each, by their index."""
    ended: dict[int, str | None] = {}
    config = JobsConfig(**settings)
    run_jobs(function, [(call,) for call in calls], config, folder / "jobs", ended.__setitem__)
    return ended


@pytest.mark.smoke
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("executor", ["processes", "local", "slurm"])
def test_two_jobs_run_at_the_same_time(
    executor: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if executor != "processes":
        pytest.importorskip("submitit")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # neither of the two calls ends before the other starts
    options = {"timeout_min": 7, "slurm_partition": "small"} if executor == "slurm" else {}
    calls = f"cat {pipe}", f"echo received > {pipe}; touch {tmp_path}/written"
    ended = run(
        subprocess.getoutput,
        tmp_path,
        *calls,
        jobs=2,
        executor=executor,
        executor_options=json.dumps(options),
    )
    assert (tmp_path / "written").exists()
    # Processes print the reason of a failure; jobs return it.
    known = executor != "processes"
    assert ended == {0: "received" if known else None, 1: "" if known else None}
    assert ("received" in capfd.readouterr().err) is not known
    if executor == "slurm":
        script = next((tmp_path / "jobs").glob("*_submission.sh")).read_text()
        assert "--partition=small" in script and "--time=7" in script


@pytest.mark.slow
def test_at_most_as_many_jobs_as_set(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    wrong = f"touch {tmp_path}/wrong"
    calls = (
        f"sleep 0.5; test ! -e {tmp_path}/b || {wrong}; touch {tmp_path}/a",
        f"test -e {tmp_path}/a || {wrong}; touch {tmp_path}/b",
    )
    assert run(subprocess.getoutput, tmp_path, *calls, executor="local") == {0: "", 1: ""}
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_failures_of_jobs(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    reason = run(json.loads, tmp_path, "{", executor="local")[0]
    assert reason is not None and reason.startswith("see ")
    assert "JSONDecodeError" in Path(reason.removeprefix("see ")).read_text()
    reason = run(os.remove, tmp_path, str(tmp_path / "missing"), executor="local")[0]
    assert reason is not None and "No such file" in reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jobs": 0}, "jobs must"),
        ({"executor": "ray"}, "executor must be one of processes, slurm, local, got 'ray'"),
        ({"executor_options": "["}, "executor_options must be a JSON object"),
        ({"executor_options": "[]"}, "executor_options must be a JSON object"),
        ({"executor_options": '{"timeout_min": 5}'}, "executor must be slurm or local with"),
        ({"executor": "slurm"}, "executor must be processes or local without srun"),
        ({"executor": "local", "executor_options": '{"hours": 5}'}, "executor_options must .*hour"),
        (
            {"executor": "local", "executor_options": '{"timeout_min": "5"}'},
            "executor_options must .*timeout_min",
        ),
        ({"executor": "local", "executor_options": '{"slurm_hours": 5}'}, "executor_options must"),
    ],
)
def test_bad_settings_are_named(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=message):
        run(str, tmp_path, "call", **settings)


@pytest.mark.usefixtures("cluster")
def test_a_job_that_sbatch_rejects(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2; exit 1\n")
    with pytest.raises(ValueError, match="executor_options must be accepted by sbatch"):
        run(str, tmp_path, "call", executor="slurm", executor_options='{"slurm_partition": "x"}')


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingExtraError, match=r"genesis_rl\[slurm\]"):
        run(str, tmp_path, "call", executor="local")
