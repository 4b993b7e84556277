"""How fast a model trains, encodes and gets images, beside the machine's own matrix product.

Absolute times say little about code when machines differ, so every rate is also divided by the
float32 matrix product's TFLOP/s of the same run.
"""

import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from genesis_rl.checkpoint import pick_device
from genesis_rl.data import Pack, PackWriter
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.geco import Geco, GecoConfig
from genesis_rl.models import GenesisConfig, GenesisSConfig, build_model
from genesis_rl.perception import SlotEncoder
from genesis_rl.process import keep_freed_memory
from genesis_rl.training import train_terms

#: Rates of the authors' PyTorch code (float32, as released) per TFLOP/s of the float32 matrix
#: product, measured once on a 2-core CPU at K = 5, 64 px: training and encoding at batch 32 in
#: images per second, and one image's encoding as 1 / latency in 1 / s.
AUTHORS = {"train": 12.4, "encode": 60.0, "encode_one": 57.0}
_MATMUL_SIDE = 4096
_LOADED_IMAGES, _LOADED_BATCHES = 4096, 64  # images to draw from, batches per timed loading


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure, and how often."""

    model: GenesisConfig | GenesisSConfig = field(default_factory=GenesisConfig)
    """the model and its shape"""
    batch_size: int = 32
    """images per update and per encoding pass"""
    repeats: int = 7
    """timed repeats of each measurement; the median counts"""
    warmup: int = 2
    """untimed repeats before"""
    precision: Literal["bf16", "fp32"] = "bf16"
    """arithmetic of training and encoding"""
    compile: bool = True
    """compile the training pass and the encoder with torch.compile; on a CPU this needs a C++
    compiler"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""
    out: Path | None = None
    """write the figures to this file as JSON"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 1.")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}; wanted at least 0.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}; wanted at least 1.")


def run(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure training, encoding, loading and the matrix product in turns.

    Returns:
        ``matmul_tflops``; ``rates`` with train and encode (images/s at the batch size) and
        encode_one (1 / latency of one frame, 1/s); ``per_tflops``, the same divided by
        ``matmul_tflops``; ``authors``, theirs on that scale; ``loading`` with the images/s that
        the data set's batches come at, and how many times the training rate that is; ``machine``
        and ``config``.

    Raises:
        ValueError: if the device is unknown or absent.
    """
    device = pick_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    model = build_model(config.model).to(device).to(memory_format=torch.channels_last)
    encode, encode_one = _encoding(config, model, device)
    tasks = {
        "matmul": _matmul(device),
        "train": _training(config, model, device),
        "encode": encode,
        "encode_one": encode_one,
        "load": _loading(config, device),
    }
    seconds = medians(tasks, config.repeats, config.warmup, device)
    tflops = 2 * _MATMUL_SIDE**3 / seconds["matmul"] / 1e12
    rates = {
        "train": config.batch_size / seconds["train"],
        "encode": config.batch_size / seconds["encode"],
        "encode_one": 1 / seconds["encode_one"],
    }
    loaded = _LOADED_BATCHES * config.batch_size / seconds["load"]
    return {
        "matmul_tflops": tflops,
        "rates": rates,
        "per_tflops": {name: rate / tflops for name, rate in rates.items()},
        "authors": AUTHORS,
        "loading": {"images": loaded, "per_training": loaded / rates["train"]},
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        },
        "config": {**asdict(config), "out": None},
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a text table."""
    lines = [
        f"float32 {_MATMUL_SIDE} x {_MATMUL_SIDE} matrix product: "
        f"{result['matmul_tflops']:.3f} TFLOP/s",
        f"{'':12}{'rate, 1/s':>12}{'per TFLOP/s':>14}{'authors':>10}{'ratio':>8}",
    ]
    for name, rate in result["rates"].items():
        scaled, theirs = result["per_tflops"][name], result["authors"][name]
        lines.append(f"{name:12}{rate:12.1f}{scaled:14.1f}{theirs:10.1f}{scaled / theirs:8.1f}")
    loading = result["loading"]
    lines.append(
        f"loading, images: {loading['images']:.1f} per s, {loading['per_training']:.0f} times the"
        " training rate"
    )
    return "\n".join(lines)


def medians(
    tasks: Mapping[str, Callable[[], object]], repeats: int, warmup: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each task, taken in turns so that a slow spell hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(warmup + repeats):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= warmup:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def _matmul(device: torch.device) -> Callable[[], None]:
    a, b = torch.randn(2, _MATMUL_SIDE, _MATMUL_SIDE, device=device)

    def task() -> None:
        torch.mm(a, b)

    return task


def _training(
    config: BenchmarkConfig, model: nn.Module, device: torch.device
) -> Callable[[], None]:
    """One update as pretrain/train.py makes it, on random images."""
    size = config.model.image_size
    images = torch.rand(config.batch_size, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    generator = torch.Generator(device).manual_seed(0)
    geco = Geco.from_config(GecoConfig(), size).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    forward = torch.compile(model) if config.compile else model

    def task() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            nll, kl_m, kl_c = train_terms(forward, images, generator)
        geco(nll, kl_m + kl_c).backward()
        optimiser.step()
        optimiser.zero_grad()
        geco.update(nll)

    return task


def _loading(config: BenchmarkConfig, device: torch.device) -> Callable[[], None]:
    """Batches of a data set as training takes them: in a drawn order, as floats on the device."""
    size = config.model.image_size
    count = max(_LOADED_IMAGES, config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack"
        with PackWriter(path, count, size, masks=False) as writer:
            rng = np.random.default_rng(0)
            writer.write(rng.integers(256, size=(count, size, size, 3), dtype=np.uint8))
        feed = ImageFeed(Pack.open(path), device)  # copies them: the files may go
    steps = itertools.count()

    def task() -> None:
        for step in itertools.islice(steps, _LOADED_BATCHES):
            feed(batch_indices(step, config.batch_size, count, seed=0))

    return task


def _encoding(
    config: BenchmarkConfig, model: Any, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A batch and a single frame through SlotEncoder, uint8 frames in, numpy features out."""
    size = config.model.image_size
    dtype: Literal["bfloat16", "float32"] = "bfloat16" if config.precision == "bf16" else "float32"
    encoder = SlotEncoder(model, device=device, dtype=dtype, compile=config.compile)
    frames = np.random.default_rng(0).integers(
        0, 256, (config.batch_size, size, size, 3), dtype=np.uint8
    )

    def batch() -> None:
        encoder.features(frames)

    def one() -> None:
        encoder.features(frames[:1])

    return batch, one
