"""Feature networks, for distances between sets of images (`genesis_rl.evaluation.metrics.frechet`).

`FactorFeatures` is trained on a dataset to predict the number, shapes, positions and colours of
objects and the background's colour; its penultimate layer represents the content of a scene. Models
are ranked by distances with the same network, see `FactorFeatures.cached`.

`InceptionFeatures` is the standard network of the FID, from torchmetrics and torch-fidelity. Both
are imported lazily: torch-fidelity belongs to the extra ``fid``, whose torchvision must match the
installed torch.
"""

import dataclasses
import hashlib
import importlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from genesis_rl.checkpoints.loading import load_weights, pick_device
from genesis_rl.checkpoints.weights import CONFIG, as_tuple, build, write_module
from genesis_rl.data import Pack
from genesis_rl.evaluation.metrics.factor_network import (
    WIDTH,
    FactorConfig,
    FactorDataset,
    FactorNetwork,
    evaluate,
    fit,
)
from genesis_rl.evaluation.metrics.segmentation import Array, as_tensor
from genesis_rl.slots import check_shape
from genesis_rl.utils.extras import require
from genesis_rl.utils.files import new_folder, private_folder, read_folder, read_json

_FORMAT, _KIND = 1, "factor_features"
_MIN_IMAGES = 100
_DIGESTED = 64  # images in a pack's digest
FILE = "weights-inception-2015-12-05-6726825d.pth"
SOURCE = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
_INSTEAD = (
    "or use genesis_rl.evaluation.metrics.features.FactorFeatures, which has no such requirements"
)


