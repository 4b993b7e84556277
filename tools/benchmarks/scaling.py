"""Benchmark of the cost of training and encoding against slots, image size and batch size."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import tasks
from benchmarks.config import BenchmarkConfig
from genesis_rl.checkpoints.loading import pick_device
from genesis_rl.models import build_model
from genesis_rl.utils.timing import Task, medians

#: Varied settings and their values.
AXES: dict[str, tuple[int, ...]] = {
    "num_slots": (2, 4, 8, 16),
    "image_size": (32, 64, 128),
    "batch_size": (1, 4, 16, 64),
}
_REPEATS, _WARMUP = 3, 1


class Cost(NamedTuple):
    """Median seconds of an update and of encoding, and bytes saved for the gradient."""

    value: int
    train: float
    encode: float
    kept_bytes: float


def measure_scaling(
    config: BenchmarkConfig, axes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Any]:
    """Measure the cost along each axis (None: `AXES`), without compilation.

    Returns:
        By axis, ``costs`` (rows of `Cost`) and ``exponents``: slopes of log cost over log value, or
        over the log number of pixels for ``image_size``; 1 means a linear cost.

    Raises:
        ValueError: if the device is unknown or not available.
    """
    device = pick_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    result = {}
    for axis, values in (axes or AXES).items():
        costs = list(_costs(config, axis, values, device))
        size = np.array(values, float) ** (2 if axis == "image_size" else 1)
        result[axis] = {
            "costs": [cost._asdict() for cost in costs],
            "exponents": {
                name: float(np.polyfit(np.log(size), np.log([c[i] for c in costs]), 1)[0])
                for i, name in enumerate(Cost._fields)
                if name != "value"
            },
        }
    return result


def _costs(
    config: BenchmarkConfig, axis: str, values: tuple[int, ...], device: torch.device
) -> Iterator[Cost]:
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
        torch.manual_seed(0)
        model = build_model(variant.model).to(device).to(memory_format=torch.channels_last)
        saved_bytes.append(
            float(tasks.kept_bytes(model, (tasks.images(variant, device),), variant.dtype))
        )
        timed[f"train {value}"] = tasks.training(variant, model, device)
        timed[f"encode {value}"] = tasks.encoding(variant, model, device)[variant.batch_size]
    seconds = medians(timed, _REPEATS, _WARMUP, device)
    for value, size in zip(values, saved_bytes, strict=True):
        yield Cost(value, seconds[f"train {value}"], seconds[f"encode {value}"], size)


def scaling_tables(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results as tables for the results page."""
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
