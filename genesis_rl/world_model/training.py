"""The training of a world model: its updates, its report, its validation."""

import math

import torch
from torch import Tensor

from genesis_rl.data.feed import batch_indices
from genesis_rl.training.steps import StepTrainer, Validation, noise_key
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.folder import WorldFolder
from genesis_rl.world_model.loss import fit_scales, rollout_loss
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.pictures import rollout_picture
from genesis_rl.world_model.study import Study

_WARMUP = 100
# Share of the windows that each head of the ensemble learns from.
_SHARE = 0.75
_BATCH = 256


class WorldTrainer(StepTrainer):
    """One training in one folder, which `WorldFolder` describes; ``metrics.jsonl`` is its log.

    Everything that is random is a function of the seed and the step, so a resumed run ends where
    an uninterrupted one would.
    """

    terms = ("dynamics", "noise", "reward", "end")
    terms_advice = "Try a lower learning_rate or a shorter horizon."
    lowest_is_best = True

    config: WorldTrainConfig
    model: WorldModel

    def __init__(self, config: WorldTrainConfig, study: Study) -> None:
        """Build the model, or take up the folder's last checkpoint to resume.

        Raises:
            ValueError: if the folder holds another run, or the data are fewer than a batch.
        """
        self.study = study
        self.data = study.sequences["train"]
        if len(self.data.starts) < config.batch_size:
            raise ValueError(
                f"data {config.data} has {len(self.data.starts)} steps to train on; batch_size is "
                f"{config.batch_size}."
            )
        folder = WorldFolder(config, study.form.encoder_fingerprint)
        torch.manual_seed(config.seed)
        model = WorldModel(config.model, study.spec, study.form).to(study.device)
        fit_scales(model, self.data)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        generator = torch.Generator().manual_seed(config.seed)
        shape = len(self.data.starts), config.model.ensemble
        self._members = (torch.rand(shape, generator=generator) < _SHARE).float().to(study.device)
        stateful = {"optimiser": self.optimiser}
        super().__init__(config, folder, model, stateful, title=config.model.trunk)

    def _step(self) -> Tensor:
        config, starts = self.config, self.data.starts
        rate = config.learning_rate * min(1.0, (self.step + 1) / _WARMUP)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * self.progress()))
        rows = batch_indices(self.step, config.batch_size, len(starts), config.seed)
        generator = torch.Generator().manual_seed(noise_key(config.seed, self.step))
        heads = torch.randint(config.model.ensemble, (len(rows),), generator=generator)
        rows, heads = rows.to(starts.device), heads.to(starts.device)
        windows = self.data.windows(starts[rows], config.horizon)
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
        data, config = self.study.sequences["validation"], self.config
        # Spread over the split, the same at every validation.
        picks = torch.linspace(0, len(data.starts) - 1, config.eval_windows).long().unique()
        starts = data.starts[picks.to(data.starts.device)]
        totals = torch.zeros(len(self.terms), device=starts.device)
        self.model.eval()
        for part in starts.split(_BATCH):
            windows = data.windows(part, config.horizon)
            heads = torch.arange(len(part), device=part.device) % config.model.ensemble
            members = torch.ones(len(part), config.model.ensemble, device=part.device)
            loss = rollout_loss(self.model, windows, heads, members, weighted=False)
            totals += torch.stack(loss) * len(part) / len(starts)
        scores = dict(zip(self.terms, totals.tolist(), strict=True))
        scores["rollout"] = scores["dynamics"] + scores["reward"] + scores["end"]
        pictures = {"rollouts": rollout_picture(self.model, self.study, "validation")}
        self.model.train()
        return Validation(scores, pictures, scores["rollout"])
