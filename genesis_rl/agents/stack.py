"""Construction of environments from settings, single ones and vectors of them."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from genesis_rl.agents.config import OFF_POLICY, PIXELS, AgentConfig
from genesis_rl.agents.observations import RenderInfo, VecFrames
from genesis_rl.agents.vec_obs import VecGenesisObs, check_kept
from genesis_rl.envs.make import accepts_option, make_env
from genesis_rl.envs.wrappers.frame_source import find_entry, find_frames, find_kept, follow
from genesis_rl.envs.wrappers.rendering import RENDERED, RenderedObs
from genesis_rl.envs.wrappers.slot_obs import SLOT_SETTINGS, InfoKey
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.utils.process import ignore_interrupts

_ACTIONS = (
    gym.spaces.Box,
    gym.spaces.Discrete,
    gym.spaces.MultiDiscrete,
    gym.spaces.MultiBinary,
)
# Read by OpenMP, OpenBLAS and MKL at the start of a process.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class EpisodeSeeds(gym.Wrapper[Any, Any, Any, Any]):
    """Seeds every episode once `seed_episodes` has been called.

    The initial state of an evaluation episode then depends neither on its environment nor on
    earlier episodes, so that all policies are evaluated on the same episodes.
    """

    _seeds: Iterator[int] | None = None

    @property
    def time_limit(self) -> int | None:
        """Maximum steps of an episode; not the spec, which processes may be unable to pickle."""
        return None if self.spec is None else self.spec.max_episode_steps

    def seed_episodes(self, first: int, stride: int) -> None:
        """Seed the next episodes with first, first + stride, ..."""
        self._seeds = iter(range(first, 2**31, stride))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset with the next seed, unless one is given."""
        if seed is None and self._seeds is not None:
            seed = next(self._seeds)
        return self.env.reset(seed=seed, options=options)


@dataclass(frozen=True)
class EnvMaker:
    """Picklable factory of one environment of the settings.

    Attributes:
        config: the settings.
        frame_in_info: add rendered frames to the infos, for observations without frames.
    """

    config: AgentConfig
    frame_in_info: bool = False

    def __call__(self) -> gym.Env[Any, Any]:
        """Create the environment.

        Raises:
            ValueError: if it cannot be created, has no image observation (for obs state: no state),
                or an action space that the algorithm does not support; with her, if it has no
                compute_reward.
        """
        config = self.config
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)
            ignore_interrupts()
        env = self._make_state_env() if config.obs == "state" else self._make_frame_env()
        off_policy = config.algo in OFF_POLICY
        if not isinstance(env.action_space, gym.spaces.Box if off_policy else _ACTIONS):
            kinds = "Box" if off_policy else "Box, Discrete, MultiDiscrete or MultiBinary"
            raise ValueError(
                f"env {config.env!r} must have {kinds} actions for algo {config.algo!r}, got "
                f"{env.action_space}."
            )
        if config.her and not env.has_wrapper_attr("compute_reward"):
            raise ValueError(
                f"env {config.env!r} must have a method compute_reward(achieved_goal, "
                "desired_goal, info) with her, got none."
            )
        return EpisodeSeeds(Monitor(RenderInfo(env) if self.frame_in_info else env))

    def _make_frame_env(self) -> gym.Env[Any, Any]:
        """Create an environment whose observation is the frames and the kept entries only."""
        config = self.config
        if config.render:
            env: gym.Env[Any, Any] = RenderedObs(self._make(render_mode="rgb_array"), config.keep)
            if isinstance(env.observation_space, gym.spaces.Dict):
                check_kept(env.observation_space, config.keep)
            return env
        env = self._make()
        space = env.observation_space
        keys = config.image_key if isinstance(config.image_key, tuple) else (config.image_key,)
        sources = [find_frames(space, key=key, layout=config.image_layout) for key in keys]
        kept = find_kept(space, config.keep)
        if sources[0].key is None:
            return env
        # Reduces the data sent between processes, which does not support nested Dicts.
        frames = {str(source.key): source.space for source in sources}
        flat = gym.spaces.Dict({**frames, **{n: follow(space, at) for n, at in kept.items()}})
        check_kept(flat, config.keep)

        def flatten(entries: Any) -> dict[str, Any]:
            frames = {str(source.key): source.frames(entries) for source in sources}
            return {**frames, **{name: follow(entries, at) for name, at in kept.items()}}

        return TransformObservation(env, flatten, flat)

    def _make_state_env(self) -> gym.Env[Any, Any]:
        """Create an environment with state observations, (N, F) float32; N = 1 for a vector."""
        config = self.config
        options = {"render_mode": "rgb_array"} if self.frame_in_info else {}
        if accepts_option(config.env, "observation", "state"):
            options["observation"] = "state"
        env = self._make(**options)
        space = env.observation_space
        if isinstance(space, gym.spaces.Dict) and isinstance(config.image_key, str):
            route = find_entry(space, config.image_key)
            if route is not None:
                space = follow(space, route)
                env = TransformObservation(env, partial(follow, route=route), space)
        kind = space.dtype.kind if space.dtype is not None else ""
        if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (1, 2) or kind != "f":
            raise ValueError(
                f"env {config.env!r} must support observation='state' or have Box observations of "
                f"floats, (F,) or (N, F), for obs state, got {space}. Use obs pixels or encoder."
            )
        shape = space.shape if len(space.shape) == 2 else (1, *space.shape)
        if space.shape == shape and space.dtype == np.float32:
            return env
        low, high = (np.reshape(x, shape).astype(np.float32) for x in (space.low, space.high))
        return TransformObservation(
            env,
            lambda state: np.asarray(state, np.float32).reshape(shape),
            gym.spaces.Box(low, high, dtype=np.float32),
        )

    def _make(self, **more: Any) -> gym.Env[Any, Any]:
        config = self.config
        return make_env(config.env, {**config.options, **more}, config.wrappers)


