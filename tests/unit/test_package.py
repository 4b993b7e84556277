"""The package as a whole: what importing it costs, what is shipped, who may import whom."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import genesis_rl

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "genesis_rl"
MODULES = sorted(path.relative_to(ROOT) for path in LIBRARY.rglob("*.py"))

# Imports go down only. A name denotes a package of the library or a part of one; of several names
# that a module starts with, the longest counts.
LAYERS = (
    {"utils"},
    {"slots", "perception.preprocessing", "perception.region", "worlds.sprites"},
    {f"checkpoints.{name}" for name in ("hub", "weights", "shareable")},
    {"models"},
    {"checkpoints", "data", "evaluation.metrics", "visualization"},
    {"perception", "visualization.figures", "worlds"},
    {"training"},
    {"checkpoints.export", "evaluation", "visualization.catalogue"},
    {"world_model"},
    {"checkpoints.model_card", "checkpoints.sharing"},
    {"envs"},
    {"agents"},
)
# The parts of the library that may import these; everything else works without.
HOMES = {
    "gymnasium": {"envs", "agents"},
    "stable_baselines3": {"agents"},
    "mujoco": {"worlds"},
}


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def imports(path: Path) -> set[str]:
    """The full names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if node.module == "genesis_rl" and alias.name != "__version__":
                    names.add(genesis_rl._HOMES.get(alias.name, name))
                else:
                    names.add(name if name in NAMES else node.module or "")
    return names


def dotted(path: Path) -> str:
    """The name of a module of the library."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


NAMES = {dotted(path) for path in MODULES}


def layer(name: str) -> int:
    """The layer of a module of the library, 0 is the lowest."""
    inner = name.removeprefix("genesis_rl.")
    found = [
        (len(part), level)
        for level, parts in enumerate(LAYERS)
        for part in parts
        if f"{inner}.".startswith(f"{part}.")
    ]
    assert found, f"{name} has no place in LAYERS"
    return max(found)[1]


@pytest.mark.smoke
def test_importing_is_cheap_and_registers() -> None:
    printed = python(
        "import sys, genesis_rl, gymnasium\n"
        "heavy = {'torch', 'stable_baselines3', 'cv2', 'matplotlib', 'imageio', 'tensorboard'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
        "print([name for name in gymnasium.registry if name.startswith('genesis_rl/')])\n"
        "before = dict(gymnasium.registry)\n"
        "genesis_rl.envs.register_envs()\n"
        "print(before == dict(gymnasium.registry))\n"
    )
    loaded, ids, unchanged = printed.splitlines()
    assert loaded == "[]"
    assert "genesis_rl/ObjectGoal-v0" in ids
    assert unchanged == "True"


@pytest.mark.smoke
def test_gymnasium_imports_the_package_by_itself() -> None:
    printed = python(
        "import gymnasium\n"
        "env = gymnasium.make('genesis_rl:genesis_rl/ObjectGoal-v0')\n"
        "print(env.spec.id)\n"
    )
    assert printed.split() == ["genesis_rl/ObjectGoal-v0"]


@pytest.mark.smoke
@pytest.mark.parametrize("name", genesis_rl.__all__)
def test_public_names_are_lazy_and_real(name: str) -> None:
    assert name in dir(genesis_rl)
    value = getattr(genesis_rl, name)
    if name != "__version__":
        home = importlib.import_module(genesis_rl._HOMES[name])
        assert value is getattr(home, name)
        assert genesis_rl.__dict__[name] is value  # found directly from now on


def test_every_lazy_name_is_public() -> None:
    assert {*genesis_rl._HOMES, "__version__"} == set(genesis_rl.__all__)


def test_unknown_names_are_named() -> None:
    with pytest.raises(AttributeError, match="'Slot'"):
        _ = genesis_rl.Slot


def test_one_version() -> None:
    version = genesis_rl.__version__
    assert metadata.version("genesis_rl") == version
    assert re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M) == [version]
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_holds_the_library_and_nothing_else(tmp_path: Path) -> None:
    # Built from a copy: a build leaves folders behind.
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("genesis_rl", "pretrain", "envs", "agents", "tools", "tests"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, source / folder, ignore=skip)
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / file).is_file():
            shutil.copy(ROOT / file, source)
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", *command, "--wheel-dir", tmp_path, source], check=True, timeout=120
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    library = {name for name in names if not name.parts[0].endswith(".dist-info")}
    files = (path for path in (LIBRARY / "checkpoints" / "pretrained").rglob("*") if path.is_file())
    shipped = {path.relative_to(ROOT) for path in files}
    assert len(shipped) == 3 * 12  # the models that come along: card, config and weights
    assert library == {*MODULES, *shipped, Path("genesis_rl/py.typed")}
    assert any(name.name == "LICENSE" for name in names)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_only(path: Path) -> None:
    if path.name == "__init__.py" and len(path.parts) == 2:
        return  # the lazy names reach everywhere
    level = layer(dotted(path))
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "genesis_rl" and rest:
            assert layer(name) <= level, f"{path} imports {name}, which is above it"
        allowed = HOMES.get(top)
        assert allowed is None or path.parts[1] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_nothing_imports_a_program(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"pretrain", "envs", "agents", "tools", "tests"}


def test_every_folder_of_the_library_is_a_package() -> None:
    for folder in {path.parent for path in MODULES}:
        assert (ROOT / folder / "__init__.py").is_file(), f"{folder} would not be shipped"


def test_the_library_has_few_packages() -> None:
    entries = {path.name for path in LIBRARY.iterdir()} - {"__pycache__"}
    assert len(entries) <= 16
