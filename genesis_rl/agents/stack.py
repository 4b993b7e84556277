"""Construction of vector environments from settings, for training and evaluation."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from genesis_rl.agents.config import PIXELS, AgentConfig
from genesis_rl.agents.env_maker import EnvMaker
from genesis_rl.agents.frames import VecFrames
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.envs.wrappers.rendering import RENDERED
from genesis_rl.envs.wrappers.slot_obs import InfoKey
from genesis_rl.perception.encoder import SlotEncoder

# Read by OpenMP, OpenBLAS and MKL at the start of a process.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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
) -> VecEnv:
    """Create the environments with the agent's observations.

    Args:
        config: the settings.
        encoder: encoder of the frames of all environments, in this process; None for observations
            without one.
        n_envs: number of parallel environments; None: that of the settings.
        seed: seed of the first environment; environment i has seed + i; None: not seeded.
        info_keys: entries to add to the infos: "frame" and, with an encoder, "masks".

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
        _wrap_observations(config, encoder, probe_venv, ())
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
    return StepTimer(_wrap_observations(config, encoder, StepTimer(venv), info_keys))


def step_seconds(venv: VecEnv) -> tuple[float, float]:
    """Return the total step time of `make_vec_env`'s environments and that of their encoder."""
    timers = []
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, StepTimer):
            timers.append(venv.seconds)
        venv = venv.venv
    return timers[-1], timers[0] - timers[-1]


def _wrap_observations(
    config: AgentConfig, encoder: SlotEncoder | None, venv: VecEnv, info_keys: tuple[InfoKey, ...]
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
            align=config.algo == "recurrent_ppo",  # PPO's agents of all versions are not aligned
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
