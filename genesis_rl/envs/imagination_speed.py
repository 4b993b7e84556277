"""How fast imagined environments step, beside the real one."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from genesis_rl.envs.imagination_vector import ImaginationVectorEnv
from genesis_rl.envs.measure import steps_per_second
from genesis_rl.envs.obs import GenesisVectorObs


class DreamSpeed(NamedTuple):
    """Steps per second of processor time, all environments together.

    Attributes:
        num_envs: environments side by side.
        dream: imagined ones.
        frames: real ones, drawing their frames; None without a real environment.
        slots: real ones, their frames encoded to slots, which is what a dream gives.
    """

    num_envs: int
    dream: float
    frames: float | None = None
    slots: float | None = None


def dream_speeds(
    dream: Mapping[str, Any],
    counts: tuple[int, ...] = (1, 64, 1024),
    *,
    env: str | None = None,
    env_options: Mapping[str, Any] | None = None,
    steps: int = 256,
    repeats: int = 3,
) -> Iterator[DreamSpeed]:
    """Measure under random actions, resets included.

    Args:
        dream: options of `ImaginationVectorEnv`, models included.
        counts: numbers of environments.
        env: id of the real environment; None: only dreams.
        env_options: its options.
        steps: of all environments together in one repeat, at least.
        repeats: the best one counts.

    Yields:
        A measurement for each of the counts.

    Raises:
        ValueError, TypeError: if an environment cannot be made.
    """
    length: dict[str, Any] = {"steps": steps, "repeats": repeats}
    mode = AutoresetMode.SAME_STEP
    for count in counts:
        envs = ImaginationVectorEnv(num_envs=count, autoreset_mode=mode, **dream)
        speed = DreamSpeed(count, steps_per_second(envs, **length))
        if env is not None:
            with closing(_real(env, count, dict(env_options or {}))) as real:
                frames = steps_per_second(real, **length)
                geometry = envs.dream.world.mask_geometry
                encoded = GenesisVectorObs(real, envs.dream.encoder, mask_geometry=geometry)
                slots = steps_per_second(encoded, **length)
            speed = speed._replace(frames=frames, slots=slots)
        yield speed


def _real(env: str, count: int, options: dict[str, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Make real environments, in one batch where they can be."""
    mode = AutoresetMode.SAME_STEP
    if gym.spec(env).vector_entry_point is not None:
        return gym.make_vec(env, count, autoreset_mode=mode, **options)
    vector = {"autoreset_mode": mode}
    return gym.make_vec(env, count, vectorization_mode="sync", vector_kwargs=vector, **options)
