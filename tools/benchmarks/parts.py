"""Benchmark of each network of a model: operations, time and memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import tasks
from benchmarks.config import BenchmarkConfig
from benchmarks.machine import convolution
from genesis_rl.checkpoints.loading import pick_device
from genesis_rl.models import build_model
from genesis_rl.utils.timing import Task, medians

# Operations of forward and backward pass, relative to the forward pass.
_BOTH = 3


def measure_parts(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure the model's networks on their inputs in an update, without compilation.

    Returns:
        ``conv_tflops`` of the machine and ``parts``, a row for each network and for the whole
        model: ``calls`` per update, and, summed over the calls and per image, ``gflop`` of the
        forward pass, ``forward_ms``, ``both_ms`` (forward and backward), ``kept_mib`` (activations
        saved for the gradient), and ``forward_share`` and ``both_share`` of the reference
        convolution's speed, also for networks without convolutions.

    Raises:
        ValueError: if the device is unknown or not available.
    """
    device = pick_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    model = build_model(config.model).to(device).to(memory_format=torch.channels_last)
    x = tasks.images(config, device)
    calls = _inputs(model, x)
    conv, conv_operations = convolution(device, config.dtype)
    timed: dict[str, Task] = {"conv": conv}
    networks: dict[str, tuple[Any, tuple[Tensor, ...], int]] = {
        **{name: (getattr(model, name), inputs, count) for name, (inputs, count) in calls.items()},
        "whole model": (model, (x,), 1),
    }
    for name, (module, inputs, _) in networks.items():
        timed[f"{name} forward"] = _forward(module, inputs, config, device)
        timed[f"{name} both"] = _both(module, inputs, x, config, device)
    seconds = medians(timed, config.repeats, config.warmup, device)
    peak = conv_operations / seconds["conv"]
    rows = []
    for name, (module, inputs, count) in networks.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*inputs)
        flop = count * counter.get_total_flops()
        forward, both = (count * seconds[f"{name} {kind}"] for kind in ("forward", "both"))
        rows.append(
            {
                "part": name,
                "calls": count,
                "gflop": flop / len(x) / 1e9,
                "forward_ms": 1e3 * forward / len(x),
                "both_ms": 1e3 * both / len(x),
                "kept_mib": count * tasks.kept_bytes(module, inputs, config.dtype) / len(x) / 2**20,
                "forward_share": flop / forward / peak,
                "both_share": _BOTH * flop / both / peak,
            }
        )
    return {"conv_tflops": peak / 1e12, "parts": rows}


def _inputs(model: nn.Module, x: Tensor) -> dict[str, tuple[tuple[Tensor, ...], int]]:
    """Return the inputs of each network's first call and its number of calls."""
    calls: dict[str, tuple[tuple[Tensor, ...], int]] = {}

    def record(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            tensors = tuple(v.detach() for v in inputs if isinstance(v, Tensor))
            before = calls.get(name)
            calls[name] = (before[0], before[1] + 1) if before else (tensors, 1)

        return hook

    hooks = [m.register_forward_pre_hook(record(name)) for name, m in model.named_children()]
    with torch.no_grad():
        model(x)
    for handle in hooks:
        handle.remove()
    return calls


def _forward(
    module: nn.Module, inputs: tuple[Tensor, ...], config: BenchmarkConfig, device: torch.device
) -> Task:
    enabled = config.precision == "bf16"

    def task() -> None:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            module(*inputs)

    return task


def _both(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    x: Tensor,
    config: BenchmarkConfig,
    device: torch.device,
) -> Task:
    enabled = config.precision == "bf16"
    # Images need no gradient, outputs of other networks do.
    inputs = tuple(v.clone().requires_grad_(v.shape[1] != 3) for v in arguments)

    def task() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            out = module(*inputs)
        tasks.total(out).backward()
        module.zero_grad(set_to_none=True)
        for value in inputs:
            value.grad = None

    return task


def parts_tables(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results as a table for the results page."""
    return [
        {
            "caption": "Parts of an update, per image, each alone and not compiled; shares of the "
            f"convolution's {result['conv_tflops']:.3f} TFLOP/s.",
            "head": [
                "part",
                "GFLOP",
                "forward, ms",
                "forward and back, ms",
                "kept, MiB",
                "share forward",
                "share forward and back",
            ],
            "rows": [
                [
                    row["part"],
                    f"{row['gflop']:.3f}",
                    f"{row['forward_ms']:.2f}",
                    f"{row['both_ms']:.2f}",
                    f"{row['kept_mib']:.2f}",
                    f"{row['forward_share']:.0%}",
                    f"{row['both_share']:.0%}",
                ]
                for row in result["parts"]
            ],
        }
    ]
