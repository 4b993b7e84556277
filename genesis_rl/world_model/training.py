"""Training of a world model, its evaluation and report."""

import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.data.feed import batch_indices
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.slots import ALIGN, MASK_GEOMETRY
from genesis_rl.training.config import RunConfig
from genesis_rl.training.folder import TrainingFolder, write_report
from genesis_rl.training.loop import (
    State,
    Task,
    Training,
    Validation,
    noise_key,
    set_learning_rate,
)
from genesis_rl.utils.checks import Count, NonNegative, Positive, Seed
from genesis_rl.utils.files import new_file
from genesis_rl.utils.process import configure_cpu
from genesis_rl.utils.tables import figure
from genesis_rl.visualization import curves, save_gif, save_png
from genesis_rl.world_model.evaluation import evaluate, rollout_picture, rollout_video
from genesis_rl.world_model.model import WorldModel, WorldModelConfig
from genesis_rl.world_model.sequences import Sequences, Windows, WorldModelData

# Maximum weight of a rare event in the loss.
_MAX_WEIGHT = 20.0
# Minimum of a feature's change scale, relative to the largest, so that noise is not amplified.
_MIN_CHANGE = 0.1
_WARMUP = 100
# Share of the windows in the training data of each ensemble head.
_SHARE = 0.75
_BATCH = 256
_BASELINE = "mlp"
# Settings of a run that must not change on resumption.
_IDENTITY = (
    *("model", "data", "encoder_fingerprint", "mask_geometry", "align"),
    *("seed", "batch_size"),
)


@dataclass(frozen=True)
class WorldTrainConfig(RunConfig):
    """Settings of a world model's training."""

    encoder: str
    """frozen encoder: run directory of pretrain/train.py, folder of a pretrained model or Hub id"""
    data: Path
    """folder of a recording (envs/collect.py)"""
    _: KW_ONLY
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    """architecture of the world model"""
    mask_geometry: bool = MASK_GEOMETRY
    """append each slot's mask centroid and area to its features, as for agents by default"""
    align: bool = ALIGN
    """keep every object in its slot within an episode"""
    baseline: Literal["none", "mlp"] = "none"
    """also train a baseline for comparison: mlp, an MLP over all concatenated latents"""
    steps: Count = 6_000
    batch_size: Count = 32
    """windows per update"""
    horizon: Count = 5
    """steps of the training rollouts on the model's own predictions"""
    learning_rate: Positive = 3e-3
    """maximum learning rate of AdamW, with a warm-up of 100 updates and a cosine schedule to 0"""
    weight_decay: NonNegative = 1e-4
    """weight decay of AdamW"""
    clip_norm: Positive = 1.0
    """maximum gradient norm"""
    seed: Seed = 0
    """seed of initial weights, batches and the data of ensemble heads"""
    out: Path = Path("runs/world")
    cache: Path | None = None
    """folder of encoded recordings; None: slots in the folder of generated datasets"""
    eval_every: Count = 500
    """updates between validations with images"""
    eval_windows: Count = 512
    """windows per validation"""
    save_every: Count = 500
    report_horizon: Count = 20
    """steps of the report's rollouts"""
    report_windows: Count = 512
    """maximum number of windows of the report"""

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        if self.baseline == "mlp" and self.model.trunk == "mlp":
            raise ValueError("baseline must be 'none' for model.trunk 'mlp', got 'mlp'.")


class RolloutLoss(NamedTuple):
    """Terms of the loss, averaged over the valid steps.

    Attributes:
        dynamics: mean squared error of the next slots, relative to the mean squared change in one
            step: 1 for copied slots at the first step.
        noise: negative log-likelihood of the first step, with gradients for sigma only.
        reward: cross-entropy of rewards other than the usual one, nats, plus the error of their
            value.
        end: cross-entropy of the termination, nats.
    """

    dynamics: Tensor
    noise: Tensor
    reward: Tensor
    end: Tensor

    @property
    def total(self) -> Tensor:
        """The minimised sum."""
        return self.dynamics + 0.1 * self.noise + self.reward + self.end


def fit_scales(model: WorldModel, data: Sequences) -> None:
    """Fit a model's buffers to its training data: scales, usual reward and event weights."""
    model.scale.fit(data.features)
    slots = model.scale(data.features)
    change = (slots[data.starts + 1] - slots[data.starts]).square().mean((0, 1)).sqrt()
    largest = float(change.max())
    model.change_scale.copy_(change.clamp(min=_MIN_CHANGE * largest) if largest else change + 1)
    rewards, terminated = data.rewards[data.starts], data.terminated[data.starts]
    values, counts = rewards.unique(return_counts=True)
    usual = values[counts.argmax()]
    others = rewards[rewards != usual] - usual
    model.usual_reward.copy_(usual)
    if len(others):
        model.reward_scale.copy_(others.square().mean().sqrt())
    model.event_bias.copy_(_bias((rewards != usual).float()))
    model.end_bias.copy_(_bias(terminated))


