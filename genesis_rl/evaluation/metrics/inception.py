"""The standard Inception network of the FID, from torchmetrics and torch-fidelity.

Both are imported lazily: torch-fidelity belongs to the extra ``fid``, whose torchvision must match
the installed torch.
"""

import hashlib
import importlib
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from genesis_rl.checkpoints.loading import pick_device
from genesis_rl.evaluation.metrics.segmentation import Array, as_tensor
from genesis_rl.slots import check_shape
from genesis_rl.utils.extras import require

WIDTH = 2048
FILE = "weights-inception-2015-12-05-6726825d.pth"
SOURCE = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
_INSTEAD = (
    "or use genesis_rl.evaluation.metrics.features.FactorFeatures, which has no such requirements"
)


class InceptionFeatures:
    """The network of the FID: images (B, 3, H, W), float in [0, 1], to 2048 features.

    The network is that of torchmetrics' `FrechetInceptionDistance`, with the weights and the
    resizing (to 299 x 299 px, not antialiased) of the original implementation.

    Attributes:
        width: number of features, 2048.
        fingerprint: SHA-256 over the weights, hexadecimal.
    """

    width = WIDTH

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
        total = hashlib.sha256()
        for name, value in sorted(self._network.state_dict().items()):
            total.update(name.encode())
            total.update(value.cpu().contiguous().numpy().tobytes())
        self.fingerprint = total.hexdigest()

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
            WIDTH, feature_extractor_weights_path=str(path), antialias=False
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
