"""Frozen slot encoder: inference of object slots from frames."""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl.checkpoints.loading import fingerprint, load_pretrained, pick_device
from genesis_rl.evaluation.metrics.segmentation import segment
from genesis_rl.models.blocks import fold_batch_norm
from genesis_rl.models.refinement import refine
from genesis_rl.perception.editing import select
from genesis_rl.perception.preprocessing import (
    Layout,
    Preprocessing,
    Resize,
    White,
    as_preprocessing,
    to_images,
)
from genesis_rl.slots import (
    MASK_GEOMETRY,
    Decoded,
    Noise,
    SceneModel,
    Slots,
    check_finite,
    check_shape,
    check_slots,
)
from genesis_rl.utils.checks import LARGEST, check_integer, check_range

Precision = Literal["float32", "bfloat16"]

# Differs from the id of processes forked after this import.
_IMPORT_PID = os.getpid()


def _enter_process(device: torch.device) -> None:
    """Restrict a forked worker to the CPU and to one thread.

    Raises:
        RuntimeError: for CUDA in a forked worker; its state does not survive a fork.
    """
    if os.getpid() == _IMPORT_PID:
        return
    if device.type == "cuda":
        raise RuntimeError(
            f'device must be "cpu" in a forked worker process, got {str(device)!r}. To use CUDA, '
            "wrap the vector environment in the parent process with VecGenesisObs "
            "(Stable-Baselines3) or GenesisVectorObs (Gymnasium)."
        )
    # OpenMP's threads do not survive a fork: the first parallel loop would deadlock.
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


@contextmanager
def _no_tf32(device: torch.device) -> Iterator[None]:
    """Disable TF32 in cuDNN, which makes results depend on the batch size."""
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
    """Optimise a model for inference, in place; it can no longer be trained."""
    frozen = model.to(device=device, dtype=torch.float32).requires_grad_(False)
    # PyTorch's annotations of Module.to leave memory_format out.
    folded: Any = fold_batch_norm(frozen.eval())
    return cast("nn.Module", folded.to(memory_format=torch.channels_last))


