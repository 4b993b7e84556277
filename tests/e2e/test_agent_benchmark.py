"""tools/benchmark_agents.py: sum of shares, bytes by hand, invalid flags."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
FLAGS = (
    *("--transitions", "64", "--rollouts", "1", "--agent.vec", "dummy", "--agent.threads", "1"),
    *("--agent.ppo.batch-size", "32", "--agent.policy.width", "16"),
    *("--agent.env-options", '{"image_size": 32, "num_objects": 2}', "--agent.frame-size", "40"),
)


def test_shares_add_up_and_bytes_are_those_of_the_arrays(tmp_path: Path, run_program: Run) -> None:
    given = ("--obs", "state", "pixels", "random=smoke", "--n-envs", "1", "4")
    status, output, errors = run_program(
        "tools/benchmark_agents.py", *FLAGS, *given, "--out", str(tmp_path / "speed.json")
    )
    assert (status, errors) == (0, "")
    assert "state | 4 | " in output
    result = json.loads((tmp_path / "speed.json").read_text())
    speed = {(row["label"], row["n_envs"]): row for row in result["speed"]}
    assert len(speed) == 6
    for row in speed.values():
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert min(row["shares"].values()) >= 0
        assert row["steps_per_second"] > 0
    assert speed["random-smoke", 4]["shares"]["encoding"] > 0
    memory = {row["label"]: row for row in result["memory"]}
    assert memory["pixels"]["rollout_bytes"] == 3 * 40 * 40  # a byte for each value
    assert memory["state"]["shape"] == [3, 11]
    assert memory["state"]["rollout_bytes"] == 3 * 11 * 4
    # Three slots of 8 + 4 latents and 3 of mask geometry, before and after.
    assert memory["random-smoke"]["replay_bytes"] == 2 * 3 * 15 * 4
    assert [len(table["rows"]) for table in result["tables"]] == [6, 3]


def test_imagined_and_real_environments_are_timed(run_program: Run, tmp_path: Path) -> None:
    flags = ("--transitions", "16", "--rollouts", "1", "--agent.vec", "dummy", "--n-envs", "2")
    status, output, errors = run_program(
        *("tools/benchmark_agents.py", *flags, "--obs", "genesis=sprites-fast"),
        *("--world-model", "object-comparison", "--agent.env", "genesis_rl/ObjectComparison-v0"),
        *("--agent.ppo.batch-size", "16", "--agent.threads", "1"),
        *("--out", str(tmp_path / "speed.json")),
    )
    assert (status, errors) == (0, "")
    assert "environments | imagined | real, frames | real, slots" in output
    (row,) = json.loads((tmp_path / "speed.json").read_text())["imagination"]
    assert row["num_envs"] == 2
    assert min(row["imagined"], row["real_frames"], row["real_slots"]) > 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n-envs", "3"], ": n_envs "),
        (["--rollouts", "0"], "rollouts"),
        (["--obs", "vae"], "obs"),
        (["--world-model", "object-comparison"], ": obs "),
        (["--agent.env", "Nowhere-v0"], "cannot be made"),
    ],
)
def test_bad_flags_end_with_status_2(more: list[str], message: str, run_program: Run) -> None:
    status, output, errors = run_program("tools/benchmark_agents.py", *FLAGS, *more)
    assert status == 2
    assert message in errors
    assert output == ""
