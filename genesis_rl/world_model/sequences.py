"""Recorded episodes as slots: encoded once, kept on disk, handed out as windows."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from genesis_rl.alignment import SlotAligner
from genesis_rl.data.cache import data_root
from genesis_rl.data.transitions import Transitions
from genesis_rl.files import new_folder, private_folder
from genesis_rl.metrics.features import digest
from genesis_rl.perception import SlotEncoder
from genesis_rl.world_model.actions import ActionSpec

_FORMAT = 1  # raised when the same encoder and frames give another content
_FEATURES = "features.npy"
_BATCH = 256
_GEOMETRY = 3

Floats = npt.NDArray[np.float32]


def encode(
    transitions: Transitions, encoder: SlotEncoder, *, align: bool, cache: Path | None = None
) -> Floats:
    """Infer the slots of a recording's frames, or read those that an earlier call left.

    They are kept by the encoder's fingerprint, its preprocessing and the recording's content. Two
    processes may ask for the same ones at once.

    Args:
        transitions: the recording.
        encoder: makes the slots.
        align: keep every object in its slot within an episode.
        cache: folder of all encoded recordings; None: in the folder of the generated data sets.

    Returns:
        (N, K, D) float32: z_m, z_c and the mask's geometry (see `SlotEncoder.features`).

    Raises:
        ValueError: if the frames do not fit the encoder, or the latents are not finite.
        OSError: if the cache cannot be written.
    """
    name = f"encoder {encoder.source or encoder.fingerprint[:12]}"
    transitions.pack.check_preprocessing(encoder.preprocessing, name)
    key = [
        _FORMAT,
        encoder.fingerprint,
        encoder.dtype,
        dataclasses.asdict(encoder.preprocessing),
        digest(transitions.pack),
        align,
    ]
    cache = cache or data_root() / "slots"
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    folder = cache / name
    if not folder.is_dir():
        with private_folder(folder, wait=True, argument="cache"):
            if not folder.is_dir():
                features = _infer(transitions, encoder)
                if align:
                    _align(features, transitions.first, encoder.latent_sizes)
                with new_folder(folder) as temporary:
                    np.save(temporary / _FEATURES, features)
    try:
        kept: Floats = np.load(folder / _FEATURES, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{folder} is damaged ({error}): delete it, it is made again.") from error
    return kept


def _infer(transitions: Transitions, encoder: SlotEncoder) -> Floats:
    n = len(transitions.images)
    width = sum(encoder.latent_sizes) + _GEOMETRY
    features = np.empty((n, encoder.num_slots, width), np.float32)
    with tqdm(total=n, desc="slots", unit="img", disable=None) as bar:
        for first in range(0, n, _BATCH):
            part = slice(first, first + _BATCH)
            frames = transitions.images[part]
            features[part] = encoder.features(frames, layout="HWC", mask_geometry=True)
            bar.update(len(frames))
    return features


def _align(features: Floats, first: npt.NDArray[np.bool_], sizes: tuple[int, int]) -> None:
    """Bring the slots of every frame, in place, to the order of the frame before."""
    widths = [width for width in (*sizes, _GEOMETRY) if width]
    aligner = SlotAligner(1, features.shape[1], widths)
    env = np.zeros(1, np.intp)
    for t in range(len(features)):
        order = aligner.follow(features[t : t + 1], env, first[t : t + 1])
        features[t] = features[t, order[0]]


class Windows(NamedTuple):
    """B windows of H steps; one that reaches an episode's end is padded.

    Attributes:
        features: (B, H + 1, K, D), as the encoder gives them.
        actions: (B, H) int64 or (B, H, A) float32.
        rewards: (B, H).
        terminated: (B, H), 0 or 1.
        valid: (B, H), 1 for a step that there is, 0 for padding.
    """

    features: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    valid: Tensor


@dataclass(frozen=True, eq=False)
class Sequences:
    """The steps of a recording, as slots.

    Attributes:
        features: (N, K, D).
        actions: (N,) int64 or (N, A) float32.
        rewards: (N,).
        terminated: (N,).
        last: (N,) int64, the last frame of each frame's episode.
        starts: (M,) int64, the frames that a step starts from.
    """

    features: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    last: Tensor
    starts: Tensor

    @classmethod
    def of(
        cls,
        transitions: Transitions,
        features: Floats,
        spec: ActionSpec,
        device: torch.device,
    ) -> "Sequences":
        """Put a recording and its slots on a device.

        Raises:
            ValueError: if its actions are of another space, or a reward or action is not finite.
        """
        found = ActionSpec.from_json(transitions.action_space)
        if found != spec:
            raise ValueError(
                f"{transitions.pack.folder} has the actions {found.to_json()}; wanted"
                f" {spec.to_json()}."
            )
        for name in ("actions", "rewards"):
            if not np.isfinite(getattr(transitions, name)).all():
                raise ValueError(f"{transitions.pack.folder} has {name} that are not finite.")
        dtype = np.int64 if spec.kind == "discrete" else np.float32
        lengths = transitions.episodes[:, 1] - transitions.episodes[:, 0] + 1
        last = np.repeat(transitions.episodes[:, 1], lengths)
        arrays = (
            features,
            transitions.actions.astype(dtype),
            transitions.rewards,
            transitions.terminated.astype(np.float32),
            last,
            np.flatnonzero(np.arange(len(last)) < last),
        )
        return cls(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))

    def windows(self, starts: Tensor, steps: int) -> Windows:
        """Take the windows of H steps from B frames on."""
        last = self.last[starts][:, None]
        ahead = starts[:, None] + torch.arange(steps + 1, device=starts.device)
        rows = torch.minimum(ahead, last)
        at = rows[:, :-1]
        valid = (ahead[:, :-1] < last).float()
        return Windows(
            self.features[rows], self.actions[at], self.rewards[at], self.terminated[at], valid
        )

    def whole(self, steps: int) -> Tensor:
        """The frames that at least so many steps follow in their episodes, (M,) int64."""
        return self.starts[self.starts + steps <= self.last[self.starts]]
