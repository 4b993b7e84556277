"""Recording environments: every step once, in order, whatever the environment and the policy."""

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from genesis_rl.data.pack import Pack
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.recording.collect import CollectConfig, collect, find_crop, repeat_some
from genesis_rl.envs.recording.recorder import assign_splits
from genesis_rl.envs.wrappers.spaces import space_from_json, space_to_json
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.utils.process import StoppedError

ACTIONS = {
    "discrete": spaces.Discrete(3, start=2),
    "multi_discrete": spaces.MultiDiscrete([2, 5]),
    "multi_binary": spaces.MultiBinary(4),
    "multi_binary_2d": spaces.MultiBinary([2, 2]),
    "box": spaces.Box(-1, np.array([[1, 2], [3, np.inf]], np.float32)),
    "box_int": spaces.Box(0, 9, (2,), np.int64),
}
Assert = Callable[[Any, Any], None]


class Clock(gym.Env[Any, Any]):
    """Shows the step in red and the episode's random mark in green; ends at a random time."""

    def __init__(
        self,
        actions: str = "discrete",
        longest: int = 9,
        truth: bool = False,
        growing: bool = False,
        label: int = 3,
        nested: bool = False,
    ) -> None:
        self.observation_space: Any = spaces.Box(0, 255, (32, 32, 3), np.uint8)
        if nested:
            cameras = spaces.Dict(front=self.observation_space, back=self.observation_space)
            self.observation_space = spaces.Dict(cameras=cameras)
        self.label, self.nested = label, nested
        self.action_space = ACTIONS[actions]
        self.longest, self.truth, self.growing = longest, truth, growing

    def _show(self) -> tuple[Any, dict[str, Any]]:
        frame = np.zeros((32, 32, 3), np.uint8)
        frame[..., 0], frame[..., 1] = self.now, self.mark
        frame[:16, :, 2] = 255
        info: dict[str, Any] = {}
        if self.truth:
            info["true_masks"] = (frame[..., 2] > 0).astype(np.int64) * self.label
            info["true_state"] = np.full((2, 3), self.now + self.mark, np.float64)
        if self.growing:
            info["true_state"] = np.zeros(self.now + 1)
        if self.nested:
            return {"cameras": {"front": frame, "back": 255 - frame}}, info
        return frame, info

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.now, self.mark = 0, int(self.np_random.integers(1, 256))
        self.length = int(self.np_random.integers(1, self.longest + 1))
        return self._show()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.now += 1
        ends, odd = self.now == self.length, self.length % 2 == 1
        frame, info = self._show()
        reward = float(np.sum(action)) if np.isfinite(np.sum(action)) else 0.0
        return frame, reward + self.now, ends and odd, ends and not odd, info


@pytest.fixture(autouse=True)
def clock() -> Iterator[None]:
    gym.register("Clock-v0", lambda **options: Clock(**options))
    yield
    del gym.registry["Clock-v0"]


def settings(out: Path, **changes: Any) -> CollectConfig:
    options = changes.pop("options", {})
    given = {"env": "Clock-v0", "steps": 200, "n_envs": 3, "vec": "dummy", "image_size": 32}
    return CollectConfig(out=out, env_options=json.dumps(options), **{**given, **changes})


@pytest.mark.parametrize("kind", ACTIONS)
def test_every_step_is_recorded_as_it_was(tmp_path: Path, kind: str) -> None:
    config = settings(tmp_path / "data", options={"actions": kind})
    recorded = collect(config)
    assert sum(split.steps for split in recorded.values()) == 200
    assert list(recorded) == ["train", "validation", "test"] or set(recorded) == set(config.shares)
    marks = set()
    for split, (images, steps, episodes) in recorded.items():
        data = Transitions.open(config.out, split)
        assert (len(data.images), len(data), len(data.episodes)) == (images, steps, episodes)
        assert images == steps + episodes
        space = space_from_json(data.action_space)
        assert space == ACTIONS[kind] and data.actions.dtype == space.dtype
        for first, last in data.episodes:
            frames = data.images[first : last + 1]
            assert (frames[:, 16:, :, 0] == np.arange(last - first + 1)[:, None, None]).all()
            assert (frames[..., 1] == frames[0, 0, 0, 1]).all()
            assert all(space.contains(action) for action in data.actions[first:last])
            np.testing.assert_allclose(
                data.rewards[first:last],
                [np.sum(a) + 1 + t for t, a in enumerate(data.actions[first:last])],
                rtol=1e-5,
            )
            ends = data.terminated[first:last] | data.truncated[first:last]
            assert not ends[:-1].any()
            if ends[-1]:
                assert data.terminated[last - 1] == ((last - first) % 2 == 1)
            marks.add((first, split))
    assert len(marks) == sum(split.episodes for split in recorded.values())


