"""Evaluation of world models on held-out episodes."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from genesis_rl import visualization
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import to_images
from genesis_rl.visualization.grids import Picture
from genesis_rl.world_model.model import Prediction, WorldModel
from genesis_rl.world_model.sequences import Windows, WorldModelData

#: Reported horizons, up to the length of the rollouts.
HORIZONS = (1, 2, 3, 5, 10, 15, 20, 30, 50)
# Maximum number of decoded frames, because decoding is much slower than prediction.
_MAX_DECODED = 128
_BATCH = 256
Scores = dict[str, float | None]
_COLUMNS = 11
_SIDE = 64
Frames = npt.NDArray[np.uint8]


class Rollout(NamedTuple):
    """T imagined steps of B scenes.

    Attributes:
        features: (B, T, K, D), the slots after each step.
        reward: (B, T), expected rewards.
        terminated: (B, T), probabilities of termination.
        uncertainty: (B, T).
    """

    features: Tensor
    reward: Tensor
    terminated: Tensor
    uncertainty: Tensor


def open_loop(model: WorldModel, features: Tensor, actions: Tensor) -> Rollout:
    """Predict T steps with the ensemble's mean, without noise.

    Args:
        model: model in eval mode.
        features: (B, K, D), initial slots.
        actions: (B, T) int64 or (B, T, A) float32.
    """
    steps = []
    for t in range(actions.shape[1]):
        steps.append(model.step(features, actions[:, t]))
        features = steps[-1].features
    return Rollout(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))


@torch.no_grad()
def evaluate(
    models: Mapping[str, WorldModel], data: WorldModelData, *, steps: int, count: int
) -> dict[str, Any]:
    """Evaluate models on the test split.

    Args:
        models: models by name, trained on the same data, so that their scales are equal.
        data: the data and the encoder.
        steps: length of the rollouts.
        count: maximum number of rollouts, from evenly spaced steps of the split; they are truncated
            at the end of the episode.

    Returns:
        JSON data. ``open_loop`` has a row per horizon with the number of windows that reach it and,
        by model name: ``latent_error`` (root mean square in units of the features' standard
        deviations), ``uncertainty`` (mean, and rank correlation with the latent error over windows,
        None if either is constant) and ``psnr`` (decoded against recorded frames, dB). Two
        more names are baselines: "copy", the initial slots, and, for ``psnr``, "encoded", the slots
        of the recorded frame (an upper bound). ``events`` has the `event_scores` by model name,
        for single steps of the whole split (``one_step``) and all steps of the rollouts
        (``open_loop``).
    """
    test = data.sequences["test"]
    indices = torch.linspace(0, len(test.starts) - 1, count).long().unique()
    starts = test.starts[indices.to(test.starts.device)]
    windows = test.windows(starts, steps)
    single_steps = test.windows(test.starts, 1)
    slots: dict[str, Tensor] = {}
    uncertainties: dict[str, Tensor] = {}
    events: dict[str, Any] = {}
    for name, model in models.items():
        rollouts = Rollout(
            *_batches(partial(open_loop, model), windows.features[:, 0], windows.actions)
        )
        slots[name], uncertainties[name] = rollouts.features, rollouts.uncertainty
        one_step = Prediction(
            *_batches(model.step, single_steps.features[:, 0], single_steps.actions[:, 0])
        )
        events[name] = {
            "one_step": event_scores(
                model, one_step.reward[:, None], one_step.terminated[:, None], single_steps
            ),
            "open_loop": event_scores(model, rollouts.reward, rollouts.terminated, windows),
        }
    slots["copy"] = windows.features[:, :1].expand_as(windows.features[:, 1:])
    scale = next(iter(models.values())).scale.scale
    rows = [
        _row(horizon, slots, uncertainties, windows, scale, data, starts)
        for horizon in HORIZONS
        if horizon <= steps and bool(windows.valid[:, horizon - 1].any())
    ]
    return {"open_loop": rows, "events": events}


def _batches(
    predict: Callable[[Tensor, Tensor], Iterable[Tensor]], features: Tensor, actions: Tensor
) -> list[Tensor]:
    """Predict in batches, and return the joined predictions."""
    batches = zip(features.split(_BATCH), actions.split(_BATCH), strict=True)
    parts = [predict(*batch) for batch in batches]
    return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]


def _row(
    horizon: int,
    slots: Mapping[str, Tensor],
    uncertainties: Mapping[str, Tensor],
    windows: Windows,
    scale: Tensor,
    data: WorldModelData,
    starts: Tensor,
) -> dict[str, Any]:
    """Compute the errors at a horizon."""
    encoder = data.encoder
    valid = windows.valid[:, horizon - 1] > 0
    true = windows.features[valid, horizon]
    predicted = {name: values[valid, horizon - 1] for name, values in slots.items()}
    frames = data.transitions["test"].images[(starts[valid] + horizon)[:_MAX_DECODED].cpu().numpy()]
    images = to_images(
        frames,
        image_size=encoder.image_size,
        layout="HWC",
        preprocessing=encoder.preprocessing,
        device=encoder.device,
    )
    errors = {
        name: ((values - true) / scale).square().mean((1, 2)) for name, values in predicted.items()
    }
    uncertainty = {name: values[valid, horizon - 1] for name, values in uncertainties.items()}
    return {
        "horizon": horizon,
        "windows": int(valid.sum()),
        "latent_error": {name: float(error.mean().sqrt()) for name, error in errors.items()},
        "uncertainty": {
            name: {
                "mean": float(values.mean()),
                "correlation": _rank_correlation(values, errors[name]),
            }
            for name, values in uncertainty.items()
        },
        "psnr": {
            name: psnr(encoder.decode(values[:_MAX_DECODED]).image, images)
            for name, values in (predicted | {"encoded": true}).items()
        },
    }


def _rank_correlation(values: Tensor, others: Tensor) -> float | None:
    """Compute Spearman's rank correlation of two vectors; None if one is constant."""
    ranks = [rankdata(vector.cpu().numpy()) for vector in (values, others)]
    if not all(np.ptp(rank) for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def psnr(images: Tensor, targets: Tensor) -> float:
    """Compute the mean peak signal-to-noise ratio of images (B, 3, H, W) in [0, 1], dB."""
    squares = (images.clamp(0, 1) - targets).square().mean((1, 2, 3)).clamp_min(1e-10)
    return float(-10 * squares.log10().mean())


def event_scores(
    model: WorldModel, reward: Tensor, terminated: Tensor, windows: Windows
) -> dict[str, Scores]:
    """Score predicted rewards and terminations of the valid steps.

    Args:
        model: model with ``usual_reward`` and ``reward_scale``. Other rewards than the usual one
            are events; an event is predicted if the reward differs from the usual one by more than
            half the scale.
        reward: (B, T), expected rewards.
        terminated: (B, T), probabilities of termination.
        windows: recorded steps.

    Returns:
        For "reward" and "terminated" the scores of `classification`; for "reward" also ``mae`` and
        ``usual_mae``, the mean absolute errors of the prediction and of the usual reward.
    """
    valid = windows.valid > 0
    usual, scale = model.usual_reward, model.reward_scale
    true, predicted = windows.rewards[valid], reward[valid]
    difference = (predicted - usual).abs() / scale
    return {
        "reward": {
            **classification(difference.cpu().numpy(), (true != usual).cpu().numpy()),
            "mae": float((predicted - true).abs().mean()),
            "usual_mae": float((usual - true).abs().mean()),
        },
        "terminated": classification(
            terminated[valid].cpu().numpy(), (windows.terminated[valid] > 0).cpu().numpy()
        ),
    }


def classification(scores: npt.NDArray[Any], events: npt.NDArray[np.bool_]) -> Scores:
    """Compute scores of a binary classification of rare events.

    Args:
        scores: (N,), predicted as an event above 0.5.
        events: (N,), labels.

    Returns:
        ``rate`` of events, ``auc`` (area under the ROC curve), ``balanced_accuracy`` and ``f1``;
        None for the last three if there is only one class.
    """
    positives, negatives = int(events.sum()), int((~events).sum())
    rate = positives / max(len(events), 1)
    if not positives or not negatives:
        return {"rate": rate, "auc": None, "balanced_accuracy": None, "f1": None}
    predicted = scores > 0.5
    hits = int((predicted & events).sum())
    ranks = rankdata(scores)  # ties count half
    area = (ranks[events].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return {
        "rate": rate,
        "auc": float(area),
        "balanced_accuracy": 0.5 * (hits / positives + float((~predicted[~events]).mean())),
        "f1": 2 * hits / (positives + int(predicted.sum())),
    }


def decode(encoder: SlotEncoder, features: torch.Tensor) -> Frames:
    """Decode slots (..., K, D) to frames (..., S, S, 3)."""
    image = encoder.decode(features.flatten(0, -3)).image
    frames: Frames = visualization.to_pictures(image)
    return frames.reshape(*features.shape[:-2], *frames.shape[1:])


def rollout_frames(
    model: WorldModel, data: WorldModelData, split: str, count: int, steps: int
) -> tuple[Frames, Frames]:
    """Decode recorded episodes, and imagined rollouts from the same start by the same actions.

    Args:
        model: model in eval mode.
        data: the data and the encoder.
        split: split of the data.
        count: maximum number of rollouts, evenly spaced in the split.
        steps: maximum length, limited to that of the longest episode.

    Returns:
        Decoded real and imagined slots, each (count, steps + 1, S, S, 3), with the same first
        frames.
    """
    sequences = data.sequences[split]
    steps = min(steps, int((sequences.last[sequences.starts] - sequences.starts).max()))
    starts = sequences.whole(steps)
    picks = torch.linspace(0, len(starts) - 1, count).long().unique()
    windows = sequences.windows(starts[picks.to(starts.device)], steps)
    first = windows.features[:, :1]
    imagined = torch.cat([first, open_loop(model, first[:, 0], windows.actions).features], 1)
    return decode(data.encoder, windows.features), decode(data.encoder, imagined)


def rollout_picture(model: WorldModel, data: WorldModelData, split: str) -> Picture:
    """Draw three rollouts, with real frames above imagined ones."""
    real, imagined = rollout_frames(model, data, split, 3, _COLUMNS - 1)
    rows = np.stack([real, imagined], 1)  # (count, 2, T + 1, S, S, 3)
    return visualization.mosaic(
        rows.reshape(-1, *rows.shape[2:]),
        captions=[f"t = {t}" for t in range(rows.shape[2])],
        row_captions=["real", "imagined"] * len(rows),
        scale=max(1, _SIDE // rows.shape[-2]),
    )


def rollout_video(model: WorldModel, data: WorldModelData, split: str, steps: int) -> list[Picture]:
    """Draw an animation of four rollouts, with real frames above imagined ones."""
    real, imagined = rollout_frames(model, data, split, 4, steps)
    scale = max(1, 2 * _SIDE // real.shape[-2])
    return [
        visualization.mosaic(
            np.stack([real[:, t], imagined[:, t]]),
            row_captions=["real", "imagined"],
            scale=scale,
            separator=2,
        )
        for t in range(real.shape[1])
    ]
