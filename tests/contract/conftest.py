"""A small model and small pixel environments that the wrappers' tests share."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces

from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.models import Genesis
from genesis_rl.perception.encoder import SlotEncoder

H, W = 24, 40
# Options of PixelEnv, and of the wrapper that takes it.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "set": ({}, {"layout": "set", "info_keys": ("frame", "masks")}),
    "flat": ({"layout": "CHW"}, {"layout": "flat", "mask_geometry": True}),
    "dict": ({"entry": "image"}, {"layout": "dict", "keep": ("goal", "direction")}),
    "kept": (
        {"entry": "rgb", "values": "unit", "layout": "CWH"},
        {"keep": ("goal",), "info_keys": ("frame",), "image_layout": "CWH"},
    ),
}


@pytest.fixture(scope="session")
def tiny_genesis(small_model: Callable[..., Genesis]) -> Genesis:
    """GENESIS whose slots depend clearly on the frame."""
    return small_model(gain=2, updates=3)


@pytest.fixture(scope="session")
def encoder_path(tiny_genesis: Genesis, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pretrained(tiny_genesis, folder)
    return str(folder)


@pytest.fixture(scope="session")
def encoder(encoder_path: str) -> SlotEncoder:
    return SlotEncoder(encoder_path, device="cpu")


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the environment and of its wrapper."""
    return CASES[request.param]


@pytest.fixture
def count_passes(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the model's passes from here on."""
    sizes: list[int] = []
    infer = encoder._model.infer

    def counted(x: Any, **options: Any) -> Any:
        sizes.append(len(x))
        return infer(x, **options)

    monkeypatch.setattr(encoder._model, "infer", counted)
    return sizes


class PixelEnv(gym.Env[Any, Any]):
    """A coloured square that moves; episodes of 3 to 8 steps end by termination or truncation.

    Args:
        layout: axes of the frames; a stack holds the last 4.
        values: "uint8", "unit" (floats in [0, 1]) or "byte" (floats in [0, 255]).
        entry: name of the frame in a Dict observation; None for the frame alone.
        channels: 1, 3 or 4.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        layout: str = "HWC",
        values: str = "uint8",
        entry: str | None = None,
        channels: int = 3,
        size: tuple[int, int] = (H, W),
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        self.render_mode = render_mode
        self.layout, self.values, self.entry = layout, values, entry
        self.channels = channels if "C" in layout else 1
        self.size = size
        lengths = {"H": size[0], "W": size[1], "C": self.channels, "S": 4}
        high = 1 if values == "unit" else 255
        dtype = np.uint8 if values == "uint8" else np.float32
        frame = spaces.Box(0, high, [lengths[axis] for axis in layout], dtype)
        self.action_space = spaces.Discrete(4)
        self.observation_space = frame
        if entry is not None:
            goal = spaces.Box(-1, 1, (2,), np.float64)
            self.observation_space = spaces.Dict(
                {entry: frame, "goal": goal, "direction": spaces.Discrete(4)}
            )

    def _draw(self) -> npt.NDArray[np.uint8]:
        image = np.full((*self.size, 3), self._background, np.uint8)
        row, column = self._position
        image[row : row + 6, column : column + 6] = self._colour
        return image

    def _observation(self) -> Any:
        frames = np.stack(self._frames)  # (S, H, W, 3)
        if self.channels == 1:
            frames = frames[..., :1]
        if self.channels == 4:
            frames = np.concatenate([frames, np.full_like(frames[..., :1], 255)], -1)
        if "S" not in self.layout:
            frames = frames[-1:]
        order = [axis for axis in self.layout if axis in "SHWC"]
        rest = [axis for axis in "SHWC" if axis not in order]
        frames = frames.transpose(["SHWC".index(axis) for axis in [*rest, *order]])
        frames = frames.reshape(frames.shape[len(rest) :])
        if self.values == "unit":
            frames = (frames / 255).astype(np.float32)
        elif self.values == "byte":
            frames = frames.astype(np.float32)
        if self.entry is None:
            return np.ascontiguousarray(frames)
        return {
            self.entry: np.ascontiguousarray(frames),
            "goal": np.asarray(self._position) / self.size,
            "direction": np.int64(self._steps % 4),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        self._length = int(self.np_random.integers(3, 9))
        self._background, self._colour = self.np_random.integers(0, 256, (2, 3))
        self._position = self.np_random.integers(0, (self.size[0] - 6, self.size[1] - 6))
        self._frames = [self._draw()] * 4
        return self._observation(), {"raw": self._draw()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        move = 4 * np.array([(0, 1), (1, 0), (0, -1), (-1, 0)][int(action)])
        self._position = np.clip(self._position + move, 0, np.array(self.size) - 6)
        self._steps += 1
        self._frames = [*self._frames[1:], self._draw()]
        ended = self._steps >= self._length
        by_time = self._length % 2 == 0
        info = {"raw": self._draw(), "is_success": ended and not by_time}
        return self._observation(), float(action), ended and not by_time, ended and by_time, info

    def render(self) -> Any:
        return self._draw() if self.render_mode == "rgb_array" else None


class StateEnv(PixelEnv):
    """The same world with its state as the observation: pixels by rendering only."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 1, (2,), np.float64)

    def _observation(self) -> Any:
        return np.asarray(self._position) / self.size


@pytest.fixture(scope="session")
def pixel_env() -> type[PixelEnv]:
    return PixelEnv


@pytest.fixture(scope="session")
def state_env() -> type[StateEnv]:
    return StateEnv


@pytest.fixture(scope="session", autouse=True)
def registered() -> Iterator[None]:
    gym.register("Pixel-v0", lambda **options: PixelEnv(**options), max_episode_steps=50)
    gym.register("State-v0", lambda **options: StateEnv(**options), max_episode_steps=50)
    yield
    del gym.registry["Pixel-v0"], gym.registry["State-v0"]


def nearly_equal(a: Any, b: Any, path: str = "", tolerance: float = 1e-5) -> None:
    """Compare observations or infos: same structure, dtypes and, to 1e-5, values."""
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), f"{path}: {set(a) ^ set(b)}"
        for key in a:
            nearly_equal(a[key], b[key], f"{path}/{key}", tolerance)
    elif isinstance(a, (list, tuple)) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            nearly_equal(x, y, f"{path}[{i}]", tolerance)
    elif isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray), path
        assert a.dtype == b.dtype, path
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=0, err_msg=path)
    else:
        assert type(a) is type(b), f"{path}: {type(a)} != {type(b)}"
        assert a == b, path


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any], None]:
    return nearly_equal
