"""The benchmarked model and the machine: timed tasks, counts of operations and memory."""

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from genesis_rl.data import Pack, PackWriter
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.models import GenesisConfig, GenesisSConfig, build_model
from genesis_rl.models.geco import Geco, GecoConfig
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training import train_terms
from genesis_rl.utils.checks import Checked, Count, Counts, Natural
from genesis_rl.utils.process import configure_cpu, pick_device
from genesis_rl.utils.timing import Task, infer_operations, medians

#: Batches per timed call of loading.
LOADED_BATCHES = 64
_LOADED_IMAGES = 4096  # size of the dataset
#: Side of the square matrices of the reference float32 product.
MATMUL_SIDE = 4096
# The reference convolution: of the size of the model's, and large enough to reach the peak.
_CONV_BATCH, _CONV_CHANNELS, _CONV_SIDE, _CONV_KERNEL = 32, 64, 64, 5


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


class Benchmark:
    """A model with initial weights on its device, and its timed tasks on random images.

    Attributes:
        config: the settings.
        device: device of the model.
        model: the model.
        images: (B, 3, S, S) in [0, 1].
    """

    def __init__(self, config: BenchmarkConfig) -> None:
        """Build the model.

        Raises:
            ValueError: if the device is unknown or not available.
        """
        self.config, self.device = config, pick_device(config.device)
        configure_cpu(config.threads)
        torch.manual_seed(0)
        model = build_model(config.model).to(self.device)
        self.model: Any = model.to(memory_format=torch.channels_last)
        size = config.model.image_size
        images = torch.rand(config.batch_size, 3, size, size, device=self.device)
        self.images = images.contiguous(memory_format=torch.channels_last)

    def medians(self, tasks: Mapping[str, Task]) -> dict[str, float]:
        """Return the median seconds of each task, measured in turns."""
        return medians(tasks, self.config.repeats, self.config.warmup, self.device)

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    # ---- tasks -----------------------------------------------------------------------------------

    def training(self) -> Task:
        """Return one update as in pretrain/train.py."""
        generator = torch.Generator(self.device).manual_seed(0)
        geco = Geco.from_config(GecoConfig(), self.config.model.image_size).to(self.device)
        optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=True)
        forward: Any = torch.compile(self.model) if self.config.compile else self.model

        def task() -> None:
            with self._autocast():
                nll, kl_m, kl_c = train_terms(forward, self.images, generator)
            geco(nll, kl_m + kl_c).backward()
            optimiser.step()
            optimiser.zero_grad()
            geco.update(nll)

        return task

    def encoding(self) -> dict[int, Task]:
        """Return encoding of uint8 frames to NumPy features, by batch size; includes 1.

        Also includes ``config.batch_size``.
        """
        config, size = self.config, self.config.model.image_size
        batches = sorted({1, config.batch_size, *config.encode_batches})
        encoder = SlotEncoder(
            self.model,
            device=self.device,
            dtype="bfloat16" if config.precision == "bf16" else "float32",
            compile=config.compile,
            batch_size=max(batches),
        )
        rng = np.random.default_rng(0)
        return {
            batch: partial(encoder.features, rng.integers(0, 256, (batch, size, size, 3), np.uint8))
            for batch in batches
        }

    def sampling(self) -> Task:
        """Return sampling and decoding of scenes from the prior."""
        generator = torch.Generator(self.device).manual_seed(0)

        def task() -> None:
            self.model.eval()
            with torch.inference_mode(), self._autocast():
                slots = self.model.sample(self.config.batch_size, generator=generator)
                _ = self.model.decode(slots).image
            self.model.train()

        return task

    def loading(self) -> Task:
        """Return loading of shuffled training batches as floats on the device."""
        size, batch_size = self.config.model.image_size, self.config.batch_size
        count = max(_LOADED_IMAGES, batch_size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pack"
            with PackWriter(path, count, size, masks=False) as writer:
                rng = np.random.default_rng(0)
                writer.write(rng.integers(256, size=(count, size, size, 3), dtype=np.uint8))
            feed = ImageFeed(Pack.open(path), self.device)  # a copy; the files can be deleted
        steps = itertools.count()

        def task() -> None:
            for step in itertools.islice(steps, LOADED_BATCHES):
                feed(batch_indices(step, batch_size, count, seed=0))

        return task

    def forward(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Task:
        """Return the forward pass of the model or one of its networks."""

        def task() -> None:
            with torch.no_grad(), self._autocast():
                module(*inputs)

        return task

    def forward_and_back(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> Task:
        """Return the forward and backward pass of the model or one of its networks."""
        # Images need no gradient, outputs of other networks do.
        inputs = tuple(v.clone().requires_grad_(v.shape[1] != 3) for v in arguments)

        def task() -> None:
            with self._autocast():
                out = module(*inputs)
            _total(out).backward()
            module.zero_grad(set_to_none=True)
            for value in inputs:
                value.grad = None

        return task

    # ---- counts ----------------------------------------------------------------------------------

    def operations(self) -> dict[str, float]:
        """Count floating-point operations per image, of convolutions and matrix products only.

        Returns:
            ``train``: forward and backward pass; ``encode``: inference of posterior means.
        """
        counted = {}
        with FlopCounterMode(display=False) as counter:
            terms = self.model.elbo(self.images[:2])
            (terms.nll + terms.kl).mean().backward()
        counted["train"] = counter.get_total_flops() / len(self.images[:2])
        self.model.zero_grad(set_to_none=True)
        self.model.eval()
        counted["encode"] = infer_operations(self.model)
        self.model.train()
        return counted

    def kept_bytes(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
        """Return the bytes of activations that a forward pass saves for the gradient."""
        # Autocast copies weights; the copies are recognised by their shapes.
        weights = {tuple(p.shape) for p in module.parameters()}
        storages: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            if tuple(value.shape) not in weights:
                storage = value.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            return value

        saved = torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value)
        with saved, self._autocast():
            out = module(*inputs)
        _total(out).backward()
        module.zero_grad(set_to_none=True)
        return sum(storages.values())

    # ---- the machine -----------------------------------------------------------------------------

    def matmul(self) -> tuple[Task, float]:
        """Return a float32 matrix product and its number of operations."""
        a, b = torch.randn(2, MATMUL_SIDE, MATMUL_SIDE, device=self.device)

        def task() -> None:
            torch.mm(a, b)

        return task, 2 * MATMUL_SIDE**3

    def convolution(self) -> tuple[Task, float]:
        """Return a wide channels-last convolution in the precision, and its operations."""
        channels, side, kernel = _CONV_CHANNELS, _CONV_SIDE, _CONV_KERNEL
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        x, weight = (
            torch.randn(shape, device=self.device, dtype=dtype).contiguous(
                memory_format=torch.channels_last
            )
            for shape in (
                (_CONV_BATCH, channels, side, side),
                (channels, channels, kernel, kernel),
            )
        )

        def task() -> None:
            with torch.no_grad():
                F.conv2d(x, weight, padding=kernel // 2)

        return task, 2 * _CONV_BATCH * (channels * side * kernel) ** 2


def _total(out: Any) -> Tensor:
    """Return the sum of a tensor or of a tuple of tensors, as a scalar to differentiate."""
    terms = out if isinstance(out, tuple) else (out,)
    return torch.stack([term.float().sum() for term in terms]).sum()
