"""A scene model's encoder to an ONNX file."""

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

from genesis_rl.blocks import fold_batch_norm
from genesis_rl.checkpoint import CLASSES, fingerprint, load_pretrained
from genesis_rl.data import DATASETS, open_dataset
from genesis_rl.export.parity import (
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
from genesis_rl.files import json_text, new_file
from genesis_rl.frames import Preprocessing
from genesis_rl.models.iodine import Iodine
from genesis_rl.slots import SceneModel
from genesis_rl.training.run import Run

# The oldest that PyTorch's exporter writes by itself: most runtimes read it.
_OPSET = 18
_ABOUT = """frames (B, 3, H, W), float32 in [0, 1], RGB, to the posterior's mean:
z_m (B, K, D_m), z_c (B, K, D_c) and log_pi (B, K, 1, H, W)"""


@dataclass(frozen=True)
class ExportConfig:
    """What to export, and where to."""

    run: str
    """a run, a folder of save_pretrained, or a hub id"""
    out: Path | None = None
    """the file; None: encoder.onnx in the run's folder, or here for a hub id"""
    repeats: int = 15
    """timed passes of each latency; 0: none"""

    def __post_init__(self) -> None:
        """Check values."""
        if self.repeats < 0:
            raise ValueError(f"repeats is {self.repeats}; wanted at least 0.")


@dataclass(frozen=True)
class Export:
    """A file that was written and checked.

    Attributes:
        path: the file.
        deviations: largest `deviation` of each output from PyTorch.
        latency: median milliseconds of a pass by runtime and batch size, one thread each; empty if
            not timed.
    """

    path: Path
    deviations: dict[str, float]
    latency: dict[str, dict[int, float]]

    def __str__(self) -> str:
        """The figures as text."""
        parts = ", ".join(f"{name} {value:.1e}" for name, value in self.deviations.items())
        lines = [
            f"{self.path}: opset {_OPSET}, {self.path.stat().st_size / 1e6:.1f} MB",
            f"largest deviation from PyTorch: {parts} (allowed {TOLERANCE:g})",
        ]
        if self.latency:
            batches = "".join(f"{f'batch {n}':>12}" for n in TIMED_BATCHES)
            lines.append(f"{'ms a pass, 1 thread':20}{batches}")
            for runtime, times in self.latency.items():
                lines.append(f"{runtime:20}" + "".join(f"{ms:12.2f}" for ms in times.values()))
        return "\n".join(lines)


def export(config: ExportConfig) -> Export:
    """Export a saved model's encoder; check it on images of its run where they can be had.

    Raises:
        ValueError, OSError, ParityError: as `export_encoder`; ValueError if there is no model.
    """
    pretrained = load_pretrained(config.run, device="cpu")
    out = config.out
    if out is None:
        folder = Path(config.run).expanduser()
        out = (folder if folder.is_dir() else Path()) / "encoder.onnx"
    return export_encoder(
        pretrained.model,
        out,
        preprocessing=pretrained.preprocessing,
        images=_own_images(config.run),
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
    """Write a model's encoder as one ONNX file, all of it and checked, or nothing.

    Args:
        model: one of the classes in `checkpoint.CLASSES` but IODINE; it stays as it is.
        path: the file; what lies there is replaced.
        preprocessing: how frames come to the model's size, for the metadata; None: as the model
            was loaded, and else stretched.
        images: frames, (N, H, W, 3) uint8 of the model's size, to check on besides noise; None
            renders some.
        repeats: timed passes for the latency; 0 times nothing.

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
        raise ValueError(f"out {path} is a folder; wanted the name of a file.")
    try:
        with new_file(path) as temporary:
            temporary.touch()  # fails now, not after the work
            own: Any = copy.deepcopy(model)
            reference = own.to("cpu", torch.float32).requires_grad_(False).eval()
            encoder = fold_batch_norm(copy.deepcopy(reference))
            proto = _to_onnx(encoder, model)
            onnx.helper.set_model_props(proto, _metadata(name, model, preprocessing))
            onnx.save_model(proto, temporary)
            session = open_session(onnxruntime, temporary)
            size = model.config.image_size
            deviations = compare(session, reference, check_batches(size, images))
            latency = measure_latency(session, encoder, size, repeats)
    except OSError as error:
        raise OSError(f"out {path} cannot be written: {error}") from error
    return Export(Path(path), deviations, latency)


def _own_images(run: str) -> Images | None:
    """Some of a run's held-out images; None where there is no run or its data are gone."""
    try:
        config = Run.open(run).config
        options = json.loads(config.data_options)
        if config.data in DATASETS:  # no more than that is made if they have to be made
            options["num_images"] = max(CHECKED_BATCHES)
        pack = open_dataset(config.data, "validation", **options)
    except (ValueError, TypeError, OSError):
        return None
    return pack.images[: max(CHECKED_BATCHES)]


# ---- writing -------------------------------------------------------------------------------------


class _Encoder(nn.Module):
    """The pass that is exported: frames to a plain tuple."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slots = self.model.infer(frames)
        return slots.z_m, slots.z_c, slots.log_pi


def _model_name(model: SceneModel) -> str:
    """The model's name in CLASSES, if it can be exported."""
    if isinstance(model, Iodine):
        raise ValueError(
            "model is IODINE, which differentiates its bound at every step of the inference; ONNX "
            f"has no gradients. Wanted one of {', '.join(m for m in CLASSES if m != 'iodine')}."
        )
    for name, (_, model_class) in CLASSES.items():
        if type(model) is model_class:
            return name
    raise ValueError(f"model is a {type(model).__name__}; wanted one of {', '.join(CLASSES)}.")


def _extra(name: str) -> Any:
    """Import a package of the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f'the export needs {name}, which is not installed: pip install "genesis_rl[onnx]"'
        ) from error


def _to_onnx(encoder: nn.Module, model: SceneModel) -> Any:
    """Trace the encoder for any batch size; an onnx.ModelProto."""
    size = model.config.image_size
    with _quiet(), torch.no_grad():
        # strict: the other tracer runs the Python code, where len(z) fixes the batch size, and the
        # exporter then writes a file for that batch size without a word.
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
    """-softplus(-x): the exporter's own translation, log(sigmoid(x)), underflows for x << 0."""
    op = importlib.import_module("onnxscript").opset18
    return op.Neg(op.Softplus(op.Neg(x)))


def _metadata(name: str, model: SceneModel, preprocessing: Preprocessing | None) -> dict[str, str]:
    from genesis_rl import __version__

    form = {"layout": "BCHW", "colours": "RGB", "range": [0, 1]}
    how = preprocessing or getattr(model, "preprocessing", None) or Preprocessing()
    return {
        "model": name,
        "config": json_text(asdict(model.config)),
        "latent_sizes": json_text(model.latent_sizes),
        "preprocessing": json_text({**asdict(how), **form}),
        "fingerprint": fingerprint(model),
        "opset": str(_OPSET),
        "genesis_rl": __version__,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on packages that are not needed here to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
