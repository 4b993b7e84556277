"""Speed of a model: rates, costs of its parts, and costs against slots and sizes.

To compare code across machines, each rate is also divided by the TFLOP/s of a float32 matrix
product in the same run, and given as a share of a convolution's speed.
"""

import platform
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import LOADED_BATCHES, Benchmark, BenchmarkConfig
from genesis_rl.utils.process import hardware
from genesis_rl.utils.timing import Task, medians

_COUNTED = ("train", "encode")
# Operations of forward and backward pass, relative to the forward pass.
_BOTH = 3
#: Varied settings and their values.
AXES: dict[str, tuple[int, ...]] = {
    "num_slots": (2, 4, 8, 16),
    "image_size": (32, 64, 128),
    "batch_size": (1, 4, 16, 64),
}
# Repeats for each value.
_REPEATS, _WARMUP = 3, 1
Table = dict[str, Any]


def measure_rates(config: BenchmarkConfig) -> tuple[dict[str, Any], list[Table]]:
    """Measure all rates in turns.

    Returns:
        ``matmul_tflops`` and ``conv_tflops`` of the machine; ``rates`` with train, encode and
        sample (images/s at the batch size) and encode_one (1 / latency of one frame, 1/s);
        ``per_tflops``, the rates divided by ``matmul_tflops``; ``operations`` per image, and
        ``share`` of the convolution's speed in training and encoding; ``encoding``, frames/s by
        batch size; ``memory``, bytes saved for the gradient per image and, on CUDA, the peak of an
        update; ``loading``, images/s of loading batches, absolute and relative to the training
        rate; ``machine`` and ``config``. And tables for the results page.

    Raises:
        ValueError: if the device is unknown or not available.
    """
    bench = Benchmark(config)
    device, operations = bench.device, bench.operations()
    saved_bytes = bench.kept_bytes(bench.model, (bench.images,)) / config.batch_size
    encode = bench.encoding()
    product, product_operations = bench.matmul()
    conv, conv_operations = bench.convolution()
    timed = {
        "matmul": product,
        "conv": conv,
        "train": bench.training(),
        "sample": bench.sampling(),
        "load": bench.loading(),
        **{f"encode {batch}": task for batch, task in encode.items()},
    }
    peak = _peak(timed["train"], device)
    seconds = bench.medians(timed)
    tflops = product_operations / seconds["matmul"] / 1e12
    conv_tflops = conv_operations / seconds["conv"] / 1e12
    frames = {batch: batch / seconds[f"encode {batch}"] for batch in encode}
    rates = {
        "train": config.batch_size / seconds["train"],
        "encode": frames[config.batch_size],
        "encode_one": frames[1],
        "sample": config.batch_size / seconds["sample"],
    }
    loaded = LOADED_BATCHES * config.batch_size / seconds["load"]
    result: dict[str, Any] = {
        "matmul_tflops": tflops,
        "conv_tflops": conv_tflops,
        "rates": rates,
        "per_tflops": {name: rate / tflops for name, rate in rates.items()},
        "operations": operations,
        "share": {name: rates[name] * operations[name] / conv_tflops / 1e12 for name in _COUNTED},
        "encoding": {str(batch): rate for batch, rate in frames.items()},
        "memory": {"kept_bytes": saved_bytes, "peak_bytes": peak},
        "loading": {"images": loaded, "per_training": loaded / rates["train"]},
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "cpu": platform.processor() or platform.machine(),
            "hardware": hardware(device),
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        },
        "config": {**asdict(config), "out": None},
    }
    return result, _rate_tables(result)


def _peak(update: Task, device: torch.device) -> int | None:
    """Return the peak of GPU memory that an update allocates, in bytes; None on a CPU."""
    if device.type != "cuda":
        return None
    update()  # compiles, and allocates the optimiser's state
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    update()
    return torch.cuda.max_memory_allocated(device) - before


def _rate_tables(result: dict[str, Any]) -> list[Table]:
    precision, tflops = result["config"]["precision"], result["matmul_tflops"]
    rows = []
    for name, rate in result["rates"].items():
        share = result["share"].get(name)
        scaled = result["per_tflops"][name]
        rows.append([name, f"{rate:.1f}", f"{scaled:.1f}", f"{share:.0%}" if share else ""])
    return [
        {
            "caption": f"Rates on {result['machine']['hardware']}, whose float32 matrix product "
            f"reaches {tflops:.3f} TFLOP/s and {precision} convolution "
            f"{result['conv_tflops']:.3f}.",
            "head": ["", "rate, 1/s", "per matmul TFLOP/s", "share of the convolution's speed"],
            "rows": rows,
        },
        {
            "caption": "Encoding by batch, frames/s.",
            "head": list(result["encoding"]),
            "rows": [[f"{rate:.1f}" for rate in result["encoding"].values()]],
        },
        {
            "caption": "Per image: operations of convolutions and matrix products, memory saved "
            "for the gradient, and rate of loading relative to training.",
            "head": ["training", "encoding", "memory", "loading"],
            "rows": [
                [
                    *(f"{result['operations'][name] / 1e9:.2f} GFLOP" for name in _COUNTED),
                    f"{result['memory']['kept_bytes'] / 2**20:.1f} MiB",
                    f"{result['loading']['per_training']:.0f} times",
                ]
            ],
        },
    ]


