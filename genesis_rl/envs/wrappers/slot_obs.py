"""Slot observations: options, spaces and encoding shared by all wrappers."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from genesis_rl.envs.wrappers.frame_source import (
    BlackFrameCheck,
    FrameSource,
    find_frames,
    find_kept,
    follow,
)
from genesis_rl.perception.alignment import LEAST_AREA, Indices, SlotAligner
from genesis_rl.perception.encoder import SlotEncoder, slot_features
from genesis_rl.perception.preprocessing import (
    Crop,
    Layout,
    White,
    as_crop,
    as_nhwc,
    as_nhwc_uint8,
    crop_frames,
    resize,
)
from genesis_rl.slots import ALIGN, MASK_GEOMETRY

ObsLayout = Literal["set", "flat", "dict"]
InfoKey = Literal["frame", "masks"]
Info = dict[str, npt.NDArray[Any]]
#: Entry of an environment's metadata with the settings of its slot wrappers, outermost first.
#: Metadata are accessible in every environment, including those of other processes.
SLOT_SETTINGS = "genesis_rl.slots"


@dataclass(frozen=True)
class SlotObsOptions:
    """Options of slot observations.

    Attributes:
        layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m (K, D_m) and z_c (K, D_c), if
            the model has them, geometry (K, 3) with ``mask_geometry``, and camera (K, C) with C > 1
            cameras.
        mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and relative
            area.
        image_key: entry of a Dict observation with the image, or its path in nested Dicts, such
            as "camera/rgb"; None infers it from the space. With a sequence of C > 1 entries, one
            per camera, the slots of all cameras are concatenated: K is C times the encoder's
            number of slots, and a one-hot camera id of C features is appended to each slot.
        keep: entries of a Dict observation to keep, or their paths in nested Dicts; observations
            are then a Dict, with the slots under "slots" ("set" and "flat").
        image_layout: axis order of one frame; "auto" infers it from the space.
        info_keys: entries to add to the info: "frame", uint8 (H, W, 3), at its original size
            after cropping; "masks", float32 (K, S, S), mixing probabilities at the model's image
            size S. With C > 1 cameras, frames of size S side by side, (S, C * S, 3), and masks
            (K, S, C * S).
        align: keep every object in its slot within an episode: reorder slots and masks to match
            those of the previous frame (see SlotAligner).
        background: include the background's slot, the first of an encoder with a background
            network; False leaves the object slots. The masks in the info are of all slots.
        crop: region of interest of every frame, (top, left, height, width) in pixels, cut out
            before resizing; None: that of the encoder's recording, or else the whole frame.
    """

    layout: ObsLayout = "set"
    mask_geometry: bool = MASK_GEOMETRY
    image_key: str | Sequence[str] | None = None
    keep: Sequence[str] = ()
    image_layout: Layout = "auto"
    info_keys: Sequence[InfoKey] = ()
    align: bool = ALIGN
    background: bool = True
    crop: Crop | None = None

    def __post_init__(self) -> None:
        """Validate the options, as far as possible without a space."""
        if self.layout not in get_args(ObsLayout):
            raise ValueError(f"layout must be one of {get_args(ObsLayout)}, got {self.layout!r}.")
        several = self.image_key is not None and not isinstance(self.image_key, str)
        for name in ("keep", "info_keys", *(["image_key"] if several else [])):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} must be a sequence of strings, got the string {value!r}.")
            if not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
                raise TypeError(f"{name} must be a sequence of strings, got {value!r}.")
            object.__setattr__(self, name, tuple(value))
        if several and not 0 < len(set(self.keys)) == len(self.keys):
            raise ValueError(
                f"image_key must be one entry or different ones, got {self.image_key}."
            )
        object.__setattr__(self, "crop", as_crop(self.crop))
        for info_key in self.info_keys:
            if info_key not in get_args(InfoKey):
                raise ValueError(f"info_keys must be among {get_args(InfoKey)}, got {info_key!r}.")

    @property
    def keys(self) -> tuple[str | None, ...]:
        """The ``image_key`` of each camera."""
        key = self.image_key
        return (key,) if key is None or isinstance(key, str) else tuple(key)

    def as_kwargs(self) -> dict[str, Any]:
        """Return the options as keyword arguments of a wrapper, in JSON types."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in plain.items()
        }


class EncodedStep(NamedTuple):
    """Encoded observations of a step, including final observations of ended episodes.

    Attributes:
        observation: observations of all environments, batched.
        info: entries of ``info_keys``, batched.
        final: final observation and info, by index of the environment.
    """

    observation: Any
    info: Info
    final: dict[int, tuple[Any, Info]]


