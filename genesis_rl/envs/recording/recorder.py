"""Recorder of episodes, with a pack per split."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.pack import PackWriter
from genesis_rl.data.transitions import ACTION_SPACE
from genesis_rl.envs.wrappers.frame_source import BlackFrameCheck
from genesis_rl.envs.wrappers.spaces import Space, space_to_json
from genesis_rl.perception.preprocessing import (
    Crop,
    Layout,
    Preprocessing,
    White,
    as_crop,
    as_nhwc_uint8,
    crop_frames,
    resize_labels,
)
from genesis_rl.utils.files import new_folder
from genesis_rl.utils.log import ProgressBar
from genesis_rl.utils.process import StoppedError, StopSignal

#: A recorded frame: "image" (S, S, 3) uint8, and with ground truth "mask" (S, S) uint8 and "state"
#: float32.
FrameRecord = dict[str, npt.NDArray[Any]]


def make_record(
    frame: Any,
    info: Mapping[str, Any],
    *,
    layout: Layout = "HWC",
    white: White = 255,
    image_size: int,
    preprocessing: Preprocessing,
    crop: Crop | None = None,
) -> FrameRecord:
    """Convert a frame and the ground truth of its info to a record.

    Args:
        frame: frame of one environment.
        info: info, optionally with "true_masks", integer labels (H, W) with 0 = background, and
            "true_state".
        layout: axis order of the frame.
        white: value of white in the frame.
        image_size: S.
        preprocessing: resizing of the frame.
        crop: the region to which the frame was cropped, (top, left, height, width) in pixels, and
            to which the masks, of the whole frame, are cropped; None: the whole frame.

    Raises:
        ValueError: for an invalid frame or mask, or masks without the region ``crop``.
    """
    images = as_nhwc_uint8(
        np.asarray(frame)[None],
        layout=layout,
        white=white,
        image_size=image_size,
        preprocessing=preprocessing,
    )
    record: FrameRecord = {"image": images[0]}
    if "true_masks" in info:
        labels = np.asarray(info["true_masks"])
        if labels.ndim != 2 or labels.dtype.kind not in "iub" or not labels.size:
            raise ValueError(
                "info true_masks must be integer labels (H, W) from 0 to 255, got "
                f"{labels.dtype}{labels.shape}."
            )
        if labels.min() < 0 or labels.max() > 255:
            # Renumbering per frame would not keep the label of an object.
            raise ValueError(
                f"info true_masks must have labels from 0 to 255, got {labels.min()} to "
                f"{labels.max()}. Number the objects from 1 and give every other pixel 0."
            )
        labels = crop_frames(labels, "HW", as_crop(crop, labels.shape)).astype(np.uint8)
        record["mask"] = resize_labels(labels, image_size, preprocessing)
    if "true_state" in info:
        record["state"] = np.asarray(info["true_state"], np.float32)
    return record


def check_shapes(record: FrameRecord, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a record has the entries and shapes of the first one.

    Args:
        record: the record.
        shapes: shapes of the first record.

    Raises:
        ValueError: if they differ.
    """
    record_shapes = {name: value.shape for name, value in record.items()}
    if record_shapes != shapes:
        raise ValueError(
            "frames, and true_masks and true_state in the info, must keep the entries and shapes"
            f" of the first frame, {dict(shapes)}, got {record_shapes}."
        )


class SplitCounts(NamedTuple):
    """Size of a recorded split.

    Attributes:
        images: number of images.
        steps: number of steps; 0 for images only.
        episodes: number of episodes.
    """

    images: int
    steps: int
    episodes: int


def assign_splits(shares: Mapping[str, float]) -> Iterator[str]:
    """Yield the splits of the episodes, in the order in which the episodes start.

    An episode's split is therefore independent of its length. The first episodes go to one split
    each, all others to the split that is furthest below its share.
    """
    counts = dict.fromkeys(shares, 0)
    for number in count(1):
        split = max(
            counts, key=lambda name: (not counts[name], shares[name] * number - counts[name])
        )
        counts[split] += 1
        yield split


