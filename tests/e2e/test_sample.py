"""pretrain/sample.py on runs and pretrained models, and misuse."""

import filecmp
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path

import imageio.v3
import numpy as np
import pytest

from genesis_rl.checkpoint import save_pretrained
from genesis_rl.data import PackWriter
from genesis_rl.figures import FIGURES
from genesis_rl.models import build_model
from genesis_rl.presets import PRESETS
from genesis_rl.training import Trainer

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of a tiny model with 16 images in each of validation and test."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = replace(PRESETS["smoke"].config, steps=2, out=out, threads=1, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENESIS_RL_DATA", str(data_root))
        Trainer(replace(config, tensorboard=False)).run()
    return out


@pytest.fixture
def sample(data_root: Path, run_program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return a function that runs the program: flags to status, output and errors."""
    monkeypatch.setenv("GENESIS_RL_DATA", str(data_root))
    return lambda *flags: run_program("pretrain/sample.py", *map(str, flags), "--device", "cpu")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "noise"
    with PackWriter(folder, num_images=3, image_size=32, masks=False) as writer:
        writer.write(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_figures_of_a_run(run: Path, sample: Program) -> None:
    status, printed, errors = sample(run, "--num", 2)
    assert status == 0, errors
    out = run / "figures"
    films = {"generation", "interpolation"}
    expected = [f"{name}.{'gif' if name in films else 'png'}" for name in FIGURES]
    assert files(out) == sorted([*expected, "index.html"])
    assert str(out / "edits.png") in printed
    for name in expected:
        pictures = imageio.v3.imread(out / name)
        assert pictures.dtype == np.uint8 and pictures.std() > 1
    html = (out / "index.html").read_text()
    for figure in FIGURES.values():
        assert escape(figure.title) in html and figure.paper in html
    assert html.count("data:image/gif") == 2
    assert "GENESIS" in html and "seed 0" in html


def test_the_same_flags_give_the_same_files(run: Path, sample: Program, tmp_path: Path) -> None:
    some = ("components", "edits", "interpolation")
    flags = (run, "--num", 3, "--split", "validation", "--figures", *some)
    for folder, more in (("a", ()), ("b", ()), ("seed", ("--seed", 1)), ("cold", ())):
        more = ("--temperature", 0) if folder == "cold" else more
        status, _, errors = sample(*flags, "--out", tmp_path / folder, *more)
        assert status == 0, errors
    names = ["components.png", "edits.png", "index.html", "interpolation.gif"]
    assert files(tmp_path / "a") == names
    same, *_ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False)
    assert same == names
    same, *_ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "seed", names, shallow=False)
    assert same == []
    same, *_ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "cold", names, shallow=False)
    assert same == ["interpolation.gif"]


@pytest.mark.parametrize("preset", ["bd-vae-small", "monet-small"])
def test_a_saved_model_without_a_run(
    preset: str, pack: Path, sample: Program, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_pretrained(build_model(PRESETS[preset].config.model), folder)
    status, _, errors = sample(folder, "--figures", "generation", "components", "--num", 2)
    assert status == 0, errors  # these figures have no images
    assert files(folder / "figures") == ["components.png", "generation.gif", "index.html"]
    status, _, errors = sample(folder, "--figures", "edits", "--num", 2)
    assert status == 2 and "--data" in errors and "must be a run" in errors
    flags = ("--figures", "decompositions", "edits", "--data", pack, "--num", 3)
    status, _, errors = sample(folder, *flags, "--out", tmp_path / "out")
    assert status == 0, errors
    assert files(tmp_path / "out") == ["decompositions.png", "edits.png", "index.html"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--figures", "edits", "me"), ["sample.py: --figures ", "'me'"]),
        (("--figures",), ["sample.py: --figures "]),
        (("--num", "17"), ["sample.py: --num "]),
        (("--num", "1"), ["num must be at least 2"]),
        (("--seed", "-1"), ["seed must be"]),
        (("--temperature", "-0.5"), ["temperature must be"]),
        (("--temperature", "nan"), ["temperature must be"]),
        (("--split", "holdout"), ["split must be", "validation"]),
        (("--data", "nowhere"), ["nowhere", "multi_dsprites"]),
        (("--data-options", '{"num_images": 9}'), ["data must be", "--data-options"]),
        (("--data", "object_goal", "--data-options", "[1"), ["--data-options", "JSON"]),
        (
            ("--data", "object_goal", "--data-options", '{"image_size": 64, "num_images": 9}'),
            ["64 x 64", "32 x 32"],
        ),
        (("--out", "{file}/figures"), ["sample.py:", "{file}"]),
    ],
)
def test_misuse_ends_with_status_2_and_one_reason(
    run: Path, sample: Program, tmp_path: Path, flags: tuple[str, ...], words: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    here = {"{file}": str(tmp_path / "file")}
    for key, value in here.items():
        flags = tuple(flag.replace(key, value) for flag in flags)
        words = [word.replace(key, value) for word in words]
    out = () if "--out" in flags else ("--out", tmp_path / "out")
    status, printed, errors = sample(run, *out, *flags)
    assert status == 2, errors
    assert printed == "" and "Traceback" not in errors
    for word in words:
        assert word in errors, errors
    assert files(tmp_path) == ["file"]


def test_no_such_run(sample: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, errors = sample(tmp_path / "nothing here", "--out", tmp_path / "out")
    assert status == 2 and ": encoder " in errors
    status, _, errors = sample(tmp_path / "nothing here")
    assert status == 2 and "out (--out) must be set" in errors
    status, _, errors = sample(tmp_path)
    assert status == 2 and ": encoder " in errors


def test_help_lists_the_figures(sample: Program) -> None:
    status, text, _ = sample("--help")
    assert status == 0
    for name in (*FIGURES, "--temperature", "--split"):
        assert name in text
