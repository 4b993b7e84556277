"""Comparison of an exported encoder with PyTorch: deviation and latency."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from genesis_rl.data.sprite_scenes import FreeScenes, render_scenes
from genesis_rl.perception.preprocessing import to_images
from genesis_rl.utils.timing import medians

#: Largest allowed `deviation` from PyTorch.
TOLERANCE = 1e-4
OUTPUTS = ("z_m", "z_c", "log_pi")
CHECKED_BATCHES = (1, 3, 16)
TIMED_BATCHES = (1, 32)

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Infer = Callable[[Floats], Sequence[Floats]]


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
        ParityError: if one is above `TOLERANCE` or not finite.
    """
    worst = dict.fromkeys(OUTPUTS, 0.0)
    for frames in batches:
        with torch.inference_mode():
            slots = model.infer(torch.from_numpy(frames))
        for name, got in zip(OUTPUTS, session(frames), strict=True):
            value = deviation(got, getattr(slots, name).numpy())
            if not value <= TOLERANCE:  # NaN too
                raise ParityError(
                    f"deviation of {name} from PyTorch must be at most {TOLERANCE:g}, got "
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
