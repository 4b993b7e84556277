"""The demonstration: pretrain an encoder, train an agent on its slots, and write a report."""

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from genesis_rl import log
from genesis_rl.agents.config import AgentConfig, EvaluationConfig
from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.checkpoint import load
from genesis_rl.checks import check_integers
from genesis_rl.data import open_dataset
from genesis_rl.files import FolderLock, write_json
from genesis_rl.presets import DEMO_WORLD, PRESETS
from genesis_rl.process import StoppedError
from genesis_rl.report import Report
from genesis_rl.training import PretrainConfig, Trainer
from genesis_rl.training.validate import baseline_scores, pictures, validate
from genesis_rl.visualize import curves, save_png

_SCORES = ("ari", "ari_fg", "msc", "sc")
_WORLD = (
    "Scenes of genesis_rl/ObjectGoal-v0 at 32 px: three objects and the agent (red circle), each "
    "a quarter of the frame wide, in different colours, on a grey background. The agent must touch "
    "the blue square before any other object. Scenes of the published task, with small objects on "
    "black at 64 px, are not segmented within minutes of training on a CPU; they need longer "
    "training (pretrain/train.py) and a GPU."
)


_PUBLISHED = (
    "Scenes of genesis_rl/ObjectGoal-v0 by the published rules: four objects of any colour and "
    "shape and the agent (red circle), each 0.15 of the frame wide, on black. The agent must touch "
    "the blue square before any other object."
)


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demonstration."""

    out: Path = Path("runs/demo")
    """output folder; an existing one is renamed"""
    encoder: str | None = None
    """skip pretraining and train an agent on the published task with this encoder: a run directory,
    a folder, a Hub id or the name of a shipped model"""
    pretrain_minutes: float = 7.5
    """time limit of pretraining"""
    agent_minutes: float = 1.25
    """time limit of the agent's training"""
    train_scenes: int = 20_000
    """scenes for pretraining"""
    test_scenes: int = 500
    """held-out scenes for the evaluation of the encoder"""
    episodes: int = 200
    """episodes for the evaluation of agent and random policy"""
    seed: int = 0
    """seed of all random numbers"""
    threads: int | None = None
    """CPU threads; None: PyTorch's default"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("pretrain_minutes", "agent_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}.")
        check_integers(self, 1, "train_scenes", "test_scenes", "episodes")

    @property
    def env_options(self) -> dict[str, Any]:
        """Options of the environment."""
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
            data_options=_scenes(self.train_scenes),
            max_minutes=self.pretrain_minutes,
            out=self.out / "encoder",
            seed=self.seed,
            threads=self.threads,
        )

    @property
    def agent(self) -> AgentConfig:
        """The settings of the agent's training."""
        return AgentConfig(
            encoder=self.encoder_path,
            env_options=json.dumps(self.env_options),
            total_timesteps=50_000 if self.encoder is None else 200_000,
            max_minutes=self.agent_minutes,
            vec="dummy",  # an environment step takes 0.1 ms
            out=self.out / "agent",
            seed=self.seed,
            threads=self.threads,
        )


def run(config: DemoConfig) -> Path:
    """Pretrain, train an agent, evaluate both, and write report.html, figures.json and images.

    Args:
        config: the settings.

    Returns:
        The path of the report.

    Raises:
        ValueError: if a setting is invalid, or the folder is in use by another process.
        StoppedError: after SIGINT or SIGTERM.
    """
    began = time.monotonic()
    _ = config.env_options  # fails for an invalid encoder before any folder is renamed
    if config.encoder and config.out in Path(config.encoder).parents:
        raise ValueError(
            f"encoder must be outside of out {config.out}, which is renamed, got {config.encoder}."
        )
    _back_up(config.out)
    with FolderLock(config.out):
        return _run(config, began)


def _run(config: DemoConfig, began: float) -> Path:
    pretraining = None
    if config.encoder is None:
        trainer = Trainer(config.pretraining)
        trainer.run()
        if trainer.stopped:
            raise StoppedError("stopped in pretraining", trainer.stop_status)
        pretraining = {
            "steps": trainer.step,
            "seconds": trainer.seconds,
            "images": trainer.step * trainer.config.batch_size,
        }
    encoder_scores = _score_encoder(config)
    agent_trainer = AgentTrainer(config.agent)
    started = time.monotonic()
    agent_trainer.run()
    if agent_trainer.stopped:
        raise StoppedError("stopped in the agent's training", agent_trainer.stop_status)
    seconds = time.monotonic() - started
    agent_scores = evaluate_agent(
        EvaluationConfig(config.out / "agent", episodes=config.episodes, threads=config.threads)
    )
    figures = {
        "minutes": (time.monotonic() - began) / 60,
        "pretraining": pretraining,
        "encoder": encoder_scores,
        "agent": {**agent_scores, "steps": agent_trainer.model.num_timesteps, "seconds": seconds},
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    write_json(config.out / "figures.json", figures)
    return _report(config, figures)


def _scenes(count: int) -> str:
    return json.dumps({**DEMO_WORLD, "num_images": count})


def _back_up(folder: Path) -> None:
    """Rename the folder of an earlier demonstration to include its time."""
    folder = Path(os.path.realpath(folder))
    if folder.exists():
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(folder.stat().st_mtime))
        with FolderLock(folder):
            pass  # fails for a demonstration that is still running
        backup = folder.with_name(f"{folder.name}-{stamp}")
        number = 2
        while os.path.lexists(backup):  # renaming would replace an empty folder
            backup = folder.with_name(f"{folder.name}-{stamp}-{number}")
            number += 1
        folder.rename(backup)


