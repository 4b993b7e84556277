"""Recorded episodes of an environment: a pack whose images are the frames of whole episodes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import SPLITS, check_split, split_folder
from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.utils.files import new_folder

#: Entry of meta.json that marks a pack of whole episodes, in order.
ACTION_SPACE = "action_space"
#: Factors of such a pack in addition to the environment's own.
COLUMNS = ("action", "reward", "terminated", "truncated", "first")


class Transitions:
    """Transitions of consecutive episodes, with memory-mapped frames.

    An episode of L steps has L + 1 frames, including its final observation. All arrays have one row
    per frame, N in all. Row t contains the action at frame t and the reward, terminated and
    truncated of the step to frame t + 1; the row of an episode's last frame is zero. An episode
    that is neither terminated nor truncated was cut by the end of the recording.

    Attributes:
        pack: the frames, with masks if the environment provides them.
        images: (N, H, W, 3) uint8, memory-mapped.
        actions: (N, ...) of the action space's shape and dtype; (N,) int64 for Discrete.
        rewards: (N,) float32.
        terminated: (N,) bool.
        truncated: (N,) bool.
        first: (N,) bool, first frames of episodes.
        episodes: (E, 2) int64, first and last frame of every episode.
        states: (N, ...) float32 ground truth if the environment provides it, or None.
        action_space: JSON data, for `genesis_rl.envs.wrappers.spaces.space_from_json`.
    """

    def __init__(self, pack: Pack) -> None:
        """Read the transitions of a pack.

        Raises:
            ValueError: if the pack contains images only, or inconsistent arrays.
        """
        missing = [name for name in COLUMNS if name not in pack.meta.get("factors", [])]
        if missing or ACTION_SPACE not in pack.meta:
            raise ValueError(
                f"{pack.folder} must contain episodes, got images only. Record episodes with"
                " envs/collect.py without --unique."
            )
        factors = pack.factors
        self.pack = pack
        self.images = pack.images
        self.actions: npt.NDArray[Any] = factors["action"]
        self.rewards: npt.NDArray[np.float32] = factors["reward"]
        self.terminated: npt.NDArray[np.bool_] = factors["terminated"]
        self.truncated: npt.NDArray[np.bool_] = factors["truncated"]
        self.first: npt.NDArray[np.bool_] = factors["first"]
        self.states: npt.NDArray[np.float32] | None = factors.get("state")
        self.action_space: dict[str, Any] = pack.meta[ACTION_SPACE]
        starts = np.flatnonzero(self.first)
        self.episodes = np.stack([starts, np.append(starts, len(pack))[1:] - 1], axis=1)
        inner = np.ones(len(pack), np.bool_)  # frames whose step cannot end an episode
        inner[self.episodes[:, 1] - 1] = False
        if not self.first[:1].all() or ((self.terminated | self.truncated) & inner).any():
            raise ValueError(f"{pack.folder} is damaged: inconsistent ends of episodes")

    @classmethod
    def open(cls, folder: str | os.PathLike[str], split: str = "train") -> Self:
        """Open a recording.

        Args:
            folder: folder of a pack, or of one pack per split.
            split: "train", "validation" or "test".

        Raises:
            ValueError: if the pack is missing, broken or contains images only.
        """
        check_split(split)
        return cls(Pack.open(split_folder(Path(folder).expanduser(), split)))

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.first) - len(self.episodes)

    def sequences(self, length: int) -> npt.NDArray[np.int64]:
        """Return the frame indices of every window of ``length`` steps within one episode.

        Args:
            length: T, steps of a window, at least 1.

        Returns:
            (M, T + 1) int64. A row r has the frames `images[r]` and, between them,
            `actions[r[:-1]]`, `rewards[r[:-1]]` etc. Empty if all episodes are shorter.

        Raises:
            ValueError: if length is below 1.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}.")
        fits = [np.arange(first, last - length + 1) for first, last in self.episodes]
        starts = np.concatenate(fits).astype(np.int64)
        return starts[:, None] + np.arange(length + 1)


def join(folders: Sequence[Path], out: Path) -> None:
    """Join several recordings split by split.

    States and masks are kept only if all recordings have them. meta.json is the first recording's
    with the total numbers of steps and episodes.

    Args:
        folders: recordings with one pack per split; splits may be missing in some.
        out: destination, created when complete.

    Raises:
        ValueError: if a pack is broken, or action spaces or image sizes differ.
        OSError: if the result cannot be written.
    """
    with new_folder(out) as temporary:
        for split in SPLITS:
            present = [folder / split for folder in folders if (folder / split).is_dir()]
            if present:
                _join([Transitions.open(folder, split) for folder in present], temporary / split)


def _join(parts: Sequence[Transitions], folder: Path) -> None:
    first = parts[0].pack
    for part in parts:
        if part.action_space != parts[0].action_space:
            raise ValueError(
                f"action_space of {part.pack.folder} must be {parts[0].action_space}, as in "
                f"{first.folder}, got {part.action_space}."
            )
    resizes = sorted(
        {preprocessing.resize for part in parts if (preprocessing := part.pack.preprocessing)}
    )
    if len(resizes) > 1:
        raise ValueError(
            f"recordings of {folder.name} must have one resize, got {', '.join(resizes)}."
        )
    factors = [part.pack.factors for part in parts]
    names = set.intersection(*(set(columns) for columns in factors))
    masks = all(part.pack.masks is not None for part in parts)
    size = first.images.shape[1], first.images.shape[2]
    meta = {
        **first.meta,
        "steps": sum(map(len, parts)),
        "episodes": sum(len(part.episodes) for part in parts),
        "joined": [str(part.pack.folder) for part in parts],
    }
    with PackWriter(folder, sum(len(p.images) for p in parts), size, masks=masks, meta=meta) as new:
        for part, columns in zip(parts, factors, strict=True):
            for start, end in part.episodes.tolist():
                rows = slice(start, end + 1)
                new.write(
                    part.images[rows],
                    part.pack.masks[rows] if masks and part.pack.masks is not None else None,
                    **{name: columns[name][rows] for name in names},
                )