class SlotEncoder:
    """A frozen scene model that infers object slots from frames of any common layout.

    The slots are posterior means in eval mode, optionally refined. They are independent of the
    batch (to 1e-5 in float32). The encoder copies a model in memory: its later training has no
    effect on the encoder.

    Forked worker processes can use an encoder on the CPU with one thread, but not on CUDA. An
    encoder loaded from a path is pickled as that path.

    Attributes:
        image_size: side of the model's input images in pixels.
        num_slots: number of slots K.
        latent_sizes: sizes (D_m, D_c) of mask and component latents.
        fingerprint: SHA-256 of config and weights.
        name: name of the model class, such as "genesis".
        has_prior: whether the model has a prior over slots to sample scenes from.
        has_background: whether the first slot belongs to a background network.
        device: device of the model.
        preprocessing: resizing of frames to ``image_size``.
        source: absolute path or hub id; None for a model in memory.
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
            model: pretrained model folder, hub id, or a model in memory.
            device: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N".
            preprocessing: resizing of frames, or its name; None: as in the model's training,
                "stretch" if unknown. A value other than the model's raises a warning.
            batch_size: largest number of frames per forward pass.
            dtype: "bfloat16" infers under autocast: faster on supporting hardware, but results
                depend on the batch size.
            compile: compile inference with torch.compile. On the CPU this requires a C++ compiler;
                on CUDA it uses CUDA graphs. The first call with each batch size is slow.
            refine_steps: gradient steps on the latents after encoding, for more accurate masks and
                latents. Each step costs about three passes of the decoders; see
                `genesis_rl.models.refinement`.

        Raises:
            TypeError: if ``model`` has another type.
            ValueError: if the folder is not a pretrained model, or for an invalid argument.
            RuntimeError: for CUDA in a forked worker.
        """
        check_integer("batch_size", batch_size, 1)
        if dtype not in get_args(Precision):
            raise ValueError(f"dtype must be one of {get_args(Precision)}, got {dtype!r}.")
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
                "model must be a path, a hub id or a scene model (a torch module with the "
                "attributes and methods of genesis_rl.slots.SceneModel), got "
                f"{type(model).__name__}. To rebuild an environment from its spec, wrap it with "
                "the path of a saved model."
            )
        trained_with: Preprocessing | None = model.preprocessing
        if preprocessing is not None:
            if isinstance(preprocessing, str) and trained_with is not None:
                preprocessing = {**trained_with.to_json(), "resize": preprocessing}
            preprocessing = as_preprocessing(preprocessing)
            if trained_with not in (None, preprocessing):
                warnings.warn(
                    f"preprocessing should be {trained_with}, with which the model was trained, "
                    f"got {preprocessing}. The slots may be inaccurate.",
                    stacklevel=2,
                )
        self.preprocessing = preprocessing or trained_with or Preprocessing()
        self.image_size: int = model.config.image_size
        self.num_slots: int = model.config.num_slots
        self.latent_sizes: tuple[int, int] = model.latent_sizes
        self.fingerprint: str = fingerprint(model)
        self.name, self.has_prior = model.model_name, model.has_prior
        self.has_background = model.has_background
        # Copied, because the caller's model must not be modified.
        inference_model = model if self.source else copy.deepcopy(model)
        self._model = cast("SceneModel", _inference_form(inference_model, self.device))
        self._compiled = self._compile() if compile else None
        self._arguments = {
            "device": str(device),
            "preprocessing": preprocessing and preprocessing.to_json(),
            "batch_size": self.batch_size,
            "dtype": dtype,
            "compile": compile,
            "refine_steps": self.refine_steps,
        }

    def _compile(self) -> Callable[[Tensor], Slots]:
        """Return compiled inference; on CUDA, a CUDA graph per batch size with cloned outputs."""
        if self.device.type != "cuda":
            return torch.compile(self._model.infer)
        graphs = torch.compile(self._model.infer, mode="reduce-overhead")

        def infer(x: Tensor) -> Slots:
            torch.compiler.cudagraph_mark_step_begin()
            slots = graphs(x)  # overwritten by the next call
            return Slots(slots.z_m.clone(), slots.z_c.clone(), slots.log_pi.clone())

        return infer

    @property
    def spec(self) -> dict[str, Any]:
        """Constructor arguments as plain data; "model" is None for a model in memory."""
        return {"model": self.source, **self._arguments}

    @property
    def model(self) -> SceneModel:
        """The frozen model."""
        return self._model

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle the path instead of the weights, if available."""
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
            frames: one frame or a batch, of any size that ``preprocessing`` supports.
            layout: axes of one frame (see `genesis_rl.perception.preprocessing`).
            white: value of white in float frames, 1 or 255; None infers it from the values.

        Returns:
            Slots of B frames (B = 1 for a single frame), float32 on ``device``. They are inference
            tensors; clone them for autograd.

        Raises:
            TypeError, ValueError: if frames are not images, or have an unsupported size.
            ValueError: if a latent or a mask is not finite, due to damaged weights.
            RuntimeError: for CUDA in a forked worker.
        """
        return self._encode(frames, layout, white)[1]

    def segment(
        self, frames: Any, layout: Layout = "auto", *, white: White | None = None
    ) -> npt.NDArray[np.uint8]:
        """Segment frames into slots; arguments and errors as for a call.

        Returns:
            (B, S, S) uint8, the slot from 0 to K - 1 with the largest posterior assignment
            p(k | x, z) of each pixel of the resized images; see
            `genesis_rl.models.likelihood.log_responsibilities`.
        """
        model = self._model
        x, slots = self._encode(frames, layout, white)
        labels = []
        with torch.inference_mode(), self._precision():
            for first in range(0, len(x), self.batch_size):
                part = slice(first, first + self.batch_size)
                log_p = model.log_responsibilities(x[part], model.decode(select(slots, part)))
                check_finite(log_masks=log_p)
                labels.append(segment(log_p).byte())
        return torch.cat(labels).cpu().numpy()

    def _encode(self, frames: Any, layout: Layout, white: White | None) -> tuple[Tensor, Slots]:
        """Return the model's input images, (B, 3, S, S) in [0, 1], and their slots."""
        x = self._images(frames, layout, white)
        infer = self._compiled or self._model.infer
        with torch.inference_mode(), self._precision():
            chunks = x.split(self.batch_size)
            parts = [infer(chunk) for chunk in chunks]
            if self.refine_steps:
                parts = [
                    refine(self._model, chunk, part, self.refine_steps)
                    for chunk, part in zip(chunks, parts, strict=True)
                ]
            slots = Slots(
                torch.cat([part.z_m for part in parts]).float(),
                torch.cat([part.z_c for part in parts]).float(),
                torch.cat([part.log_pi for part in parts]).float(),
            )
            check_finite(slots.z_m, slots.z_c, log_masks=slots.log_pi)
        return x, slots

    def _images(self, frames: Any, layout: Layout, white: White | None) -> Tensor:
        """Return the model's input images, (B, 3, S, S) in [0, 1]."""
        _enter_process(self.device)
        return to_images(
            frames,
            image_size=self.image_size,
            layout=layout,
            white=white,
            preprocessing=self.preprocessing,
            device=self.device,
        )

    def features(
        self,
        frames: Any,
        *,
        layout: Layout = "auto",
        mask_geometry: bool = MASK_GEOMETRY,
        white: White | None = None,
    ) -> npt.NDArray[np.float32]:
        """Infer the slots of frames as an array; arguments and errors as for a call.

        Returns:
            float32, shape (B, K, D): z_m, z_c and, with ``mask_geometry``, the mask's centroid row
            and column in [-1, 1] and its share of the area in [0, 1]; D = D_m + D_c (+ 3).
        """
        if mask_geometry or self._compiled or self.refine_steps:
            return slot_features(self(frames, layout, white=white), mask_geometry=mask_geometry)
        x = self._images(frames, layout, white)
        with torch.inference_mode(), self._precision():
            latents = (
                torch.cat([self._model.infer_latents(part) for part in x.split(self.batch_size)])
                .float()
                .cpu()
            )
            check_finite(latents)
        return cast("npt.NDArray[np.float32]", latents.numpy())

    def masks(self, slots: Slots) -> npt.NDArray[np.float32]:
        """Return the masks (mixing probabilities) of slots that this encoder inferred.

        Returns:
            float32, (B, K, S, S) in [0, 1]. For a distilled student, whose own masks are coarse,
            the masks are decoded from the latents.

        Raises:
            TypeError: if ``slots`` is not a Slots.
            ValueError: if a latent or a mask is not finite, due to damaged weights.
        """
        check_slots(slots)
        with torch.inference_mode(), self._precision():
            log_pi = self._model.segmentation_masks(slots)
            check_finite(slots.z_m, slots.z_c, log_masks=log_pi)
            return log_pi[:, :, 0].float().exp().cpu().numpy()

    def decode(self, features: Tensor | npt.NDArray[np.floating[Any]]) -> Decoded:
        """Decode slot features, the inverse of `features`.

        The masks are decoded from the latents only; MONet uses its component decoder for them, as
        for sampled scenes.

        Args:
            features: (B, K, D): z_m, z_c and any further columns, which are ignored.

        Returns:
            Components and masks of B scenes, float32 on ``device``; ``image`` is the frame.

        Raises:
            TypeError: if ``features`` is neither a tensor nor an array.
            ValueError: for a number of slots other than K, too few features, or non-finite values.
        """
        d_m, d_c = self.latent_sizes
        if isinstance(features, np.ndarray):
            features = torch.from_numpy(features)
        check_shape(features, (None, self.num_slots, None), "features")
        if features.shape[2] < d_m + d_c:
            raise ValueError(
                f"features must have at least {d_m + d_c} columns, got {features.shape[2]}."
            )
        size = self.image_size
        with torch.inference_mode(), self._precision():
            parts = []
            for chunk in features.to(self.device, torch.float32).split(self.batch_size):
                z_m, z_c, _ = chunk.split([d_m, d_c, chunk.shape[2] - d_m - d_c], dim=2)
                no_masks = chunk.new_zeros(*chunk.shape[:2], 1, size, size)
                slots = self._model.redraw_masks(Slots(z_m, z_c, no_masks))
                parts.append(self._model.decode(slots))
            decoded = Decoded(
                torch.cat([part.mu_x for part in parts]).float(),
                torch.cat([part.log_pi for part in parts]).float(),
            )
            check_finite(features[..., : d_m + d_c], decoded.mu_x, log_masks=decoded.log_pi)
        return decoded

    def sample(self, noise: Tensor, *, mask_geometry: bool = MASK_GEOMETRY) -> Tensor:
        """Sample novel scenes from the model's prior.

        Args:
            noise: (B, K, D_m + D_c), standard normal noise times a temperature; determines the
                samples.
            mask_geometry: append the geometry of the decoded masks.

        Returns:
            (B, K, D) float32 on ``device``, as in `features`.

        Raises:
            ValueError: for noise of another shape, a model without a prior over slots (see
                ``has_prior``), or non-finite values, due to damaged weights.
        """
        if not self.has_prior:
            raise ValueError(f"model must have a prior over slots to sample from, got {self.name}.")
        d_m, d_c = self.latent_sizes
        check_shape(noise, (None, self.num_slots, d_m + d_c), "noise")
        parts = []
        with torch.inference_mode(), self._precision():
            for chunk in noise.to(self.device, torch.float32).split(self.batch_size):
                latent_noise = Noise(chunk[..., :d_m], chunk[..., d_m:])
                slots = self._model.sample(len(chunk), noise=latent_noise)
                kinds = [slots.features, *([slots.mask_geometry()] if mask_geometry else [])]
                parts.append(torch.cat(kinds, dim=-1).float())
            features = torch.cat(parts)
            check_finite(features)
        return features

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return _no_tf32(self.device)


def slot_features(slots: Slots, *, mask_geometry: bool = MASK_GEOMETRY) -> npt.NDArray[np.float32]:
    """Convert slots to a float32 array (B, K, D); see `SlotEncoder.features`.

    Raises:
        ValueError: if a value is not finite, due to damaged weights.
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
    """Return an encoder from one, a path, a hub id, a model or `SlotEncoder.spec`.

    Raises:
        TypeError, ValueError, RuntimeError: as `SlotEncoder`; ValueError also if ``device`` is
            given and differs from that of an existing encoder.
    """
    if isinstance(encoder, SlotEncoder):
        try:
            fits = device == "auto" or pick_device(device) == encoder.device
        except ValueError:  # the device does not exist
            fits = False
        if not fits:
            raise ValueError(
                f'device must be "auto" or {str(encoder.device)!r}, the device of the given '
                f"encoder, got {str(device)!r}."
            )
        return encoder
    if isinstance(encoder, Mapping):
        return SlotEncoder(**encoder)
    return SlotEncoder(encoder, device=device)
