"""Measurement of run times and operation counts."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Task = Callable[[], object]


def medians(
    tasks: Mapping[str, Task], repeats: int, warmup: int, device: torch.device
) -> dict[str, float]:
    """Return the median seconds of each task.

    Tasks are run in turns, so that slow periods of the machine affect all equally.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for iteration in range(warmup + repeats):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if iteration >= warmup:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def infer_operations(model: Any) -> int:
    """Count the FLOPs of convolutions and matrix products to infer one image's slots."""
    parameter, size = next(model.parameters()), model.config.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.infer(torch.zeros(1, 3, size, size, device=parameter.device))
    return int(counter.get_total_flops())
