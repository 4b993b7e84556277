"""Conversion between recordings and Minari datasets."""

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from genesis_rl.data.readers.hdf5 import check_hdf5
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.recording.collect import CollectConfig
from genesis_rl.envs.recording.recorder import SplitCounts, make_record, recording
from genesis_rl.envs.wrappers.frame_source import find_frames
from genesis_rl.envs.wrappers.spaces import space_from_json
from genesis_rl.utils.extras import require
from genesis_rl.utils.files import new_folder, read_json

_ROOT = "MINARI_DATASETS_PATH"  # Minari's root; default: ~/.minari/datasets


def _dataset_path(dataset_id: str) -> Path:
    """Return the folder of a dataset.

    Raises:
        ValueError: for a malformed id.
    """
    minari = require("minari")
    minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    root = os.environ.get(_ROOT) or Path.home() / ".minari" / "datasets"
    return Path(root) / dataset_id


def collect_minari(config: CollectConfig) -> dict[str, SplitCounts]:
    """Convert a local Minari dataset with frames in its observations to packs.

    Args:
        config: the settings, with ``from_minari``; at most ``steps`` steps are converted.

    Returns:
        Counts per split.

    Raises:
        ValueError: if the dataset does not exist, has no frames or an incomplete episode, or the
            folder is in use.
        StoppedError: after SIGINT or SIGTERM.
    """
    dataset_id = str(config.from_minari)
    path = _dataset_path(dataset_id)
    if not path.is_dir():
        raise ValueError(
            f"from_minari must be a local dataset, got {dataset_id!r}, which is not at {path}. Run"
            f" 'minari download {dataset_id}', or set {_ROOT}."
        )
    minari = require("minari")
    _check_contained(path / "data", config.trust_remote_code)
    dataset = minari.load_dataset(dataset_id)
    space = dataset.observation_space
    source = find_frames(
        space, key=config.image_key, layout=config.image_layout, crop=config.region
    )
    config.preprocessing.check(*source.size, config.image_size)
    with recording(
        config.out,
        dataset.action_space,
        num_steps=min(config.steps, int(dataset.total_steps)),
        shares=config.shares,
        unique=config.unique,
        meta=config.meta(policy="minari", frame_size=list(source.full_size)),
        about=dataset_id,
    ) as recorder:
        for episode in dataset.iterate_episodes():
            frames = source.frames(episode.observations)
            _check_lengths(dataset_id, episode, len(frames))
            records = (
                make_record(
                    frame,
                    {},
                    layout=source.layout,
                    white=source.white,
                    image_size=config.image_size,
                    preprocessing=config.preprocessing,
                )
                for frame in frames
            )
            recorder.begin(0, next(records))
            steps = (episode.actions, episode.rewards, episode.terminations, episode.truncations)
            for action, reward, terminated, truncated, record in zip(*steps, records, strict=True):
                recorder.step(0, action, reward, terminated, truncated, record)
            recorder.cut(0)
            if not recorder.left:
                break
        return recorder.close()


def _check_contained(folder: Path, trust_remote_code: bool) -> None:
    """Check that the data refer to no other files and the metadata contain the spaces.

    For missing spaces, Minari would create the environment of the metadata's env_spec, whose entry
    point may be any function.
    """
    for path in sorted(folder.glob("*.hdf5")):
        check_hdf5(path)
    metadata = read_json(folder / "metadata.json")
    if not isinstance(metadata, dict):
        raise ValueError(f"{folder / 'metadata.json'} must be a JSON object, got {metadata!r}.")
    spaces = [metadata.get(name) for name in ("observation_space", "action_space")]
    if not trust_remote_code and not all(isinstance(space, str) for space in spaces):
        raise ValueError(
            "trust_remote_code must be True to create the environment of"
            f" {folder / 'metadata.json'}, which lacks its spaces, got False; its env_spec is"
            f" {metadata.get('env_spec')!r}. Read it; if you trust its author, pass"
            " trust_remote_code=True."
        )


def _check_lengths(dataset_id: str, episode: Any, num_observations: int) -> None:
    """Check that an episode of T steps has T + 1 observations.

    Raises:
        ValueError: otherwise.
    """
    steps = ("actions", "rewards", "terminations", "truncations")
    lengths = {name: len(getattr(episode, name)) for name in steps}
    if set(lengths.values()) != {num_observations - 1}:
        counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise ValueError(
            f"episode {episode.id} of Minari dataset {dataset_id!r} must have one observation more"
            f" than steps, got {num_observations} observations, {counts}. Delete it or write the"
            " dataset again."
        )


def check_new(dataset_id: str) -> None:
    """Check that an id is well-formed and not in use.

    Raises:
        ValueError: otherwise.
    """
    path = _dataset_path(dataset_id)
    if path.exists():
        raise ValueError(f"minari must be the id of a new dataset, got {dataset_id!r} at {path}.")


def write_minari(folder: Path, splits: Sequence[str], dataset_id: str) -> Path:
    """Write the episodes of a recording's splits to one Minari dataset.

    Args:
        folder: folder of the recording.
        splits: its splits, written in this order.
        dataset_id: id of the new dataset, (namespace/)name-vN.

    Returns:
        Folder of the dataset, created when complete.

    Raises:
        ValueError: for an id that is malformed or in use.
    """
    check_new(dataset_id)
    minari = require("minari")
    recordings = [Transitions.open(folder, split) for split in splits]
    meta = recordings[0].pack.meta
    path = _dataset_path(dataset_id)
    with new_folder(path) as temporary:
        with _minari_root(temporary), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about missing authors and links
            minari.create_dataset_from_buffers(
                dataset_id,
                _episodes(recordings),
                action_space=space_from_json(recordings[0].action_space),
                observation_space=gym.spaces.Box(0, 255, recordings[0].images.shape[1:], np.uint8),
                algorithm_name=meta["policy"],
                description=f"Frames of {meta['settings']['env'] or meta['settings']['agent']}",
                jpeg_encoding=False,
            )
        (temporary / dataset_id / "data").rename(temporary / "data")
        shutil.rmtree(temporary / Path(dataset_id).parts[0])
    namespace = minari.dataset.minari_dataset.parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in minari.namespace.list_local_namespaces():
        minari.namespace.create_namespace(namespace)
    return path


@contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Set Minari's root within the context."""
    before = os.environ.get(_ROOT)
    os.environ[_ROOT] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ROOT]
        else:
            os.environ[_ROOT] = before


def _episodes(recordings: Sequence[Transitions]) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for steps in recordings:
        for first, last in steps.episodes.tolist():
            truncated = steps.truncated[first:last].copy()
            truncated[-1] |= not steps.terminated[
                last - 1
            ]  # Minari requires an end of every episode
            yield EpisodeBuffer(
                observations=np.asarray(steps.images[first : last + 1]),
                actions=steps.actions[first:last],
                rewards=steps.rewards[first:last].tolist(),
                terminations=steps.terminated[first:last].tolist(),
                truncations=truncated.tolist(),
            )
