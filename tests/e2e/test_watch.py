"""envs/watch.py as a user runs it: videos of random episodes, errors."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


def test_runs_as_a_program(tmp_path: Path) -> None:
    out = tmp_path / "film.gif"
    program = str(ROOT / "envs" / "watch.py")
    command = [sys.executable, program, "--out", str(out), "--max-steps", "3"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(out) and out.stat().st_size > 0


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_writes_a_video(tmp_path: Path, suffix: str, run_program: Run) -> None:
    out = tmp_path / "new" / f"video{suffix}"
    flags = ["--episodes", "2", "--max-steps", "7", "--options", "render_size", "64"]
    assert run_program("envs/watch.py", "--out", str(out), *flags)[:2] == (0, str(out))
    video = cv2.VideoCapture(str(out))
    shown, frame = video.read()
    assert shown and frame.shape == (64, 64, 3)


MODULE = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Room(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, shade=9):
        self.render_mode, self.shade = render_mode, shade
        camera = spaces.Box(0, 1, (3, 20, 48), np.float32)
        self.observation_space = spaces.Dict(camera=spaces.Dict(rgb=camera))
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return {"camera": {"rgb": np.full((3, 20, 48), self.shade / 255, np.float32)}}, {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}

    def render(self):
        return np.full((64, 80, 3), self.shade, np.uint8)


class Same(gym.Wrapper):
    pass


gym.register("Room-v0", Room)
"""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A working directory with the module of an environment."""
    (tmp_path / "room_of_the_test.py").write_text(MODULE)
    return tmp_path


def run_in(folder: Path, program: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / program), *flags]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200, cwd=folder
    )


@pytest.mark.parametrize(
    ("flags", "shape"),
    [
        ([], (64, 80)),
        (["--crop", "4", "8", "16", "32"], (16, 32)),
        (["--no-render", "--image-key", "camera/rgb"], (20, 48)),
    ],
)
def test_frames_of_a_module_in_the_working_directory(
    flags: list[str], shape: tuple[int, int], room: Path
) -> None:
    run = run_in(
        room,
        "envs/watch.py",
        *("--env", "room_of_the_test:Room-v0", "--env-options", '{"shade": 200}'),
        *("--wrappers", "room_of_the_test:Same", "--max-steps", "3", "--out", "video.mp4", *flags),
    )
    assert run.returncode == 0, run.stderr
    frame = cv2.VideoCapture(str(room / "video.mp4")).read()[1]
    assert frame.shape[:2] == shape and abs(int(frame.mean()) - 200) < 8


def test_a_module_of_the_working_directory_is_recorded(room: Path) -> None:
    run = run_in(
        room,
        "envs/collect.py",
        *("--env", "room_of_the_test:Room-v0", "--image-key", "camera/rgb", "--n-envs", "2"),
        *("--steps", "4", "--out", "data", "--image-size", "16", "--crop", "2", "4", "16", "32"),
    )
    assert run.returncode == 0, run.stderr
    assert "data/train" in run.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "genesis_rl/Nothing-v0"], "genesis_rl/Nothing-v0"),
        (["--options", "num_objects", "99"], "num_objects"),
        (["--options", "cats", "1"], "cats"),
        (["--out", "film.avi"], ": --out "),
        (["--episodes", "0"], "episodes"),
        (["--env-options", "[]"], "--env-options must be a JSON object"),
        (["--wrappers", "Same"], "wrappers must be module:Class"),
        (["--image-key", "image"], "Use --no-render"),
        (["--crop", "0", "0", "999", "8"], "crop must be a region within the frame"),
        (["--env", "CartPole-v1", "--no-render"], "must be an image"),
    ],
)
def test_bad_input_is_one_message(flags: list[str], message: str, run_program: Run) -> None:
    status, _, errors = run_program("envs/watch.py", *flags)
    assert status == 2
    assert message in errors
