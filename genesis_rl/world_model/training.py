"""Training of a world model: updates and validation."""

import math

import torch
from torch import Tensor

from genesis_rl.data.feed import batch_indices
from genesis_rl.training.steps import StepTrainer, Validation, noise_key
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.data import WorldModelData
from genesis_rl.world_model.folder import WorldFolder
from genesis_rl.world_model.loss import fit_scales, rollout_loss
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.pictures import rollout_picture

_WARMUP = 100
# Share of the windows in the training data of each ensemble head.
_SHARE = 0.75
_BATCH = 256


class WorldTrainer(StepTrainer):
    """Training of a world model in a `WorldFolder`, with the log ``metrics.jsonl``.

    Random numbers depend only on the seed and the step, so a resumed run gives the results of an
    uninterrupted one.
    """

    terms = ("dynamics", "noise", "reward", "end")
    terms_advice = "Try a lower learning_rate or a shorter horizon."
    lowest_is_best = True

    config: WorldTrainConfig
    model: WorldModel

    def __init__(self, config: WorldTrainConfig, data: WorldModelData) -> None:
        """Build the model, or restore the last checkpoint of the run directory.

        Raises:
            ValueError: if the directory contains another run, or the data are less than a batch.
        """
        self.data = data
        self._train = data.sequences["train"]
        if len(self._train.starts) < config.batch_size:
            raise ValueError(
                f"batch_size must be at most the {len(self._train.starts)} training steps in "
                f"{config.data}, got {config.batch_size}."
            )
        folder = WorldFolder(config, data.slot_spec.encoder_fingerprint)
        torch.manual_seed(config.seed)
        model = WorldModel(config.model, data.action_spec, data.slot_spec).to(data.device)
        fit_scales(model, self._train)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        generator = torch.Generator().manual_seed(config.seed)
        shape = len(self._train.starts), config.model.ensemble
        self._members = (torch.rand(shape, generator=generator) < _SHARE).float().to(data.device)
        stateful = {"optimiser": self.optimiser}
        super().__init__(config, folder, model, stateful, title=config.model.trunk)

    def _step(self) -> Tensor:
        config, starts = self.config, self._train.starts
        rate = config.learning_rate * min(1.0, (self.step + 1) / _WARMUP)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * self.progress()))
        rows = batch_indices(self.step, config.batch_size, len(starts), config.seed)
        generator = torch.Generator().manual_seed(noise_key(config.seed, self.step))
        heads = torch.randint(config.model.ensemble, (len(rows),), generator=generator)
        rows, heads = rows.to(starts.device), heads.to(starts.device)
        windows = self._train.windows(starts[rows], config.horizon)
        loss = rollout_loss(self.model, windows, heads, self._members[rows])
        self.optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimiser.step()
        return torch.stack(loss).detach()

    def _describe(self, means: dict[str, float]) -> tuple[dict[str, float], str]:
        text = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        return {"steps_per_second": self.step / max(self.seconds, 1e-9)}, text

    @torch.no_grad()
    def _validate(self) -> Validation:
        held_out, config = self.data.sequences["validation"], self.config
        # Evenly spaced in the split, the same at every validation.
        picks = torch.linspace(0, len(held_out.starts) - 1, config.eval_windows).long().unique()
        starts = held_out.starts[picks.to(held_out.starts.device)]
        totals = torch.zeros(len(self.terms), device=starts.device)
        self.model.eval()
        for part in starts.split(_BATCH):
            windows = held_out.windows(part, config.horizon)
            heads = torch.arange(len(part), device=part.device) % config.model.ensemble
            members = torch.ones(len(part), config.model.ensemble, device=part.device)
            loss = rollout_loss(self.model, windows, heads, members, weighted=False)
            totals += torch.stack(loss) * len(part) / len(starts)
        scores = dict(zip(self.terms, totals.tolist(), strict=True))
        scores["rollout"] = scores["dynamics"] + scores["reward"] + scores["end"]
        pictures = {"rollouts": rollout_picture(self.model, self.data, "validation")}
        self.model.train()
        return Validation(scores, pictures, scores["rollout"])
