"""Export of the encoder to ONNX, verified against PyTorch.

The ONNX model maps ``frames`` (B, 3, H, W), float32 in [0, 1], RGB, H = W = the model's image size,
for any B >= 1, to the posterior means ``z_m`` (B, K, D_m), ``z_c`` (B, K, D_c) and ``log_pi``
(B, K, 1, H, W), as `SlotEncoder`. Latents that the model lacks have width 0. Usage with onnxruntime
and NumPy only:

    import json
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession("encoder.onnx")
    metadata = session.get_modelmeta().custom_metadata_map  # model, config, preprocessing, ...
    size = json.loads(metadata["config"])["image_size"]
    frames = np.zeros((1, size, size, 3), np.uint8)  # from a camera
    x = np.float32(frames.transpose(0, 3, 1, 2)) / np.float32(255)
    z_m, z_c, log_pi = session.run(None, {"frames": x})
    features = np.concatenate([z_m, z_c], axis=-1)  # (B, K, D_m + D_c)

The caller resizes frames as given by ``preprocessing`` in the metadata.
"""

import copy
import importlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl.checkpoints.loading import CLASSES, fingerprint, load_pretrained
from genesis_rl.data import DATASETS, open_dataset
from genesis_rl.data.sprite_scenes import FreeScenes, render_scenes
from genesis_rl.models.blocks import fold_batch_norm
from genesis_rl.models.iodine import Iodine
from genesis_rl.perception.preprocessing import Preprocessing, to_images
from genesis_rl.slots import SceneModel
from genesis_rl.training.folder import Run
from genesis_rl.utils.checks import Checked, Natural
from genesis_rl.utils.extras import require
from genesis_rl.utils.files import json_text, new_file
from genesis_rl.utils.process import versions
from genesis_rl.utils.timing import medians

#: Largest allowed `deviation` from PyTorch by output. Local masks amplify rounding: up to 6e-4.
TOLERANCES = {"z_m": 1e-4, "z_c": 1e-4, "log_pi": 1e-3}
OUTPUTS = tuple(TOLERANCES)
CHECKED_BATCHES = (1, 3, 16)
TIMED_BATCHES = (1, 32)

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Infer = Callable[[Floats], Sequence[Floats]]
# The oldest version that PyTorch's exporter writes without conversion; most runtimes read it.
_OPSET = 18
_ABOUT = """frames (B, 3, H, W), float32 in [0, 1], RGB, to the posterior's mean:
z_m (B, K, D_m), z_c (B, K, D_c) and log_pi (B, K, 1, H, W)"""


class ParityError(RuntimeError):
    """Raised if the exported encoder's outputs differ from PyTorch's; no file was written."""


def deviation(got: Floats, expected: Floats) -> float:
    """Return the largest difference, relative to |expected| where that is above 1.

    The log of a mask near 0 may be -100, where the resolution of float32 is about 1e-5.
    """
    return float(np.max(np.abs(got - expected) / np.maximum(1, np.abs(expected)), initial=0))


