"""Every model by the same commands: trained by its name, loaded, seen through, scored, sampled."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genesis_rl import SlotEncoder, load
from genesis_rl.models import MODELS
from genesis_rl.training.presets import preset_config
from genesis_rl.utils import log

Run = Callable[..., tuple[int, str, str]]

DATA = json.dumps({"image_size": 32, "num_images": 64, "num_objects": 2})
FLAGS = ("--data", "object_goal", "--data-options", DATA, "--eval-images", "4")
QUIET = ("--no-tensorboard", "--device", "cpu", "--threads", "1")

# As little of each as still learns.
TINY: dict[str, dict[str, list[int]]] = {
    "genesis": {
        "encoder-channels": [4] * 5,
        "decoder-channels": [4] * 5,
        "component-encoder-channels": [4, 4],
        "component-decoder-channels": [4],
    },
    "genesis_s": {
        "encoder-channels": [4] * 5,
        "decoder-channels": [4] * 5,
        "component-decoder-channels": [4],
    },
    "monet": {
        "attention-channels": [4],
        "component-encoder-channels": [4, 4],
        "component-decoder-channels": [4],
    },
    "bd_vae": {"encoder-channels": [4] * 5, "decoder-channels": [4]},
    "dc_vae": {"encoder-channels": [4] * 5, "decoder-channels": [4] * 5},
    "genesis_v2": {"encoder-channels": [8], "decoder-channels": [8]},
    "iodine": {
        "num-iterations": [2],
        "decoder-channels": [4],
        "refinement-channels": [4, 4],
    },
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def train(data_root: Path, monkeypatch: pytest.MonkeyPatch, run_program: Run) -> Run:
    """Run the program in this process on few images of the smallest world."""
    monkeypatch.setenv("GENESIS_RL_DATA", str(data_root))
    return lambda *flags: run_program("pretrain/train.py", *flags, *FLAGS, *QUIET)


@pytest.mark.parametrize("name", MODELS)
def test_train_load_see_score_and_sample(
    name: str, tmp_path: Path, train: Run, run_program: Run
) -> None:
    out = tmp_path / "run"
    given = ("--model", name.replace("_", "-"), "--preset", "multi-dsprites-small")
    status, printed, errors = train(*given, "--out", str(out), "--steps", "2", "--batch-size", "2")
    assert status == 0, errors
    assert "step 2" in printed and "msc" in printed
    model = load(out, device="cpu")
    assert model.config == preset_config("multi-dsprites-small", name).model
    encoder = SlotEncoder(out, device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    features = encoder.features(frames, mask_geometry=True)
    assert features.shape == (2, model.config.num_slots, sum(model.latent_sizes) + 3)
    scenes = model.sample(2, generator=torch.Generator().manual_seed(0))
    assert model.decode(scenes).image.shape == (2, 3, 32, 32)
    few = ("--num-images", "4", "--iw-samples", "2", "--frechet", "none", "--device", "cpu")
    status, _, errors = run_program("pretrain/evaluate.py", str(out), *few)
    assert status == 0, errors
    record = json.loads((out / "evaluation-test.json").read_text())
    assert record["model"] == name and record["scores"]["elbo"] <= record["scores"]["iwae"]
    assert record["scores"]["msc_images"] == record["baselines"]["fixed_grid"]["msc_images"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_falls_in_200_steps(name: str, tmp_path: Path, train: Run) -> None:
    out = tmp_path / "run"
    size = [part for flag, n in TINY[name].items() for part in (f"--model.{flag}", *map(str, n))]
    status, _, errors = train(
        *("--model", name, "--preset", "smoke", "--out", str(out), *size, "--objective=elbo"),
        *("--steps", "200", "--batch-size", "2", "--log-every", "20", "--precision", "fp32"),
        *("--eval-every", "200", "--save-every", "200"),
    )
    assert status == 0, errors
    losses = [
        row["train/nll"] + row["train/kl_m"] + row["train/kl_c"]
        for row in log.read(out)
        if "train/nll" in row
    ]
    assert len(losses) == 10 and losses[-1] < 0.9 * losses[0]
    model = load(out, device="cpu")
    assert model.sample(2, generator=torch.Generator().manual_seed(0)).log_pi.isfinite().all()


def test_the_model_s_fields_stay_flags(tmp_path: Path, train: Run) -> None:
    given = ("--preset=smoke", "--model=monet", "--model.num-slots", "2", "--steps", "1")
    status, _, errors = train(*given, "--out", str(tmp_path / "run"), "--model.sigma-x=0.5")
    assert status == 0, errors
    config = load(tmp_path / "run", device="cpu").config
    assert (type(config), config.num_slots) == (MODELS["monet"][0], 2)
    assert config.sigma_x == 0.5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model", "slot-attention"), [": model ", *MODELS]),
        (("--model", "bd-vae", "--model.num-slots", "3"), ["--model.num-slots"]),  # has no such
    ],
)
def test_misuse(flags: tuple[str, ...], words: list[str], tmp_path: Path, train: Run) -> None:
    status, _, errors = train("--out", str(tmp_path / "run"), *flags)
    assert status == 2 and not (tmp_path / "run").exists()
    for word in words:
        assert word in errors, errors


def test_help_says_what_a_model_takes_from_a_preset(train: Run) -> None:
    status, text, _ = train("--model", "iodine", "--help")
    assert status == 0
    for words in ("models (--model NAME): genesis, genesis_s,", "--model.num-iterations INT"):
        assert words in text
