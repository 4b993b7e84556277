"""Record any Gymnasium environment: frames, actions, rewards and ends, as packs."""

import importlib.metadata
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from genesis_rl.checks import check_integers, check_limits
from genesis_rl.envs.frame_source import find_frames
from genesis_rl.envs.make import check_wrappers, make_env, parse_options
from genesis_rl.envs.recorder import Recorded, Recorder, Shot, check_form, recording, take_shot
from genesis_rl.envs.rendering import RenderedObs
from genesis_rl.frames import LAYOUTS, Layout, Preprocessing, Resize
from genesis_rl.process import ignore_interrupts, versions

Vec = Literal["subproc", "dummy"]
# What has no meaning for frames from elsewhere.
_UNUSED = {
    "env": ("greedy", "trust_remote_code"),
    "agent": ("wrappers", "obs_key", "frame_layout", "render"),
    "from_minari": ("env_options", "wrappers", "render", "greedy", "sticky", "minari"),
}
#: From frames (n, S, S, 3) uint8 and the environments where an episode starts with them, (n,) bool,
#: to a batch of actions.
Policy = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_]], Any]


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to record, and how.

    Frames come from one of env, agent and from_minari.
    """

    env: str | None = None
    """id of a registered environment; module:id imports the module first"""
    agent: str | None = None
    """folder of an agent, which acts in its own environment in place of the random policy"""
    from_minari: str | None = None
    """id of a local Minari dataset whose observations hold frames"""
    out: Path
    """folder of the packs, one for each split"""
    steps: int = 20_000
    """steps to record, over all environments"""
    env_options: str = "{}"
    """options of the environment as JSON, e.g. '{"max_episode_steps": 200}'; with agent, changes
    to its own"""
    wrappers: tuple[str, ...] = ()
    """module:Class of wrappers around the environment, from the inside out"""
    obs_key: str | None = None
    """entry of a Dict observation that holds the frame, or its path in nested Dicts, e.g.
    camera/rgb; None: found"""
    frame_layout: Layout = "auto"
    """axes of a frame, e.g. HWC; auto: told from its shape"""
    render: bool = False
    """take the frames from rendering: for environments that observe none"""
    image_size: int = 64
    """side of the recorded images in pixels"""
    resize: Resize = "stretch"
    """how other frames come to it: stretch, letterbox (black borders), crop (the central square) or
    none"""
    greedy: bool = False
    """let the agent take its most likely actions, in place of drawing them"""
    sticky: float = 0.0
    """probability to repeat the action before"""
    unique: bool = False
    """keep images only, equal ones once, and no steps: smaller, for pretraining alone"""
    validation: float = 0.1
    """share of the episodes that is held out for validation"""
    test: float = 0.1
    """share of the episodes that is held out for the test"""
    num_envs: int = 8
    """environments side by side"""
    vec: Vec = "subproc"
    """each environment in its own process, or all in this one"""
    seed: int = 0
    """of the environments and of what is drawn"""
    minari: str | None = None
    """also write the steps as a local Minari dataset of this id, e.g. cars/random-v0"""
    trust_remote_code: bool = False
    """import the modules and read the paths that the settings of agent or from_minari name"""

    def __post_init__(self) -> None:
        """Check every field."""
        sources = [name for name in _UNUSED if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError(f"wanted one of {', '.join(_UNUSED)} to say where frames come from.")
        for entry in fields(self):
            if entry.name in _UNUSED[sources[0]] and getattr(self, entry.name) != entry.default:
                raise ValueError(f"{entry.name} has no meaning with {sources[0]}; wanted without.")
        check_integers(self, 1, "steps", "image_size", "num_envs")
        check_limits(self)
        for name in ("sticky", "validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value in [0, 1).")
        if not self.shares["train"] > 0:
            raise ValueError("validation and test leave nothing to train on; wanted a sum below 1.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; wanted a value in 0..2**31 - 1.")
        if self.frame_layout not in LAYOUTS:
            raise ValueError(f"frame_layout is {self.frame_layout!r}; wanted one of {LAYOUTS}.")
        if self.vec not in get_args(Vec):
            raise ValueError(f"vec is {self.vec!r}; wanted one of {get_args(Vec)}.")
        if self.unique and self.minari is not None:
            raise ValueError("unique keeps no steps, which minari needs; wanted one of them.")
        _ = self.options
        _ = self.preprocessing
        check_wrappers(self.wrappers)

    @property
    def options(self) -> dict[str, Any]:
        """The environment's options."""
        return parse_options(self.env_options)

    @property
    def preprocessing(self) -> Preprocessing:
        """How frames come to their size."""
        return Preprocessing(self.resize)

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the episodes by split, without those that get none."""
        held_out = {"validation": self.validation, "test": self.test}
        shares = {"train": 1 - sum(held_out.values()), **held_out}
        return {split: share for split, share in shares.items() if share > 0 or split == "train"}

    def meta(self, **more: Any) -> dict[str, Any]:
        """What meta.json says of a recording: the settings, versions, and what is added."""
        aside = ("out", "trust_remote_code")
        settings = {name: value for name, value in asdict(self).items() if name not in aside}
        return {
            "dataset": "recording",
            "resize": self.resize,
            "settings": settings,
            "versions": versions(),
            **more,
        }


@dataclass(frozen=True)
class ShotMaker:
    """Makes one environment that observes what is recorded; plain data, for any process."""

    config: CollectConfig

    def __call__(self) -> gym.Env[Any, Any]:
        """Make the environment.

        Raises:
            ValueError: if it cannot be made or shows no frames.
        """
        if multiprocessing.parent_process() is not None:
            cv2.setNumThreads(1)
            ignore_interrupts()
        config = self.config
        assert config.env is not None  # noqa: S101
        if not config.render:
            return ShotObs(make_env(config.env, config.options, config.wrappers), config)
        options = {**config.options, "render_mode": "rgb_array"}
        return ShotObs(RenderedObs(make_env(config.env, options, config.wrappers)), config)


class ShotObs(gym.Wrapper[Any, Any, Any, Any]):
    """Observes shots, which are small, in place of frames and infos of any size."""

    def __init__(self, env: gym.Env[Any, Any], config: CollectConfig) -> None:
        """Find the frames, and look at a first one to learn what the infos hold.

        Raises:
            ValueError: if there are no frames of a size that can be taken.
        """
        super().__init__(env)
        self._source = find_frames(
            env.observation_space, key=config.obs_key, layout=config.frame_layout
        )
        config.preprocessing.check(*self._source.size, config.image_size)
        self._form: dict[str, Any] = {
            "layout": self._source.layout,
            "white": self._source.white,
            "image_size": config.image_size,
            "preprocessing": config.preprocessing,
        }
        self._shapes: dict[str, tuple[int, ...]] = {}
        shot = self.reset()[0]
        self._shapes = {name: value.shape for name, value in shot.items()}
        self.observation_space = gym.spaces.Dict(
            {
                name: gym.spaces.Box(0, 255, value.shape, np.uint8)
                if value.dtype == np.uint8
                else gym.spaces.Box(-np.inf, np.inf, value.shape, np.float32)
                for name, value in shot.items()
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Shot, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._shoot(observation, info), {}

    def step(self, action: Any) -> tuple[Shot, Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._shoot(observation, info), reward, terminated, truncated, {}

    def _shoot(self, observation: Any, info: Mapping[str, Any]) -> Shot:
        frame = self._source.frames(observation)
        shot = take_shot(frame, info, **self._form)
        if self._shapes:
            check_form(shot, self._shapes)
        return shot


def collect(config: CollectConfig, policy: Policy | None = None) -> dict[str, Recorded]:
    """Record an environment.

    The same settings give the same packs, if the environment and the policy are deterministic.

    Args:
        config: the settings, with ``env``.
        policy: what acts; None draws actions evenly.

    Returns:
        What each split holds. With few episodes, validation or test may be missing.

    Raises:
        ValueError: if the environment cannot be made or recorded, or the folder is in use.
        StoppedError: after SIGINT or SIGTERM.
    """
    if config.env is None:
        raise ValueError("env is None; wanted the id of an environment.")
    with closing(_make_vector(config)) as envs:
        meta = config.meta(policy="random" if policy is None else "given")
        meta["versions"] |= _env_versions(config.env)
        with recording(
            config.out,
            envs.single_action_space,
            num_steps=config.steps,
            shares=config.shares,
            unique=config.unique,
            meta=meta,
            about=config.env,
        ) as recorder:
            return _run(envs, policy, recorder, config)


def _make_vector(config: CollectConfig) -> AsyncVectorEnv | SyncVectorEnv:
    makers = [ShotMaker(config)] * config.num_envs
    mode = AutoresetMode.DISABLED
    if config.vec == "dummy" or config.num_envs == 1:
        return SyncVectorEnv(makers, autoreset_mode=mode)
    # Forked processes would share what this one has made of OpenGL.
    context = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.set_forkserver_preload([__name__])
    try:
        return AsyncVectorEnv(makers, context=context, autoreset_mode=mode)
    except (EOFError, ConnectionError) as error:
        raise ValueError(
            f"env {config.env!r} can be made in this process, but not in one of its own; wanted"
            " module:id, with the module that registers it, such as"
            " genesis_rl:genesis_rl/ObjectGoal-v0, or vec dummy."
        ) from error


def _run(
    envs: AsyncVectorEnv | SyncVectorEnv,
    policy: Policy | None,
    recorder: Recorder,
    config: CollectConfig,
) -> dict[str, Recorded]:
    """Step until enough is recorded."""
    n = envs.num_envs
    rng = np.random.default_rng(config.seed)
    seeds: list[int | None] = rng.integers(2**31, size=n).tolist()
    envs.action_space.seed(config.seed)
    first = np.ones(n, np.bool_)
    shots, _ = envs.reset(seed=seeds)
    actions: Any = None
    while True:
        for i in np.flatnonzero(first).tolist():
            recorder.begin(i, _row(shots, i))
        drawn = envs.action_space.sample() if policy is None else policy(shots["image"], first)
        actions = repeat_some(drawn, actions, first, config.sticky, rng)
        shots, rewards, terminated, truncated, _ = envs.step(actions)
        for i in range(n):
            end = terminated[i], truncated[i]
            recorder.step(i, actions[i], rewards[i], *end, _row(shots, i))
        if not recorder.left:
            return recorder.close()
        first = np.logical_or(terminated, truncated)
        if first.any():
            shots, _ = envs.reset(options={"reset_mask": first})


def repeat_some(
    actions: npt.NDArray[Any],
    before: npt.NDArray[Any] | None,
    first: npt.NDArray[np.bool_],
    sticky: float,
    rng: np.random.Generator,
) -> npt.NDArray[Any]:
    """Replace some actions of a batch by those before, but not at the start of an episode."""
    if before is None or not sticky:
        return actions
    repeated = (rng.random(len(first)) < sticky) & ~first
    shape = len(first), *[1] * (actions.ndim - 1)
    return np.where(repeated.reshape(shape), before, actions)


def _row(shots: Mapping[str, npt.NDArray[Any]], index: int) -> Shot:
    return {name: value[index] for name, value in shots.items()}


def _env_versions(env_id: str) -> dict[str, str]:
    """Versions of what decides the frames: Gymnasium, the environment's package and MuJoCo."""
    entry = gym.spec(env_id.rpartition(":")[2]).entry_point  # module: was imported by then
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    packages = importlib.metadata.packages_distributions().get(module.split(".")[0], [])
    names = {"gymnasium", *packages, *({"mujoco"} & sys.modules.keys())}
    return {name: importlib.metadata.version(name) for name in sorted(names)}
