"""Scores of scene models and of baselines on held-out images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from genesis_rl.data import Pack
from genesis_rl.evaluation import metrics
from genesis_rl.evaluation.metrics.frechet import SampleScorer
from genesis_rl.evaluation.metrics.imagined import SceneScorer
from genesis_rl.models.refinement import refine
from genesis_rl.slots import SceneModel, check_finite
from genesis_rl.training.validate import (
    baseline_scores,
    device_of,
    eval_mode,
    labelled_images,
)
from genesis_rl.utils.checks import Checked, Count, Natural, Seed

_LEVELS = 256  # values of a pixel in a pack


@dataclass(frozen=True)
class ScoreConfig(Checked):
    """Images, noise and refinement of an evaluation."""

    num_images: Count = 1000
    """number of images, the first of the pack; all if it has fewer"""
    seed: Seed = 0
    """seed of the noise"""
    iw_samples: Count = 8
    """number of samples S of the importance-weighted bound and of the ELBO"""
    refine_steps: Natural = 0
    """gradient steps on the latents first, see `genesis_rl.models.refinement`; the bounds are
    computed without refinement"""


def score(
    model: SceneModel,
    pack: Pack,
    config: ScoreConfig | None = None,
    *,
    samples: SampleScorer | None = None,
    scenes: SceneScorer | None = None,
) -> dict[str, float | None]:
    """Evaluate a model in eval mode on the first images of a pack, in the weights' precision.

    Args:
        model: a scene model; its training mode is restored.
        pack: held-out images, with masks for the scores of objects.
        config: see `ScoreConfig`.
        samples: scorer of the Frechet distance of scenes from the prior; None: skip it.
        scenes: scorer of the validity of scenes from the prior; None: skip it.

    Returns:
        JSON data, means over the images; None for scores that no image has.

        - ``mse`` per pixel and channel, of posterior means.
        - ``nll``, ``kl_m``, ``kl_c``: terms of the training objective, nats per image.
        - ``elbo``, ``iwae``: bounds on the likelihood of the generative model, nats per image, see
          `genesis_rl.evaluation.metrics.bounds`; ``elbo_bpd``, ``iwae_bpd`` in bits per dimension
          of 8-bit images, lower is better, see `bits_per_dim`.
        - ``active_slots`` by pixels, ``active_latents`` by KL, see
          `genesis_rl.evaluation.metrics.binding`.
        - with masks: scores of `image_scores` and `binding_scores` of the masks pi = p(k | z), each
          with ``name_images``, the number of images that have it; for models of this package also
          `image_scores` of the posterior assignments p(k | x, z), as ``posterior_name``, see
          `genesis_rl.models.likelihood.log_responsibilities`.
        - with ``samples``: ``frechet``, the distance of as many scenes from the prior.
        - with ``scenes``: validity and distance to training images of scenes from the prior, see
          `genesis_rl.evaluation.metrics.imagined.SceneScorer`.

    Raises:
        ValueError: if the images do not fit the model, or its latents or masks are not finite.
    """
    config = config or ScoreConfig()
    with eval_mode(model):
        images, objects = _score_images(model, pack, config)
    means = {name: float(values.double().mean()) for name, values in images.items()}
    for name in ("elbo", "iwae"):
        num_dims = pack.images[0].size
        means[f"{name}_bpd"] = metrics.bits_per_dim(means[name], num_dims, levels=_LEVELS)
    means |= metrics.average(objects)
    if samples is not None:
        means["frechet"] = samples(model, seed=config.seed)["distance"]
    if scenes is not None:
        means |= scenes(model, seed=config.seed)
    return _jsonable(means)


def baselines(
    pack: Pack,
    num_images: int,
    num_slots: int,
    *,
    samples: SampleScorer | None = None,
    scenes: SceneScorer | None = None,
) -> dict[str, dict[str, float | None]]:
    """Evaluate baselines on the images of `score`.

    Args:
        pack: held-out images.
        num_images: number of images, the first of the pack; all if it has fewer.
        num_slots: largest number of cells of the grid, K.
        samples: scorer of the Frechet distance; None: skip it.
        scenes: scorer of the validity of scenes; None: skip it.

    Returns:
        With masks the segmentation scores of ``one_slot``, ``fixed_grid`` and ``colour_palette``,
        see `genesis_rl.evaluation.metrics.baselines`; with ``samples`` the ``frechet`` of ``real``,
        ``shuffled_pixels`` and ``mean_image``, see `SampleScorer.references`; with ``scenes`` the
        scores of ``real`` images, see `SceneScorer.reference`.
    """
    scores = baseline_scores(pack, num_images, num_slots)
    if samples is not None:
        scores |= {name: {"frechet": value} for name, value in samples.references().items()}
    if scenes is not None:
        scores["real"] = scores.get("real", {}) | scenes.reference()
    return {name: _jsonable(figures) for name, figures in scores.items()}


@torch.inference_mode()
def _score_images(
    model: SceneModel, pack: Pack, config: ScoreConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute scores of images and, with masks, of their objects, each of shape (num_images,)."""
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(config.seed)
    images: list[dict[str, Tensor]] = []
    objects: list[dict[str, Tensor]] = []
    for x, masks in labelled_images(pack, config.num_images, device):
        slots = refine(model, x, model.infer(x), config.refine_steps)
        decoded = model.decode(slots)
        check_finite(slots.z_m, slots.z_c, decoded.mu_x, log_masks=decoded.log_pi)
        terms = model.elbo(x, generator=generator)
        weights = metrics.log_weights(model, x, config.iw_samples, generator=generator)
        bounds = metrics.bounds(weights)
        labels = metrics.segment(model.segmentation_masks(slots))
        images.append(
            {
                "mse": (decoded.image - x).square().mean((1, 2, 3)),
                "nll": terms.nll,
                "kl_m": terms.kl_m.sum(1),
                "kl_c": terms.kl_c.sum(1),
                "elbo": bounds.elbo,
                "iwae": bounds.iwae,
                "active_slots": metrics.active_slots(labels),
                "active_latents": metrics.active_latents(terms),
            }
        )
        if masks is not None:
            assigned = metrics.segment(model.log_responsibilities(x, decoded))
            after = metrics.image_scores(masks, assigned)
            renamed = {f"posterior_{name}": values for name, values in after.items()}
            objects.append(metrics.scene_scores(masks, labels, x) | renamed)
    return metrics.join_batches(images), metrics.join_batches(objects)


def _jsonable(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Replace non-finite values by None."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}
