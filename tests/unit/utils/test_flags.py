"""Messages of programs name flags that exist."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tyro

from genesis_rl.agents.config import TrainConfig
from genesis_rl.envs.recording.collect import CollectConfig
from genesis_rl.evaluation.probes import ProbeConfig
from genesis_rl.training import PretrainConfig
from genesis_rl.utils.extras import MissingExtraError
from genesis_rl.utils.flags import flags_of, name_flags, parse_flags, program
from genesis_rl.utils.process import StoppedError


@dataclass(frozen=True)
class Base:
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")


@dataclass(frozen=True)
class Inner(Base):
    num_steps: int = 1
    exact: bool = True


@dataclass(frozen=True)
class Settings:
    folder: Path
    image_layout: str = "auto"
    n_envs: int = 1
    env: str | None = None
    test: float = 0.0
    validation: float = 0.0
    obs: str = "slots"
    render: bool = False
    minari: str | None = None
    num_steps: int = 1
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    inner: Inner = field(default_factory=Inner)


def test_flags_are_those_of_the_parser() -> None:
    flags = flags_of(tyro.conf.PositionalRequiredArgs[Settings])
    assert flags["image_layout"] == "--image-layout" and flags["batch_size"] == "--inner.batch-size"
    # Positional; in two places.
    assert not flags.keys() & {"folder", "names", "inner", "num_steps"}
    for flag, value in {**dict.fromkeys(flags.values(), "1"), "--image-layout": "HW"}.items():
        given = [flag] if flag in ("--render", "--inner.exact") else [flag, value]
        tyro.cli(tyro.conf.PositionalRequiredArgs[Settings], args=["folder", *given])
    assert "folder" in flags_of(Settings)
    assert flags_of(Settings, ["inner.num_steps"])["num_steps"] == "--num-steps"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("n_envs must be >= 1, got 0.", "--n-envs must be >= 1, got 0."),
        ("batch_size must be >= 1.", "--inner.batch-size must be >= 1."),
        ("inner.exact must be set.", "--inner.exact must be set."),
        ("inner.batch_size must be 1.", "--inner.batch-size must be 1."),
        ("num_steps must be inner.num_steps.", "num_steps must be --inner.num-steps."),
        ("entry 'a': set image_layout.", "entry 'a': set --image-layout."),
        (
            "the observation must have image_layout=\"HWC\" (RGBA) or image_layout='HWS'.",
            "the observation must have --image-layout HWC (RGBA) or --image-layout HWS.",
        ),
        ("use A around each, or GenesisObs(render=True).", "use A around each, or --render."),
        ("exact must be True; pass exact=True.", "--inner.exact must be True; pass --inner.exact."),
        ("Use render=False or exact=False.", "Use --no-render or --inner.no-exact."),
        ("validation and test must be below 1.", "--validation and --test must be below 1."),
        ("exactly one of env, minari must be set.", "exactly one of --env, --minari must be set."),
        ("test must be 0 with minari, got 1.", "--test must be 0 with --minari, got 1."),
        ("render must be set for obs 'state'.", "--render must be set for --obs 'state'."),
        ("x: Set A. env must be set.", "x: Set A. --env must be set."),
    ],
)
def test_arguments_become_flags(message: str, shown: str) -> None:
    assert name_flags(message, Settings) == shown


@pytest.mark.parametrize(
    "message",
    [
        "folder and num_envs must be set, num_steps too.",
        "the env of this test must render: VecEnv(env, n_envs=4), f(venv, render=True)",
        "got {'image_layout': 'HWC'} in runs/n_envs/x, config.n_envs, n_envs.json and n_envs()",
        "env.observation_space must be a Box",
        "image_layout of runs/data must be HWC",
        "image_layout=None",
    ],
)
def test_other_text_stays(message: str) -> None:
    settings = tyro.conf.PositionalRequiredArgs[Settings]
    assert name_flags(message, settings) == message


def test_settings_of_programs() -> None:
    assert flags_of(CollectConfig)["env_options"] == "--env-options"
    assert flags_of(TrainConfig)["image_layout"] == "--image-layout"
    assert flags_of(PretrainConfig)["sigma_x"] == "--model.sigma-x"
    assert "encoders" not in flags_of(tyro.conf.PositionalRequiredArgs[ProbeConfig])


def test_values_that_the_settings_refuse_are_errors_of_the_program() -> None:
    assert parse_flags(Settings, ["--folder", "a", "--inner.batch-size", "2"]).inner == Inner(2)
    validate = Base.__post_init__
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1, got 0\.$"):
        parse_flags(Settings, ["--folder", "a", "--inner.batch-size", "0"], "description")
    assert Base.__post_init__ is validate and "__post_init__" not in vars(Inner)
    with pytest.raises(SystemExit):
        parse_flags(Settings, ["--folder", "a", "--inner.batch-size", "many"])


def run(error: Exception | None = None, **options: Any) -> Callable[..., int]:
    """A program that raises an error, or returns the number of environments as status."""

    @program("p.py", tyro.conf.PositionalRequiredArgs[Settings], "A description.", **options)
    def main(config: Settings) -> int:
        if error is not None:
            raise error
        return config.n_envs

    return main


def test_a_program_parses_its_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run()(["a", "--n-envs", "7"]) == 7
    monkeypatch.setattr("sys.argv", ["p.py", "a", "--n-envs", "8"])
    assert run()() == 8
    assert run(parse=lambda argv: Settings(Path(), n_envs=len(argv or ())))(["a", "b"]) == 2
    with pytest.raises(SystemExit):
        run()(["--help"])
    assert "A description." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "options", "status", "message"),
    [
        (ValueError("n_envs must be 1,\n got 2."), {}, 2, "--n-envs must be 1, got 2."),
        (TypeError("n_envs must be 1."), {"ignored": ("n_envs",)}, 2, "n_envs must be 1."),
        (OSError("no space"), {}, 2, "no space"),
        (ZeroDivisionError("obs is 0"), {"errors": (ArithmeticError,)}, 2, "obs is 0"),
        (RuntimeError("diverged"), {"failures": (RuntimeError,)}, 1, "diverged"),
        (ValueError("differs"), {"failures": (ValueError,)}, 1, "differs"),
        (StoppedError("stopped", 130), {}, 130, "stopped"),
        (MissingExtraError("install it"), {}, 2, "install it"),
    ],
    ids=repr,
)
def test_a_program_reports_errors_in_one_line(
    error: Exception,
    options: dict[str, Any],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(error, **options)(["a"]) == status
    assert capsys.readouterr() == ("", f"p.py: {message}\n")


def test_a_program_reports_the_values_that_its_settings_refuse(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run()(["a", "--inner.batch-size", "0"]) == 2
    assert capsys.readouterr().err == "p.py: --inner.batch-size must be at least 1, got 0.\n"


def test_a_program_raises_other_errors() -> None:
    for error, options in ((KeyError("k"), {}), (TypeError("t"), {"errors": (ValueError,)})):
        with pytest.raises(type(error)):
            run(error, **options)(["a"])
