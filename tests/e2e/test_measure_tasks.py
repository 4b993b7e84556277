"""envs/measure_tasks.py as a user runs it: a table of the tasks, bad input."""

from collections.abc import Callable

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_prints_a_row_for_each_task(run_program: Run) -> None:
    flags = ["--tasks", "ObjectComparison", "--episodes", "5", "--n-envs", "8"]
    status, out, _ = run_program("envs/measure_tasks.py", *flags, "--options", "image_size", "16")
    assert status == 0
    row = out.split("|---|")[-1]
    assert "ObjectComparison | 1.000 (0.566 to 1.000)" in row  # Wilson's interval for 5 of 5
    single, batched = (float(cell.replace(",", "")) for cell in row.split(" | ")[-3:-1])
    assert batched > single > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks", "ObjectGaol"], "tasks"),
        (["--episodes", "0"], "episodes"),
        (["--options", "cats", "1"], "cats"),
    ],
)
def test_bad_input_is_refused(flags: list[str], message: str, run_program: Run) -> None:
    status, _, errors = run_program("envs/measure_tasks.py", *flags)
    assert status == 2 and message in errors
