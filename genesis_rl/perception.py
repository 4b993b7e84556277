"""Seeing: frames in, object slots out, with frozen weights. What every wrapper shares."""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl.blocks import fold_batch_norm
from genesis_rl.checkpoint import fingerprint, load_pretrained, pick_device
from genesis_rl.checks import LARGEST, check_integer, check_range
from genesis_rl.editing import select
from genesis_rl.frames import Layout, Preprocessing, Resize, White, as_preprocessing, to_images
from genesis_rl.metrics.segmentation import segment
from genesis_rl.models.base import BaseModel, Noise
from genesis_rl.models.distilled import segmentation_masks
from genesis_rl.models.prior import has_sequential_prior
from genesis_rl.refinement import refine
from genesis_rl.slots import Decoded, SceneModel, Slots, check_finite, check_shape, check_slots

Precision = Literal["float32", "bfloat16"]

# A process that was forked after this import has another id.
_IMPORT_PID = os.getpid()


def _enter_process(device: torch.device) -> None:
    """Make a forked worker safe: no CUDA, one thread.

    Raises:
        RuntimeError: if a forked worker would use CUDA, whose state does not survive a fork.
    """
    if os.getpid() == _IMPORT_PID:
        return
    if device.type == "cuda":
        raise RuntimeError(
            f"device is {str(device)!r} in a forked worker process, where CUDA cannot be used; "
            "wanted VecGenesisObs (Stable-Baselines3) or GenesisVectorObs (Gymnasium) around the "
            'vector environment in the parent process, or device="cpu".'
        )
    # OpenMP's threads do not survive a fork either: the first parallel loop would wait for ever.
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