def measure_parts(config: BenchmarkConfig) -> tuple[dict[str, Any], list[Table]]:
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
    bench = Benchmark(config)
    model, x = bench.model, bench.images
    calls = _inputs(model, x)
    conv, conv_operations = bench.convolution()
    timed: dict[str, Task] = {"conv": conv}
    networks: dict[str, tuple[Any, tuple[Tensor, ...], int]] = {
        **{name: (getattr(model, name), inputs, count) for name, (inputs, count) in calls.items()},
        "whole model": (model, (x,), 1),
    }
    for name, (module, inputs, _) in networks.items():
        timed[f"{name} forward"] = bench.forward(module, inputs)
        timed[f"{name} both"] = bench.forward_and_back(module, inputs)
    seconds = bench.medians(timed)
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
                "kept_mib": count * bench.kept_bytes(module, inputs) / len(x) / 2**20,
                "forward_share": flop / forward / peak,
                "both_share": _BOTH * flop / both / peak,
            }
        )
    result = {"conv_tflops": peak / 1e12, "parts": rows}
    return result, [_parts_table(result)]


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


def _parts_table(result: dict[str, Any]) -> Table:
    return {
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


class Cost(NamedTuple):
    """Median seconds of an update and of encoding, and bytes saved for the gradient."""

    value: int
    train: float
    encode: float
    kept_bytes: float


def measure_scaling(config: BenchmarkConfig) -> tuple[dict[str, Any], list[Table]]:
    """Measure the cost along each of `AXES`, without compilation.

    Returns:
        By axis, ``costs`` (rows of `Cost`) and ``exponents``: slopes of log cost over log value, or
        over the log number of pixels for ``image_size``; 1 means a linear cost. And tables for the
        results page.

    Raises:
        ValueError: if the device is unknown or not available.
    """
    result = {}
    for axis, values in AXES.items():
        costs = list(_costs(config, axis, values))
        size = np.array(values, float) ** (2 if axis == "image_size" else 1)
        result[axis] = {
            "costs": [cost._asdict() for cost in costs],
            "exponents": {
                name: float(np.polyfit(np.log(size), np.log([c[i] for c in costs]), 1)[0])
                for i, name in enumerate(Cost._fields)
                if name != "value"
            },
        }
    return result, _scaling_tables(result)


def _costs(config: BenchmarkConfig, axis: str, values: tuple[int, ...]) -> Iterator[Cost]:
    """Measure all values in turns, so that slow periods of the machine affect all equally."""
    timed: dict[str, Task] = {}
    saved_bytes = []
    for value in values:
        variant = replace(config, compile=False)
        if axis == "batch_size":
            variant = replace(variant, batch_size=value)
        else:
            change: dict[str, Any] = {axis: value}
            variant = replace(variant, model=replace(variant.model, **change))
        variant = replace(variant, encode_batches=(variant.batch_size,))
        bench = Benchmark(variant)
        saved_bytes.append(float(bench.kept_bytes(bench.model, (bench.images,))))
        timed[f"train {value}"] = bench.training()
        timed[f"encode {value}"] = bench.encoding()[variant.batch_size]
    seconds = medians(timed, _REPEATS, _WARMUP, bench.device)
    for value, size in zip(values, saved_bytes, strict=True):
        yield Cost(value, seconds[f"train {value}"], seconds[f"encode {value}"], size)


def _scaling_tables(result: dict[str, Any]) -> list[Table]:
    return [
        {
            "caption": f"Cost against {axis}; the last row is the exponent"
            f"{', over the pixels' if axis == 'image_size' else ''}.",
            "head": [axis, "update, s", "encoding, s", "kept for the gradient, MiB"],
            "rows": [
                *(
                    [
                        str(cost["value"]),
                        f"{cost['train']:.3f}",
                        f"{cost['encode']:.4f}",
                        f"{cost['kept_bytes'] / 2**20:,.0f}",
                    ]
                    for cost in measured["costs"]
                ),
                ["*exponent*", *(f"*{value:.2f}*" for value in measured["exponents"].values())],
            ],
        }
        for axis, measured in result.items()
    ]