def _bias(events: Tensor) -> Tensor:
    """Return the log of the weight of an event: the square root of the inverse odds.

    The inverse odds would balance the classes, but give few events too much weight.
    """
    rate = events.mean()
    if rate == 0:
        return torch.zeros_like(rate)
    return ((1 - rate) / rate).sqrt().clamp(1, _MAX_WEIGHT).log()


def rollout_loss(
    model: WorldModel, windows: Windows, heads: Tensor, members: Tensor, *, weighted: bool = True
) -> RolloutLoss:
    """Compute the loss of rollouts from encoded frames.

    Args:
        model: the model.
        windows: windows of H steps.
        heads: (B,) int64, head of the ensemble whose predictions each rollout follows.
        members: (B, E), weight of each window for each head.
        weighted: whether to weight rare events; otherwise the cross-entropies are those of the
            model's probabilities.
    """
    slots = model.scale(windows.features.flatten(0, 1)).unflatten(0, (len(heads), -1))
    rows = torch.arange(len(heads), device=heads.device)
    event_bias, end_bias = model.event_bias, model.end_bias
    state = slots[:, 0]
    parts: list[Tensor] = []
    noise = slots.new_zeros(())
    unit = model.change_scale.square().mean()
    for h in range(windows.valid.shape[1]):
        output = model(state, windows.actions[:, h])
        error = (output.means - slots[:, h + 1, None]).square()  # (B, E, K, D)
        if h == 0:
            normalised = error[rows, heads].detach() / output.sigma.square()
            noise = (output.sigma.log() + 0.5 * normalised).mean()
        difference = (windows.rewards[:, h] - model.usual_reward) / model.reward_scale
        event = (difference != 0).float()
        event_logit, end_logit = output.event_logit, output.end_logit
        if not weighted:
            event_logit, end_logit = event_logit - event_bias, end_logit - end_bias
        reward = F.binary_cross_entropy_with_logits(
            event_logit, event, reduction="none", pos_weight=event_bias.exp() if weighted else None
        )
        end = F.binary_cross_entropy_with_logits(
            end_logit,
            windows.terminated[:, h],
            reduction="none",
            pos_weight=end_bias.exp() if weighted else None,
        )
        value = event * F.smooth_l1_loss(output.event_reward, difference, reduction="none")
        dynamics = (error.mean((2, 3)) / unit * members).sum(1) / members.sum(1).clamp_min(1)
        parts.append(torch.stack([dynamics, reward + value, end], 1) * windows.valid[:, h, None])
        state = output.means[rows, heads]
    means = torch.stack(parts).sum((0, 1)) / windows.valid.sum().clamp_min(1)
    return RolloutLoss(means[0], noise, means[1], means[2])


class WorldTrainer(Training):
    """Training of a world model in a run directory, with the log ``metrics.jsonl``.

    Random numbers depend only on the seed and the step, so a resumed run gives the results of an
    uninterrupted one.
    """

    config: WorldTrainConfig

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
        settings = {
            **config.to_json(),
            "encoder_fingerprint": data.slot_spec.encoder_fingerprint,
        }
        folder = TrainingFolder(config, settings, _IDENTITY)
        torch.manual_seed(config.seed)
        model = WorldModel(config.model, data.action_spec, data.slot_spec).to(data.device)
        self.model = model
        fit_scales(model, self._train)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        generator = torch.Generator().manual_seed(config.seed)
        shape = len(self._train.starts), config.model.ensemble
        self._members = (torch.rand(shape, generator=generator) < _SHARE).float().to(data.device)
        task = Task(
            model=model,
            stateful={"optimiser": self.optimiser},
            terms=RolloutLoss._fields,
            train_step=self._train_step,
            describe=self._describe,
            validate=self._validate,
            lowest_is_best=True,
            advice="Try a lower learning_rate or a shorter horizon.",
            title=config.model.trunk,
        )
        super().__init__(config, folder, task)

    def _train_step(self, state: State) -> Tensor:
        config, starts = self.config, self._train.starts
        set_learning_rate(self.optimiser, state.learning_rate(_WARMUP))
        rows = batch_indices(state.step, config.batch_size, len(starts), config.seed)
        generator = torch.Generator().manual_seed(noise_key(config.seed, state.step))
        heads = torch.randint(config.model.ensemble, (len(rows),), generator=generator)
        rows, heads = rows.to(starts.device), heads.to(starts.device)
        windows = self._train.windows(starts[rows], config.horizon)
        loss = rollout_loss(self.model, windows, heads, self._members[rows])
        self.optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimiser.step()
        return torch.stack(loss).detach()

    def _describe(self, state: State, means: Mapping[str, float]) -> tuple[dict[str, float], str]:
        text = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        return {"steps_per_second": state.step / max(state.seconds, 1e-9)}, text

    @torch.no_grad()
    def _validate(self, state: State) -> Validation:
        held_out, config = self.data.sequences["validation"], self.config
        # Evenly spaced in the split, the same at every validation.
        picks = torch.linspace(0, len(held_out.starts) - 1, config.eval_windows).long().unique()
        starts = held_out.starts[picks.to(held_out.starts.device)]
        totals = torch.zeros(len(RolloutLoss._fields), device=starts.device)
        self.model.eval()
        for part in starts.split(_BATCH):
            windows = held_out.windows(part, config.horizon)
            heads = torch.arange(len(part), device=part.device) % config.model.ensemble
            members = torch.ones(len(part), config.model.ensemble, device=part.device)
            loss = rollout_loss(self.model, windows, heads, members, weighted=False)
            totals += torch.stack(loss) * len(part) / len(starts)
        scores = dict(zip(RolloutLoss._fields, totals.tolist(), strict=True))
        scores["rollout"] = scores["dynamics"] + scores["reward"] + scores["end"]
        pictures = {"rollouts": rollout_picture(self.model, self.data, "validation")}
        self.model.train()
        return Validation(scores, pictures, scores["rollout"])


