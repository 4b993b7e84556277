"""pretrain/probe.py on tiny models: tasks of scenes, properties of objects, misuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genesis_rl import load
from genesis_rl.checkpoints.loading import fingerprint, save_pretrained
from genesis_rl.data import Pack, PackWriter
from genesis_rl.evaluation.probes import SceneProbe
from published.pages import pages

Run = Callable[..., tuple[int, str, str]]
SIDE = 32
QUICK = ("--device", "cpu", "--mlp.hidden", "32", "--mlp.learning-rate", "1e-2")
PAPER = ("genesis", "genesis_s", "monet", "bd_vae", "dc_vae")

NAMES = ("genesis", "genesis_s", "monet", "bd_vae", "genesis_v2", "iodine")
Build = Callable[..., Any]


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def towers(folder: Path, n: int, seed: int, *, heights: int = 5, **more: Any) -> None:
    """Write images with bars: the height of a bar is the height, its column the view."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 20, (n, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((n, SIDE, SIDE), np.uint8)
    stable, height, camera = (
        rng.integers(low, high, n) for low, high in ((0, 2), (2, 2 + heights), (1, 17))
    )
    for i in range(n):
        column = 2 * (camera[i] - 1)
        images[i, SIDE - 5 * height[i] :, column : column + 2] = 255
        masks[i, SIDE - 5 * height[i] :, column : column + 2] = 1
    factors = {"stable": stable, "height": height, "camera": camera} | more
    with PackWriter(folder, n, SIDE) as writer:
        writer.write(images, masks, **factors)


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    folder = tmp_path / "towers"
    for seed, (split, n) in enumerate({"train": 512, "validation": 64, "test": 200}.items()):
        towers(folder / split, n, seed)
    return folder


@pytest.fixture
def saved(small_model: Build) -> Build:
    """Save a small model in a folder, of another seed than the random models of probe.py."""

    def save(folder: Path, name: str = "bd_vae") -> str:
        save_pretrained(small_model(name, seed=1), folder)
        return str(folder)

    return save


def few(folder: Path) -> Path:
    """Packs of few towers with all classes in the training split."""
    for seed, (split, n) in enumerate({"train": 128, "validation": 16, "test": 16}.items()):
        towers(folder / split, n, seed)
    return folder


def read(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())


def test_tasks_of_scenes(
    saved: Build, packs: Path, data_root: Path, run_program: Run, tmp_path: Path
) -> None:
    model = saved(tmp_path / "model", "bd_vae")
    flags = (model, "--data", str(packs), *QUICK, "--mlp.epochs", "30", "--seeds", "2")
    status, shown, errors = run_program("pretrain/probe.py", *flags)
    assert status == 0, errors
    result = read(tmp_path / "model" / "probes-scenes.json")
    assert result["task"] == "scenes" and result["num_images"] == {"train": 512, "test": 200}
    assert result["questions"]["height"] == {"classes": [2, 3, 4, 5, 6], "test": 200}
    assert result["questions"]["view"]["classes"] == list(range(1, 17))
    baselines = {record["name"]: record for record in result["baselines"]}
    assert list(baselines) == ["majority", "pixels 16 x 16", "random bd_vae", "true masks"]
    pixels = baselines["pixels 16 x 16"]
    assert pixels["width"] == 768
    assert pixels["scores"]["height"] > 0.9 and pixels["scores"]["view"] > 0.9
    assert 0.3 < pixels["scores"]["stability"] < 0.7  # nothing shows it
    assert baselines["majority"]["scores"]["view"] < 0.15
    (record,) = result["runs"]
    rows = record["seeds"]["height"]
    assert [row["seed"] for row in rows] == [0, 1]
    assert record["scores"]["height"] == pytest.approx(np.mean([row["score"] for row in rows]))
    low, high = record["intervals"]["height"]
    assert 0 < low < record["scores"]["height"] < high < 1
    assert "Accuracy in % of MLPs on frozen latents: 512 labelled images, 200 test" in shown
    assert f"{100 * pixels['scores']['height']:.1f} [" in shown
    # Again: the latents lie there, and everything comes out the same.
    kept = sorted(path.stat().st_mtime_ns for path in (data_root / "latents").glob("*/slots.npy"))
    assert len(kept) == 4  # two models, two splits
    out = tmp_path / "again.json"
    assert run_program("pretrain/probe.py", *flags, "--out", str(out))[0] == 0
    again = read(out)
    assert again["runs"] == result["runs"] and again["baselines"] == result["baselines"]
    assert kept == sorted(p.stat().st_mtime_ns for p in (data_root / "latents").glob("*/slots.npy"))


