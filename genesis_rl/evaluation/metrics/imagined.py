"""Scores of scenes sampled from a model's prior: validity and distance to training images.

Validity alone is maximal for copies of training images, so both are reported together, with the
scores of held-out images for comparison.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl.data import Pack
from genesis_rl.evaluation.metrics.factor_network import count_objects, require_masks
from genesis_rl.evaluation.metrics.frechet import FeatureNetwork, pack_images, sampled_scenes
from genesis_rl.evaluation.metrics.segmentation import Array, as_label_tensor, as_tensor, segment
from genesis_rl.slots import SceneModel, check_shape
from genesis_rl.utils.checks import Checked, Share

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
Scores = dict[str, float]


@dataclass(frozen=True)
class SceneCriteria(Checked):
    """Criteria for objects and valid objects; colours in [0, 1]."""

    min_area: Share = 0.005
    """smallest share of the frame's pixels; smaller segments are ignored"""
    background_difference: Share = 0.1
    """smallest difference in a channel between an object's and the background's median colours"""
    colour_deviation: Share = 0.1
    """largest standard deviation of a channel over the object's pixels, without its outline, where
    colours are blended"""
    connected: Share = 0.8
    """smallest share of the object's pixels in its largest connected piece"""
    solidity: Share = 0.5
    """smallest share of its convex hull that this piece fills"""
    border: Share = 0.25
    """largest share of the object's pixels on the frame's border"""


class SceneValidity(NamedTuple):
    """Validity of B scenes by criterion.

    Attributes:
        objects: (B,) int64, number of objects.
        one_colour: (B,) bool, whether every object has one colour; True without objects.
        whole: (B,) bool, whether every object is one compact piece; True without objects.
        inside: (B,) bool, whether the border cuts no object; True without objects.
    """

    objects: npt.NDArray[np.int64]
    one_colour: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]

    def valid(self, counts: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return whether all objects are valid and their number is in the range ``counts``."""
        return self.in_range(counts) & self.one_colour & self.whole & self.inside

    def in_range(self, counts: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return whether the number of objects is in a range, both ends included."""
        return (counts[0] <= self.objects) & (self.objects <= counts[1])


def evaluate_scenes(
    images: Array, labels: Array, criteria: SceneCriteria | None = None
) -> SceneValidity:
    """Evaluate the validity of scenes, from their frames and masks.

    The segment with most of the frame's border is the background, as are segments of its colour;
    very small segments are ignored; every other segment is an object. An object is valid if it has
    one colour, is one compact piece, and is not cut by the border. A scene is valid if all its
    objects are, and their number occurs in training images.

    The validity of real images with true masks is the upper bound. Where it is low (textured
    objects, objects cut by the border), the criteria do not fit the data. 97 % of real
    Multi-dSprites scenes are valid (some sprites are cut in two by others), and 100 % of real
    Object Comparison scenes.

    Args:
        images: frames, (B, 3, H, W), float in [0, 1].
        labels: segments, integers (B, H, W): `genesis_rl.evaluation.metrics.segment` of the masks,
            or true masks.
        criteria: see `SceneCriteria`.

    Raises:
        TypeError: if an argument is not a tensor or NumPy array, or the labels are not integers.
        ValueError: if a shape is wrong.
    """
    images, labels = as_tensor(images, "images"), as_label_tensor(labels, "labels")
    check_shape(images, (None, 3, None, None), "images")
    check_shape(labels, (len(images), *images.shape[2:]), "labels")
    frames = images.detach().float().permute(0, 2, 3, 1).cpu().numpy()
    segments = labels.cpu().numpy()
    criteria = criteria or SceneCriteria()
    objects = [
        [_evaluate_object(frame, mask, criteria) for mask in objects_of(frame, segment, criteria)]
        for frame, segment in zip(frames, segments, strict=True)
    ]
    table = [
        [all(column) for column in zip(*scene, strict=True)] or [True] * 3 for scene in objects
    ]
    columns = np.array(table, np.bool_).reshape(-1, 3).T
    return SceneValidity(np.array([len(scene) for scene in objects], np.int64), *columns)


def objects_of(
    frame: npt.NDArray[np.float32], segments: npt.NDArray[np.integer], criteria: SceneCriteria
) -> list[npt.NDArray[np.bool_]]:
    """Return the masks (H, W) of a scene's objects."""
    ring = np.concatenate([segments[0], segments[-1], segments[1:-1, 0], segments[1:-1, -1]])
    values, counts = np.unique(ring, return_counts=True)
    background = segments == values[counts.argmax()]
    colour = np.median(frame[background], axis=0)
    objects = []
    for value in np.unique(segments):
        mask = segments == value
        if mask.mean() < criteria.min_area:
            continue
        difference = np.abs(np.median(frame[mask], axis=0) - colour).max()
        if difference >= criteria.background_difference:  # False for the background
            objects.append(mask)
    return objects


def _evaluate_object(
    frame: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], criteria: SceneCriteria
) -> tuple[bool, bool, bool]:
    """Return whether an object has one colour, is whole, and is not cut by the border."""
    area = int(mask.sum())
    inner = cv2.erode(mask.astype(np.uint8), _CROSS) > 0
    colours = frame[inner if inner.any() else mask]
    one_colour = float(colours.std(0).max()) <= criteria.colour_deviation
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    piece = int(stats[largest, cv2.CC_STAT_AREA])
    points = np.argwhere(pieces == largest)[:, None, ::-1].astype(np.int32)
    hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(points), 1)
    whole = piece >= criteria.connected * area and piece >= criteria.solidity * int(hull.sum())
    on_border = area - int(mask[1:-1, 1:-1].sum())
    return one_colour, whole, on_border <= criteria.border * area


