"""The code of the page on RLlib: PPO with slots in two env runners."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "rllib.md"


@pytest.mark.slow
def test_ppo_learns_from_slots_in_two_env_runners(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed (docs/guides/rllib.md)")
    program = tmp_path / "program.py"
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    weight = "algorithm.get_module().extractor.embed.weight"
    code = code.replace("    for _", f"    before = {weight}.clone()\n    for _", 1)
    code += f"    print('learned', bool(({weight} != before).all()))\n"
    program.write_text(code.replace("    algorithm.stop()\n", ""), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert result.returncode == 0, result.stderr
    steps = [line.split()[0] for line in result.stdout.splitlines() if " steps: return " in line]
    assert len(steps) == 2
    assert 512 <= int(steps[0]) < int(steps[1])
    assert "learned True" in result.stdout