def open_session(onnxruntime: Any, path: Path) -> Infer:
    """Load a file in onnxruntime, on the CPU with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def infer(frames: Floats) -> Sequence[Floats]:
        outputs: Sequence[Floats] = session.run(list(OUTPUTS), {"frames": frames})
        return outputs

    return infer


def check_batches(image_size: int, images: Images | None) -> Iterator[Floats]:
    """Yield noise and frames in batches of several sizes."""
    if images is None:
        world = FreeScenes(image_size=image_size)
        images = render_scenes(world, max(CHECKED_BATCHES), split="validation").images
    shape = (max(CHECKED_BATCHES), 3, image_size, image_size)
    noise = np.random.default_rng(0).random(shape, np.float32)
    frames = to_images(np.asarray(images), image_size=image_size, layout="HWC")
    for source in (noise, np.ascontiguousarray(frames.numpy())):
        yield from (source[:n] for n in CHECKED_BATCHES)


def compare(session: Infer, model: Any, batches: Iterator[Floats]) -> dict[str, float]:
    """Return the largest `deviation` of each output from a model's, over batches of frames.

    Raises:
        ParityError: if one is above its tolerance or not finite.
    """
    worst = dict.fromkeys(OUTPUTS, 0.0)
    for frames in batches:
        with torch.inference_mode():
            slots = model.infer(torch.from_numpy(frames))
        for name, got in zip(OUTPUTS, session(frames), strict=True):
            value = deviation(got, getattr(slots, name).numpy())
            if not value <= TOLERANCES[name]:  # NaN too
                raise ParityError(
                    f"deviation of {name} from PyTorch must be at most {TOLERANCES[name]:g}, got "
                    f"{value:.2g} in a batch of {len(frames)}. No file was written."
                )
            worst[name] = max(worst[name], value)
    return worst


def measure_latency(
    session: Infer, encoder: Any, image_size: int, repeats: int
) -> dict[str, dict[int, float]]:
    """Measure median milliseconds per pass of PyTorch and onnxruntime, alternating, one thread."""
    if not repeats:
        return {}
    encoder.to(memory_format=torch.channels_last)  # as in SlotEncoder
    result: dict[str, dict[int, float]] = {"PyTorch": {}, "onnxruntime": {}}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for n in TIMED_BATCHES:
            x = torch.rand(n, 3, image_size, image_size)
            frames, x = x.numpy(), x.contiguous(memory_format=torch.channels_last)
            tasks = {"PyTorch": partial(encoder.infer, x), "onnxruntime": partial(session, frames)}
            with torch.inference_mode():
                seconds = medians(tasks, repeats, 1, torch.device("cpu"))
            for name, value in seconds.items():
                result[name][n] = 1e3 * value
    finally:
        torch.set_num_threads(threads)
    return result


@dataclass(frozen=True)
class ExportConfig(Checked):
    """Settings of an export."""

    encoder: str
    """run directory, folder of a pretrained model, or Hub id"""
    out: Path | None = None
    """output file; None: encoder.onnx in the encoder's folder, or in the working directory for a
    Hub id"""
    repeats: Natural = 15
    """timed passes per latency; 0: no timing"""


@dataclass(frozen=True)
class Export:
    """A written and verified ONNX file.

    Attributes:
        path: path of the file.
        deviations: largest `deviation` of each output from PyTorch.
        latency: median milliseconds per pass by runtime and batch size, with one thread; empty
            without timing.
    """

    path: Path
    deviations: dict[str, float]
    latency: dict[str, dict[int, float]]

    def __str__(self) -> str:
        """Return a summary."""
        parts = ", ".join(
            f"{name} {value:.1e} (allowed {TOLERANCES[name]:g})"
            for name, value in self.deviations.items()
        )
        lines = [
            f"{self.path}: opset {_OPSET}, {self.path.stat().st_size / 1e6:.1f} MB",
            f"largest deviation from PyTorch: {parts}",
        ]
        if self.latency:
            batches = "".join(f"{f'batch {n}':>12}" for n in TIMED_BATCHES)
            lines.append(f"{'ms/pass, 1 thread':20}{batches}")
            for runtime, times in self.latency.items():
                lines.append(f"{runtime:20}" + "".join(f"{ms:12.2f}" for ms in times.values()))
        return "\n".join(lines)


def export(config: ExportConfig) -> Export:
    """Export a pretrained encoder and verify it, on images of its run if they are available.

    Raises:
        ValueError, OSError, ParityError: as `export_encoder`; ValueError if there is no model.
    """
    pretrained = load_pretrained(config.encoder, device="cpu")
    out = config.out
    if out is None:
        folder = Path(config.encoder).expanduser()
        out = (folder if folder.is_dir() else Path()) / "encoder.onnx"
    return export_encoder(
        pretrained.model,
        out,
        preprocessing=pretrained.preprocessing,
        images=_run_images(config.encoder),
        repeats=config.repeats,
    )


def export_encoder(
    model: SceneModel,
    path: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    images: Images | None = None,
    repeats: int = 0,
) -> Export:
    """Export a model's encoder as an ONNX file, written only if it passes verification.

    Args:
        model: one of the classes in `checkpoint.CLASSES` except IODINE; not modified.
        path: output file; an existing one is replaced.
        preprocessing: preprocessing of frames, for the metadata; None: the model's, or stretch.
        images: frames, (N, H, W, 3) uint8 of the model's size, for verification in addition to
            noise; None: rendered images.
        repeats: timed passes for the latency; 0: no timing.

    Raises:
        ValueError: if the model cannot be exported, ``genesis_rl[onnx]`` is not installed or
            ``path`` is a folder.
        OSError: if the file cannot be written.
        ParityError: if onnxruntime's results differ from PyTorch's by more than `TOLERANCE`.
    """
    name = _model_name(model)
    onnx, onnxruntime = require("onnx"), require("onnxruntime")
    require("onnxscript")
    if Path(path).is_dir():
        raise ValueError(f"out must be the path of a file, got the folder {path}.")
    try:
        with new_file(path) as temporary:
            temporary.touch()  # fails before the export if the file cannot be written
            copied: Any = copy.deepcopy(model)
            reference = copied.to("cpu", torch.float32).requires_grad_(False).eval()
            encoder = fold_batch_norm(copy.deepcopy(reference))
            proto = _to_onnx(encoder, model)
            onnx.helper.set_model_props(proto, _metadata(name, model, preprocessing))
            onnx.save_model(proto, temporary)
            session = open_session(onnxruntime, temporary)
            size = model.config.image_size
            deviations = compare(session, reference, check_batches(size, images))
            latency = measure_latency(session, encoder, size, repeats)
    except OSError as error:
        raise OSError(f"out must be writable, got {path}: {error}") from error
    return Export(Path(path), deviations, latency)


def _run_images(run: str) -> Images | None:
    """Return held-out images of a run; None without a run or its data."""
    try:
        config = Run.open(run).config
        options = json.loads(config.data_options)
        if config.data in DATASETS:  # generate no more than needed
            options["num_images"] = max(CHECKED_BATCHES)
        pack = open_dataset(config.data, "validation", **options)
    except (ValueError, TypeError, OSError):
        return None
    return pack.images[: max(CHECKED_BATCHES)]


# ---- conversion ----------------------------------------------------------------------------------


class _Encoder(nn.Module):
    """The exported module, with a plain tuple as output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slots = self.model.infer(frames)
        return slots.z_m, slots.z_c, slots.log_pi


