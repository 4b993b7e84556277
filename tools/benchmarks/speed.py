"""Benchmark of training, encoding, sampling and loading, and of the machine's own speed.

To compare code across machines, each rate is also divided by the TFLOP/s of a float32 matrix
product in the same run, and given as a share of a convolution's speed.
"""

import platform
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import tasks
from benchmarks.config import BenchmarkConfig
from benchmarks.machine import convolution, matmul
from genesis_rl.checkpoints.loading import pick_device
from genesis_rl.models import build_model
from genesis_rl.utils.process import hardware, keep_freed_memory
from genesis_rl.utils.timing import Task, medians

_COUNTED = ("train", "encode")


def run(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure all rates in turns.

    Returns:
        ``matmul_tflops`` and ``conv_tflops`` of the machine; ``rates`` with train, encode and
        sample (images/s at the batch size) and encode_one (1 / latency of one frame, 1/s);
        ``per_tflops``, the rates divided by ``matmul_tflops``; ``operations`` per image, and
        ``share`` of the convolution's speed in training and encoding; ``encoding``, frames/s by
        batch size; ``memory``, bytes saved for the gradient per image and, on CUDA, the peak of an
        update; ``loading``, images/s of loading batches, absolute and relative to the training
        rate; ``machine``, ``config``, and ``tables`` for the results page.

    Raises:
        ValueError: if the device is unknown or not available.
    """
    device = pick_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    model = build_model(config.model).to(device).to(memory_format=torch.channels_last)
    operations = tasks.operations(model, device)
    x = tasks.images(config, device)
    saved_bytes = tasks.kept_bytes(model, (x,), config.dtype) / config.batch_size
    encode = tasks.encoding(config, model, device)
    by_batch = {f"encode {batch}": task for batch, task in encode.items()}
    product, product_operations = matmul(device)
    conv, conv_operations = convolution(device, config.dtype)
    timed = {
        "matmul": product,
        "conv": conv,
        "train": tasks.training(config, model, device),
        "sample": tasks.sampling(config, model, device),
        "load": tasks.loading(config, device),
        **by_batch,
    }
    peak = _peak(timed["train"], device)
    seconds = medians(timed, config.repeats, config.warmup, device)
    tflops = product_operations / seconds["matmul"] / 1e12
    conv_tflops = conv_operations / seconds["conv"] / 1e12
    frames = {batch: batch / seconds[f"encode {batch}"] for batch in encode}
    rates = {
        "train": config.batch_size / seconds["train"],
        "encode": frames[config.batch_size],
        "encode_one": frames[1],
        "sample": config.batch_size / seconds["sample"],
    }
    loaded = tasks.LOADED_BATCHES * config.batch_size / seconds["load"]
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
    return {"tables": page_tables(result), **result}


def _peak(update: Task, device: torch.device) -> int | None:
    """Return the peak of GPU memory that an update allocates, in bytes; None on a CPU."""
    if device.type != "cuda":
        return None
    update()  # compiles, and allocates the optimiser's state
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    update()
    return torch.cuda.max_memory_allocated(device) - before


def page_tables(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results as tables for the results page."""
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