class SlotObsCodec:
    """Encodes observations of one space to slot observations.

    Attributes:
        encoder: the SlotEncoder.
        sources: location of the frames of each camera; empty for rendered frames.
        space: space of one encoded observation.
    """

    def __init__(
        self,
        encoder: SlotEncoder,
        space: spaces.Space[Any],
        options: SlotObsOptions,
        *,
        rendered: bool = False,
        num_envs: int = 1,
    ) -> None:
        """Find the frames and build the space.

        Args:
            encoder: the encoder.
            space: observation space of one environment; not changed.
            options: options of the slot observations.
            rendered: frames are rendered, (H, W, 3) uint8, and passed to `encode`.
            num_envs: number of parallel environments.

        Raises:
            ValueError: if the space has no frames valid for the encoder, or for an invalid
                ``keep``.
        """
        self.encoder = encoder
        self.options = options
        self._region = encoder.preprocessing.region
        self.sources: tuple[FrameSource, ...] = ()
        self._check_black = BlackFrameCheck()
        # The background stays in the first slot: alignment moves objects only.
        self._first_object = int(encoder.has_background)
        if not options.background and not encoder.has_background:
            raise ValueError(
                "background must be True for an encoder without a background network, got False."
            )
        if rendered:
            if options.image_key is not None:
                raise ValueError(
                    f"image_key must be None with render=True, got {options.image_key!r}."
                )
        else:
            self.sources = tuple(
                find_frames(
                    space,
                    key=key,
                    layout=options.image_layout,
                    crop=options.crop,
                    preprocessing=encoder.preprocessing,
                )
                for key in options.keys
            )
            for source in self.sources:
                encoder.preprocessing.check(*source.size, encoder.image_size)
        self._cameras = len(options.keys)
        self._kept = find_kept(space, options.keep)
        kept_spaces = self._kept_spaces(space)
        slots = self._slot_spaces()
        self._dict = bool(kept_spaces) or options.layout == "dict"
        self.space: spaces.Space[Any] = (
            spaces.Dict({**slots, **kept_spaces}) if self._dict else slots["slots"]
        )
        self._aligner: SlotAligner | None = None
        if options.align:
            widths = [width for width in (*encoder.latent_sizes, 3) if width]
            sequences = num_envs * self._cameras
            self._aligner = SlotAligner(sequences, encoder.num_slots - self._first_object, widths)

    def _slot_spaces(self) -> dict[str, spaces.Space[Any]]:
        k = self._cameras * (self.encoder.num_slots - (not self.options.background))
        widths = self._widths
        if self.options.layout == "set":
            return {"slots": _unbounded(k, sum(widths.values()))}
        if self.options.layout == "flat":
            return {"slots": _unbounded(k * sum(widths.values()))}
        return {name: _unbounded(k, width) for name, width in widths.items()}

    @property
    def _widths(self) -> dict[str, int]:
        """Sizes of the parts of a slot, without those of width 0, which agents cannot process."""
        d_m, d_c = self.encoder.latent_sizes
        geometry = 3 if self.options.mask_geometry else 0
        camera = self._cameras if self._cameras > 1 else 0
        widths = {"z_m": d_m, "z_c": d_c, "geometry": geometry, "camera": camera}
        return {name: width for name, width in widths.items() if width}

    def _kept_spaces(self, space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
        encoded = [source.key for source in self.sources if source.route in self._kept.values()]
        if encoded:
            raise ValueError(
                f"keep must not contain the encoded entry, got {encoded[0]!r}. For the frame "
                'in the info, use info_keys=("frame",).'
            )
        conflicts = [name for name in self._kept if name in self._slot_spaces()]
        if conflicts:
            raise ValueError(f"keep must not contain names of slot entries, got {conflicts}.")
        return {name: copy.deepcopy(follow(space, route)) for name, route in self._kept.items()}

    def batched_space(self, space: spaces.Space[Any], num_envs: int) -> spaces.Space[Any]:
        """Return the space of ``num_envs`` observations, with the kept entries of ``space``."""
        if not self._dict:
            return batch_space(self.space, num_envs)
        slots = {name: batch_space(box, num_envs) for name, box in self._slot_spaces().items()}
        kept_spaces = {
            name: copy.deepcopy(_entry(space, route)) for name, route in self._kept.items()
        }
        return spaces.Dict({**slots, **kept_spaces})

    @property
    def settings(self) -> dict[str, Any]:
        """Encoder and options as plain data, without those of the info."""
        options = self.options.as_kwargs()
        del options["info_keys"]
        encoder = self.encoder
        return {
            "encoder": encoder.fingerprint,
            "preprocessing": {"resize": encoder.preprocessing.resize},
            "dtype": encoder.dtype,
            "refine_steps": encoder.refine_steps,
            **options,
            "crop": options["crop"] or encoder.preprocessing.to_json().get("crop"),
            "render": not self.sources,
        }

    def metadata(self, inner: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the metadata of a wrapped environment with these settings added."""
        before = dict(inner or {})
        return {**before, SLOT_SETTINGS: [self.settings, *before.get(SLOT_SETTINGS, ())]}

    def _frames(self, observation: Any, rendered: Any) -> tuple[npt.NDArray[Any], ...]:
        """Return the cropped frames of each camera, of an observation or of a batch.

        Args:
            observation: the observation, or a batch.
            rendered: the rendered frame, or a batch; None for frames in observations.
        """
        if self.sources:
            return tuple(np.asarray(source.frames(observation)) for source in self.sources)
        if rendered is None:
            raise ValueError("rendered must be frames for a codec of rendered frames, got None.")
        frames = np.asarray(rendered)
        height, width = frames.shape[-3:-1]
        crop = self._region(self.options.crop, (height, width))
        return (crop_frames(frames, "HWC", crop),)

    def encode(
        self, observation: Any, frame: Any = None, *, first: bool | None = None
    ) -> tuple[Any, Info]:
        """Encode one observation.

        Args:
            observation: observation of one environment.
            frame: the rendered frame, with ``rendered``.
            first: whether it is the first of an episode, for ``align``; None: not aligned.

        Returns:
            The encoded observation, in ``space``, and the entries of ``info_keys``.
        """
        features, info = self._infer([f[None] for f in self._frames(observation, frame)])
        if first is not None:
            self._align(features, info, np.zeros(1, np.intp), np.array([first]))
        info = self._joined(info)
        return self._arranged(features[0], observation), {k: v[0] for k, v in info.items()}

    def encode_step(
        self,
        observations: Any,
        final: Mapping[int, Any],
        first: npt.NDArray[np.bool_],
        *,
        rendered: npt.NDArray[Any] | None = None,
        rendered_final: Mapping[int, npt.NDArray[Any]] | None = None,
    ) -> EncodedStep:
        """Encode the observations and final observations of a step in one batch.

        Args:
            observations: observations of all N environments, batched.
            final: unbatched final observations, by index of the environment.
            first: (N,), whether an observation is the first of an episode.
            rendered: frames (N, H, W, 3), for a codec of rendered frames.
            rendered_final: frames (H, W, 3) of ``final``, for a codec of rendered frames.
        """
        batch = self._frames(observations, rendered)
        n = len(first)
        if final:
            last = [self._frames(o, (rendered_final or {}).get(i)) for i, o in final.items()]
            batch = tuple(
                np.concatenate([frames, np.stack(ends).astype(frames.dtype)])
                for frames, ends in zip(batch, zip(*last, strict=True), strict=True)
            )
        features, batch_info = self._infer(batch)
        info, tail = ({k: v[part] for k, v in batch_info.items()} for part in np.s_[:n, n:])
        # Final observations precede the first observations of the next episodes.
        ended = np.fromiter(final, np.intp, len(final))
        self._align(features[n:], tail, ended, np.zeros(len(final), np.bool_))
        self._align(features[:n], info, np.arange(n), first)
        info, tail = self._joined(info), self._joined(tail)
        ends = {
            index: (
                self._arranged(features[n + row], observation),
                {name: value[row] for name, value in tail.items()},
            )
            for row, (index, observation) in enumerate(final.items())
        }
        return EncodedStep(self._arranged(features[:n], observations), info, ends)

    def _infer(self, batch: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float32], Info]:
        """Encode the frames (B, ...) of each of C cameras in one batch.

        Returns:
            Features (B, C, K, D), which include the mask geometry with ``align``, and info entries:
            "frame" (B, C, H, W, 3) and "masks" (B, C, K, S, S).
        """
        cameras, size = self._cameras, self.encoder.image_size
        layout: Layout = self.sources[0].layout if self.sources else "HWC"
        white: White = self.sources[0].white if self.sources else 255
        frames = batch[0]
        self._check_black(frames, white)
        if cameras > 1:
            parts = [
                resize(
                    as_nhwc(part, layout=source.layout, white=source.white),
                    size,
                    self.encoder.preprocessing,
                )
                for part, source in zip(batch, self.sources, strict=True)
            ]
            layout, white = "HWC", 255
            if any(part.dtype != np.uint8 for part in parts):  # floats in [0, 1]
                white = 1
                parts = [
                    part / np.float32(255) if part.dtype == np.uint8 else part for part in parts
                ]
            frames = np.stack(parts, 1).reshape(-1, size, size, 3)
        info: Info = {}
        if "frame" in self.options.info_keys:
            frames = as_nhwc(frames, layout=layout, white=white)
            layout, white = "HWC", 255 if frames.dtype == np.uint8 else 1
            # A copy: the environment may reuse the memory for its next frame.
            info["frame"] = as_nhwc_uint8(frames, layout=layout, white=white).copy()
        geometry = self.options.mask_geometry or self.options.align
        if "masks" in self.options.info_keys:
            slots = self.encoder(frames, layout, white=white)
            info["masks"] = self.encoder.masks(slots)
            features = slot_features(slots, mask_geometry=geometry)
        else:
            features = self.encoder.features(
                frames, layout=layout, mask_geometry=geometry, white=white
            )
        split = {k: v.reshape(-1, cameras, *v.shape[1:]) for k, v in info.items()}
        return features.reshape(-1, cameras, *features.shape[1:]), split

    def _align(
        self,
        features: npt.NDArray[np.float32],
        info: Info,
        envs: Indices,
        first: npt.NDArray[np.bool_],
    ) -> None:
        """With ``align``, reorder features (B, C, K, D) and masks of each camera in place."""
        if self._aligner is None:
            return
        cameras = self._cameras
        objects = features[:, :, self._first_object :]
        sequences = (envs[:, None] * cameras + np.arange(cameras)).ravel()
        flat = objects.reshape(-1, *objects.shape[2:])
        present = flat[..., -1] >= LEAST_AREA
        order = self._aligner.follow(flat, sequences, first.repeat(cameras), present)
        order = order.reshape(objects.shape[:3])
        objects[:] = np.take_along_axis(objects, order[..., None], axis=2)
        if "masks" in info:
            masks = info["masks"][:, :, self._first_object :]
            masks[:] = np.take_along_axis(masks, order[..., None, None], axis=2)

    def _joined(self, info: Info) -> Info:
        """Return info entries with the frames of C cameras side by side, and masks to match."""
        if self._cameras == 1:
            return {name: value[:, 0] for name, value in info.items()}
        joined: Info = {}
        if "frame" in info:
            b, c, s, *_ = info["frame"].shape
            joined["frame"] = info["frame"].swapaxes(1, 2).reshape(b, s, c * s, 3)
        if "masks" in info:
            masks = info["masks"]
            b, c, k, s, _ = masks.shape
            wide = np.zeros((b, c, k, s, c, s), masks.dtype)
            for camera in range(c):
                wide[:, camera, :, :, camera] = masks[:, camera]
            joined["masks"] = wide.reshape(b, c * k, s, c * s)
        return joined

    def _arranged(self, features: npt.NDArray[np.float32], observation: Any) -> Any:
        """Return features (..., C, K, D) in the layout of the space, with the kept entries."""
        return self.arrange(features if self._cameras > 1 else features[..., 0, :, :], observation)

    def arrange(self, features: npt.NDArray[np.float32], observation: Any = None) -> Any:
        """Return features in the layout of the space, with the kept entries.

        Without ``mask_geometry``, a geometry in the features is dropped.

        Args:
            features: (..., K, D), or (..., C, K, D) with C > 1 cameras.
            observation: observation with the kept entries.
        """
        if not self.options.background:
            features = features[..., 1:, :]
        if not self.options.mask_geometry:
            features = features[..., : sum(self.encoder.latent_sizes)]
        if self._cameras > 1:
            ids = np.eye(self._cameras, dtype=np.float32)[:, None]
            ids = np.broadcast_to(ids, (*features.shape[:-1], self._cameras))
            features = np.concatenate([features, ids], axis=-1)
            features = features.reshape(*features.shape[:-3], -1, features.shape[-1])
        features = np.ascontiguousarray(features)
        if self.options.layout == "dict":
            widths = self._widths
            parts = np.split(features, np.cumsum([*widths.values()])[:-1], axis=-1)
            arranged = dict(zip(widths, map(np.ascontiguousarray, parts), strict=True))
        elif self.options.layout == "flat":
            arranged = {"slots": features.reshape(*features.shape[:-2], -1)}
        else:
            arranged = {"slots": features}
        if not self._dict:
            return arranged["slots"]
        kept = {name: follow(observation, route) for name, route in self._kept.items()}
        return {**arranged, **kept}


def _unbounded(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _entry(space: spaces.Space[Any], route: tuple[str, ...]) -> spaces.Space[Any]:
    if not isinstance(space, spaces.Dict):
        raise TypeError(f"the batched observation space must be a Dict, got {space}.")
    entry: spaces.Space[Any] = follow(space, route)
    return entry
