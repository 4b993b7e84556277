"""Observations as object slots: the options, spaces and encoding that all wrappers share."""

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
from genesis_rl.envs.frame_source import FrameSource, find_frames
from genesis_rl.frames import Layout, White, as_nhwc_uint8
from genesis_rl.perception import SlotEncoder, slot_features

ObsLayout = Literal["set", "flat", "dict"]
InfoKey = Literal["frame", "masks"]
Info = dict[str, npt.NDArray[Any]]
#: Entry of an environment's metadata: the settings of its slot wrappers, outermost first. Metadata
#: can be read of every environment, also of one in another process.
SLOT_SETTINGS = "genesis_rl.slots"


@dataclass(frozen=True)
class SlotObsOptions:
    """How slots become observations.

    Attributes:
        layout: "set" is one array (K, D), "flat" the same as (K * D,), "dict" has z_m (K, D_m)
            and z_c (K, D_c) as far as the model has them, and geometry (K, 3) with
            ``mask_geometry``.
        mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area share.
        key: entry of a Dict observation that holds the frame, or its path in nested Dicts, such as
            "camera/rgb"; None finds it.
        keep: entries of a Dict observation that are passed through; the result is then a Dict,
            with the slots under "slots" ("set" and "flat").
        frame_layout: axes of one frame, "auto" to tell them from the space.
        info_keys: what to put in the info: "frame", uint8 (H, W, 3), as the environment shows it;
            "masks", float32 (K, S, S), the mixing probabilities at the model's image size S.
        align: keep every object in its slot within an episode: the slots, and the masks in the
            info, come in the order that fits those of the frame before best (see SlotAligner).
    """

    layout: ObsLayout = "set"
    mask_geometry: bool = False
    key: str | None = None
    keep: Sequence[str] = ()
    frame_layout: Layout = "auto"
    info_keys: Sequence[InfoKey] = ()
    align: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a space."""
        if self.layout not in get_args(ObsLayout):
            raise ValueError(f"layout is {self.layout!r}; wanted one of {get_args(ObsLayout)}.")
        for name in ("keep", "info_keys"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} is the string {value!r}; wanted a sequence of strings.")
            if not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
                raise TypeError(f"{name} must be a sequence of strings, got {value!r}.")
            object.__setattr__(self, name, tuple(value))
        for info_key in self.info_keys:
            if info_key not in get_args(InfoKey):
                raise ValueError(
                    f"info_keys has {info_key!r}; wanted entries of {get_args(InfoKey)}."
                )

    def as_kwargs(self) -> dict[str, Any]:
        """The options as plain data that a wrapper's constructor takes (JSON knows no tuples)."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in plain.items()
        }


class EncodedStep(NamedTuple):
    """A batch of observations and the final ones of episodes that ended, encoded in one pass.

    Attributes:
        observation: of all environments, batched.
        info: what ``info_keys`` asked for, batched.
        final: environment's index to its final observation and info.
    """

    observation: Any
    info: Info
    final: dict[int, tuple[Any, Info]]


