"""Episodes to packs, one for each split."""

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
from tqdm import tqdm

from genesis_rl.data.pack import PackWriter
from genesis_rl.data.transitions import ACTION_SPACE
from genesis_rl.envs.spaces import Space, space_to_json
from genesis_rl.files import new_folder
from genesis_rl.frames import Layout, Preprocessing, White, as_nhwc_uint8, resize_labels
from genesis_rl.process import StoppedError, StopSignal

#: A frame as it is recorded: "image" (S, S, 3) uint8, and where the environment gives them "mask"
#: (S, S) uint8 and "state" float32.
Shot = dict[str, npt.NDArray[Any]]


def take_shot(
    frame: Any,
    info: Mapping[str, Any],
    *,
    layout: Layout = "HWC",
    white: White = 255,
    image_size: int,
    preprocessing: Preprocessing,
) -> Shot:
    """Bring a frame and the ground truth of its info to the form in which they are recorded.

    Args:
        frame: of one environment.
        info: may have "true_masks", integer labels (H, W) with 0 = background, and "true_state".
        layout: axes of the frame.
        white: what white is in it.
        image_size: S.
        preprocessing: how the frame comes to that size.

    Raises:
        ValueError: if they are not what they should be.
    """
    images = as_nhwc_uint8(
        np.asarray(frame)[None],
        layout=layout,
        white=white,
        image_size=image_size,
        preprocessing=preprocessing,
    )
    shot: Shot = {"image": images[0]}
    if "true_masks" in info:
        labels = np.asarray(info["true_masks"])
        if labels.ndim != 2 or labels.dtype.kind not in "iub" or not labels.size:
            raise ValueError(
                f"info true_masks is {labels.dtype}{labels.shape}; wanted labels (H, W), 0 to 255."
            )
        if labels.min() < 0 or labels.max() > 255:
            # Numbers of its own for each frame would not follow an object.
            raise ValueError(
                f"info true_masks must have labels from 0 to 255, got {labels.min()} to "
                f"{labels.max()}. Number the objects from 1 and give every other pixel 0."
            )
        shot["mask"] = resize_labels(labels.astype(np.uint8), image_size, preprocessing)
    if "true_state" in info:
        shot["state"] = np.asarray(info["true_state"], np.float32)
    return shot