def _score_encoder(config: DemoConfig) -> dict[str, dict[str, float]]:
    """Evaluate the encoder and trivial segmentations on held-out scenes, and save images."""
    model = load(config.encoder_path, device="cpu")
    test = open_dataset("object_goal", "test", num_images=config.test_scenes, **config.env_options)
    for name, picture in pictures(model, test).items():
        save_png(config.out / f"{name}.png", picture)
    scores = {"GENESIS": validate(model, test, config.test_scenes)}
    return scores | baseline_scores(test, config.test_scenes, model.config.num_slots)


def _report(config: DemoConfig, figures: dict[str, Any]) -> Path:
    out, agent = config.out, figures["agent"]
    test = figures["encoder"]
    page = Report("genesis_rl: an object-centric encoder and an agent on its slots")
    pretraining = figures["pretraining"]
    encoder = (
        f"the pretrained encoder {config.encoder}, and "
        if pretraining is None
        else f"{pretraining['seconds'] / 60:.1f} minutes of pretraining without labels "
        f"({pretraining['images']:,} images), then "
    )
    page.text(_WORLD if pretraining else _PUBLISHED).text(
        f"Completed in {figures['minutes']:.1f} minutes with {figures['machine']['threads']} CPU "
        f"threads: {encoder}{agent['seconds'] / 60:.1f} minutes of PPO on the slots' latents "
        f"({agent['steps']:,} environment steps)."
    )
    page.heading("Encoder: decomposition of held-out scenes")
    page.picture(
        (out / "decomposition.png").read_bytes(),
        "Input, reconstruction, segmentation, then the mask and the component of each slot.",
    )
    page.table(
        ["", "ARI, all pixels", "ARI, foreground", "mSC", "SC"],
        [[name, *(scores[key] for key in _SCORES)] for name, scores in test.items()],
    ).text(
        f"{config.test_scenes} test scenes. The rows below the model are trivial segmentations: "
        "one slot for all pixels, a fixed grid, one slot per true colour. "
        f"Mean squared error of the reconstruction: {test['GENESIS']['mse']:.4f}."
    )
    if pretraining:
        page.picture(_curves(out / "encoder", "validation/", ("ari", "msc", "mse")), pixels=False)
    page.heading("Prior: scenes sampled from the autoregressive prior")
    page.picture(
        (out / "samples.png").read_bytes(),
        "The whole scene, then each slot."
        + " A short pretraining suffices for decomposition, but not for a good prior."
        * bool(pretraining),
    )
    page.heading("Agent: PPO on the slots")
    rows = [
        [name, _rate(agent[name]), agent[name]["mean_return"], agent[name]["mean_length"]]
        for name in ("agent", "deterministic", "random")
    ]
    page.table(["", "success rate (95 % interval)", "mean return", "mean length"], rows)
    page.text(
        f"{config.episodes} episodes each, with the same seeds. *agent* samples its actions, as in "
        "training; *deterministic* takes the most probable ones."
    )
    page.picture(_curves(out / "agent", "", ("rollout/success_rate",)), pixels=False)
    if (out / "agent" / "video.mp4").is_file():
        page.video(out / "agent" / "video.mp4", "The trained agent and its slots' masks.")
    page.save(out / "report.html")
    return out / "report.html"


def _rate(scores: dict[str, Any]) -> str:
    low, high = scores["success_interval"]
    return f"{scores['success_rate']:.3f} ({low:.3f} to {high:.3f})"


def _curves(folder: Path, prefix: str, names: tuple[str, ...]) -> bytes:
    rows = log.read(folder)
    panels = {}
    for name in names:
        points = [(row["step"], row[prefix + name]) for row in rows if prefix + name in row]
        panels[name] = {name: ([x for x, _ in points], [y for _, y in points])}
    return curves(panels)
