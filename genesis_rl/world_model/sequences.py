"""Recorded episodes as slots, with a cache on disk, and windows of them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.data.cache import data_root
from genesis_rl.data.transitions import Transitions
from genesis_rl.evaluation.metrics.features import digest
from genesis_rl.perception.alignment import LEAST_AREA, SlotAligner
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.utils.files import new_folder, private_folder
from genesis_rl.utils.log import ProgressBar
from genesis_rl.world_model.actions import ActionSpec
from genesis_rl.world_model.model import SlotSpec

_FORMAT = 2  # incremented when the content of cached files changes
_FEATURES = "features.npy"
_BATCH = 256
_GEOMETRY = 3

Floats = npt.NDArray[np.float32]


def encode(
    transitions: Transitions, encoder: SlotEncoder, *, align: bool, cache: Path | None = None
) -> Floats:
    """Encode a recording's frames to slots, or read them from the cache.

    The cache key is the encoder's fingerprint, its preprocessing and the recording's content.
    Concurrent processes may use the cache.

    Args:
        transitions: the recording.
        encoder: the encoder.
        align: keep every object in its slot within an episode.
        cache: folder of encoded recordings; None: slots in the folder of generated datasets.

    Returns:
        (N, K, D) float32: z_m, z_c and mask geometry (see `SlotEncoder.features`).

    Raises:
        ValueError: if the frames do not match the encoder, or the latents are not finite.
        OSError: if the cache cannot be written.
    """
    name = f"encoder {encoder.source or encoder.fingerprint[:12]}"
    transitions.pack.check_preprocessing(encoder.preprocessing, name)
    key = [
        _FORMAT,
        encoder.fingerprint,
        encoder.dtype,
        {"resize": encoder.preprocessing.resize},
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
                    objects = features[:, int(encoder.has_background) :]
                    _align(objects, transitions.first, encoder.latent_sizes)
                with new_folder(folder) as temporary:
                    np.save(temporary / _FEATURES, features)
    try:
        slots: Floats = np.load(folder / _FEATURES, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{folder} is damaged ({error}): delete it, and it is created again."
        ) from error
    return slots


def _infer(transitions: Transitions, encoder: SlotEncoder) -> Floats:
    n = len(transitions.images)
    width = sum(encoder.latent_sizes) + _GEOMETRY
    features = np.empty((n, encoder.num_slots, width), np.float32)
    with ProgressBar(total=n, desc="slots", unit="img") as bar:
        for first in range(0, n, _BATCH):
            part = slice(first, first + _BATCH)
            frames = transitions.images[part]
            features[part] = encoder.features(frames, layout="HWC", mask_geometry=True)
            bar.update(len(frames))
    return features


def _align(features: Floats, first: npt.NDArray[np.bool_], sizes: tuple[int, int]) -> None:
    """Reorder the slots of each frame, in place, to match the previous frame."""
    widths = [width for width in (*sizes, _GEOMETRY) if width]
    aligner = SlotAligner(1, features.shape[1], widths)
    env = np.zeros(1, np.intp)
    for t in range(len(features)):
        frame = features[t : t + 1]
        order = aligner.follow(frame, env, first[t : t + 1], frame[..., -1] >= LEAST_AREA)
        features[t] = features[t, order[0]]


class Windows(NamedTuple):
    """B windows of H steps, padded after the end of an episode.

    Attributes:
        features: (B, H + 1, K, D), slots of the encoder.
        actions: (B, H) int64 or (B, H, A) float32.
        rewards: (B, H).
        terminated: (B, H), 0 or 1.
        valid: (B, H), 1 for a step, 0 for padding.
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
        starts: (M,) int64, all frames except the last of each episode.
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
        """Move a recording and its slots to a device.

        Raises:
            ValueError: if its actions are of another space, or a reward or action is not finite.
        """
        recorded = ActionSpec.from_json(transitions.action_space)
        if recorded != spec:
            raise ValueError(
                f"{transitions.pack.folder} must have the actions {spec.to_json()}, got "
                f"{recorded.to_json()}."
            )
        for name in ("actions", "rewards"):
            if not np.isfinite(getattr(transitions, name)).all():
                raise ValueError(
                    f"{name} must be finite, got NaN or inf in {transitions.pack.folder}."
                )
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
        """Return the windows of H steps that start at B frames."""
        last = self.last[starts][:, None]
        frames = starts[:, None] + torch.arange(steps + 1, device=starts.device)
        rows = torch.minimum(frames, last)
        at = rows[:, :-1]
        valid = (frames[:, :-1] < last).float()
        return Windows(
            self.features[rows], self.actions[at], self.rewards[at], self.terminated[at], valid
        )

    def whole(self, steps: int) -> Tensor:
        """Return the frames followed by at least ``steps`` steps of the episode, (M,) int64."""
        return self.starts[self.starts + steps <= self.last[self.starts]]


@dataclass(frozen=True, eq=False)
class WorldModelData:
    """Recorded episodes as slots of an encoder.

    Attributes:
        encoder: the frozen encoder.
        action_spec: the action space.
        slot_spec: the slots.
        transitions: recordings by split.
        sequences: their slots by split, on ``device``.
        device: device of the world model.
    """

    encoder: SlotEncoder
    action_spec: ActionSpec
    slot_spec: SlotSpec
    transitions: dict[str, Transitions]
    sequences: dict[str, Sequences]
    device: torch.device

    @classmethod
    def load(
        cls,
        folder: Path,
        encoder: SlotEncoder,
        *,
        mask_geometry: bool,
        align: bool,
        cache: Path | None = None,
    ) -> Self:
        """Read the splits of a recording, and encode them.

        Without a test split, the validation split is used for the test.

        Args:
            folder: the recording.
            encoder: the frozen encoder, whose device is that of the world model.
            mask_geometry: include mask geometry in the features.
            align: keep every object in its slot within an episode.
            cache: see `encode`.

        Raises:
            ValueError: if the recording has no steps, a split is missing or has other actions, or
                the frames do not match the encoder.
        """
        transitions = {split: Transitions.open(folder, split) for split in ("train", "validation")}
        try:
            transitions["test"] = Transitions.open(folder, "test")
        except ValueError:
            transitions["test"] = transitions["validation"]
        spec = ActionSpec.from_json(transitions["train"].action_space)
        slot_spec = SlotSpec(
            encoder.fingerprint, encoder.num_slots, encoder.latent_sizes, mask_geometry, align
        )
        sequences = {}
        for split, recorded in transitions.items():
            if not len(recorded):
                raise ValueError(f"data must have steps, got none in {recorded.pack.folder}.")
            features = encode(recorded, encoder, align=align, cache=cache)
            features = np.ascontiguousarray(features[..., : slot_spec.num_features])
            sequences[split] = Sequences.of(recorded, features, spec, encoder.device)
        return cls(encoder, spec, slot_spec, transitions, sequences, encoder.device)
