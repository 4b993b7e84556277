"""The demonstration: pretrain an encoder, train agents on its slots and on pixels, and report."""

import itertools
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from demonstration.report import describe_slots, write_report
from genesis_rl.agents.config import AgentConfig, EvaluationConfig, PPOConfig
from genesis_rl.agents.evaluation import evaluate_agent, wilson_interval
from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.checkpoints.loading import load
from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.feed import ImageFeed
from genesis_rl.evaluation.metrics.imagined import SceneScorer
from genesis_rl.evaluation.scoring import ScoreConfig, baselines, score
from genesis_rl.slots import SceneModel
from genesis_rl.training import PretrainConfig, Trainer
from genesis_rl.training.presets import DEMO_WORLD, PRESETS
from genesis_rl.training.prior import fit_prior, infer_posteriors, with_new_prior
from genesis_rl.training.validate import decomposition
from genesis_rl.utils import log
from genesis_rl.utils.checks import Checked, Count, Positive
from genesis_rl.utils.files import FolderLock, write_json
from genesis_rl.utils.process import StoppedError
from genesis_rl.visualization import mosaic, save_png, to_pictures

Pictures = npt.NDArray[np.uint8]

# The task, as dataset and environment: with large objects, or by its published rules.
_DATA, _ENV = "object_comparison", "genesis_rl/ObjectComparison-v0"
_STEP_SIZE = 0.1
# Scenes per picture of the report, and scenes whose validity is scored.
_SHOWN, _SAMPLED = 8, 300


@dataclass(frozen=True)
class DemoConfig(Checked):
    """Settings of the demonstration."""

    out: Path = Path("runs/demo")
    """output folder; if it exists, the first that does not of OUT-2, OUT-3, ..."""
    encoder: str | None = None
    """skip pretraining; agents by the published rules with this encoder: a run directory, a
    folder, a Hub id or the name of a shipped model"""
    pretrain_minutes: Positive = 5.0
    """time limit of pretraining"""
    prior_steps: Count = PRESETS["demo"].config.prior_steps
    """updates of the prior after pretraining, and of the independent prior"""
    agent_minutes: Positive = 6.0
    """time limit of the training of each agent"""
    agent_steps: Count = 60_000
    """environment steps of the agent on slots; the agent on pixels has the same time"""
    train_scenes: Count = 10_000
    """scenes for pretraining"""
    test_scenes: Count = 500
    """held-out scenes for the evaluation of the encoder"""
    episodes: Count = 200
    """episodes for the evaluation of each policy"""
    seed: int = 0
    """seed of all random numbers"""
    threads: int | None = None
    """CPU threads; None: PyTorch's default"""

    @property
    def task(self) -> str:
        """The world of the agents: "demo", or "published" for a given encoder."""
        return "demo" if self.encoder is None else "published"

    @cached_property
    def world(self) -> dict[str, Any]:
        """Options of the scenes."""
        if self.encoder is None:
            return DEMO_WORLD
        return {"image_size": load(self.encoder, device="cpu").config.image_size}

    @property
    def encoder_path(self) -> str:
        """The encoder of the agent: the given one, or the pretrained one's run directory."""
        return self.encoder or str(self.out / "encoder")

    @property
    def pretraining(self) -> PretrainConfig:
        """The settings of pretraining."""
        return replace(
            PRESETS["demo"].config,
            data_options=json.dumps({**DEMO_WORLD, "num_images": self.train_scenes}),
            max_minutes=self.pretrain_minutes,
            prior_steps=self.prior_steps,
            out=self.out / "encoder",
            seed=self.seed,
            threads=self.threads,
        )

    def agent(self, obs: Literal["encoder", "pixels"], minutes: float) -> AgentConfig:
        """The settings of the agent on slots ("encoder") or on pixels ("pixels")."""
        slots = obs == "encoder"
        options = self.world | ({"step_size": _STEP_SIZE} if self.encoder is None else {})
        return AgentConfig(
            env=_ENV,
            obs=obs,
            encoder=self.encoder_path if slots else None,
            env_options=json.dumps(options),
            # Latents of the demonstration's encoder contain positions and sizes.
            mask_geometry=self.encoder is not None,
            # With large objects 5 epochs are as good in the same number of steps; the published
            # rules need smaller updates, as in the preset "relational".
            ppo=PPOConfig(n_steps=512, batch_size=512, learning_rate=3e-4)
            if self.encoder
            else PPOConfig(n_epochs=5),
            total_timesteps=self.agent_steps * (1 if slots else 10),
            max_minutes=minutes,
            eval_every=10**9,  # at the end only
            vec="dummy",  # an environment step takes 0.1 ms
            out=self.out / ("agent" if slots else "pixels"),
            seed=self.seed,
            threads=self.threads,
        )


def run(config: DemoConfig) -> Path:
    """Pretrain, train agents, evaluate all, and write report.html, figures.json and images.

    Args:
        config: the settings.

    Returns:
        The path of the report.

    Raises:
        ValueError: if a setting is invalid, or the folder cannot be written.
        StoppedError: after SIGINT or SIGTERM.
    """
    began = time.monotonic()
    _ = config.world  # raises for an invalid encoder before a folder is made
    config = replace(config, out=_new_folder(config.out))
    with FolderLock(config.out):
        figures = _measure(config)
        figures["minutes"] = (time.monotonic() - began) / 60
        write_json(config.out / "figures.json", figures)
        return write_report(config.out, figures)