def _model_name(model: SceneModel) -> str:
    """Return the model's name in CLASSES; raise if it cannot be exported."""
    if isinstance(model, Iodine):
        raise ValueError(
            f"model must be one of {', '.join(m for m in CLASSES if m != 'iodine')}, got IODINE: "
            "its inference requires gradients, which ONNX lacks."
        )
    for name, (_, model_class) in CLASSES.items():
        if type(model) is model_class:
            return name
    raise ValueError(f"model must be one of {', '.join(CLASSES)}, got {type(model).__name__}.")


def _to_onnx(encoder: nn.Module, model: SceneModel) -> Any:
    """Trace the encoder for any batch size and return an onnx.ModelProto."""
    size = model.config.image_size
    with _quiet(), torch.no_grad():
        # strict=False would run the Python code, where len(z) fixes the batch size, and export a
        # model for that batch size without a warning.
        program = torch.export.export(
            _Encoder(encoder).eval(),
            (torch.zeros(2, 3, size, size),),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            strict=True,
        )
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=_OPSET,
            input_names=["frames"],
            output_names=list(OUTPUTS),
            custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
            verbose=False,
        )
    proto = exported.model_proto
    del proto.graph.value_info[:]  # hints on inner shapes, in terms of the name replaced below
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.doc_string = _ABOUT
    return proto


def _log_sigmoid(x: Any) -> Any:
    """Translate to -softplus(-x): the exporter's log(sigmoid(x)) underflows for x << 0."""
    op = importlib.import_module("onnxscript").opset18
    return op.Neg(op.Softplus(op.Neg(x)))


def _metadata(name: str, model: SceneModel, preprocessing: Preprocessing | None) -> dict[str, str]:
    form = {"layout": "BCHW", "colours": "RGB", "range": [0, 1]}
    applied = preprocessing or getattr(model, "preprocessing", None) or Preprocessing()
    return {
        "model": name,
        "config": json_text(asdict(model.config)),
        "latent_sizes": json_text(model.latent_sizes),
        "preprocessing": json_text({**applied.to_json(), **form}),
        "fingerprint": fingerprint(model),
        "opset": str(_OPSET),
        "genesis_rl": versions()["genesis_rl"],
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings on optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
