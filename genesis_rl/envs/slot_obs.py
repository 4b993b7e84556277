"""Slot observations: options, spaces and encoding shared by all wrappers."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from genesis_rl.alignment import Indices, SlotAligner
from genesis_rl.envs.frame_source import BlackFrameCheck, FrameSource, find_frames
from genesis_rl.frames import Layout, White, as_nhwc_uint8
from genesis_rl.perception import SlotEncoder, slot_features
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
            the model has them, and geometry (K, 3) with ``mask_geometry``.
        mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and relative
            area.
        image_key: entry of a Dict observation with the image, or its path in nested Dicts, such
            as "camera/rgb"; None infers it from the space.
        keep: entries of a Dict observation to keep; observations are then a Dict, with the slots
            under "slots" ("set" and "flat").
        image_layout: axis order of one frame; "auto" infers it from the space.
        info_keys: entries to add to the info: "frame", uint8 (H, W, 3), at its original size;
            "masks", float32 (K, S, S), mixing probabilities at the model's image size S.
        align: keep every object in its slot within an episode: reorder slots and masks to match
            those of the previous frame (see SlotAligner).
        background: include the background's slot, the first of an encoder with a background
            network; False leaves the object slots. The masks in the info are of all slots.
    """

    layout: ObsLayout = "set"
    mask_geometry: bool = MASK_GEOMETRY
    image_key: str | None = None
    keep: Sequence[str] = ()
    image_layout: Layout = "auto"
    info_keys: Sequence[InfoKey] = ()
    align: bool = ALIGN
    background: bool = True

    def __post_init__(self) -> None:
        """Validate the options, as far as possible without a space."""
        if self.layout not in get_args(ObsLayout):
            raise ValueError(f"layout must be one of {get_args(ObsLayout)}, got {self.layout!r}.")
        for name in ("keep", "info_keys"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} must be a sequence of strings, got the string {value!r}.")
            if not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
                raise TypeError(f"{name} must be a sequence of strings, got {value!r}.")
            object.__setattr__(self, name, tuple(value))
        for info_key in self.info_keys:
            if info_key not in get_args(InfoKey):
                raise ValueError(f"info_keys must be among {get_args(InfoKey)}, got {info_key!r}.")

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
        source: location of the frames; None for rendered frames.
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
        self.source: FrameSource | None = None
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
            self.source = find_frames(space, key=options.image_key, layout=options.image_layout)
            encoder.preprocessing.check(*self.source.size, encoder.image_size)
        kept_spaces = self._kept_spaces(space)
        slots = self._slot_spaces()
        self._dict = bool(kept_spaces) or options.layout == "dict"
        self.space: spaces.Space[Any] = (
            spaces.Dict({**slots, **kept_spaces}) if self._dict else slots["slots"]
        )
        self._aligner: SlotAligner | None = None
        if options.align:
            widths = [width for width in (*encoder.latent_sizes, 3) if width]
            self._aligner = SlotAligner(num_envs, encoder.num_slots - self._first_object, widths)

    def _slot_spaces(self) -> dict[str, spaces.Space[Any]]:
        k = self.encoder.num_slots - (not self.options.background)
        d_m, d_c = self.encoder.latent_sizes
        extra = 3 if self.options.mask_geometry else 0
        if self.options.layout == "set":
            return {"slots": _unbounded(k, d_m + d_c + extra)}
        if self.options.layout == "flat":
            return {"slots": _unbounded(k * (d_m + d_c + extra))}
        parts = {"z_m": d_m, "z_c": d_c, "geometry": extra}
        # Latents of width 0 are omitted: agents cannot process an empty Box.
        return {name: _unbounded(k, width) for name, width in parts.items() if width}

    def _kept_spaces(self, space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
        keep = self.options.keep
        if not keep:
            return {}
        if not isinstance(space, spaces.Dict):
            raise ValueError(
                f"keep must be empty for the observation {space}, which is not a Dict, got {keep}. "
                "gymnasium.wrappers.AddRenderObservation(env, render_only=False) returns a Dict."
            )
        missing = [name for name in keep if name not in space.spaces]
        if missing:
            raise ValueError(f"keep must be among {list(space.spaces)}, got {missing}.")
        if self.source is not None and self.source.key in keep:
            raise ValueError(
                f"keep must not contain the encoded entry, got {self.source.key!r}. For the frame "
                'in the info, use info_keys=("frame",).'
            )
        conflicts = [name for name in keep if name in self._slot_spaces()]
        if conflicts:
            raise ValueError(f"keep must not contain names of slot entries, got {conflicts}.")
        return {name: copy.deepcopy(space[name]) for name in keep}

    def batched_space(self, space: spaces.Space[Any], num_envs: int) -> spaces.Space[Any]:
        """Return the space of ``num_envs`` observations, with the kept entries of ``space``."""
        if not self._dict:
            return batch_space(self.space, num_envs)
        slots = {name: batch_space(box, num_envs) for name, box in self._slot_spaces().items()}
        kept_spaces = {name: copy.deepcopy(_entry(space, name)) for name in self.options.keep}
        return spaces.Dict({**slots, **kept_spaces})

    @property
    def settings(self) -> dict[str, Any]:
        """Encoder and options as plain data, without those of the info."""
        options = self.options.as_kwargs()
        del options["info_keys"]
        encoder = self.encoder
        return {
            "encoder": encoder.fingerprint,
            "preprocessing": dataclasses.asdict(encoder.preprocessing),
            "dtype": encoder.dtype,
            "refine_steps": encoder.refine_steps,
            **options,
            "render": self.source is None,
        }

    def metadata(self, inner: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the metadata of a wrapped environment with these settings added."""
        before = dict(inner or {})
        return {**before, SLOT_SETTINGS: [self.settings, *before.get(SLOT_SETTINGS, ())]}

    def frames(self, observation: Any) -> Any:
        """Return the frames of an observation, or of a batch."""
        if self.source is None:
            raise ValueError("frame must be passed to encode with rendered=True, got None.")
        return self.source.frames(observation)

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
        batch = np.asarray(self.frames(observation) if frame is None else frame)[None]
        features, info = self._infer(batch)
        if first is not None:
            self._align(features, info, np.zeros(1, np.intp), np.array([first]))
        return self.arrange(features[0], observation), {k: v[0] for k, v in info.items()}

    def encode_step(
        self, observations: Any, final: Mapping[int, Any], first: npt.NDArray[np.bool_]
    ) -> EncodedStep:
        """Encode the observations and final observations of a step in one batch.

        Args:
            observations: observations of all N environments, batched.
            final: unbatched final observations, by index of the environment.
            first: (N,), whether an observation is the first of an episode.
        """
        frames = np.asarray(self.frames(observations))
        n = len(frames)
        if final:
            last = np.stack([np.asarray(self.frames(obs)) for obs in final.values()])
            frames = np.concatenate([frames, last.astype(frames.dtype)])
        features, batch_info = self._infer(frames)
        info, tail = ({k: v[part] for k, v in batch_info.items()} for part in np.s_[:n, n:])
        # Final observations precede the first observations of the next episodes.
        ended = np.fromiter(final, np.intp, len(final))
        self._align(features[n:], tail, ended, np.zeros(len(final), np.bool_))
        self._align(features[:n], info, np.arange(n), first)
        ends = {
            index: (
                self.arrange(features[n + row], observation),
                {name: value[row] for name, value in tail.items()},
            )
            for row, (index, observation) in enumerate(final.items())
        }
        return EncodedStep(self.arrange(features[:n], observations), info, ends)

    def _infer(self, frames: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], Info]:
        """Encode frames (B, ...) to features (B, K, D) and info entries.

        With ``align``, the features always include the mask geometry.
        """
        layout: Layout = "HWC" if self.source is None else self.source.layout
        white: White = 255 if self.source is None else self.source.white
        self._check_black(frames, white)
        slots = self.encoder(frames, layout, white=white)
        info: Info = {}
        if "frame" in self.options.info_keys:
            # A copy: the environment may reuse the memory for its next frame.
            info["frame"] = as_nhwc_uint8(frames, layout=layout, white=white).copy()
        if "masks" in self.options.info_keys:
            info["masks"] = self.encoder.masks(slots)
        geometry = self.options.mask_geometry or self.options.align
        return slot_features(slots, mask_geometry=geometry), info

    def _align(
        self,
        features: npt.NDArray[np.float32],
        info: Info,
        envs: Indices,
        first: npt.NDArray[np.bool_],
    ) -> None:
        """With ``align``, reorder features (B, K, D) and masks in place."""
        if self._aligner is None:
            return
        objects = features[:, self._first_object :]
        order = self._aligner.follow(objects, envs, first)
        objects[:] = np.take_along_axis(objects, order[..., None], axis=1)
        if "masks" in info:
            masks = info["masks"][:, self._first_object :]
            masks[:] = np.take_along_axis(masks, order[..., None, None], axis=1)

    def arrange(self, features: npt.NDArray[np.float32], observation: Any = None) -> Any:
        """Return features (..., K, D) in the layout of the space, with the kept entries.

        Without ``mask_geometry``, a geometry in the features is dropped.
        """
        d_m, d_c = self.encoder.latent_sizes
        if not self.options.background:
            features = np.ascontiguousarray(features[..., 1:, :])
        if not self.options.mask_geometry:
            features = np.ascontiguousarray(features[..., : d_m + d_c])
        if self.options.layout == "dict":
            parts = np.split(features, [d_m, d_m + d_c], axis=-1)
            named = zip(("z_m", "z_c", "geometry"), parts, strict=True)
            arranged = {name: np.ascontiguousarray(part) for name, part in named if part.size}
        elif self.options.layout == "flat":
            arranged = {"slots": features.reshape(*features.shape[:-2], -1)}
        else:
            arranged = {"slots": features}
        if not self._dict:
            return arranged["slots"]
        return {**arranged, **{name: observation[name] for name in self.options.keep}}


def _unbounded(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _entry(space: spaces.Space[Any], name: str) -> spaces.Space[Any]:
    if not isinstance(space, spaces.Dict):
        raise TypeError(f"the batched observation space must be a Dict, got {space}.")
    return space[name]
