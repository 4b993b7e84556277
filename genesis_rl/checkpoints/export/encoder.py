"""Export of a scene model's encoder to an ONNX file."""

import copy
import importlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genesis_rl.checkpoints.export.parity import (
    CHECKED_BATCHES,
    OUTPUTS,
    TIMED_BATCHES,
    TOLERANCE,
    Images,
    check_batches,
    compare,
    measure_latency,
    open_session,
)
from genesis_rl.checkpoints.loading import CLASSES, fingerprint, load_pretrained
from genesis_rl.data import DATASETS, open_dataset
from genesis_rl.models.blocks import fold_batch_norm
from genesis_rl.models.iodine import Iodine
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.slots import SceneModel
from genesis_rl.training.run import Run
from genesis_rl.utils.files import json_text, new_file

# The oldest version that PyTorch's exporter writes without conversion; most runtimes read it.
_OPSET = 18
_ABOUT = """frames (B, 3, H, W), float32 in [0, 1], RGB, to the posterior's mean:
z_m (B, K, D_m), z_c (B, K, D_c) and log_pi (B, K, 1, H, W)"""


@dataclass(frozen=True)
class ExportConfig:
    """Settings of an export."""

    encoder: str
    """run directory, folder of a pretrained model, or Hub id"""
    out: Path | None = None
    """output file; None: encoder.onnx in the encoder's folder, or in the working directory for a
    Hub id"""
    repeats: int = 15
    """timed passes per latency; 0: no timing"""

    def __post_init__(self) -> None:
        """Validate values."""
        if self.repeats < 0:
            raise ValueError(f"repeats must be at least 0, got {self.repeats}.")


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
        parts = ", ".join(f"{name} {value:.1e}" for name, value in self.deviations.items())
        lines = [
            f"{self.path}: opset {_OPSET}, {self.path.stat().st_size / 1e6:.1f} MB",
            f"largest deviation from PyTorch: {parts} (allowed {TOLERANCE:g})",
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
    onnx, onnxruntime = _extra("onnx"), _extra("onnxruntime")
    _extra("onnxscript")
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


def _extra(name: str) -> Any:
    """Import a package of the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f'the export requires {name}, which is not installed: pip install "genesis_rl[onnx]"'
        ) from error


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
    from genesis_rl import __version__

    form = {"layout": "BCHW", "colours": "RGB", "range": [0, 1]}
    applied = preprocessing or getattr(model, "preprocessing", None) or Preprocessing()
    return {
        "model": name,
        "config": json_text(asdict(model.config)),
        "latent_sizes": json_text(model.latent_sizes),
        "preprocessing": json_text({**applied.to_json(), **form}),
        "fingerprint": fingerprint(model),
        "opset": str(_OPSET),
        "genesis_rl": __version__,
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