def test_at_most_one_episode_of_each_environment_is_cut(tmp_path: Path) -> None:
    recorded = collect(settings(tmp_path / "data"))
    cut = 0
    for split in recorded:
        data = Transitions.open(tmp_path / "data", split)
        last_steps = data.episodes[:, 1] - 1
        cut += int((~(data.terminated | data.truncated)[last_steps]).sum())
    assert 0 < cut <= 3


@pytest.mark.parametrize("vec", ["dummy", "subproc"])
def test_the_same_settings_give_the_same_data(tmp_path: Path, vec: str) -> None:
    # A worker knows the environments that importing genesis_rl registers.
    given = {"env": "genesis_rl/ObjectGoal-v0", "steps": 60, "n_envs": 2, "sticky": 0.3}
    one, two, other = (
        settings(tmp_path / name, **given, vec=how, seed=seed, options={"image_size": 32})
        for name, how, seed in (("one", vec, 0), ("two", "dummy", 0), ("other", "dummy", 1))
    )
    for config in (one, two, other):
        collect(config)
    a, b, c = (Transitions.open(config.out) for config in (one, two, other))
    for name in ("images", "actions", "rewards", "terminated", "truncated", "first"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert len(a.images) != len(c.images) or (a.images != c.images).any()
    assert a.pack.meta["settings"]["seed"] == 0
    assert a.pack.meta["versions"].keys() >= {"genesis_rl", "gymnasium"}


def test_ground_truth_comes_along(tmp_path: Path) -> None:
    collect(settings(tmp_path / "data", options={"truth": True}, image_size=16))
    data = Transitions.open(tmp_path / "data")
    assert data.pack.masks is not None and data.states is not None
    assert (data.pack.masks[:, :8] == 3).all() and (data.pack.masks[:, 8:] == 0).all()
    shown = data.images[:, 0, 0, :2].sum(-1, dtype=int)
    assert data.states.shape == (len(data.images), 2, 3) and data.states.dtype == np.float32
    np.testing.assert_array_equal(data.states[:, 0, 0], shown)


def test_a_policy_sees_what_is_recorded(tmp_path: Path) -> None:
    seen: list[Any] = []

    def policy(frames: Any, first: Any) -> Any:
        assert frames.shape == (3, 32, 32, 3) and frames.dtype == np.uint8
        assert ((frames[:, 16, 0, 0] == 0) == first).all()
        seen.append(frames)
        return 2 + frames[:, 16, 0, 0].astype(np.int64) % 3

    collect(settings(tmp_path / "data", steps=90), policy)
    data = Transitions.open(tmp_path / "data")
    rows = data.sequences(1)[:, 0]
    np.testing.assert_array_equal(data.actions[rows], 2 + data.images[rows, 16, 0, 0] % 3)
    assert len(seen) == 30
    assert data.pack.meta["policy"] == "given"


def test_unique_images_are_kept_once_over_all_splits(tmp_path: Path) -> None:
    config = settings(tmp_path / "data", steps=3000, unique=True, options={"truth": True})
    recorded = collect(config)
    packs = [Pack.open(config.out / split) for split in recorded]
    images = np.concatenate([pack.images for pack in packs])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images) < 2500
    assert all(pack.factors.keys() == {"state"} for pack in packs)
    with pytest.raises(ValueError, match="episodes"):
        Transitions.open(config.out)