class SlotObsCodec:
    """Turns observations of one space into slots, as the options say.

    Attributes:
        encoder: the SlotEncoder.
        source: where the frames are; None if they are handed in (rendered).
        space: observation space of one environment after encoding.
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
            encoder: makes slots of frames.
            space: of one environment's observations; it is not changed.
            options: how slots become observations.
            rendered: frames come from ``render`` as (H, W, 3) bytes, not from the observation.
            num_envs: how many environments are encoded side by side.

        Raises:
            ValueError: if the space holds no frames the encoder can take, or ``keep`` names
                anything that cannot be kept.
        """
        self.encoder = encoder
        self.options = options
        self.source: FrameSource | None = None
        if rendered:
            if options.key is not None:
                raise ValueError(f"key is {options.key!r} with render=True; wanted no key.")
        else:
            self.source = find_frames(space, key=options.key, layout=options.frame_layout)
            encoder.preprocessing.check(*self.source.size, encoder.image_size)
        kept = self._kept_spaces(space)
        slots = self._slot_spaces()
        self._dict = bool(kept) or options.layout == "dict"
        self.space: spaces.Space[Any] = (
            spaces.Dict({**slots, **kept}) if self._dict else slots["slots"]
        )
        self._aligner: SlotAligner | None = None
        if options.align:
            widths = [width for width in (*encoder.latent_sizes, 3) if width]
            self._aligner = SlotAligner(num_envs, encoder.num_slots, widths)

    def _slot_spaces(self) -> dict[str, spaces.Space[Any]]:
        k = self.encoder.num_slots
        d_m, d_c = self.encoder.latent_sizes
        extra = 3 if self.options.mask_geometry else 0
        if self.options.layout == "set":
            return {"slots": _unbounded(k, d_m + d_c + extra)}
        if self.options.layout == "flat":
            return {"slots": _unbounded(k * (d_m + d_c + extra))}
        parts = {"z_m": d_m, "z_c": d_c, "geometry": extra}
        # A latent that the model does not have would be an empty Box, which agents cannot take.
        return {name: _unbounded(k, width) for name, width in parts.items() if width}

    def _kept_spaces(self, space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
        keep = self.options.keep
        if not keep:
            return {}
        if not isinstance(space, spaces.Dict):
            raise ValueError(
                f"keep is {keep}, but the observation is {space}; wanted a Dict observation "
                "(gymnasium.wrappers.AddRenderObservation(env, render_only=False) makes one)."
            )
        missing = [name for name in keep if name not in space.spaces]
        if missing:
            raise ValueError(
                f"keep has {missing}; wanted entries of the observation: {list(space.spaces)}."
            )
        if self.source is not None and self.source.key in keep:
            raise ValueError(
                f"keep has {self.source.key!r}, the entry that is encoded; wanted other entries. "
                'The frame goes to the info by info_keys=("frame",).'
            )
        taken = [name for name in keep if name in self._slot_spaces()]
        if taken:
            raise ValueError(
                f"keep has {taken}, names the slots take in the result; wanted other names."
            )
        return {name: copy.deepcopy(space[name]) for name in keep}

    def batched_space(self, space: spaces.Space[Any], num_envs: int) -> spaces.Space[Any]:
        """The observation space of ``num_envs`` environments; kept entries as in ``space``."""
        if not self._dict:
            return batch_space(self.space, num_envs)
        slots = {name: batch_space(box, num_envs) for name, box in self._slot_spaces().items()}
        kept = {name: copy.deepcopy(_entry(space, name)) for name in self.options.keep}
        return spaces.Dict({**slots, **kept})

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the slots, as plain data: encoder and options, without those of the info."""
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
        """Take the frames out of an observation, or out of a batch of them."""
        if self.source is None:
            raise ValueError("frames are rendered; wanted them to be handed to encode.")
        return self.source.frames(observation)

    def encode(
        self, observation: Any, frame: Any = None, *, first: bool | None = None
    ) -> tuple[Any, Info]:
        """Encode one observation.

        Args:
            observation: of one environment.
            frame: the rendered frame where the codec was made with ``rendered``.
            first: whether an episode starts with it, for ``align``; None for an observation out of
                sequence, whose slots are not aligned.

        Returns:
            The new observation, in ``space``, and what ``info_keys`` asked for.
        """
        batch = np.asarray(self.frames(observation) if frame is None else frame)[None]
        features, info = self._infer(batch)
        if first is not None:
            self._align(features, info, np.zeros(1, np.intp), np.array([first]))
        return self.arrange(features[0], observation), {k: v[0] for k, v in info.items()}

    def encode_step(
        self, observations: Any, final: Mapping[int, Any], first: npt.NDArray[np.bool_]
    ) -> EncodedStep:
        """Encode a batch of observations and the final ones of ended episodes in one pass.

        Args:
            observations: of all N environments, batched.
            final: environment's index to its unbatched final observation.
            first: (N,), the environments where an episode starts with this observation.
        """
        frames = np.asarray(self.frames(observations))
        n = len(frames)
        if final:
            last = np.stack([np.asarray(self.frames(one)) for one in final.values()])
            frames = np.concatenate([frames, last.astype(frames.dtype)])
        features, whole = self._infer(frames)
        info, tail = ({k: v[part] for k, v in whole.items()} for part in np.s_[:n, n:])
        # Final observations end the episodes whose successors the others start.
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
        """Encode frames (B, ...) to features (B, K, D) and the entries of the info.

        With ``align`` the features end with the mask geometry, asked for or not.
        """
        layout: Layout = "HWC" if self.source is None else self.source.layout
        white: White = 255 if self.source is None else self.source.white
        slots = self.encoder(frames, layout, white=white)
        info: Info = {}
        if "frame" in self.options.info_keys:
            # A copy: the environment may draw its next frame into the same memory.
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
        """Bring features (B, K, D) and masks, in place, to their slots' order, if so asked."""
        if self._aligner is None:
            return
        order = self._aligner.follow(features, envs, first)
        features[:] = np.take_along_axis(features, order[..., None], axis=1)
        if "masks" in info:
            info["masks"][:] = np.take_along_axis(info["masks"], order[..., None, None], axis=1)

    def arrange(self, features: npt.NDArray[np.float32], observation: Any = None) -> Any:
        """Lay out features (..., K, D) as the space says and add what is kept of an observation.

        Features that end with the mask geometry lose it unless the options ask for it.
        """
        d_m, d_c = self.encoder.latent_sizes
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
        raise TypeError(f"the batched observation space is {space}; wanted a Dict.")
    return space[name]