class StepTimer(VecEnvWrapper):
    """Measures the time of the inner environments' steps.

    ``reset_infos`` are those of the inner wrapper.

    Attributes:
        seconds: total wall-clock time.
    """

    seconds: float = 0.0

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        observations = self.venv.reset()
        self.reset_infos = self.venv.reset_infos
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments."""
        began = time.perf_counter()
        result = self.venv.step_wait()
        self.seconds += time.perf_counter() - began
        self.reset_infos = self.venv.reset_infos
        return result


def make_vec_env(
    config: AgentConfig,
    encoder: SlotEncoder | None,
    *,
    n_envs: int | None = None,
    seed: int | None = None,
    info_keys: tuple[InfoKey, ...] = (),
    align: bool | None = None,
) -> VecEnv:
    """Create the environments with the agent's observations.

    Args:
        config: the settings.
        encoder: encoder of the frames of all environments, in this process; None for observations
            without one.
        n_envs: number of parallel environments; None: that of the settings.
        seed: seed of the first environment; environment i has seed + i; None: not seeded.
        info_keys: entries to add to the infos: "frame" and, with an encoder, "masks".
        align: keep every object in its slot within an episode; None: for recurrent policies only.

    Returns:
        The vector environment. Observations: slots (n_envs, K, D) or the state, float32; frames
        (n_envs, 3, S, S), uint8; with ``keep``, a Dict of "slots" or "frames" and the kept entries.

    Raises:
        ValueError: if the environment cannot be created, or has no frames for the encoder.
    """
    n_envs = n_envs or config.n_envs
    maker = EnvMaker(config, frame_in_info=config.obs == "state" and "frame" in info_keys)
    probe = maker()  # raises errors that would end a worker process
    try:
        probe_venv = DummyVecEnv([lambda: probe])
        _wrap_observations(config, encoder, probe_venv, (), align)
    finally:
        probe.close()
    venv: VecEnv
    if config.vec == "dummy":
        venv = DummyVecEnv([maker] * n_envs)
    else:
        try:
            with _single_threaded_children():
                venv = SubprocVecEnv([maker] * n_envs)
        except (EOFError, ConnectionError) as error:
            raise ValueError(
                f"env must be registered in worker processes, got {config.env!r}. Use module:id "
                "with the module that registers it, such as genesis_rl:genesis_rl/ObjectGoal-v0, "
                "or vec dummy."
            ) from error
    if seed is not None:
        venv.seed(seed)
    return StepTimer(_wrap_observations(config, encoder, StepTimer(venv), info_keys, align))


def step_seconds(venv: VecEnv) -> tuple[float, float]:
    """Return the total step time of `make_vec_env`'s environments and that of their encoder."""
    timers = []
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, StepTimer):
            timers.append(venv.seconds)
        venv = venv.venv
    return timers[-1], timers[0] - timers[-1]


