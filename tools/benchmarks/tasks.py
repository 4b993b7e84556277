"""Timed tasks: an update, encoding, sampling from the prior, loading of batches."""

import itertools
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.config import BenchmarkConfig
from genesis_rl.data import Pack, PackWriter
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.models.geco import Geco, GecoConfig
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training import train_terms
from genesis_rl.utils.timing import Task, infer_operations

#: Batches per timed call of loading.
LOADED_BATCHES = 64
_LOADED_IMAGES = 4096  # size of the dataset


def images(config: BenchmarkConfig, device: torch.device) -> Tensor:
    """Return random images of the model's size, (B, 3, S, S) in [0, 1]."""
    size = config.model.image_size
    x = torch.rand(config.batch_size, 3, size, size, device=device)
    return x.contiguous(memory_format=torch.channels_last)


def training(config: BenchmarkConfig, model: nn.Module, device: torch.device) -> Task:
    """Return one update as in pretrain/train.py."""
    x = images(config, device)
    generator = torch.Generator(device).manual_seed(0)
    geco = Geco.from_config(GecoConfig(), config.model.image_size).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    forward = torch.compile(model) if config.compile else model

    def task() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            nll, kl_m, kl_c = train_terms(forward, x, generator)
        geco(nll, kl_m + kl_c).backward()
        optimiser.step()
        optimiser.zero_grad()
        geco.update(nll)

    return task


def encoding(config: BenchmarkConfig, model: Any, device: torch.device) -> dict[int, Task]:
    """Return encoding of uint8 frames to NumPy features, by batch size; includes 1 and the default.

    The default is ``config.batch_size``.
    """
    size = config.model.image_size
    dtype: Literal["bfloat16", "float32"] = "bfloat16" if config.precision == "bf16" else "float32"
    batches = sorted({1, config.batch_size, *config.encode_batches})
    encoder = SlotEncoder(
        model, device=device, dtype=dtype, compile=config.compile, batch_size=max(batches)
    )
    rng = np.random.default_rng(0)
    return {
        batch: partial(encoder.features, rng.integers(0, 256, (batch, size, size, 3), np.uint8))
        for batch in batches
    }


def sampling(config: BenchmarkConfig, model: Any, device: torch.device) -> Task:
    """Return sampling and decoding of scenes from the prior."""
    generator = torch.Generator(device).manual_seed(0)

    def task() -> None:
        model.eval()
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"),
        ):
            _ = model.decode(model.sample(config.batch_size, generator=generator)).image
        model.train()

    return task


def loading(config: BenchmarkConfig, device: torch.device) -> Task:
    """Return loading of shuffled training batches as floats on the device."""
    size = config.model.image_size
    count = max(_LOADED_IMAGES, config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack"
        with PackWriter(path, count, size, masks=False) as writer:
            rng = np.random.default_rng(0)
            writer.write(rng.integers(256, size=(count, size, size, 3), dtype=np.uint8))
        feed = ImageFeed(Pack.open(path), device)  # copies the images; the files can be deleted
    steps = itertools.count()

    def task() -> None:
        for step in itertools.islice(steps, LOADED_BATCHES):
            feed(batch_indices(step, config.batch_size, count, seed=0))

    return task


def operations(model: Any, device: torch.device) -> dict[str, float]:
    """Count floating-point operations per image, of convolutions and matrix products only.

    Returns:
        ``train``: forward and backward pass; ``encode``: inference of posterior means.
    """
    size = model.config.image_size
    x = torch.rand(2, 3, size, size, device=device)
    counted = {}
    with FlopCounterMode(display=False) as counter:
        terms = model.elbo(x)
        (terms.nll + terms.kl).mean().backward()
    counted["train"] = counter.get_total_flops() / len(x)
    model.zero_grad(set_to_none=True)
    model.eval()
    counted["encode"] = infer_operations(model)
    model.train()
    return counted


def kept_bytes(module: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> int:
    """Return the bytes of activations that a forward pass saves for the gradient."""
    # Autocast copies weights; the copies are recognised by their shapes.
    weights = {tuple(p.shape) for p in module.parameters()}
    storages: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if tuple(value.shape) not in weights:
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return value

    enabled = dtype != torch.float32
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        with torch.autocast(inputs[0].device.type, dtype, enabled=enabled):
            out = module(*inputs)
    total(out).backward()
    module.zero_grad(set_to_none=True)
    return sum(storages.values())


def total(out: Any) -> Tensor:
    """Return the sum of a tensor or of a tuple of tensors, as a scalar to differentiate."""
    terms = out if isinstance(out, tuple) else (out,)
    return torch.stack([term.float().sum() for term in terms]).sum()
