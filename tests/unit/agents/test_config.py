"""Presets of agents: flags that later flags override."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.agents.config import PRESETS, TrainConfig, preset_flags

PROGRAM = Path(__file__).parents[3] / "agents" / "train.py"
ENCODER = ["--encoder", "runs/encoder"]


@pytest.fixture(scope="module")
def parse() -> Callable[[list[str]], TrainConfig]:
    """The parser of agents/train.py."""
    function: Any = runpy.run_path(str(PROGRAM))["parse"]
    return function  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str, parse: Callable[[list[str]], TrainConfig]) -> None:
    config = parse(["--preset", name, *ENCODER, "--seed", "3"])
    assert (config.encoder, config.seed) == ("runs/encoder", 3)


def test_flags_override_the_preset(parse: Callable[[list[str]], TrainConfig]) -> None:
    config = parse(["--preset", "robot", *ENCODER, "--policy.layers", "3"])
    assert (config.algo, config.mask_geometry, config.policy.layers) == ("sac", False, 3)
    assert config.off_policy.ent_coef == "auto_0.05"
    assert parse(["--preset", "robot", *ENCODER, "--mask-geometry"]).mask_geometry
    assert "--agent.no-mask-geometry" in preset_flags("robot", "agent.")


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of default, .*, got 'fast'"):
        preset_flags("fast")
