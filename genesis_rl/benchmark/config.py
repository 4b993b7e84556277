"""Settings of a benchmark."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from genesis_rl.checks import check_integers
from genesis_rl.models import GenesisConfig, GenesisSConfig


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure, and how often."""

    model: GenesisConfig | GenesisSConfig = field(default_factory=GenesisConfig)
    """the model and its shape"""
    batch_size: int = 32
    """images per update, per drawing, and per encoding pass that stands beside the authors'"""
    encode_batches: tuple[int, ...] = (1, 8, 32, 256)
    """frames in a pass of the encoder, besides 1 and batch_size"""
    scaling: bool = False
    """also measure the cost against slots, image size and batch, with fitted exponents"""
    parts: bool = False
    """also measure every part of the model alone: operations, time, memory, share of the peak"""
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
        check_integers(self, 1, "batch_size", "repeats")
        if not self.encode_batches or min(self.encode_batches) < 1:
            raise ValueError(f"encode_batches is {self.encode_batches}; wanted batches of >= 1.")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}; wanted at least 0.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}; wanted at least 1.")

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic as PyTorch names it."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32
