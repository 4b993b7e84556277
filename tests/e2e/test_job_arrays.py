"""The job array of the page on scale: a pretraining per seed, resumed by the same script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genesis_rl.training.folder import Run

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_seeds_of_a_pretraining(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guides" / "scale.md").read_text(encoding="utf-8")
    script = page.split("## Seeds of a pretraining")[1].split("#!/bin/bash\n")[1].split("\n\n")[0]
    script = script.replace("runs/", f"{tmp_path}/").replace("multi-dsprites", "smoke")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = os.environ | {"PATH": path, "SLURM_ARRAY_TASK_ID": "2"}
    for resumed in (False, True):
        result = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        run = Run.open(tmp_path / "encoder-2")
        assert (run.config.seed, run.config.resume) == (2, resumed)
        assert run.step == run.config.steps