@dataclass
class _Episode:
    split: str
    records: list[FrameRecord]
    actions: list[npt.NDArray[Any]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[tuple[bool, bool]] = field(default_factory=list)


class EpisodeRecorder:
    """Collects the steps of parallel environments and writes every episode when it ends.

    Attributes:
        left: number of steps left to record.
    """

    def __init__(
        self,
        folder: Path,
        action_space: Space,
        *,
        num_steps: int,
        shares: Mapping[str, float],
        unique: bool,
        meta: Mapping[str, Any],
        bar: ProgressBar,
        stop: StopSignal,
    ) -> None:
        """Create a recorder; see `recording`."""
        self.left = num_steps
        self._folder, self._meta, self._bar, self._stop = folder, dict(meta), bar, stop
        self._space = action_space
        self._meta |= {} if unique else {ACTION_SPACE: space_to_json(action_space)}
        self._splits = assign_splits(shares)
        self._check_black = BlackFrameCheck()
        self._open: dict[int, _Episode] = {}
        self._writers: dict[str, PackWriter] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._stack = ExitStack()
        self._seen: set[bytes] | None = set() if unique else None

    def begin(self, env: int, record: FrameRecord) -> None:
        """Start an episode of an environment with its first frame.

        Raises:
            ValueError: if the record has other shapes than the first one.
        """
        if not self._shapes:
            self._shapes = {name: value.shape for name, value in record.items()}
        check_shapes(record, self._shapes)
        self._open[env] = _Episode(next(self._splits), [record])

    def step(
        self,
        env: int,
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        record: FrameRecord,
    ) -> None:
        """Add a step of an environment and its next frame; ignored once all steps are recorded.

        Raises:
            StoppedError: after SIGINT or SIGTERM.
            ValueError: if the record has other shapes than the first one.
        """
        if self._stop.received:
            raise StoppedError("stopped, nothing was written", self._stop.status)
        if not self.left:
            return
        episode = self._open[env]
        check_shapes(record, self._shapes)
        self._check_black(record["image"])
        episode.records.append(record)
        episode.actions.append(np.asarray(action, self._space.dtype))
        episode.rewards.append(float(reward))
        episode.ends.append((bool(terminated), bool(truncated)))
        self.left -= 1
        self._bar.update()
        if terminated or truncated:
            self._write(self._open.pop(env))

    def cut(self, env: int) -> None:
        """Write the unfinished episode of an environment, if there is one."""
        episode = self._open.pop(env, None)
        if episode is not None and episode.actions:
            self._write(episode)

    def close(self) -> dict[str, SplitCounts]:
        """Write unfinished episodes and complete the packs.

        Raises:
            ValueError: if no step was recorded.
        """
        for env in sorted(self._open):
            self.cut(env)
        if not self._writers:
            raise ValueError("a recording must have at least one step, got 0.")
        recorded = {}
        for split, writer in self._writers.items():
            steps, episodes = writer.meta["steps"], writer.meta["episodes"]
            recorded[split] = SplitCounts(writer.written, steps, episodes)
        self._stack.close()
        return recorded

    def abandon(self, error: BaseException) -> None:
        """Remove the incomplete packs."""
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _write(self, episode: _Episode) -> None:
        records = episode.records
        rows = self._new_rows(records)
        if not rows:
            return
        arrays = {name: np.stack([records[row][name] for row in rows]) for name in records[0]}
        images, masks = arrays.pop("image"), arrays.pop("mask", None)
        if self._seen is None:
            arrays |= self._columns(episode)
        writer = self._writer(episode.split, images.shape[1], masks is not None)
        writer.write(images, masks, **arrays)
        writer.meta["episodes"] += 1
        writer.meta["steps"] += len(episode.actions) if self._seen is None else 0

    def _columns(self, episode: _Episode) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of the steps, with a row of zeros for the last frame."""
        actions = np.stack([*episode.actions, np.zeros_like(episode.actions[0])])
        ends = np.array([*episode.ends, (False, False)])
        first = np.zeros(len(actions), np.bool_)
        first[0] = True
        return {
            "action": actions,
            "reward": np.array([*episode.rewards, 0], np.float32),
            "terminated": ends[:, 0],
            "truncated": ends[:, 1],
            "first": first,
        }

    def _new_rows(self, records: list[FrameRecord]) -> list[int]:
        """Return the rows to write: all, or with `unique` those in no split yet."""
        if self._seen is None:
            return list(range(len(records)))
        rows = []
        for row, record in enumerate(records):
            digest = hashlib.blake2b(record["image"].tobytes(), digest_size=16).digest()
            if digest not in self._seen:
                self._seen.add(digest)
                rows.append(row)
        return rows

    def _writer(self, split: str, size: int, masks: bool) -> PackWriter:
        if split not in self._writers:
            meta = {**self._meta, "split": split, "episodes": 0, "steps": 0}
            writer = PackWriter(self._folder / split, None, size, masks=masks, meta=meta)
            self._writers[split] = self._stack.enter_context(writer)
        return self._writers[split]


@contextmanager
def recording(
    folder: str | os.PathLike[str],
    action_space: Space,
    *,
    num_steps: int,
    shares: Mapping[str, float],
    unique: bool = False,
    meta: Mapping[str, Any] | None = None,
    about: str = "",
) -> Iterator[EpisodeRecorder]:
    """Record into a folder with a pack per split, created when the block succeeds.

    Args:
        folder: output folder; must not exist, or be empty.
        action_space: action space of one environment.
        num_steps: number of steps to record, over all environments.
        shares: fractions of the episodes, by split.
        unique: record distinct images only, over all splits.
        meta: JSON data for the packs' meta.json.
        about: label of the progress bar.

    Yields:
        The recorder; call its `close` at the end.

    Raises:
        ValueError: for a folder that is not empty or that another process writes to, or an action
            space that cannot be recorded.
    """
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"out must be a new or empty folder, got {target}.")
    bar = ProgressBar(total=num_steps, desc=about, unit="step")
    with StopSignal() as stop, bar, new_folder(target, argument="out") as temporary:
        recorder = EpisodeRecorder(
            temporary,
            action_space,
            num_steps=num_steps,
            shares=shares,
            unique=unique,
            meta=meta or {},
            bar=bar,
            stop=stop,
        )
        try:
            yield recorder
        except BaseException as error:
            recorder.abandon(error)
            raise