def check_form(shot: Shot, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a shot of another form than the first one.

    Args:
        shot: of any time.
        shapes: of the first shot.

    Raises:
        ValueError: if ground truth comes and goes or changes its shape.
    """
    found = {name: value.shape for name, value in shot.items()}
    if found != shapes:
        raise ValueError(
            f"the environment gave {found}, but {dict(shapes)} at first; wanted frames and entries"
            " true_masks and true_state of the info that keep their shapes, and are always there"
            " or never."
        )


class Recorded(NamedTuple):
    """What a split holds.

    Attributes:
        images: how many.
        steps: how many; 0 for images only.
        episodes: how many.
    """

    images: int
    steps: int
    episodes: int


def assign_splits(shares: Mapping[str, float]) -> Iterator[str]:
    """Splits of the episodes in the order in which they start.

    An episode's split is thus not a matter of its length. The first ones go to one split each, all
    others to the split that lags most behind its share.
    """
    given = dict.fromkeys(shares, 0)
    for number in count(1):
        split = max(given, key=lambda name: (not given[name], shares[name] * number - given[name]))
        given[split] += 1
        yield split


@dataclass
class _Episode:
    split: str
    shots: list[Shot]
    actions: list[npt.NDArray[Any]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[tuple[bool, bool]] = field(default_factory=list)


class Recorder:
    """Takes the steps of environments side by side and writes every episode when it ends.

    Attributes:
        left: how many steps are still wanted.
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
        bar: "tqdm[Any]",
        stop: StopSignal,
    ) -> None:
        """Plan packs; see `recording`."""
        self.left = num_steps
        self._folder, self._meta, self._bar, self._stop = folder, dict(meta), bar, stop
        self._space = action_space
        self._meta |= {} if unique else {ACTION_SPACE: space_to_json(action_space)}
        self._splits = assign_splits(shares)
        self._open: dict[int, _Episode] = {}
        self._writers: dict[str, PackWriter] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._stack = ExitStack()
        self._seen: set[bytes] | None = set() if unique else None

    def begin(self, env: int, shot: Shot) -> None:
        """Start an episode of an environment with its first frame.

        Raises:
            ValueError: if the shot is of another form than the first one.
        """
        if not self._shapes:
            self._shapes = {name: value.shape for name, value in shot.items()}
        check_form(shot, self._shapes)
        self._open[env] = _Episode(next(self._splits), [shot])

    def step(
        self,
        env: int,
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        shot: Shot,
    ) -> None:
        """Add a step of an environment and the frame it led to; does nothing if no more is wanted.

        Raises:
            StoppedError: after SIGINT or SIGTERM.
            ValueError: if the shot is of another form than the first one.
        """
        if self._stop.received:
            raise StoppedError("stopped, nothing was written", self._stop.status)
        if not self.left:
            return
        episode = self._open[env]
        check_form(shot, self._shapes)
        episode.shots.append(shot)
        episode.actions.append(np.asarray(action, self._space.dtype))
        episode.rewards.append(float(reward))
        episode.ends.append((bool(terminated), bool(truncated)))
        self.left -= 1
        self._bar.update()
        if terminated or truncated:
            self._write(self._open.pop(env))

    def cut(self, env: int) -> None:
        """Write the episode of an environment as far as it is there; nothing if it is over."""
        episode = self._open.pop(env, None)
        if episode is not None and episode.actions:
            self._write(episode)

    def close(self) -> dict[str, Recorded]:
        """Write the episodes that are not over, and finish the packs.

        Raises:
            ValueError: if there are no steps.
        """
        for env in sorted(self._open):
            self.cut(env)
        if not self._writers:
            raise ValueError("nothing was recorded")
        recorded = {}
        for split, writer in self._writers.items():
            steps, episodes = writer.meta["steps"], writer.meta["episodes"]
            recorded[split] = Recorded(writer.written, steps, episodes)
        self._stack.close()
        return recorded

    def abandon(self, error: BaseException) -> None:
        """Remove what was written."""
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _write(self, episode: _Episode) -> None:
        shots = episode.shots
        rows = self._new(shots)
        if not rows:
            return
        arrays = {name: np.stack([shots[row][name] for row in rows]) for name in shots[0]}
        images, masks = arrays.pop("image"), arrays.pop("mask", None)
        if self._seen is None:
            arrays |= self._columns(episode)
        writer = self._writer(episode.split, images.shape[1], masks is not None)
        writer.write(images, masks, **arrays)
        writer.meta["episodes"] += 1
        writer.meta["steps"] += len(episode.actions) if self._seen is None else 0

    def _columns(self, episode: _Episode) -> dict[str, npt.NDArray[Any]]:
        """The steps, and a row of zeros for the last frame."""
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

    def _new(self, shots: list[Shot]) -> list[int]:
        """The frames to be kept: all, or those that no split has yet."""
        if self._seen is None:
            return list(range(len(shots)))
        rows = []
        for row, shot in enumerate(shots):
            digest = hashlib.blake2b(shot["image"].tobytes(), digest_size=16).digest()
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
) -> Iterator[Recorder]:
    """Record into a folder with a pack for each split; it appears when the block succeeds.

    Args:
        folder: destination; must not exist, or be empty.
        action_space: of one environment.
        num_steps: how many steps to record, over all environments.
        shares: of the episodes, by split.
        unique: keep images only, equal ones once over all splits.
        meta: JSON data for the packs' meta.json.
        about: what the progress bar says.

    Yields:
        The recorder; call its `close` at the end.

    Raises:
        ValueError: for a folder that is not empty or that another process writes, or actions that
            cannot be recorded.
    """
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} exists and is not empty: choose another folder")
    bar = tqdm(total=num_steps, desc=about, unit="step", disable=None)
    with StopSignal() as stop, bar, new_folder(target, argument="out") as temporary:
        recorder = Recorder(
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
