"""What works with the required dependencies alone, and the errors of features that need more."""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from genesis_rl.utils.extras import EXTRAS, MissingExtraError, require
from genesis_rl.utils.process import report_stop

# Stable-Baselines3 requires Matplotlib.
OPTIONAL = sorted(set(EXTRAS) - {"matplotlib"})
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"


def python(code: str) -> str:
    """Run code without the optional dependencies and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_each_package_belongs_to_its_extra() -> None:
    config = ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg")
    extras = config["options.extras_require"]
    for package, extra in EXTRAS.items():
        names = re.findall(r"^[\w-]+", extras[extra], re.MULTILINE)
        assert package.replace("_", "-") in names, package


def test_wrapped_environments_and_agents_need_the_required_dependencies_only() -> None:
    printed = python(
        "import genesis_rl, gymnasium\n"
        "from stable_baselines3 import PPO\n"
        "env = gymnasium.make('genesis_rl/ObjectGoal-v0')\n"
        "env = genesis_rl.GenesisObs(env, 'sprites-fast', device='cpu')\n"
        "print(env.reset(seed=0)[0].shape)\n"
        "policy = {'features_extractor_class': genesis_rl.SlotSetExtractor}\n"
        "PPO('MlpPolicy', env, n_steps=8, batch_size=8, policy_kwargs=policy).learn(8)\n"
        "print('learned')\n"
    )
    assert printed.split()[-1] == "learned"


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        (
            "gymnasium.make('genesis_rl/ShapeStacks-v0').reset()",
            "mujoco",
            "mujoco",
        ),
        ("import genesis_rl.data.readers.hdf5 as m; m.check_hdf5('scenes.hdf5')", "h5py", "data"),
        ("import genesis_rl.visualization as m; m.save_mp4('film.mp4', [])", "imageio", "train"),
        ("import genesis_rl.utils.log as m; m.RunLog('run')", "tensorboard", "train"),
    ],
)
def test_a_feature_names_the_extra_that_it_requires(
    code: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = python(
        f"import genesis_rl, gymnasium\ntry: {code}\nexcept ImportError as error: print(error)\n"
    )
    assert f"requires {package}" in printed and f"'genesis_rl[{extra}]'" in printed


def test_programs_report_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    program = report_stop("train.py")(lambda: require("accelerate") and 0)
    assert program() == 2
    assert "train.py: this feature requires accelerate" in capsys.readouterr().err


def test_a_package_that_cannot_be_imported_is_reported_as_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "imageio.absent", None)
    with pytest.raises(MissingExtraError, match=r"imageio, which cannot be imported \(.*absent"):
        require("imageio.absent")
