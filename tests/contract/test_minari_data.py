"""Minari datasets, written from recordings and read as a source of frames."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.recording.collect import CollectConfig, collect
from genesis_rl.envs.recording.minari_data import check_new, collect_minari, write_minari

minari = pytest.importorskip("minari", reason="minari is not installed (extra minari)")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def record(out: Path, **changes: Any) -> list[str]:
    given = {"env": "genesis_rl/ObjectGoal-v0", "steps": 150, "n_envs": 2, "vec": "dummy"}
    config = CollectConfig(out=out, image_size=32, **{**given, **changes})
    return list((collect if config.env else collect_minari)(config))


def test_what_is_written_is_what_was_recorded(tmp_path: Path, root: Path) -> None:
    splits = record(tmp_path / "data")
    place = write_minari(tmp_path / "data", splits, "goal/random-v3")
    assert place == root / "goal" / "random-v3"
    assert sorted(path.name for path in root.rglob("*") if path.name.startswith(".")) == []
    assert os.environ["MINARI_DATASETS_PATH"] == str(root)
    assert list(minari.list_local_datasets()) == ["goal/random-v3"]
    dataset = minari.load_dataset("goal/random-v3")
    assert dataset.total_steps == 150 and dataset.action_space == gym.spaces.Discrete(4)
    written = iter(dataset.iterate_episodes())
    for split in splits:
        steps = Transitions.open(tmp_path / "data", split)
        for first, last in steps.episodes:
            episode = next(written)
            np.testing.assert_array_equal(episode.observations, steps.images[first : last + 1])
            np.testing.assert_array_equal(episode.actions, steps.actions[first:last])
            np.testing.assert_allclose(episode.rewards, steps.rewards[first:last])
            np.testing.assert_array_equal(episode.terminations, steps.terminated[first:last])
            assert episode.terminations[-1] or episode.truncations[-1]
    assert next(written, None) is None


def test_there_and_back(tmp_path: Path) -> None:
    splits = record(tmp_path / "data", validation=0, test=0)
    write_minari(tmp_path / "data", splits, "goal-v0")
    back = tmp_path / "back"
    assert record(back, env=None, from_minari="goal-v0", validation=0, test=0) == ["train"]
    one, two = Transitions.open(tmp_path / "data"), Transitions.open(back)
    for name in ("images", "actions", "rewards", "terminated", "first", "action_space"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    record(tmp_path / "part", env=None, from_minari="goal-v0", steps=40, validation=0, test=0)
    part = Transitions.open(tmp_path / "part")
    assert len(part) == 40
    np.testing.assert_array_equal(part.images, one.images[: len(part.images)])


@pytest.mark.parametrize("entry", ["observations", "actions", "rewards"])
def test_an_incomplete_episode_is_named(tmp_path: Path, root: Path, entry: str) -> None:
    splits = record(tmp_path / "data", validation=0, test=0)
    place = write_minari(tmp_path / "data", splits, "goal-v0")
    with h5py.File(place / "data" / "main_data.hdf5", "a") as file:
        values = file["episode_1"][entry][:-1]
        del file["episode_1"][entry]
        file["episode_1"][entry] = values
    with pytest.raises(ValueError, match=r"episode 1 .*'goal-v0'"):
        record(tmp_path / "back", env=None, from_minari="goal-v0")
    assert not (tmp_path / "back").exists()


def test_ids_that_cannot_be(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match="dataset ID"):
        check_new("no version")
    write_minari(tmp_path / "data", record(tmp_path / "data"), "goal-v0")
    with pytest.raises(ValueError, match="minari"):
        check_new("goal-v0")
    with pytest.raises(ValueError, match="minari download cars/none-v0"):
        record(tmp_path / "more", env=None, from_minari="cars/none-v0")


def test_a_failed_writing_leaves_nothing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = record(tmp_path / "data")
    (tmp_path / "data" / "test" / "factors.npz").unlink()
    with pytest.raises(ValueError, match="factors"):
        write_minari(tmp_path / "data", splits, "goal/random-v0")
    assert not minari.list_local_datasets()


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_datasets_without_frames_are_refused(tmp_path: Path) -> None:
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.zeros((4, 2)), actions=np.zeros(3), rewards=[0.0] * 3
    )
    buffer.terminations.extend([False] * 3)
    buffer.truncations.extend([False, False, True])
    spaces = gym.spaces.Box(-1, 1, (2,), np.float64), gym.spaces.Discrete(2)
    minari.create_dataset_from_buffers(
        "states-v0", [buffer], observation_space=spaces[0], action_space=spaces[1]
    )
    with pytest.raises(ValueError, match=r"^the observation "):
        record(tmp_path / "data", env=None, from_minari="states-v0")
    assert not (tmp_path / "data").exists()


def test_the_program_needs_minari_only_where_it_is_used() -> None:
    code = "import sys; sys.modules['minari'] = None\n"
    code += "import genesis_rl.envs.recording.minari_data as m\n"
    code += "try: m.check_new('a-v0')\nexcept ImportError as error: print(error)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "requires minari" in run.stdout and "genesis_rl[minari]" in run.stdout
