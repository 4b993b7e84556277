"""envs/imagine.py: videos with and without a real environment, speed, errors."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import pytest

from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model import ActionSpec, SlotSpec, WorldModel, WorldModelConfig

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
# Sizes in pixels: a row of images and a line of text for each scene, K + 2 = 5 columns per row.
ROW, LINE = 96, 18


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, small_model: Callable[..., Any]) -> list[str]:
    """Flags of an encoder and a world model."""
    root = tmp_path_factory.mktemp("models")
    # With this gain, latents visibly change decoded frames.
    save_pretrained(small_model(gain=3), root / "encoder")
    encoder = SlotEncoder(root / "encoder", device="cpu")
    slot_spec = SlotSpec(encoder.fingerprint, 3, encoder.latent_sizes, mask_geometry=True)
    shape = WorldModelConfig(width=8, layers=1, ensemble=2)
    WorldModel(shape, ActionSpec("discrete", n=4), slot_spec).save_pretrained(root / "world")
    world = str(root / "world")
    return ["--encoder", str(root / "encoder"), "--device", "cpu", "--world-model", world]


def test_runs_as_a_program(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "video.mp4"
    command = [sys.executable, str(ROOT / "envs" / "imagine.py"), *models, "--steps", "2"]
    run = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(out) and out.stat().st_size > 0


def test_the_rollout_starts_from_the_real_frame(
    models: list[str], tmp_path: Path, run_program: Run
) -> None:
    out = tmp_path / "both.gif"
    flags = [*models, "--env", "genesis_rl/ObjectGoal-v0", "--steps", "4", "--out", str(out)]
    flags += ["--options", "termination", "threshold"]
    assert run_program("envs/imagine.py", *flags)[:2] == (0, str(out))
    frames = imageio.v3.imread(out, index=None)
    assert len(frames) == 5
    heading = frames.shape[1] - 2 * ROW - 1 - 2 * LINE
    real, imagined = (
        frames[:, top : top + ROW, -3 * ROW :] for top in (heading, heading + ROW + 1)
    )
    # The initial slots are equal; the untrained model then diverges.
    assert np.abs(real[0].astype(int) - imagined[0]).max() < 40
    assert np.abs(real[4].astype(int) - imagined[4]).max() > 40


def test_imagined_episodes_follow_one_another(
    models: list[str], tmp_path: Path, run_program: Run
) -> None:
    out = tmp_path / "alone.gif"
    flags = [*models, "--steps", "5", "--out", str(out), "--options", "horizon", "2"]
    assert run_program("envs/imagine.py", *flags)[0] == 0
    frames = imageio.v3.imread(out, index=None).astype(int)
    assert len(frames) == 6
    first, second = frames[0, :-LINE], frames[3, :-LINE]
    assert np.abs(first - second).max() > 40


def test_speed_is_compared_with_the_real_environment(models: list[str], run_program: Run) -> None:
    flags = ["--env", "genesis_rl/ObjectGoal-v0", "--speed", "1", "16", "--steps", "32"]
    status, out, _ = run_program("envs/imagine.py", *models, *flags)
    assert status == 0
    words = out.replace(",", "").split()[-8:]
    assert [words[0], words[4]] == ["1", "16"]
    imagined, frames, slots = map(float, words[5:])
    assert frames > slots > 0
    assert imagined > float(words[1])  # a batch is faster than single environments


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--options", "temperature", "0"], "temperature"),
        (["--options", "horizon", "0"], "horizon"),
        (["--options", "start", "data"], "start"),
        (["--options", "layout", "flat"], "layout"),
        (["--options", "cats", "1"], "cats"),
        (["--world-model", "nowhere"], "nowhere"),
        (["--env", "genesis_rl/Nothing-v0"], "genesis_rl/Nothing-v0"),
        (["--env", "CartPole-v1"], "Discrete(2)"),
        (["--steps", "0"], "steps"),
        (["--speed", "0"], "speed"),
        (["--out", "film.avi"], ": --out "),
    ],
)
def test_invalid_flags_exit_with_status_2(
    flags: list[str], message: str, models: list[str], run_program: Run
) -> None:
    status, _, errors = run_program("envs/imagine.py", *models, *flags)
    assert status == 2
    assert message in errors