def test_sticky_actions() -> None:
    rng = np.random.default_rng(0)
    before, drawn = np.zeros((1000, 2)), np.ones((1000, 2))
    first = np.arange(1000) < 100
    mixed = repeat_some(drawn, before, first, 0.25, rng)
    assert (mixed[:, 0] == mixed[:, 1]).all() and (mixed[:100] == 1).all()
    assert 0.2 < 1 - mixed[100:].mean() < 0.3
    assert repeat_some(drawn, None, first, 0.25, rng) is drawn
    assert repeat_some(drawn, before, first, 0, rng) is drawn


def test_splits_keep_their_shares() -> None:
    shares = {"train": 0.8, "validation": 0.15, "test": 0.05}
    order = list(itertools.islice(assign_splits(shares), 400))
    assert order[:3] == ["train", "validation", "test"]
    for split, share in shares.items():
        assert abs(order.count(split) - 400 * share) <= 1


def test_few_episodes_leave_splits_out(tmp_path: Path) -> None:
    recorded = collect(settings(tmp_path / "data", steps=2, n_envs=2))
    assert set(recorded) == {"train", "validation"}


def test_spaces_survive_json() -> None:
    for space in ACTIONS.values():
        text = json.dumps(space_to_json(space), allow_nan=False)
        assert space_from_json(json.loads(text)) == space
    with pytest.raises(ValueError, match="action_space"):
        space_to_json(spaces.Text(3))
    for bad in ({}, {"type": "Text", "dtype": "int64"}, {"type": "Box", "dtype": "float32"}):
        with pytest.raises(ValueError, match="action_space"):
            space_from_json(bad)


# ---- bad input and interruptions ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": None}, "env, agent, from_minari"),
        ({"agent": "runs/agent"}, "env, agent, from_minari"),
        ({"steps": 0}, "steps"),
        ({"n_envs": 0}, "n_envs"),
        ({"sticky": 1.0}, "sticky"),
        ({"validation": 0.6, "test": 0.4}, "validation and test"),
        ({"image_layout": "HWX"}, "image_layout"),
        ({"resize": "zoom"}, "resize"),
        ({"vec": "threads"}, "vec"),
        ({"seed": -1}, "seed"),
        ({"wrappers": ("FlattenObservation",)}, "wrappers"),
        ({"unique": True, "minari": "a/b-v0"}, "unique"),
        ({"deterministic": True}, "deterministic"),
    ],
)
def test_bad_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(tmp_path / "data", **changes)


