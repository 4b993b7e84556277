"""How well a world model foretells held-out episodes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from genesis_rl.frames import to_images
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.rollouts import open_loop
from genesis_rl.world_model.sequences import Windows
from genesis_rl.world_model.study import Study

#: Horizons that are reported, as far as rollouts go.
HORIZONS = (1, 2, 3, 5, 10, 15, 20, 30, 50)
# Windows whose frames are decoded: that takes far longer than to imagine them.
_DECODED = 128
_BATCH = 256

Scores = dict[str, float | None]


@torch.no_grad()
def evaluate(
    models: Mapping[str, WorldModel], study: Study, *, steps: int, count: int
) -> dict[str, Any]:
    """Score models on the test split.

    Args:
        models: by name; trained on the same data, so that their scales agree.
        study: the data and the encoder.
        steps: length of the rollouts.
        count: rollouts at most, from starts spread over the split; those that reach the end of an
            episode count as far as they go.

    Returns:
        JSON data: ``open_loop``, a row for each horizon with the number of windows that reach it
        and by name ``latent_error`` (root mean square in units of the features' standard
        deviations), ``uncertainty`` (the ensemble's, mean, and its rank correlation with the latent
        error over the windows, None where either is constant) and ``psnr`` (decoded frames against
        recorded ones, dB); the name "copy" stands for the last known slots, "encoded" for those of
        the recorded frame itself, the best that decoding allows. ``events`` by name: see
        `event_scores`; for single steps of the whole split (``one_step``) and for all steps of the
        rollouts (``open_loop``).
    """
    data = study.sequences["test"]
    picks = torch.linspace(0, len(data.starts) - 1, count).long().unique()
    starts = data.starts[picks.to(data.starts.device)]
    windows = data.windows(starts, steps)
    every = data.windows(data.starts, 1)
    slots: dict[str, Tensor] = {}
    doubts: dict[str, Tensor] = {}
    events: dict[str, Any] = {}
    for name, model in models.items():
        parts = [
            open_loop(model, *part)
            for part in zip(
                windows.features[:, 0].split(_BATCH), windows.actions.split(_BATCH), strict=True
            )
        ]
        slots[name] = torch.cat([part.features for part in parts])
        doubts[name] = torch.cat([part.uncertainty for part in parts])
        ahead = torch.cat([part.reward for part in parts]), torch.cat([p.terminated for p in parts])
        steps_ahead = [
            model.step(features, actions)
            for features, actions in zip(
                every.features[:, 0].split(_BATCH), every.actions[:, 0].split(_BATCH), strict=True
            )
        ]
        single = (
            torch.cat([step.reward for step in steps_ahead])[:, None],
            torch.cat([step.terminated for step in steps_ahead])[:, None],
        )
        events[name] = {
            "one_step": event_scores(model, *single, every),
            "open_loop": event_scores(model, *ahead, windows),
        }
    slots["copy"] = windows.features[:, :1].expand_as(windows.features[:, 1:])
    scale = next(iter(models.values())).scale.scale
    rows = [
        _row(horizon, slots, doubts, windows, scale, study, starts)
        for horizon in HORIZONS
        if horizon <= steps and bool(windows.valid[:, horizon - 1].any())
    ]
    return {"open_loop": rows, "events": events}


def _row(
    horizon: int,
    slots: Mapping[str, Tensor],
    doubts: Mapping[str, Tensor],
    windows: Windows,
    scale: Tensor,
    study: Study,
    starts: Tensor,
) -> dict[str, Any]:
    """Errors of so many steps ahead."""
    reached = windows.valid[:, horizon - 1] > 0
    true = windows.features[reached, horizon]
    ahead = {name: values[reached, horizon - 1] for name, values in slots.items()}
    frames = study.transitions["test"].images[(starts[reached] + horizon)[:_DECODED].cpu().numpy()]
    images = to_images(
        frames,
        image_size=study.encoder.image_size,
        layout="HWC",
        preprocessing=study.encoder.preprocessing,
        device=study.encoder.device,
    )
    errors = {
        name: ((values - true) / scale).square().mean((1, 2)) for name, values in ahead.items()
    }
    doubt = {name: values[reached, horizon - 1] for name, values in doubts.items()}
    return {
        "horizon": horizon,
        "windows": int(reached.sum()),
        "latent_error": {name: float(error.mean().sqrt()) for name, error in errors.items()},
        "uncertainty": {
            name: {"mean": float(values.mean()), "correlation": _alike(values, errors[name])}
            for name, values in doubt.items()
        },
        "psnr": {
            name: psnr(study.encoder.decode(values[:_DECODED]).image, images)
            for name, values in (ahead | {"encoded": true}).items()
        },
    }


def _alike(values: Tensor, others: Tensor) -> float | None:
    """Spearman's rank correlation of two vectors; None where one is constant."""
    ranks = [rankdata(vector.cpu().numpy()) for vector in (values, others)]
    if not all(np.ptp(rank) for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def psnr(images: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio of images (B, 3, H, W) in [0, 1], dB, the mean over images."""
    squares = (images.clamp(0, 1) - wanted).square().mean((1, 2, 3)).clamp_min(1e-10)
    return float(-10 * squares.log10().mean())


def event_scores(
    model: WorldModel, reward: Tensor, terminated: Tensor, windows: Windows
) -> dict[str, Scores]:
    """Score rewards and terminations of the steps that there are.

    Args:
        model: whose usual reward and scale tell what an event is: a reward other than the usual
            one, foretold if the expected one is nearer to it than to the usual.
        reward: (B, T), as expected.
        terminated: (B, T), probability.
        windows: what came.

    Returns:
        For "reward" and "terminated" the scores of `classification`; for "reward" also ``mae`` and
        ``usual_mae``, the mean absolute error and that of always saying the usual reward.
    """
    valid = windows.valid > 0
    usual, scale = model.usual_reward, model.reward_scale
    true, said = windows.rewards[valid], reward[valid]
    surprise = (said - usual).abs() / scale
    return {
        "reward": {
            **classification(surprise.cpu().numpy(), (true != usual).cpu().numpy()),
            "mae": float((said - true).abs().mean()),
            "usual_mae": float((usual - true).abs().mean()),
        },
        "terminated": classification(
            terminated[valid].cpu().numpy(), (windows.terminated[valid] > 0).cpu().numpy()
        ),
    }


def classification(scores: npt.NDArray[Any], events: npt.NDArray[np.bool_]) -> Scores:
    """Score how events are foretold, where they may be rare.

    Args:
        scores: (N,), an event is foretold above 0.5.
        events: (N,), those that came.

    Returns:
        ``rate`` of events, and where there are both events and others ``auc`` (area under the ROC
        curve), ``balanced_accuracy``, ``f1``; else None for these.
    """
    positives, negatives = int(events.sum()), int((~events).sum())
    rate = positives / max(len(events), 1)
    if not positives or not negatives:
        return {"rate": rate, "auc": None, "balanced_accuracy": None, "f1": None}
    foretold = scores > 0.5
    hits = int((foretold & events).sum())
    ranks = rankdata(scores)  # ties count half
    area = (ranks[events].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return {
        "rate": rate,
        "auc": float(area),
        "balanced_accuracy": 0.5 * (hits / positives + float((~foretold[~events]).mean())),
        "f1": 2 * hits / (positives + int(foretold.sum())),
    }