def results_page(file: Path) -> str:
    """The page with one section on a file of probes."""
    section = {"title": "P", "probes": file.name}
    index = [{"page": "p", "title": "P", "sections": [section]}]
    (file.parent / "index.json").write_text(json.dumps(index))
    return pages(file.parent)["p.md"]


def test_several_models_reach_the_page_of_results(
    saved: Build, run_program: Run, tmp_path: Path
) -> None:
    packs = few(tmp_path / "few")
    runs = [saved(tmp_path / name, name) for name in NAMES]
    out = tmp_path / "results" / "probes-towers.json"
    flags = (*runs, "--data", str(packs), *QUICK, "--mlp.epochs", "1", "--out", str(out))
    more = (
        "--tasks",
        "view",
        "height",
        "--pixel-side",
        "8",
        "--mlp.epoch",
        "best",
        "--standardise",
    )
    status, _, errors = run_program("pretrain/probe.py", *flags, *more)
    assert status == 0, errors
    result = read(out)
    assert list(result["questions"]) == ["view", "height"]
    assert result["num_images"] == {"train": 128, "validation": 16, "test": 16}
    names = [record["name"] for record in result["baselines"]]
    untrained = [f"random {name}" for name in NAMES]
    assert names == ["majority", "pixels 8 x 8", *untrained, "true masks"]
    lines = results_page(out).splitlines()
    (head,) = (line for line in lines if line.startswith("| Task"))
    cells = [cell.strip() for cell in head.strip("|").split("|")]
    others = [name for name in NAMES if name not in PAPER]
    assert cells == ["Task", "", *PAPER, *others, *names]
    ours, theirs = lines[lines.index(head) + 4 : lines.index(head) + 6]
    assert ours.startswith("| Height | ours | ")
    assert theirs.startswith(
        "|  | paper, original data | 80.3 | 80.8 | 88.4 | 78.6 | 67.5 |  |  | 22.8 |"
    )
    assert "All figures and settings: `results/probes-towers.json`." in lines