def train_world_model(config: WorldTrainConfig) -> dict[str, Any]:
    """Train the world model and, optionally, the baseline; evaluate both, and draw rollouts.

    In addition to the files of `WorldTrainer`, the run directory contains ``report.json``,
    ``rollouts.png``, ``rollouts.gif``, ``errors.png`` and, in ``baseline-mlp``, the training of the
    baseline.

    Returns:
        The content of report.json.

    Raises:
        ValueError: if encoder, data and settings do not match each other or an existing run.
        NonFiniteError: if the training diverges.
        StoppedError: after SIGINT or SIGTERM.
    """
    configure_cpu(config.threads)
    data = WorldModelData.load(
        config.data,
        SlotEncoder(config.encoder, device=config.device),
        mask_geometry=config.mask_geometry,
        align=config.align,
        cache=config.cache,
    )
    runs = {"world model": config}
    if config.baseline == "mlp":
        model = dataclasses.replace(config.model, trunk="mlp")
        out = config.out / f"baseline-{_BASELINE}"
        runs[_BASELINE] = dataclasses.replace(config, model=model, out=out, baseline="none")
    models = {}
    for name, run in runs.items():
        trainer = WorldTrainer(run, data)
        trainer.run_to_end()
        models[name] = WorldModel.from_pretrained(trainer.folder.best, device=data.device)
    result = evaluate(models, data, steps=config.report_horizon, count=config.report_windows)
    figures = {
        "encoder_fingerprint": data.slot_spec.encoder_fingerprint,
        "steps": {split: len(steps.starts) for split, steps in data.sequences.items()},
        "parameters": {
            name: sum(p.numel() for p in model.parameters()) for name, model in models.items()
        },
        **result,
    }
    report = write_report(config, figures, tables, data.device)
    world_model = models["world model"]
    save_png(config.out / "rollouts.png", rollout_picture(world_model, data, "test"))
    frames = rollout_video(world_model, data, "test", config.report_horizon)
    save_gif(config.out / "rollouts.gif", frames, fps=4)
    with new_file(config.out / "errors.png") as temporary:
        temporary.write_bytes(_curves(result["open_loop"]))
    return report


def _curves(rows: list[dict[str, Any]]) -> bytes:
    """Plot the errors over the horizon."""
    horizons = [float(row["horizon"]) for row in rows]
    panels = {
        title: {name: (horizons, [row[key][name] for row in rows]) for name in rows[0][key]}
        for title, key in (("latent error", "latent_error"), ("PSNR, dB", "psnr"))
    }
    return curves(panels, xlabel="steps ahead")


def tables(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a report for the results page: errors by horizon, rewards and ends."""
    rows = report["open_loop"]
    names = list(rows[0]["latent_error"]) if rows else []
    errors = {
        "caption": "Errors of open-loop rollouts on held-out episodes: latents (root mean square "
        "in units of the features' standard deviations, lower is better) and decoded against "
        "recorded frames (PSNR in dB, higher is better).",
        "head": [
            "steps ahead",
            "windows",
            *(f"latents: {name}" for name in names),
            *(f"PSNR: {name}" for name in [*names, "encoded"]),
        ],
        "rows": [
            [
                str(row["horizon"]),
                str(row["windows"]),
                *(figure(row["latent_error"][name], 3) for name in names),
                *(figure(row["psnr"][name], 1) for name in [*names, "encoded"]),
            ]
            for row in rows
        ],
    }
    keys = {"rate": "share", "auc": "AUC", "balanced_accuracy": "balanced accuracy", "f1": "F1"}
    events = {
        "caption": "Prediction of rewards other than the usual one and of terminations, one step "
        "from encoded frames and in open-loop rollouts.",
        "head": ["model", "event", "steps", *keys.values()],
        "rows": [
            [
                name,
                event,
                kind.replace("_", " "),
                *(figure(scores[key], 3) for key in keys),
            ]
            for name, by_kind in report["events"].items()
            for kind, by_event in by_kind.items()
            for event, scores in by_event.items()
        ],
    }
    return [errors, events]
