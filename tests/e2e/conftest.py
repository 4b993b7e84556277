"""Programs run in the process of the tests."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_program(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a program's main: its path below the root and its flags to status, output and errors.

    Output and errors are without tyro's boxes, with single spaces between words.
    """

    def run(program: str, *flags: str) -> tuple[int, str, str]:
        main = runpy.run_path(str(ROOT / program))["main"]
        capsys.readouterr()
        try:
            status = main(list(flags))
        except SystemExit as stop:  # how tyro leaves
            status = stop.code
        out, errors = (" ".join(text.replace("│", " ").split()) for text in capsys.readouterr())
        return status, out, errors

    return run
