"""Evaluation of planning in an environment, with a world model's settings and a random policy."""

import json
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.evaluation import RandomPolicy, record_video, run_episodes, score
from genesis_rl.agents.imagination.trainer import check_actions, check_recorded
from genesis_rl.agents.planning import Planner, PlannerOptions
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.checkpoints.weights import CONFIG, shipped_folder
from genesis_rl.data.pack import Pack
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training.folder import SETTINGS
from genesis_rl.utils.checks import Count, EnvSeed, Natural
from genesis_rl.utils.files import read_json, write_json
from genesis_rl.utils.process import hardware, keep_freed_memory, versions
from genesis_rl.world_model import WorldModel

RESULT = "plan.json"


@dataclass(frozen=True, kw_only=True)
class PlanningConfig(PlannerOptions):
    """Settings of an evaluation of planning."""

    world_model: str
    """world model: a run directory of pretrain/train_world_model.py, a pretrained model or a name
    of the package"""
    encoder: str | None = None
    """encoder of the world model's slots; None: that of its training"""
    env: str = "genesis_rl/ObjectGoal-v0"
    """id of a registered environment; module:id imports the module first"""
    env_options: str = "{}"
    """options of the environment as JSON, e.g. '{"num_objects": 3}'"""
    wrappers: tuple[str, ...] = ()
    """module:Class of wrappers around the environment, innermost first"""
    image_key: str | None = None
    """entry of a Dict observation with the image, or its path in nested Dicts; None: detected"""
    render: bool = False
    """use rendered frames, for environments whose observations contain none"""
    episodes: Count = 100
    """episodes per policy"""
    seed: EnvSeed = 10_000
    """seed of the first episode and of sampled actions; episode i has seed + i"""
    random: bool = True
    """also evaluate a random policy on the same episodes"""
    video_episodes: Natural = 8
    """episodes in the video; 0: no video"""
    video_format: Literal["mp4", "gif"] = "mp4"
    """format of the video"""
    n_envs: Count = 1
    """parallel environments, planned in one batch"""
    device: str = "auto"
    """device of encoder and world model: auto, cpu or cuda"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's default"""
    out: Path = Path("runs/plan")
    """output folder"""

    def agent_config(self, encoder: str, *, mask_geometry: bool) -> AgentConfig:
        """Return the settings of an agent with the same environments and observations."""
        return AgentConfig(
            encoder=encoder,
            env=self.env,
            env_options=self.env_options,
            wrappers=self.wrappers,
            image_key=self.image_key,
            render=self.render,
            mask_geometry=mask_geometry,
            n_envs=min(self.n_envs, self.episodes),
            vec="dummy",
        )


def evaluate_planning(config: PlanningConfig) -> dict[str, Any]:
    """Evaluate planning, and write plan.json and a video.

    Args:
        config: the settings.

    Returns:
        Content of plan.json: the scores of planning ("planning") and, depending on the settings, of
        a random policy ("random") on the same episodes, the time per action without the encoder's
        and the environment's ("milliseconds_per_action"), and the settings.

    Raises:
        ValueError: if world model, encoder and environment do not match, or cannot be loaded.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    world_model = WorldModel.from_pretrained(config.world_model, device=config.device)
    settings = trained_settings(config.world_model)
    source = config.encoder or settings.get("encoder")
    if source is None:
        raise ValueError(
            f"encoder must be that of the world model's training, which {config.world_model} does "
            "not name, got None."
        )
    encoder = SlotEncoder(source, device=config.device)
    spec = world_model.slot_spec
    if encoder.fingerprint != spec.encoder_fingerprint:
        raise ValueError(
            "encoder must be the one of the world model's training, with fingerprint "
            f"{spec.encoder_fingerprint[:12]}, got {source} with {encoder.fingerprint[:12]}."
        )
    agent = config.agent_config(source, mask_geometry=spec.mask_geometry)
    if "data" in settings and Path(settings["data"], "train").is_dir():
        check_recorded(agent, encoder, Pack.open(Path(settings["data"], "train")))
    make = partial(make_vec_env, agent, encoder, align=spec.aligned)
    planner = Planner(world_model, config, seed=config.seed)
    run = partial(run_episodes, episodes=config.episodes, seed=config.seed)
    with closing(make()) as venv:
        check_actions(agent, world_model, venv.action_space)
        result: dict[str, Any] = {"planning": asdict(score(run(venv, planner)))}
        result["milliseconds_per_action"] = 1000 * planner.seconds / planner.actions
        if config.random:
            result["random"] = asdict(score(run(venv, RandomPolicy(venv, seed=config.seed))))
    result |= {
        "settings": json.loads(json.dumps(asdict(config), default=str)) | {"encoder": source},
        "hardware": hardware(encoder.device),
        "versions": versions(),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    if config.video_episodes:
        path = config.out / f"video.{config.video_format}"
        with closing(make(n_envs=1, info_keys=("frame", "masks"))) as venv:
            record_video(venv, planner, path, episodes=config.video_episodes, seed=config.seed)
    write_json(config.out / RESULT, result)
    return result


def trained_settings(world_model: str) -> dict[str, Any]:
    """Return the settings of a world model's training, with "encoder" and "data".

    Of a shared folder, which may come from others, only an encoder of the package is returned.

    Args:
        world_model: as of `WorldModel.from_pretrained`.

    Returns:
        The settings; empty if the folder has none.
    """
    folder = Path(world_model).expanduser()
    if not folder.exists():
        folder = shipped_folder(world_model, world_models=True) or folder
    home = folder.parent if folder.name in ("best", "last") else folder
    if (home / SETTINGS).is_file():
        run: dict[str, Any] = read_json(home / SETTINGS)
        return dict(run.get("training", run))
    if not (folder / CONFIG).is_file():
        return {}
    encoder = read_json(folder / CONFIG).get("training", {}).get("encoder")
    known = isinstance(encoder, str) and shipped_folder(encoder) is not None
    return {"encoder": encoder} if known else {}
