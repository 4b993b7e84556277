"""pretrain/sample.py: figures of runs and pretrained models, and invalid flags."""

import filecmp
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path

import imageio.v3
import numpy as np
import pytest

from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.data import PackWriter
from genesis_rl.models import build_model
from genesis_rl.training import Trainer
from genesis_rl.training.presets import PRESETS
from genesis_rl.visualization.catalogue import FIGURES

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny model, with 16 validation and 16 test images; return the run directory."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = replace(PRESETS["smoke"].config, steps=2, out=out, threads=1, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENESIS_RL_DATA", str(data_root))
        Trainer(replace(config, tensorboard=False)).run()
    return out


@pytest.fixture
def sample(data_root: Path, run_program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return a function from flags to the exit status, output and errors of the program."""
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
    status, output, errors = sample(run, "--num", 2)
    assert status == 0, errors
    out = run / "figures"
    videos = {"generation", "interpolation"}
    expected = [f"{name}.{'gif' if name in videos else 'png'}" for name in FIGURES]
    assert files(out) == sorted([*expected, "index.html"])
    assert str(out / "edits.png") in output
    for name in expected:
        pictures = imageio.v3.imread(out / name)
        assert pictures.dtype == np.uint8 and pictures.std() > 1
    html = (out / "index.html").read_text()
    for figure in FIGURES.values():
        assert escape(figure.title) in html and figure.paper in html
    assert html.count("data:image/gif") == 2
    assert "GENESIS" in html and "seed 0" in html


def test_the_same_flags_give_the_same_files(run: Path, sample: Program, tmp_path: Path) -> None:
    names = ("components", "edits", "interpolation")
    flags = (run, "--num", 3, "--split", "validation", "--figures", *names)
    for folder, options in (
        ("a", ()),
        ("b", ()),
        ("seed", ("--seed", 1)),
        ("temperature", ("--temperature", 0)),
    ):
        status, _, errors = sample(*flags, "--out", tmp_path / folder, *options)
        assert status == 0, errors
    outputs = ["components.png", "edits.png", "index.html", "interpolation.gif"]
    assert files(tmp_path / "a") == outputs
    equal, *_ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", outputs, shallow=False)
    assert equal == outputs
    equal, *_ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "seed", outputs, shallow=False)
    assert equal == []
    equal, *_ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "temperature", outputs, shallow=False)
    assert equal == ["interpolation.gif"]


@pytest.mark.parametrize("preset", ["bd-vae-small", "monet-small"])
def test_a_saved_model_without_a_run(
    preset: str, pack: Path, sample: Program, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_pretrained(build_model(PRESETS[preset].config.model), folder)
    status, _, errors = sample(folder, "--figures", "generation", "components", "--num", 2)
    assert status == 0, errors  # figures of samples require no data
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
def test_invalid_flags_exit_with_status_2_and_one_message(
    run: Path, sample: Program, tmp_path: Path, flags: tuple[str, ...], words: list[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    file = str(tmp_path / "file")
    flags = tuple(flag.replace("{file}", file) for flag in flags)
    words = [word.replace("{file}", file) for word in words]
    out = () if "--out" in flags else ("--out", tmp_path / "out")
    status, output, errors = sample(run, *out, *flags)
    assert status == 2, errors
    assert output == "" and "Traceback" not in errors
    for word in words:
        assert word in errors, errors
    assert files(tmp_path) == ["file"]


def test_a_missing_encoder_is_an_error(sample: Program, tmp_path: Path) -> None:
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