def _measure(config: DemoConfig) -> dict[str, Any]:
    """Train and evaluate everything, and return the figures of the report."""
    figures: dict[str, Any] = {
        "task": config.task,
        "encoder": config.encoder,
        "episodes": config.episodes,
        "test_scenes": config.test_scenes,
        "pretraining": None,
        "imagined": None,
    }
    count = 3 if config.encoder else 5
    stages = itertools.count(1)

    def announce(text: str) -> None:
        sys.stderr.write(f"{next(stages)}/{count}: {text}\n")
        sys.stderr.flush()

    test = _open(config, "test")
    _save_scenes(config.out / "frames.png", [test.images[:_SHOWN]])
    if config.encoder is None:
        announce("pretraining of the encoder")
        figures["pretraining"] = _pretrain(config)
    model = load(config.encoder_path, device="cpu")
    if config.encoder is None:
        announce("samples of the prior")
        figures["imagined"] = _imagine(config, model, test)
    figures["segmentation"] = _segment(config, model, test)
    figures["slots"] = describe_slots(model, test, config.out)
    figures["num_slots"] = model.config.num_slots
    announce("PPO on slots")
    slots = _train(config.agent("encoder", config.agent_minutes))
    announce("PPO on pixels, for the same time")
    pixels = _train(config.agent("pixels", max(slots["seconds"], 1.0) / 60))
    announce("evaluation")
    slots |= _evaluate(config, "agent")
    pixels |= _evaluate(config, "pixels")
    figures["agents"] = {"slots": slots, "pixels": pixels}
    figures["threads"] = torch.get_num_threads()
    return figures


def _new_folder(folder: Path) -> Path:
    """Return a folder that does not exist: the given one, or the first of NAME-2, NAME-3, ..."""
    names = itertools.chain([folder.name], (f"{folder.name}-{n}" for n in itertools.count(2)))
    return next(p for p in map(folder.with_name, names) if not os.path.lexists(p))


def _open(config: DemoConfig, split: str) -> Pack:
    count = config.train_scenes if split == "train" else max(config.test_scenes, _SHOWN)
    return open_dataset(_DATA, split, num_images=count, **config.world)


def _pretrain(config: DemoConfig) -> dict[str, float]:
    trainer = Trainer(config.pretraining)
    trainer.run()
    if trainer.interrupted:
        raise StoppedError("stopped in pretraining", trainer.stop_status)
    return {
        "steps": trainer.step,
        "seconds": trainer.state.seconds,
        "images": trainer.step * trainer.config.batch_size,
    }


def _segment(
    config: DemoConfig, model: SceneModel, test: Pack
) -> dict[str, dict[str, float | None]]:
    """Score the segmentation by the model and by baselines, and draw the decomposition."""
    save_png(config.out / "decomposition.png", decomposition(model, test))
    count = config.test_scenes
    scores = score(model, test, ScoreConfig(num_images=count, iw_samples=1))
    return {"GENESIS": scores} | baselines(test, count, model.config.num_slots)


def _imagine(config: DemoConfig, model: Any, test: Pack) -> dict[str, Any]:
    """Score and draw real scenes, samples of the prior, and of a prior of independent slots."""
    train = _open(config, "train")
    posteriors = infer_posteriors(model, ImageFeed(train, torch.device("cpu")))
    other = with_new_prior(model, prior="independent")
    fit_prior(other, posteriors, config.prior_steps, title="independent prior")
    models = {"autoregressive": model, "independent": other}
    scorer = SceneScorer(test, test, min(_SAMPLED, config.test_scenes))
    scores = {name: scorer(one) for name, one in models.items()}
    rows = [test.images[:_SHOWN]]
    for one in models.values():
        generator = torch.Generator().manual_seed(config.seed)
        with torch.inference_mode():
            rows.append(to_pictures(one.decode(one.sample(_SHOWN, generator=generator)).image))
    _save_scenes(config.out / "imagined.png", rows)
    valid = {name: one["valid"] for name, one in ({"real": scorer.reference()} | scores).items()}
    count = scorer.num_images
    return {
        name: {"valid": rate, "interval": wilson_interval(round(rate * count), count)}
        for name, rate in valid.items()
    }


def _save_scenes(path: Path, rows: list[Pictures]) -> None:
    """Save rows of scenes, each (N, H, W, 3) uint8."""
    save_png(path, mosaic(np.stack(rows), scale=2, gap=6))


def _train(config: AgentConfig) -> dict[str, Any]:
    """Train an agent, and return its steps, seconds and learning curve."""
    trainer = AgentTrainer(config)
    began = time.time()
    trainer.run()
    if trainer.stopped:
        raise StoppedError("stopped in the training of an agent", trainer.stop_status)
    rows = [row for row in log.read(config.out) if "rollout/success_rate" in row]
    return {
        "steps": trainer.model.num_timesteps,
        "seconds": trainer.seconds,
        "curve": [[(row["time"] - began) / 60, row["rollout/success_rate"]] for row in rows],
    }


def _evaluate(config: DemoConfig, name: str) -> dict[str, Any]:
    return evaluate_agent(
        EvaluationConfig(
            config.out / name,
            episodes=config.episodes,
            random=name == "agent",
            deterministic=False,
            video_episodes=8 if name == "agent" else 0,
            threads=config.threads,
        )
    )