class FactorFeatures:
    """Network of images (B, 3, H, W), float in [0, 1], to 64 features of their content.

    Linear layers predict from the features the number of objects, the area of objects of each
    shape and their mean colour in the cells of a 4 x 4 grid, and the background's colour. Over the
    training images each feature has a mean near 0 and a variance near 1, which gives distances a
    scale: that of copies of one image is about 64 or more. Weak noise is added to the training
    images, so that features are insensitive to invisible noise.

    Attributes:
        width: 64.
        config: see `FactorConfig`.
        held_out: scores on held-out images of the pack: ``objects_accuracy``, the share of images
            with the correct number of objects; ``shape_accuracy``, the share of the objects' area
            in cells with the correct shape, for packs with known shapes; ``area_r2``,
            ``colour_r2``, ``background_r2``, the explained share of non-zero variance.
        fingerprint: SHA-256 over config and weights, hexadecimal.
    """

    width = WIDTH

    def __init__(self, network: FactorNetwork, held_out: Mapping[str, float]) -> None:
        """Wrap a trained network; see `train`, `cached` and `load`."""
        self._network = network.eval().requires_grad_(False)
        self.config = network.config
        self.held_out = dict(held_out)
        self.fingerprint = _fingerprint(network, repr(network.config))

    @torch.inference_mode()
    def __call__(self, images: Array) -> Tensor:
        """Compute features (B, 64), float32, on the network's device.

        Raises:
            ValueError: for images of a different size from the network's.
        """
        images = as_tensor(images, "images")
        check_shape(images, (None, 3, *self.config.image_size), "images")
        weight = next(self._network.parameters())
        images = images.to(weight.device, weight.dtype, memory_format=torch.channels_last)
        features: Tensor = self._network(images)
        return features

    @classmethod
    def train(
        cls, pack: Pack, *, steps: int = 1500, seed: int = 0, device: str | torch.device = "auto"
    ) -> Self:
        """Train a network; the last tenth, at most 2,000 images, is held out for its scores.

        The default training takes about one minute of one CPU core at 32 px, three at 64 px.
        Deterministic on one machine's CPU with a fixed number of threads.

        Args:
            pack: the training split, with masks; at least 100 images.
            steps: training steps of 64 images.
            seed: seed of the initial weights, the batches and the noise.
            device: "auto" selects a GPU if there is one.

        Raises:
            ValueError: if the pack has no masks or objects, or is too small.
        """
        if len(pack) < _MIN_IMAGES:
            raise ValueError(
                f"pack must have at least {_MIN_IMAGES} images, got {len(pack)} in {pack.folder}."
            )
        device = pick_device(device)
        scenes = FactorDataset(pack, device)
        height, width = pack.images.shape[1:3]
        config = FactorConfig(
            image_size=(height, width),
            shapes=scenes.shapes,
            most_objects=scenes.most_objects,
            data=digest(pack),
            steps=steps,
            seed=seed,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = FactorNetwork(config)
        network.to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit(network, scenes)
        network.eval()
        return cls(network, evaluate(network, scenes))

    @classmethod
    def cached(
        cls,
        pack: Pack,
        *,
        steps: int = 1500,
        seed: int = 0,
        device: str | torch.device = "auto",
    ) -> Self:
        """Load the network cached in the pack's folder, or `train` and cache it.

        The cache key is the pack's content, ``steps`` and ``seed``: keep these fixed to compare
        models. Concurrent calls are safe. If the folder is not writable, the network is not cached
        and a warning is issued.
        """
        name = f"features-{digest(pack)[:16]}-{steps}-{seed}"
        folder = pack.folder / name
        if folder.is_dir():
            return cls.load(folder, device=device)
        try:
            with private_folder(folder, wait=True):
                if not folder.is_dir():
                    cls.train(pack, steps=steps, seed=seed, device=device).save(folder)
            return cls.load(folder, device=device)
        except OSError as error:
            warnings.warn(
                f"the feature network cannot be cached in {pack.folder}: {error}; save it to"
                " compare other models with the same network",
                stacklevel=2,
            )
        return cls.train(pack, steps=steps, seed=seed, device=device)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.safetensors and config.json into a folder, replacing its content."""
        metadata = {
            "format": _FORMAT,
            "kind": _KIND,
            "config": dataclasses.asdict(self.config),
            "held_out": self.held_out,
            "fingerprint": self.fingerprint,
        }
        with new_folder(folder) as temporary:
            write_module(self._network, temporary, metadata)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str | torch.device = "auto") -> Self:
        """Load a saved network.

        Raises:
            ValueError: if the folder has no such network, or it is damaged.
        """
        network, held_out = read_folder(folder, cls._read)
        network.to(pick_device(device))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network, held_out)

    @staticmethod
    def _read(folder: Path) -> tuple[FactorNetwork, dict[str, float]]:
        """Read the network, on the CPU, and its scores."""
        metadata, config = _read_config(folder / CONFIG)
        try:
            values: dict[str, Any] = {k: as_tuple(v) for k, v in config.items()}
            factors = FactorConfig(**values)
            held_out = {str(name): float(value) for name, value in metadata["held_out"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
        network = build(lambda: FactorNetwork(factors), folder)
        load_weights(network, folder)
        return network, held_out


def digest(pack: Pack) -> str:
    """Return the SHA-256 over a pack's meta.json and some images and masks, hexadecimal."""
    text = json.dumps(pack.meta, sort_keys=True)
    total = hashlib.sha256(text.encode())
    rows = np.unique(np.linspace(0, len(pack) - 1, _DIGESTED).astype(np.int64))
    for array in (pack.images, pack.masks):
        if array is not None:
            total.update(np.ascontiguousarray(array[rows]).data)
    return total.hexdigest()


def _fingerprint(network: nn.Module, description: str = "") -> str:
    """Return the SHA-256 over a description and a network's weights, hexadecimal."""
    total = hashlib.sha256(description.encode())
    for name, value in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(value.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of config.json, and its network config."""
    metadata = read_json(path)
    if not isinstance(metadata, dict) or metadata.get("kind") != _KIND:
        raise ValueError(f"{path} must have kind {_KIND!r}, that of a feature network.")
    config = metadata.get("config")
    if metadata.get("format") != _FORMAT or not isinstance(config, dict):
        raise ValueError(f"{path} must have format {_FORMAT}, got {metadata.get('format')!r}.")
    return metadata, config


class InceptionFeatures:
    """The network of the FID: images (B, 3, H, W), float in [0, 1], to 2048 features.

    The network is that of torchmetrics' `FrechetInceptionDistance`, with the weights and the
    resizing (to 299 x 299 px, not antialiased) of the original implementation.

    Attributes:
        width: number of features, 2048.
        fingerprint: SHA-256 over the weights, hexadecimal.
    """

    width = 2048

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, *, device: str | torch.device = "auto"
    ) -> None:
        """Load the network.

        Args:
            weights: path of weights-inception-2015-12-05-6726825d.pth; None: downloaded to
                PyTorch's cache.
            device: "auto" selects a GPU if there is one.

        Raises:
            ValueError: if torch-fidelity cannot be imported, the weights cannot be downloaded, or
                the file contains something else.
        """
        self._device = pick_device(device)
        _check_installed()
        path = _download() if weights is None else Path(weights).expanduser()
        self._network = _build(path).to(self._device).eval()
        self.fingerprint = _fingerprint(self._network)

    @torch.inference_mode()
    def __call__(self, images: Array) -> Tensor:
        """Compute features (B, 2048), float32, on the network's device.

        Raises:
            ValueError: for images that are not (B, 3, H, W), or not finite.
        """
        images = as_tensor(images, "images")
        check_shape(images, (None, 3, None, None), "images")
        if not images.isfinite().all():
            raise ValueError("images must be finite.")  # NaN would become black as uint8
        # Rounded, not truncated: k / 255 * 255 may be below k.
        pixels = images.to(self._device).mul(255).round().clamp(0, 255).to(torch.uint8)
        features: Tensor = self._network(pixels)
        return features


def _check_installed() -> None:
    try:
        importlib.import_module("torch_fidelity")
        importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except Exception as error:  # an incompatible torchvision raises various exceptions
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch_fidelity"
        problem = "is not installed" if missing else f"cannot be imported ({_line(error)})"
        raise ValueError(
            f"the FID requires torch-fidelity, which {problem}: pip install 'genesis_rl[fid]' with"
            f" the torchvision for torch {torch.__version__}, {_INSTEAD}."
        ) from error


def _download() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The last part of the name is the start of the hash.
        torch.hub.download_url_to_file(SOURCE, str(path), path.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the Inception weights cannot be downloaded ({_line(error)}): pass the path of a copy"
            f" of {SOURCE}, {_INSTEAD}."
        ) from error
    return path


def _build(path: Path) -> nn.Module:
    fid = require("torchmetrics.image.fid")
    try:
        # torch-fidelity unpickles without restrictions: load as plain tensors first.
        torch.load(path, map_location="cpu", weights_only=True)
        metric = fid.FrechetInceptionDistance(
            InceptionFeatures.width, feature_extractor_weights_path=str(path), antialias=False
        )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {_line(error)}.") from error
    except Exception as error:  # unpickling an invalid file raises any exception
        raise ValueError(f"weights must be a copy of {SOURCE}, got {path}.") from error
    network: nn.Module = metric.inception
    return network


def _line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
