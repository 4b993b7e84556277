"""Steps per second of imagined environments and of the real one."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from genesis_rl.envs.imagination.vector import ImaginationVectorEnv
from genesis_rl.envs.relational.measure import steps_per_second
from genesis_rl.envs.wrappers.obs import GenesisVectorObs


class ImaginationSpeed(NamedTuple):
    """Steps per second of CPU time, over all environments.

    Attributes:
        num_envs: number of parallel environments.
        imagined: imagined environments, with slots as observations.
        real_frames: real environments with frames as observations; None without one.
        real_slots: real environments with frames encoded to slots; None without one.
    """

    num_envs: int
    imagined: float
    real_frames: float | None = None
    real_slots: float | None = None


def imagination_speeds(
    imagination: Mapping[str, Any],
    counts: tuple[int, ...] = (1, 64, 1024),
    *,
    env: str | None = None,
    env_options: Mapping[str, Any] | None = None,
    steps: int = 256,
    repeats: int = 3,
) -> Iterator[ImaginationSpeed]:
    """Measure steps per second under random actions, resets included.

    Args:
        imagination: arguments of `ImaginationVectorEnv`, with the models.
        counts: numbers of environments.
        env: id of the real environment; None: imagined environments only.
        env_options: options of the real environment.
        steps: minimum number of steps per repeat, over all environments.
        repeats: number of repeats; the fastest one is reported.

    Yields:
        One measurement per count.

    Raises:
        ValueError, TypeError: if an environment cannot be created.
    """
    length: dict[str, Any] = {"steps": steps, "repeats": repeats}
    mode = AutoresetMode.SAME_STEP
    for count in counts:
        envs = ImaginationVectorEnv(num_envs=count, autoreset_mode=mode, **imagination)
        speed = ImaginationSpeed(count, steps_per_second(envs, **length))
        if env is not None:
            with closing(_real(env, count, dict(env_options or {}))) as real:
                frames = steps_per_second(real, **length)
                geometry = envs.engine.world.mask_geometry
                encoded = GenesisVectorObs(real, envs.engine.encoder, mask_geometry=geometry)
                slots = steps_per_second(encoded, **length)
            speed = speed._replace(real_frames=frames, real_slots=slots)
        yield speed


def _real(env: str, count: int, options: dict[str, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Make real environments, batched if the environment has a vector entry point."""
    mode = AutoresetMode.SAME_STEP
    if gym.spec(env).vector_entry_point is not None:
        return gym.make_vec(env, count, autoreset_mode=mode, **options)
    vector = {"autoreset_mode": mode}
    return gym.make_vec(env, count, vectorization_mode="sync", vector_kwargs=vector, **options)
