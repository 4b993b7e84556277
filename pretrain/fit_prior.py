"""Replace the prior of a pretrained model by one fitted to its posteriors, which stay the same.

    python pretrain/fit_prior.py runs/rooms runs/rooms-flow --prior-flow-layers 4
    python pretrain/fit_prior.py runs/rooms runs/rooms-independent --prior independent
    python pretrain/fit_prior.py towers towers-flow --data towers

Only the prior's weights differ from the model's, so slots and segmentations are the same. Writes a
pretrained model. Requires an attention posterior (--preset towers, rooms, fetch and others).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.data.feed import ImageFeed
from genesis_rl.evaluation.runs import open_candidate, open_data
from genesis_rl.models.genesis import GenesisS
from genesis_rl.models.genesis_config import Prior
from genesis_rl.training.prior import fit_prior, infer_posteriors, with_new_prior
from genesis_rl.training.validate import device_of
from genesis_rl.utils.checks import Checked, Count, Natural, Seed
from genesis_rl.utils.flags import program


@dataclass(frozen=True)
class FitPriorConfig(Checked):
    """Settings of a new prior."""

    model: str
    """run directory of pretrain/train.py, folder of a pretrained model, or Hub id"""
    out: Path
    """new or empty folder to write the model to"""
    prior: Prior | None = None
    """see --model.prior of pretrain/train.py; None: the model's"""
    prior_components: Count | None = None
    """number of Gaussians; None: the model's"""
    prior_flow_layers: Natural | None = None
    """coupling layers of flows; None: the model's"""
    steps: Count = 1_500
    """updates of the prior"""
    seed: Seed = 0
    """seed of initial weights, order of the images and noise"""
    data: str | None = None
    """name of a dataset or folder of a pack; None: the run's training data"""
    data_options: str = "{}"
    """options of that dataset as JSON"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice"""

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        out = self.out.expanduser()
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise ValueError(f"out must be a new or an empty folder, got {out}.")


def fit(config: FitPriorConfig) -> None:
    """Fit a new prior and write the model.

    Raises:
        ValueError: if the model has no attention posterior, or it or its data is missing.
        OSError: if the folder cannot be written.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    candidate = open_candidate(
        config.model, "best", config.data, config.data_options, device=config.device
    )
    loaded, model = candidate.loaded, candidate.loaded.model
    if not isinstance(model, GenesisS) or model.config.posterior != "attention":
        raise ValueError(f"model must have posterior='attention', got {config.model!r}.")
    names = ("prior", "prior_components", "prior_flow_layers")
    changes: dict[str, Any] = {
        name: value for name in names if (value := getattr(config, name)) is not None
    }
    new = with_new_prior(model, seed=config.seed, **changes)
    feed = ImageFeed(open_data(candidate, "train"), device_of(model))
    fit_prior(new, infer_posteriors(model, feed, seed=config.seed), config.steps, seed=config.seed)
    extra = {**loaded.metadata, "prior_steps": config.steps}
    save_pretrained(new, config.out.expanduser(), preprocessing=loaded.preprocessing, extra=extra)
    print(config.out)


@program("fit_prior.py", tyro.conf.PositionalRequiredArgs[FitPriorConfig], __doc__)
def main(config: FitPriorConfig) -> int:
    """Fit a prior; return the exit status."""
    fit(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
