"""Configuration of benchmarks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from genesis_rl.models import GenesisConfig, GenesisSConfig
from genesis_rl.utils.checks import Checked, Count, Counts, Natural


@dataclass(frozen=True)
class BenchmarkConfig(Checked):
    """Model, measurements and repeats of a benchmark."""

    model: GenesisConfig | GenesisSConfig = field(default_factory=GenesisConfig)
    """model and its config"""
    batch_size: Count = 32
    """images per update, per sample of the prior, and per encoding pass of the rate ``encode``"""
    encode_batches: Counts = (1, 8, 32, 256)
    """batch sizes of encoding, besides 1 and batch_size"""
    scaling: bool = False
    """also measure the cost against slots, image size and batch size, with fitted exponents"""
    parts: bool = False
    """also measure each part of the model alone: operations, time, memory, share of the peak"""
    repeats: Count = 7
    """timed repeats of each measurement; the median is reported"""
    warmup: Natural = 2
    """untimed repeats first"""
    precision: Literal["bf16", "fp32"] = "bf16"
    """precision of training and encoding"""
    compile: bool = True
    """compile training and encoding with torch.compile; on a CPU this requires a C++ compiler"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice"""
    out: Path | None = None
    """JSON file to write the results to"""

    @property
    def dtype(self) -> torch.dtype:
        """PyTorch's dtype of the precision."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32