@pytest.mark.parametrize("more", [(), ("--standardise", "--seeds", "2")], ids=["plain", "scaled"])
def test_saved_probes_predict_as_evaluated(
    saved: Build, run_program: Run, tmp_path: Path, more: tuple[str, ...]
) -> None:
    packs = few(tmp_path / "few")
    model, heads = saved(tmp_path / "model"), tmp_path / "heads"
    flags = (model, "--data", str(packs), *QUICK, "--mlp.epochs", "2", "--heads", str(heads))
    status, _, errors = run_program("pretrain/probe.py", *flags, *more)
    assert status == 0, errors
    (record,) = read(Path(model, "probes-scenes.json"))["runs"]
    loaded, test = load(model, device="cpu"), Pack.open(packs / "test")
    images = torch.from_numpy(np.array(test.images)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        slots = loaded.infer(images).features
    assert {path.name for path in heads.iterdir()} == set(record["seeds"])
    for question, factor in (("height", "height"), ("view", "camera")):
        probe = SceneProbe.load(
            heads / question, encoder_fingerprint=fingerprint(loaded), device="cpu"
        )
        answers = np.array(probe.config.classes)[probe(slots).argmax(1)]
        score = float((answers == test.factors[factor]).mean())
        assert score == pytest.approx(record["seeds"][question][0]["score"], abs=0.07)
        assert probe.config.accuracy == record["seeds"][question][0]["score"]


def test_properties_of_objects(run_program: Run, tmp_path: Path) -> None:
    data = '{"image_size": 32, "num_images": 300, "num_objects": 2}'
    run = str(tmp_path / "run")
    flags = ("--preset", "smoke", "--steps", "2", "--eval-images", "4", "--device", "cpu")
    more = ("--data-options", data, "--no-tensorboard", "--threads", "1", "--out", run)
    status, _, errors = run_program("pretrain/train.py", *flags, *more)
    assert status == 0, errors
    probing = (run, *QUICK, "--mlp.epochs", "3", "--num-train", "250", "--num-held-out", "60")
    status, shown, errors = run_program("pretrain/probe.py", *probing)
    assert status == 0, errors
    result = read(Path(run, "probes-properties.json"))
    assert result["num_images"] == {"train": 250, "test": 60}
    assert result["questions"]["position"] == {"classes": [], "test": 180}  # agent and two objects
    baselines = {record["name"]: record["scores"] for record in result["baselines"]}
    assert list(baselines) == ["majority", "pixels 16 x 16", "random genesis", "state"]
    assert baselines["state"]["position_linear"] == pytest.approx(1, abs=1e-3)
    assert baselines["state"]["shape_linear"] == 1
    assert baselines["pixels 16 x 16"]["position_linear"] > 0.3
    assert abs(baselines["majority"]["colour_mlp"]) < 0.1
    (record,) = result["runs"]
    assert 0 <= record["scores"]["match_iou"] <= 1 and record["training"]["step"] == 2
    assert set(record["intervals"]) == {"shape_linear", "shape_mlp"}
    assert "mean IoU" in shown and "R2, linear" in shown and "accuracy, mlp" in shown
    page = results_page(Path(run, "probes-properties.json"))
    assert "| Property |  | genesis | majority |" in page
    status, _, errors = run_program("pretrain/probe.py", *probing, "--task", "scenes")
    assert status == 2 and "factor stable or height or camera or simulated_stable" in errors


def test_a_student_is_probed_like_any_encoder(run_program: Run, tmp_path: Path) -> None:
    data = ("--data", "object_goal", "--data-options", '{"image_size": 32, "num_images": 200}')
    few = ("--num-train", "160", "--num-held-out", "40", "--mlp.epochs", "1")
    out = tmp_path / "probes.json"
    status, _, errors = run_program(
        "pretrain/probe.py", "sprites-fast", *data, *QUICK, *few, "--out", str(out)
    )
    assert status == 0, errors
    result = read(out)
    untrained = next(r for r in result["baselines"] if r["name"] == "random distilled")
    (student,) = result["runs"]
    key = "position_linear"
    assert student["scores"][key] > untrained["scores"][key] + 0.2


def test_misuse(saved: Build, packs: Path, run_program: Run, tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    small = tmp_path / "small"
    towers(small / "train", 40, 0, heights=2)
    towers(small / "test", 40, 1)
    on_packs = ("--data", str(packs), *QUICK)
    on_small = ("--data", str(small), *QUICK)
    cases: list[tuple[tuple[str, ...], str]] = [
        ((str(tmp_path), *on_packs), "pretrain/train.py"),
        ((model,), "--data"),
        ((model, model, *on_packs), "encoders must be different"),
        ((model, str(packs), *on_packs), ": --out "),
        ((model, *on_packs, "--task", "properties"), "factors state, or x and y"),
        (
            (model, *on_packs, "--data", str(packs / "train")),
            ": --data ",
        ),
        ((model, *on_packs, "--num-train", "100"), "--mlp.batch-size 128"),
        ((model, *on_small, "--mlp.batch-size", "8"), "height of the test split"),
        ((model, *on_packs, "--tasks", "stability", "stability"), ": --tasks "),
        (
            (model, *on_packs, "--task", "properties", "--heads", "x"),
            ": --heads ",
        ),
        ((model, *on_packs, "--ridge", "0"), ": --ridge "),
        ((model, *on_packs, "--cache", "/dev/null/x"), "/dev/null/x"),
    ]
    for arguments, message in cases:
        status, _, errors = run_program("pretrain/probe.py", *arguments)
        assert status == 2, arguments
        assert message in errors, errors
    assert not list(Path(model).glob("probes*"))