@contextmanager
def _no_tf32(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding float32 inputs to TF32, which makes results depend on the batch."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        yield


def _inference_form(model: nn.Module, device: torch.device) -> nn.Module:
    """Bring a model, in place, into the form that infers fastest; it can no longer be trained."""
    frozen = model.to(device=device, dtype=torch.float32).requires_grad_(False)
    # PyTorch's annotations of Module.to leave memory_format out.
    folded: Any = fold_batch_norm(frozen.eval())
    return cast("nn.Module", folded.to(memory_format=torch.channels_last))


class SlotEncoder:
    """A frozen scene model that turns frames of any common layout into object slots.

    The slots are the posterior's mean, refined if asked for, in eval mode: the same frame gives the
    same slots, alone or in a batch (to 1e-5 in float32). The encoder keeps a copy of the model, so
    that a model in training is neither changed nor followed.

    A forked worker process may use an encoder on the CPU, with one thread; CUDA belongs in the
    parent. An encoder that came from a path pickles as that path.

    Attributes:
        image_size: side of the images that the model takes, in pixels.
        num_slots: K.
        latent_sizes: (D_m, D_c).
        fingerprint: sha256 over config and weights.
        name: of the model's kind, such as "genesis".
        has_prior: whether the model has a prior that draws scenes slot by slot.
        has_background: whether the first slot is that of a background network.
        device: where the model runs.
        preprocessing: how frames come to ``image_size``.
        source: absolute path or hub id, None if the model came from memory.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | SceneModel,
        *,
        device: str | torch.device = "auto",
        preprocessing: Preprocessing | Mapping[str, Any] | Resize | None = None,
        batch_size: int = 256,
        dtype: Precision = "float32",
        compile: bool = False,
        refine_steps: int = 0,
    ) -> None:
        """Load and prepare the model.

        Args:
            model: folder of save_pretrained, hub id, or a model in memory.
            device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:N".
            preprocessing: how frames are resized, also by the name of the resize; None: as the
                model was trained, and stretched if that is not known. Another way than the
                model's is a warning.
            batch_size: most frames in one pass of the model.
            dtype: "bfloat16" infers under autocast: faster where the hardware has it, no longer
                equal between batch sizes.
            compile: compile the inference with torch.compile, which needs a C++ compiler on the
                CPU and takes its time at the first frames of every new batch size; on CUDA it
                becomes a CUDA graph for each.
            refine_steps: gradient steps on the latents after the encoder's pass: sharper masks and
                latents, each step at about three passes of the decoders; see
                `genesis_rl.refinement`.

        Raises:
            TypeError: if ``model`` is none of these.
            ValueError: if the folder is no checkpoint, or another argument is not as described.
            RuntimeError: if a forked worker asks for CUDA.
        """
        check_integer("batch_size", batch_size, 1)
        if dtype not in get_args(Precision):
            raise ValueError(f"dtype is {dtype!r}; wanted one of {get_args(Precision)}.")
        check_integer("refine_steps", refine_steps, 0)
        check_range("refine_steps", refine_steps, 0, LARGEST["refine_steps"])
        self.device = pick_device(device)
        _enter_process(self.device)
        self.source: str | None = None
        self.batch_size = int(batch_size)
        self.dtype: Precision = dtype
        self.refine_steps = int(refine_steps)
        if isinstance(model, (str, os.PathLike)):
            name = os.path.expanduser(os.fspath(model))
            self.source = os.path.abspath(name) if os.path.isdir(name) else name
            model = load_pretrained(self.source, device=self.device).model
        if not (isinstance(model, SceneModel) and isinstance(model, nn.Module)):
            raise TypeError(
                f"model is {type(model).__name__}; wanted a path, a hub id or a scene model "
                "(a torch module with config, infer, decode, elbo, log_weight and sample). To "
                "rebuild an environment from its spec, wrap it with the path of a saved model."
            )
        known: Preprocessing | None = getattr(model, "preprocessing", None)
        if preprocessing is not None:
            preprocessing = as_preprocessing(preprocessing)
            if known not in (None, preprocessing):
                warnings.warn(
                    f"preprocessing is {preprocessing}, but the model was trained with {known}: "
                    "its slots may be poor.",
                    stacklevel=2,
                )
        self.preprocessing = preprocessing or known or Preprocessing()
        self.image_size: int = model.config.image_size
        self.num_slots: int = model.config.num_slots
        self.latent_sizes: tuple[int, int] = model.latent_sizes
        self.fingerprint: str = fingerprint(model)
        self.name: str = getattr(model, "model_name", type(model).__name__)
        self.has_prior: bool = has_sequential_prior(model)
        teacher = getattr(model, "teacher", model)
        self.has_background: bool = getattr(teacher, "has_background", False)
        own = model if self.source else copy.deepcopy(model)  # the caller's model stays as it is
        self._model = cast("SceneModel", _inference_form(own, self.device))
        self._compiled = self._compile() if compile else None
        self._arguments = {
            "device": str(device),
            "preprocessing": preprocessing and asdict(preprocessing),
            "batch_size": self.batch_size,
            "dtype": dtype,
            "compile": compile,
            "refine_steps": self.refine_steps,
        }

    def _compile(self) -> Callable[[Tensor], Slots]:
        """The inference compiled; on CUDA as a graph for each batch size, on buffers of its own."""
        if self.device.type != "cuda":
            return torch.compile(self._model.infer)
        graphs = torch.compile(self._model.infer, mode="reduce-overhead")

        def infer(x: Tensor) -> Slots:
            torch.compiler.cudagraph_mark_step_begin()
            slots = graphs(x)  # the next call writes over them
            return Slots(slots.z_m.clone(), slots.z_c.clone(), slots.log_pi.clone())

        return infer

    @property
    def spec(self) -> dict[str, Any]:
        """The constructor's arguments as plain data; "model" is None if it came from memory."""
        return {"model": self.source, **self._arguments}

    @property
    def model(self) -> SceneModel:
        """The frozen model."""
        return self._model

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle the path instead of the weights where there is one."""
        if self.source is None:
            return super().__reduce__()
        return _from_spec, (self.spec,)

    def __repr__(self) -> str:
        """Show source, sizes and device."""
        d_m, d_c = self.latent_sizes
        return (
            f"SlotEncoder({self.source or 'model in memory'}, {self.image_size} px, "
            f"K={self.num_slots}, D_m={d_m}, D_c={d_c}, {self.device}, {self.dtype})"
        )

    def __call__(
        self, frames: Any, layout: Layout = "auto", *, white: White | None = None
    ) -> Slots:
        """Infer the slots of frames.

        Args:
            frames: one frame or a batch, of any size that ``preprocessing`` allows.
            layout: axes of one frame (see genesis_rl.frames).
            white: what white is in float frames, 1 or 255; None tells it from the values.

        Returns:
            Slots of B frames (B = 1 for a single frame), float32 on ``device``; inference tensors:
            clone them to use them in autograd.

        Raises:
            TypeError, ValueError: if frames are no images, or not of a size that can be taken.
            ValueError: if a latent or a mask is not finite: the weights are broken.
            RuntimeError: on CUDA in a forked worker.
        """
        return self._see(frames, layout, white)[1]

    def segment(
        self, frames: Any, layout: Layout = "auto", *, white: White | None = None
    ) -> npt.NDArray[np.uint8]:
        """Tell which slot each pixel of frames is of: arguments and errors as for a call.

        Returns:
            (B, S, S) in 0 to K - 1, the largest p(k | x, z) of each pixel of the images that the
            model takes; see `genesis_rl.likelihood.log_responsibilities`.

        Raises:
            TypeError: if the model knows no p(k | x, z), as those of other packages may not.
        """
        model = self._model
        if not isinstance(model, BaseModel):
            raise TypeError(
                f"model is {type(model).__name__}; wanted one of genesis_rl's to segment by."
            )
        x, slots = self._see(frames, layout, white)
        labels = []
        with torch.inference_mode(), self._precision():
            for first in range(0, len(x), self.batch_size):
                part = slice(first, first + self.batch_size)
                log_p = model.log_responsibilities(x[part], model.decode(select(slots, part)))
                check_finite(log_masks=log_p)
                labels.append(segment(log_p).byte())
        return torch.cat(labels).cpu().numpy()

    def _see(self, frames: Any, layout: Layout, white: White | None) -> tuple[Tensor, Slots]:
        """Frames as the images that the model takes, (B, 3, S, S) in [0, 1], and their slots."""
        _enter_process(self.device)
        x = to_images(
            frames,
            image_size=self.image_size,
            layout=layout,
            white=white,
            preprocessing=self.preprocessing,
            device=self.device,
        )
        infer = self._compiled or self._model.infer
        with torch.inference_mode(), self._precision():
            parts = [
                refine(self._model, chunk, infer(chunk), self.refine_steps)
                for chunk in x.split(self.batch_size)
            ]
            slots = Slots(
                torch.cat([part.z_m for part in parts]).float(),
                torch.cat([part.z_c for part in parts]).float(),
                torch.cat([part.log_pi for part in parts]).float(),
            )
            check_finite(slots.z_m, slots.z_c, log_masks=slots.log_pi)
        return x, slots

    def features(
        self,
        frames: Any,
        *,
        layout: Layout = "auto",
        mask_geometry: bool = False,
        white: White | None = None,
    ) -> npt.NDArray[np.float32]:
        """Infer the slots of frames as an array: arguments and errors as for a call.

        Returns:
            float32, shape (B, K, D): z_m, z_c and, with ``mask_geometry``, the mask's centroid row
            and column in [-1, 1] and its share of the area; D = D_m + D_c (+ 3).
        """
        slots = self(frames, layout, white=white)
        return slot_features(slots, mask_geometry=mask_geometry)

    def masks(self, slots: Slots) -> npt.NDArray[np.float32]:
        """Mixing probabilities of slots that this encoder inferred, to look at or to segment by.

        Returns:
            float32, (B, K, S, S). A student's own masks are coarse: its latents are decoded.

        Raises:
            TypeError: if ``slots`` is no Slots.
            ValueError: if a latent or a mask is not finite: the weights are broken.
        """
        check_slots(slots)
        with torch.inference_mode(), self._precision():
            log_pi = segmentation_masks(self._model, slots)
            check_finite(slots.z_m, slots.z_c, log_masks=log_pi)
            return log_pi[:, :, 0].float().exp().cpu().numpy()

    def decode(self, features: Tensor | npt.NDArray[np.floating[Any]]) -> Decoded:
        """Draw slots for which there may be no frame: the way back from `features`.

        The masks come from the latents alone; a MONet draws them by its component decoder, as it
        does those of sampled scenes.

        Args:
            features: (B, K, D), z_m, z_c and anything after them, which is not looked at.

        Returns:
            Components and masks of B scenes, float32 on ``device``; their ``image`` is the frame.

        Raises:
            TypeError: if ``features`` is neither a tensor nor an array.
            ValueError: if there are not K slots, too few features, or a value is not finite.
        """
        d_m, d_c = self.latent_sizes
        if isinstance(features, np.ndarray):
            features = torch.from_numpy(features)
        check_shape(features, (None, self.num_slots, None), "features")
        if features.shape[2] < d_m + d_c:
            raise ValueError(f"features is {features.shape[2]} wide; wanted at least {d_m + d_c}.")
        size = self.image_size
        with torch.inference_mode(), self._precision():
            parts = []
            for chunk in features.to(self.device, torch.float32).split(self.batch_size):
                z_m, z_c, _ = chunk.split([d_m, d_c, chunk.shape[2] - d_m - d_c], dim=2)
                no_masks = chunk.new_zeros(*chunk.shape[:2], 1, size, size)
                slots = Slots(z_m, z_c, no_masks)
                redraw = getattr(self._model, "redraw_masks", None)
                parts.append(self._model.decode(redraw(slots) if redraw else slots))
            decoded = Decoded(
                torch.cat([part.mu_x for part in parts]).float(),
                torch.cat([part.log_pi for part in parts]).float(),
            )
            check_finite(features[..., : d_m + d_c], decoded.mu_x, log_masks=decoded.log_pi)
        return decoded

    def sample(self, noise: Tensor, *, mask_geometry: bool = False) -> Tensor:
        """Draw novel scenes from the model's prior.

        Args:
            noise: (B, K, D_m + D_c), standard normal times a temperature; what is drawn is a
                function of it.
            mask_geometry: append the geometry of the masks that the scenes decode to.

        Returns:
            (B, K, D) float32 on ``device``, as `features` has them.

        Raises:
            ValueError: if the noise is of another shape, the model has no such prior (see
                ``has_prior``), or a value is not finite: the weights are broken.
        """
        if not self.has_prior:
            raise ValueError(f"{self.name} has no prior that draws scenes slot by slot.")
        d_m, d_c = self.latent_sizes
        check_shape(noise, (None, self.num_slots, d_m + d_c), "noise")
        # The protocol's sample takes a generator, whose draws would depend on the batch.
        model = cast("Any", self._model)
        parts = []
        with torch.inference_mode(), self._precision():
            for chunk in noise.to(self.device, torch.float32).split(self.batch_size):
                drawn = Noise(chunk[..., :d_m], chunk[..., d_m:])
                slots: Slots = model.sample(len(chunk), noise=drawn)
                kinds = [slots.features, *([slots.mask_geometry()] if mask_geometry else [])]
                parts.append(torch.cat(kinds, dim=-1).float())
            features = torch.cat(parts)
            check_finite(features)
        return features

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return _no_tf32(self.device)


def slot_features(slots: Slots, *, mask_geometry: bool = False) -> npt.NDArray[np.float32]:
    """Bring slots to the host as one float32 array (B, K, D); see SlotEncoder.features.

    Raises:
        ValueError: if a value is not finite: the weights are broken.
    """
    with torch.inference_mode():
        parts: list[Tensor] = [slots.features]
        if mask_geometry:
            parts.append(slots.mask_geometry())
        features = torch.cat(parts, dim=-1).float().cpu()
        check_finite(features)
    return cast("npt.NDArray[np.float32]", features.numpy())


def _from_spec(spec: Mapping[str, Any]) -> SlotEncoder:
    return SlotEncoder(**spec)


EncoderLike = str | os.PathLike[str] | SlotEncoder | SceneModel | Mapping[str, Any]


def as_encoder(encoder: EncoderLike, *, device: str | torch.device = "auto") -> SlotEncoder:
    """Take an encoder as it is, or make one of a path, a hub id, a model or SlotEncoder.spec.

    Raises:
        TypeError, ValueError, RuntimeError: as SlotEncoder; ValueError also if ``device`` is named
            and a loaded encoder is on another.
    """
    if isinstance(encoder, SlotEncoder):
        try:
            fits = device == "auto" or pick_device(device) == encoder.device
        except ValueError:  # no encoder can be there
            fits = False
        if not fits:
            raise ValueError(
                f"device is {str(device)!r}, but the encoder given is on {encoder.device}; wanted "
                "the device where the encoder is made, or none here."
            )
        return encoder
    if isinstance(encoder, Mapping):
        return SlotEncoder(**encoder)
    return SlotEncoder(encoder, device=device)
