"""Recorded episodes as a view of a pack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.data import open_dataset
from genesis_rl.data.pack import PackWriter
from genesis_rl.data.transitions import Transitions, join

LENGTHS = (3, 1, 4)  # steps of the episodes
N = sum(LENGTHS) + len(LENGTHS)
DISCRETE = {"type": "Discrete", "dtype": "int64", "n": 5, "start": 0}


def columns() -> dict[str, Any]:
    """Write episodes; frame t of episode e has the value 10 e + t, its action its index + 100."""
    numbers = np.concatenate([10 * e + np.arange(n + 1) for e, n in enumerate(LENGTHS)])
    first = numbers % 10 == 0
    last = np.append(first[1:], True)
    terminated = np.append(last[1:], False) & ~last
    return {
        "action": np.where(last, 0, numbers + 100),
        "reward": np.where(last, 0, numbers / 10).astype(np.float32),
        "terminated": terminated & (numbers < 20),
        "truncated": np.zeros(N, np.bool_),
        "first": first,
        "number": numbers,
    }


def write(folder: Path, **changes: Any) -> Path:
    values = columns() | changes.pop("columns", {})
    meta = {"action_space": DISCRETE} | changes
    with PackWriter(folder, N, 4, masks=False, meta=meta) as writer:
        images = np.zeros((N, 4, 4, 3), np.uint8) + columns()["number"][:, None, None, None]
        writer.write(images.astype(np.uint8), **values)
    return folder


def test_episodes_and_their_frames(tmp_path: Path) -> None:
    steps = Transitions.open(write(tmp_path / "pack"))
    assert len(steps) == 8
    np.testing.assert_array_equal(steps.episodes, [(0, 3), (4, 5), (6, 10)])
    assert isinstance(steps.images, np.memmap) and steps.states is None
    assert steps.action_space == DISCRETE
    # The third episode was cut by the end of the recording.
    np.testing.assert_array_equal(np.flatnonzero(steps.terminated), [2, 4])


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_sequences_stay_within_episodes(tmp_path: Path, length: int) -> None:
    steps = Transitions.open(write(tmp_path / "pack"))
    rows = steps.sequences(length)
    shown = steps.images[rows][..., 0, 0, 0].astype(int)
    assert rows.shape == (sum(max(n - length + 1, 0) for n in LENGTHS), length + 1)
    assert (np.diff(shown) == 1).all() and (shown // 10 == shown[:, :1] // 10).all()
    np.testing.assert_array_equal(steps.actions[rows[:, :-1]], shown[:, :-1] + 100)
    assert len({tuple(row) for row in rows}) == len(rows)


def test_no_episode_is_long_enough(tmp_path: Path) -> None:
    steps = Transitions.open(write(tmp_path / "pack"))
    assert steps.sequences(5).shape == (0, 6)
    with pytest.raises(ValueError, match=r"^length "):
        steps.sequences(0)


def test_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / "data" / split, split=split)
    assert Transitions.open(tmp_path / "data", "test").pack.meta["split"] == "test"
    assert open_dataset(tmp_path / "data", "train").meta["split"] == "train"
    with pytest.raises(ValueError, match=r"^split "):
        Transitions.open(tmp_path / "data", "validation")
    with pytest.raises(ValueError, match=r"^split "):
        open_dataset(tmp_path / "data", "validation")
    with pytest.raises(ValueError, match=r"^split "):
        Transitions.open(tmp_path / "data", "dev")


def test_images_are_no_steps(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "pack", 2, 4, masks=False) as writer:
        writer.write(np.zeros((2, 4, 4, 3), np.uint8), state=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="episodes"):
        Transitions.open(tmp_path / "pack")


@pytest.mark.parametrize(
    "broken",
    [
        {"first": np.zeros(N, np.bool_)},
        {"first": np.arange(N) == 1},
        {"terminated": np.ones(N, np.bool_)},
        {"truncated": np.arange(N) == 0},
    ],
)
def test_contradictions_are_found(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="damaged"):
        Transitions.open(write(tmp_path / "pack", columns=broken))


def test_recordings_are_joined_split_by_split(tmp_path: Path) -> None:
    counts = {"steps": 8, "episodes": 3}
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "train", split="train", **counts)
    write(one / "test", split="test", **counts)
    write(two / "train", columns={"state": np.ones((N, 2))}, **counts)
    join([one, two], tmp_path / "all")
    both = Transitions.open(tmp_path / "all")
    alone = Transitions.open(one)
    assert len(both) == both.pack.meta["steps"] == 16
    assert both.pack.meta["episodes"] == 6 and both.pack.meta["split"] == "train"
    assert both.states is None  # only one of them has any
    np.testing.assert_array_equal(both.episodes, [*alone.episodes, *(alone.episodes + N)])
    np.testing.assert_array_equal(both.images[N:], alone.images)
    np.testing.assert_array_equal(both.rewards[:N], alone.rewards)
    assert len(Transitions.open(tmp_path / "all", "test")) == 8
    assert not (tmp_path / "all" / "validation").exists()


def test_other_actions_are_not_joined(tmp_path: Path) -> None:
    write(tmp_path / "one" / "train")
    write(tmp_path / "two" / "train", action_space=DISCRETE | {"n": 9})
    with pytest.raises(ValueError, match=r"^action_space .*two/train"):
        join([tmp_path / "one", tmp_path / "two"], tmp_path / "all")
    assert not (tmp_path / "all").exists()
