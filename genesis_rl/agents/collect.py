"""Recording of an agent's frames, actions and rewards."""

from contextlib import closing
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import unwrap_vec_wrapper

from genesis_rl.agents.bundle import Agent, load_agent
from genesis_rl.agents.observations import VecFrames
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.envs.recording.collect import CollectConfig, repeat_some
from genesis_rl.envs.recording.recorder import (
    EpisodeRecorder,
    FrameRecord,
    SplitCounts,
    make_record,
    recording,
)
from genesis_rl.perception.preprocessing import Crop, as_crop


def collect_with_agent(config: CollectConfig) -> dict[str, SplitCounts]:
    """Record an agent in its environment.

    Args:
        config: the settings, with ``agent``; the agent's settings define the frames.

    Returns:
        The contents of each split.

    Raises:
        ValueError: if the agent or its environment cannot be loaded, or the folder is in use.
        StoppedError: after SIGINT or SIGTERM.
    """
    agent = load_agent(
        str(config.agent),
        n_envs=config.n_envs,
        vec=config.vec,
        env_options=config.options,
        info_keys=("frame",),
        trust_remote_code=config.trust_remote_code,
    )
    with closing(agent.venv):
        meta = config.meta(policy="agent")
        meta["settings"] |= {"env": agent.config.env}
        meta["agent"] = agent.metadata
        crop = agent.config.crop
        resized = unwrap_vec_wrapper(agent.venv, VecFrames)
        if isinstance(resized, VecFrames):  # its frames are resized before they are recorded
            meta["resize"] = resized.frame_settings["preprocessing"]["resize"]
            crop = resized.frame_settings["crop"]
        slots = unwrap_vec_wrapper(agent.venv, VecGenesisObs)
        if isinstance(slots, VecGenesisObs):
            crop = slots.slot_settings["crop"]
        meta["settings"]["crop"] = crop
        with recording(
            config.out,
            agent.venv.action_space,
            num_steps=config.steps,
            shares=config.shares,
            unique=config.unique,
            meta=meta,
            about=f"{agent.config.env}, {config.agent}",
        ) as recorder:
            return _run(agent, recorder, config, as_crop(crop))


def _run(
    agent: Agent, recorder: EpisodeRecorder, config: CollectConfig, crop: Crop | None
) -> dict[str, SplitCounts]:
    """Step the environments until the recorder is full."""
    model, venv = agent.model, agent.venv
    rng = np.random.default_rng(config.seed)

    def shot(info: dict[str, Any]) -> FrameRecord:
        return make_record(
            info["frame"],
            info,
            image_size=config.image_size,
            preprocessing=config.preprocessing,
            crop=crop,
        )

    model.set_random_seed(config.seed)
    observations: Any = venv.reset()
    first, actions, state = np.ones(venv.num_envs, np.bool_), None, None
    while True:
        for i in np.flatnonzero(first).tolist():
            recorder.begin(i, shot(venv.reset_infos[i]))
        chosen, state = model.predict(observations, state, first, config.deterministic)
        actions = repeat_some(chosen, actions, first, config.sticky, rng)
        observations, rewards, first, infos = venv.step(actions)
        for i, info in enumerate(infos):
            truncated = bool(info["TimeLimit.truncated"])
            end = bool(first[i]) and not truncated, truncated
            recorder.step(i, actions[i], rewards[i], *end, shot(info))
        if not recorder.left:
            return recorder.close()
