"""Fit of the prior to the posteriors of a trained model, the second stage of two-stage VAEs.

In training, the prior follows posteriors that still change, with a small KL weight. With the
posteriors fixed, minimising the KL over the prior's parameters is maximum likelihood of the latents
of the training images; it changes samples, but no slots (Dai & Wipf 2019, arXiv:1903.05789).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.models.genesis import PRIOR_NAMES, GenesisS
from genesis_rl.models.likelihood import Gaussian
from genesis_rl.training.loop import noise_key
from genesis_rl.training.validate import eval_mode
from genesis_rl.utils.log import ProgressBar

_IMAGES = 10_000
_ENCODED = 64
_BATCH = 128
_LEARNING_RATE = 2e-3
_CLIP_NORM = 100.0


class Posteriors(NamedTuple):
    """q(z_m | x) and q(z_c | x) of N images, every field (N, K, D)."""

    q_m: Gaussian
    q_c: Gaussian


def infer_posteriors(
    model: GenesisS, feed: ImageFeed, *, seed: int = 0, title: str = "posteriors"
) -> Posteriors:
    """Infer the posteriors of up to 10,000 images, in a random order.

    Args:
        model: a model with an attention posterior.
        feed: the images.
        seed: seed of the choice of images.
        title: title of the progress bar.
    """
    order = batch_indices(0, min(_IMAGES, feed.num_images), feed.num_images, seed)
    parts: list[tuple[Tensor, ...]] = []
    with torch.no_grad(), eval_mode(model):
        for batch in ProgressBar(order.split(_ENCODED), desc=title, unit="batch"):
            q_m, q_c = model.posteriors(feed(batch))
            parts.append((*q_m, *q_c))
    mu_m, sigma_m, mu_c, sigma_c = (torch.cat(part) for part in zip(*parts, strict=True))
    return Posteriors(Gaussian(mu_m, sigma_m), Gaussian(mu_c, sigma_c))


def fit_prior(
    model: GenesisS,
    posteriors: Posteriors,
    steps: int,
    *,
    seed: int = 0,
    title: str = "prior",
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Fit p(z_m) p(z_c | z_m) to posteriors by maximum likelihood.

    Updates are of 128 images, by Adam with a learning rate that decreases from 2e-3 to 0 as a
    cosine.

    Args:
        model: the model; only the parameters of its `prior_modules` change.
        posteriors: posteriors of training images.
        steps: number of updates.
        seed: seed of the order of the images and of the noise.
        title: title of the progress bar.
        stopped: whether to stop early, called before every update.

    Returns:
        Whether all updates were made.
    """
    count, device = len(posteriors.q_m.mu), posteriors.q_m.mu.device
    parameters = [p for module in model.prior_modules for p in module.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=_LEARNING_RATE)
    generator = torch.Generator(device)
    for step in ProgressBar(range(steps), desc=title, unit="step"):
        if stopped():
            return False
        rate = 0.5 * _LEARNING_RATE * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate
        chosen = batch_indices(step, min(_BATCH, count), count, seed).to(device)
        generator.manual_seed(noise_key(seed, step))
        z_m, z_c = (_sample(q, chosen, generator) for q in posteriors)
        optimiser.zero_grad()
        (-model.log_prior(z_m, z_c).mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimiser.step()
    optimiser.zero_grad()
    return True


def with_new_prior(model: GenesisS, *, seed: int = 0, **changes: Any) -> GenesisS:
    """Return a copy of a model with a newly initialised prior, to be fitted by `fit_prior`.

    Args:
        model: the model; everything but its prior is copied.
        seed: seed of the initial weights.
        **changes: settings of the prior in the copy's config, such as ``prior="independent"``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        copy = type(model)(replace(model.config, **changes))
    kept = {
        name: weight
        for name, weight in model.state_dict().items()
        if not name.startswith(PRIOR_NAMES)
    }
    copy.load_state_dict({**copy.state_dict(), **kept})
    return copy.to(model.points.device).eval()


def _sample(q: Gaussian, chosen: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(
        (len(chosen), *q.mu.shape[1:]), generator=generator, device=generator.device
    )
    return q.mu[chosen] + q.sigma[chosen] * noise
