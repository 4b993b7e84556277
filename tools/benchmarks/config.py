"""Configuration of benchmarks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from genesis_rl.models import GenesisConfig, GenesisSConfig
from genesis_rl.utils.checks import check_integers


@dataclass(frozen=True)
class BenchmarkConfig:
    """Model, measurements and repeats of a benchmark."""

    model: GenesisConfig | GenesisSConfig = field(default_factory=GenesisConfig)
    """model and its config"""
    batch_size: int = 32
    """images per update, per sample of the prior, and per encoding pass of the rate ``encode``"""
    encode_batches: tuple[int, ...] = (1, 8, 32, 256)
    """batch sizes of encoding, besides 1 and batch_size"""
    scaling: bool = False
    """also measure the cost against slots, image size and batch size, with fitted exponents"""
    parts: bool = False
    """also measure each part of the model alone: operations, time, memory, share of the peak"""
    repeats: int = 7
    """timed repeats of each measurement; the median is reported"""
    warmup: int = 2
    """untimed repeats first"""
    precision: Literal["bf16", "fp32"] = "bf16"
    """precision of training and encoding"""
    compile: bool = True
    """compile training and encoding with torch.compile; on a CPU this requires a C++ compiler"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""
    out: Path | None = None
    """JSON file to write the results to"""

    def __post_init__(self) -> None:
        """Check values."""
        check_integers(self, 1, "batch_size", "repeats")
        if not self.encode_batches or min(self.encode_batches) < 1:
            raise ValueError(f"encode_batches must be at least 1 each, got {self.encode_batches}.")
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {self.warmup}.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}.")

    @property
    def dtype(self) -> torch.dtype:
        """PyTorch's dtype of the precision."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32