def _wrap_observations(
    config: AgentConfig,
    encoder: SlotEncoder | None,
    venv: VecEnv,
    info_keys: tuple[InfoKey, ...],
    align: bool | None,
) -> VecEnv:
    """Wrap the environments for the agent's observations."""
    image_key = RENDERED if config.render and config.keep else config.image_key
    if encoder is not None and not config.finetune:
        return VecGenesisObs(
            venv,
            encoder,
            mask_geometry=config.mask_geometry,
            image_key=image_key,
            keep=config.keep,
            image_layout=config.image_layout,
            info_keys=info_keys,
            # PPO's agents of all versions are not aligned.
            align=config.algo == "recurrent_ppo" if align is None else align,
            crop=config.crop,
        )
    if encoder is not None or config.obs in PIXELS:
        return VecFrames(
            venv,
            size=config.frame_size if encoder is None else encoder.image_size,
            preprocessing=None if encoder is None else encoder.preprocessing,
            image_key=cast("str | None", image_key),
            image_layout=config.image_layout,
            frame_in_info="frame" in info_keys,
            crop=config.crop,
            keep=config.keep,
        )
    return venv


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Limit processes that are started within the context to one thread each."""
    # They are forked from a server process that has imported PyTorch.
    multiprocessing.set_forkserver_preload([__name__])
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class SlotEvalCallback(EvalCallback):
    """EvalCallback that raises an error for evaluation environments unlike those of training.

    Stable-Baselines3 compares only the outermost wrappers, and only warns. `check_same_stack` is
    called at the start of ``learn``.
    """

    def _init_callback(self) -> None:
        check_same_stack(self.training_env, self.eval_env)
        super()._init_callback()


def check_same_stack(training: VecEnv, evaluation: VecEnv) -> None:
    """Check that an agent's observations in evaluation are those of its training.

    Wrappers that change observations must be the same in the same order, with the same encoder and
    settings. This includes the wrappers of single environments (GenesisObs), in this process or
    another, and of Gymnasium's vector environments (GenesisVectorObs). Wrappers that do not change
    observations may differ.

    Args:
        training: training environments.
        evaluation: evaluation environments.

    Raises:
        ValueError: if they differ, or VecNormalize would update its statistics or normalise rewards
            in evaluation.
    """
    names, layers = _layers(training)
    other_names, others = _layers(evaluation)
    pairs: list[tuple[dict[str, Any], dict[str, Any]]]
    pairs = [({"wrappers": names}, {"wrappers": other_names}), *zip(layers, others, strict=False)]
    for expected, actual in pairs:
        for name in expected | actual:
            value, other = expected.get(name), actual.get(name)
            if other != value:
                raise ValueError(
                    f"the {name} of the evaluation environments must be {value} as in training, "
                    f"got {other}. Use the same wrappers for both."
                )
    for layer in _all(evaluation):
        if isinstance(layer, VecNormalize) and (layer.training or layer.norm_reward):
            raise ValueError(
                "VecNormalize must have training=False and norm_reward=False in evaluation, got "
                f"{layer.training} and {layer.norm_reward}."
            )


def _all(venv: VecEnv) -> list[VecEnv]:
    """Return the wrappers, outermost first, and the environments inside."""
    wrappers = [venv]
    while isinstance(wrappers[-1], VecEnvWrapper):
        wrappers.append(wrappers[-1].venv)
    return wrappers


def _layers(venv: VecEnv) -> tuple[list[str], list[dict[str, Any]]]:
    """Return names and settings of the wrappers that change observations, outermost first."""
    names, layers = [], []
    for layer in _all(venv):
        settings: dict[str, Any] = {
            "observations": layer.observation_space,
            "actions": layer.action_space,
        }
        if isinstance(layer, VecGenesisObs):
            settings |= layer.slot_settings
        elif isinstance(layer, VecFrames):
            settings |= layer.frame_settings
        elif isinstance(layer, VecNormalize):
            keys = ("norm_obs", "norm_obs_keys", "clip_obs", "epsilon")
            settings |= {key: getattr(layer, key) for key in keys}
        elif isinstance(layer, VecTransposeImage):
            continue  # added by Stable-Baselines3 in training
        elif isinstance(layer, VecEnvWrapper):
            if layer.observation_space == layer.venv.observation_space:
                continue  # observations are unchanged
        else:
            settings |= _inner_settings(layer)
        names.append(type(layer).__name__ if isinstance(layer, VecEnvWrapper) else "environments")
        layers.append(settings)
    return names, layers


def _inner_settings(venv: VecEnv) -> dict[str, Any]:
    """Return the settings of the slot wrappers of the single environments; empty without any."""
    try:
        metadata = venv.get_attr("metadata")
    except (AttributeError, NotImplementedError):  # not supported by the vector environment
        return {}
    stacks: list[Any] = []
    for entries in metadata:
        wrappers = entries.get(SLOT_SETTINGS, []) if isinstance(entries, Mapping) else []
        if wrappers not in stacks:
            stacks.append(wrappers)
    if len(stacks) != 1:  # environments that differ from each other
        return {"slots": stacks}
    return {
        f"{'inner ' * depth}{name}": value
        for depth, wrapper in enumerate(stacks[0])
        for name, value in wrapper.items()
    }
