"""The demonstration: learn to see a small world, then to act in it, and write a report."""

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
    "a quarter of the frame wide, in different colours, on a grey background. The "
    "agent has to touch the blue square, and no other object before. The published variant "
    "of the task, with small objects on black at 64 px, does not come apart in minutes on a CPU; "
    "it wants longer training (pretrain/train.py) and a GPU."
)


_PUBLISHED = (
    "Scenes of genesis_rl/ObjectGoal-v0 by the published rules: four objects of any "
    "colour and shape and the agent (red circle), each 0.15 of the frame wide, on black. The agent "
    "has to touch the blue square, and no other object before."
)


@dataclass(frozen=True)
class DemoConfig:
    """How long the demonstration takes, and where it writes."""

    out: Path = Path("runs/demo")
    """folder of the results; one that exists is moved aside"""
    pretrained: str | None = None
    """learn to act only, in the published world, through this encoder (a run, a folder, a Hub id,
    or one that comes with the package)"""
    pretrain_minutes: float = 7.5
    """most time for learning to see"""
    agent_minutes: float = 1.25
    """time for learning to act"""
    train_scenes: int = 20_000
    """scenes to learn to see from"""
    test_scenes: int = 500
    """held-out scenes on which the encoder is scored"""
    episodes: int = 200
    """episodes on which agent and random policy are scored"""
    seed: int = 0
    """of everything random"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("pretrain_minutes", "agent_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value > 0.")
        check_integers(self, 1, "train_scenes", "test_scenes", "episodes")

    @property
    def world(self) -> dict[str, Any]:
        """Options of the environment."""
        if self.pretrained is None:
            return DEMO_WORLD
        return {"image_size": load(self.pretrained, device="cpu").config.image_size}

    @property
    def encoder(self) -> str:
        """Where the encoder lies when the agent is trained."""
        return self.pretrained or str(self.out / "encoder")

    @property
    def pretraining(self) -> PretrainConfig:
        """The settings of the first half."""
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
        """The settings of the second half."""
        return AgentConfig(
            encoder=self.encoder,
            env_options=json.dumps(self.world),
            total_steps=50_000 if self.pretrained is None else 200_000,
            max_minutes=self.agent_minutes,
            vec="dummy",  # an environment's step takes a tenth of a millisecond
            out=self.out / "agent",
            seed=self.seed,
            threads=self.threads,
        )


def run(config: DemoConfig) -> Path:
    """Pretrain, train an agent, evaluate both, and write report.html, figures.json and pictures.

    Args:
        config: the settings.

    Returns:
        The path of the report.

    Raises:
        ValueError: if a setting does not fit, or another process writes the folder.
        StoppedError: after SIGINT or SIGTERM.
    """
    began = time.monotonic()
    _ = config.world  # an encoder that cannot be had is told of before anything is moved
    if config.pretrained and config.out in Path(config.pretrained).parents:
        raise ValueError(f"pretrained lies in out, {config.out}, which is moved aside.")
    _move_aside(config.out)
    with FolderLock(config.out):
        return _run(config, began)


def _run(config: DemoConfig, began: float) -> Path:
    pretraining = None
    if config.pretrained is None:
        trainer = Trainer(config.pretraining)
        trainer.run()
        if trainer.stopped:
            raise StoppedError("stopped while learning to see", trainer.stop_status)
        pretraining = {
            "steps": trainer.step,
            "seconds": trainer.seconds,
            "images": trainer.step * trainer.config.batch_size,
        }
    seeing = _score_encoder(config)
    learner = AgentTrainer(config.agent)
    started = time.monotonic()
    learner.run()
    if learner.stopped:
        raise StoppedError("stopped while learning to act", learner.stop_status)
    acted = time.monotonic() - started
    acting = evaluate_agent(
        EvaluationConfig(config.out / "agent", episodes=config.episodes, threads=config.threads)
    )
    figures = {
        "minutes": (time.monotonic() - began) / 60,
        "pretraining": pretraining,
        "encoder": seeing,
        "agent": {**acting, "steps": learner.model.num_timesteps, "seconds": acted},
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    write_json(config.out / "figures.json", figures)
    return _report(config, figures)


def _scenes(count: int) -> str:
    return json.dumps({**DEMO_WORLD, "num_images": count})


def _move_aside(folder: Path) -> None:
    """Keep the results of an earlier demonstration under a name with its time."""
    folder = Path(os.path.realpath(folder))
    if folder.exists():
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(folder.stat().st_mtime))
        with FolderLock(folder):
            pass  # refuses one that is still running
        aside = folder.with_name(f"{folder.name}-{stamp}")
        number = 2
        while os.path.lexists(aside):  # else an empty folder would be replaced
            aside = folder.with_name(f"{folder.name}-{stamp}-{number}")
            number += 1
        folder.rename(aside)


def _score_encoder(config: DemoConfig) -> dict[str, dict[str, float]]:
    """Score the encoder and what is no model on held-out scenes, and draw some."""
    model = load(config.encoder, device="cpu")
    test = open_dataset("object_goal", "test", num_images=config.test_scenes, **config.world)
    for name, picture in pictures(model, test).items():
        save_png(config.out / f"{name}.png", picture)
    scores = {"GENESIS": validate(model, test, config.test_scenes)}
    return scores | baseline_scores(test, config.test_scenes, model.config.num_slots)


def _report(config: DemoConfig, figures: dict[str, Any]) -> Path:
    out, agent = config.out, figures["agent"]
    test = figures["encoder"]
    page = Report("genesis_rl: seeing objects, then acting on them")
    pretraining = figures["pretraining"]
    seen = (
        f"the encoder {config.pretrained}, as it comes, and "
        if pretraining is None
        else f"{pretraining['seconds'] / 60:.1f} minutes of pretraining without labels "
        f"({pretraining['images']:,} images), then "
    )
    page.text(_WORLD if pretraining else _PUBLISHED).text(
        f"Made in {figures['minutes']:.1f} minutes with {figures['machine']['threads']} CPU "
        f"threads: {seen}{agent['seconds'] / 60:.1f} minutes of PPO on the slots' latents "
        f"({agent['steps']:,} environment steps)."
    )
    page.heading("Seeing: held-out scenes, taken apart")
    page.picture(
        (out / "decomposition.png").read_bytes(),
        "Input, reconstruction, segmentation, then each slot: its mask and what it shows.",
    )
    page.table(
        ["", "ARI, all pixels", "ARI, foreground", "mSC", "SC"],
        [[name, *(scores[key] for key in _SCORES)] for name, scores in test.items()],
    ).text(
        f"{config.test_scenes} test scenes. The rows below the model are what no model gets on "
        "them: one slot for all, a fixed grid, the true colour as the slot. "
        f"Mean squared error of the reconstruction: {test['GENESIS']['mse']:.4f}."
    )
    if pretraining:
        page.picture(_curves(out / "encoder", "validation/", ("ari", "msc", "mse")), pixels=False)
    page.heading("Imagining: scenes from the autoregressive prior")
    page.picture(
        (out / "samples.png").read_bytes(),
        "The whole scene, then each slot."
        + " A short pretraining buys decomposition, not yet a good prior." * bool(pretraining),
    )
    page.heading("Acting: PPO on the slots")
    rows = [
        [name, _rate(agent[name]), agent[name]["mean_return"], agent[name]["mean_length"]]
        for name in ("agent", "greedy", "random")
    ]
    page.table(["", "success rate (95 % interval)", "mean return", "mean length"], rows)
    page.text(
        f"{config.episodes} episodes each, on the same seeds. The agent draws its actions, as in "
        "training; greedy takes the most likely ones."
    )
    page.picture(_curves(out / "agent", "", ("rollout/success_rate",)), pixels=False)
    if (out / "agent" / "video.mp4").is_file():
        page.video(out / "agent" / "video.mp4", "The trained agent, with the masks of its slots.")
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