class SceneScorer:
    """Scores scenes of several models and of the same held-out images.

    Attributes:
        num_images: n, number of scenes and of held-out images.
        counts: smallest and largest number of objects in a training image.
    """

    def __init__(
        self,
        train: Pack,
        held_out: Pack,
        num_images: int,
        *,
        features: FeatureNetwork | None = None,
    ) -> None:
        """Count objects and compute features of the training images.

        Args:
            train: training images of the models, with masks; all are used.
            held_out: held-out images with masks, at least two.
            num_images: n, number of held-out images, the first ones; at most all.
            features: network for distances between contents of images; None: pixels only.

        Raises:
            ValueError: if a pack has no masks, image sizes differ, or there are too few images.
        """
        counts = count_objects(train)
        self.counts = int(counts.min()), int(counts.max())
        self.num_images = min(num_images, len(held_out))
        if self.num_images < 2:
            raise ValueError(f"num_images must be at least 2, got {self.num_images}.")
        if train.images.shape[1:] != held_out.images.shape[1:]:
            raise ValueError(
                f"held_out must have images of shape {train.images.shape[1:]}, as train, got "
                f"{held_out.images.shape[1:]}."
            )
        self._train, self._held_out = train, held_out
        self._features = features
        self._train_features = None if features is None else _all(map(features, pack_images(train)))
        self._reference: Scores | None = None

    def __call__(self, model: SceneModel, *, seed: int = 0, temperature: float = 1.0) -> Scores:
        """Score n scenes from a model's prior.

        Returns:
            Scores of the scenes' frames and decoded masks (NaN for models of one slot):

            - ``valid``, the share of valid scenes; ``valid_number``, ``valid_colour``,
              ``valid_shape``, ``valid_inside``, the shares that meet one criterion each, see
              `genesis_rl.evaluation.metrics.imagined`; ``objects``, the mean number of objects, and
              ``scenes_with_N``, the share with N objects.
            - ``valid_reconstructed``: the share of valid scenes among reconstructed held-out
              images, an upper bound from the model's decoder and masks.
            - ``nearest_pixels``, ``nearest_features``: the median distance to the nearest training
              image, as root mean square over pixels and channels, and in the network's features.
            - ``spread_pixels``, ``spread_features``: the median distance to the nearest other
              scene; smaller than that of real images if samples lack diversity.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch module, got {type(model).__name__}.")
        several = model.config.num_slots > 1
        validity, images = [], []
        for scenes in sampled_scenes(model, self.num_images, seed=seed, temperature=temperature):
            images.append(scenes.image.clamp(0, 1))
            if several:
                validity.append(evaluate_scenes(images[-1], segment(scenes.log_pi)))
        scores = self._validity_scores(validity, model.config.num_slots - 1)
        scores["valid_reconstructed"] = self._reconstructed(model) if several else float("nan")
        return scores | self._distances(images)

    def reference(self) -> Scores:
        """Return the same scores of the held-out images and their true masks."""
        if self._reference is None:
            masks = require_masks(self._held_out)
            images = list(pack_images(self._held_out, 0, self.num_images))
            validity, first = [], 0
            for batch in images:
                true = torch.from_numpy(masks[first : first + len(batch)].astype(np.int64))
                validity.append(evaluate_scenes(batch, true))
                first += len(batch)
            self._reference = self._validity_scores(validity, self.counts[1]) | self._distances(
                images
            )
        return dict(self._reference)

    def _validity_scores(self, validity: list[SceneValidity], most: int) -> Scores:
        if not validity:
            return dict.fromkeys(("valid", "objects"), float("nan"))
        columns: list[npt.NDArray[Any]] = [
            np.concatenate(column) for column in zip(*validity, strict=True)
        ]
        all_scenes = SceneValidity(*columns)
        shares = {
            "valid": all_scenes.valid(self.counts),
            "valid_number": all_scenes.in_range(self.counts),
            "valid_colour": all_scenes.one_colour,
            "valid_shape": all_scenes.whole,
            "valid_inside": all_scenes.inside,
            "objects": all_scenes.objects,
            **{f"scenes_with_{n}": all_scenes.objects == n for n in range(most + 1)},
        }
        return {name: float(values.mean()) for name, values in shares.items()}

    @torch.inference_mode()
    def _reconstructed(self, model: Any) -> float:
        """Return the share of reconstructed held-out images that are valid scenes."""
        device, training = next(model.parameters()).device, model.training
        model.eval()
        valid = []
        for batch in pack_images(self._held_out, 0, self.num_images):
            decoded = model.decode(model.infer(batch.to(device)))
            labels = segment(decoded.log_pi)
            valid.append(evaluate_scenes(decoded.image, labels).valid(self.counts))
        model.train(training)
        return float(np.concatenate(valid).mean())

    def _distances(self, images: list[Tensor]) -> Scores:
        pixels = _all(image.flatten(1) for image in images)
        size = pixels.shape[1] ** 0.5  # converts Euclidean distance to root mean square
        scores = {
            "nearest_pixels": _median(
                nearest(pixels, (i.flatten(1) for i in pack_images(self._train)))
            ),
            "spread_pixels": _median(spread(pixels)),
        }
        scores = {name: value / size for name, value in scores.items()}
        if self._features is not None and self._train_features is not None:
            features = _all(self._features(image) for image in images)
            distances = nearest(features, self._train_features.split(4096))
            scores |= {
                "nearest_features": _median(distances),
                "spread_features": _median(spread(features)),
            }
        return scores


def nearest(points: Tensor, others: Iterable[Tensor]) -> Tensor:
    """Return the distance of each point to the nearest of others.

    Args:
        points: (N, D).
        others: batches (B, D).

    Returns:
        (N,), Euclidean; inf without others.
    """
    least = points.new_full((len(points),), torch.inf)
    for batch in others:
        least = torch.minimum(least, torch.cdist(points, batch.to(points)).amin(1))
    return least


def spread(points: Tensor) -> Tensor:
    """Return the distance of each of at least two points (N, D) to the nearest other one, (N,)."""
    return torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1)


def _all(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.detach().float().cpu() for part in parts])


def _median(values: Tensor) -> float:
    return float(values.median())
