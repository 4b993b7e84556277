"""Parallel map over processes."""

import operator
import subprocess
import sys
from functools import partial

import pytest

from genesis_rl.worlds.workers import Workers

# A picklable factory of the function that doubles a number.
DOUBLE = partial(partial, operator.mul, 2)


@pytest.mark.parametrize("count", [1, 2])
def test_values_are_in_the_order_of_the_numbers(count: int) -> None:
    with Workers(DOUBLE, count) as workers:
        assert list(workers.map(range(20))) == list(range(0, 40, 2))


def test_a_program_from_standard_input_computes_in_its_own_process() -> None:
    program = """
import operator
from functools import partial
from genesis_rl.worlds.workers import Workers

with Workers(partial(partial, operator.mul, 2), 2) as workers:
    print(list(workers.map(range(3))))
"""
    result = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout) == (0, "[0, 2, 4]\n"), result.stderr