@pytest.mark.parametrize("vec", ["dummy", "subproc"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "Nowhere-v0"}, "'Nowhere-v0'.*NameNotFound"),
        ({"env": "CartPole-v1"}, r"^the observation "),
        ({"wrappers": ("gymnasium.wrappers:Nothing",)}, "AttributeError"),
        ({"image_key": "pixels"}, "image_key"),
        ({"render": True}, "TypeError: .*render_mode"),
        ({"resize": "none", "image_size": 64}, "resize"),
    ],
)
def test_environments_that_cannot_be_recorded(
    tmp_path: Path, vec: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        collect(settings(tmp_path / "data", **{**changes, "vec": vec}))
    assert not list(tmp_path.iterdir())


def test_ground_truth_that_changes_its_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="true_state"):
        collect(settings(tmp_path / "data", options={"growing": True}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", [-1, 256, 300])
def test_labels_that_masks_cannot_hold_are_refused(tmp_path: Path, label: int) -> None:
    with pytest.raises(ValueError, match=rf"true_masks.*{label}"):
        collect(settings(tmp_path / "data", options={"truth": True, "label": label}))


def test_a_path_leads_to_nested_frames(tmp_path: Path) -> None:
    want = collect(settings(tmp_path / "flat"))
    options = {"nested": True}
    assert collect(settings(tmp_path / "a", options=options, image_key="cameras/front")) == want
    for split in want:
        flat, found = (Transitions.open(tmp_path / name, split) for name in ("flat", "a"))
        np.testing.assert_array_equal(flat.images, found.images)
    with pytest.raises(ValueError, match=r"image_key.*cameras/front"):
        collect(settings(tmp_path / "b", options=options, image_key="front"))


def test_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="out"):
            collect(settings(out))


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_recording_leaves_nothing(
    stop: signal.Signals, status: int, tmp_path: Path
) -> None:
    calls = itertools.count()

    def policy(frames: Any, first: Any) -> Any:
        if next(calls) == 20:
            assert list((tmp_path).glob(".data-*/train")) == []  # packs have their names last
            os.kill(os.getpid(), stop)
        return np.full(3, 2)

    with pytest.raises(StoppedError) as stopped:
        collect(settings(tmp_path / "data"), policy)
    assert stopped.value.status == status
    assert not list(tmp_path.iterdir())


def _goal(out: Path, **options: Any) -> CollectConfig:
    env = "genesis_rl/ObjectGoal-v0"
    return CollectConfig(env=env, out=out, steps=20, n_envs=1, vec="dummy", **options)


def test_frames_and_masks_are_cropped(tmp_path: Path) -> None:
    options = '{"image_size": 32, "masks_in_info": true}'
    whole, cut = (
        _goal(tmp_path / name, image_size=size, env_options=options, crop=crop)
        for name, size, crop in (("whole", 32, None), ("cut", 16, (4, 8, 16, 16)))
    )
    packs = []
    for settings in (whole, cut):
        collect(settings)
        packs.append(Pack.open(settings.out / "train"))
    np.testing.assert_array_equal(packs[1].images, packs[0].images[:, 4:20, 8:24])
    assert packs[0].masks is not None and packs[1].masks is not None
    np.testing.assert_array_equal(packs[1].masks, packs[0].masks[:, 4:20, 8:24])


class Slide(Clock):
    """A white square of six pixels slides down the left border."""

    def _show(self) -> tuple[Any, dict[str, Any]]:
        frame = np.zeros((32, 32, 3), np.uint8)
        top = 4 + 2 * (self.now % 4)
        frame[top : top + 6, 2:8] = 255
        return frame, {}


def test_the_region_that_changes_is_cut_out(tmp_path: Path) -> None:
    gym.register("Slide-v0", lambda **_: Slide(), max_episode_steps=9)
    try:
        env: Any = {"env": "Slide-v0", "steps": 20, "n_envs": 1, "vec": "dummy"}
        settings = CollectConfig(**env, out=tmp_path / "data", crop="auto", image_size=16)
        collect(settings)
        pack = Pack.open(settings.out / "train")
        crop = find_crop(settings)
        assert crop is not None and crop[2] == crop[3] <= 16
        assert pack.preprocessing == Preprocessing("stretch", crop, (32, 32))
        collect(replace(settings, out=tmp_path / "given", crop=crop))
        given = Pack.open(tmp_path / "given/train")
        np.testing.assert_array_equal(pack.images, given.images)
    finally:
        del gym.registry["Slide-v0"]


def test_a_region_must_be_given_for_recorded_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop must be a region with from_minari"):
        CollectConfig(from_minari="a/b-v0", out=tmp_path, crop="auto")


def test_masks_of_another_size_cannot_be_cropped(tmp_path: Path) -> None:
    options = '{"image_size": 32, "render_size": 64, "masks_in_info": true}'
    settings = _goal(tmp_path / "data", env_options=options, render=True, crop=(0, 0, 32, 32))
    with pytest.raises(ValueError, match="true_masks must have the size of the frame"):
        collect(settings)


class DarkEnv(Clock):
    """White is 1 in frames of a space with white 255."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (32, 32, 3), np.float32)

    def _show(self) -> tuple[Any, dict[str, Any]]:
        return np.ones((32, 32, 3), np.float32), {}


def test_almost_black_frames_are_reported(tmp_path: Path) -> None:
    gym.register("Dark-v0", lambda **_: DarkEnv())
    config = CollectConfig(env="Dark-v0", out=tmp_path / "pack", steps=4, n_envs=1)
    with pytest.warns(UserWarning, match="got at most 1 .*almost black"):
        collect(config)
    del gym.registry["Dark-v0"]
