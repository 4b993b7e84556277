"""Recording of Gymnasium environments: frames, actions, rewards and ends as packs."""

import importlib.metadata
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from genesis_rl.envs.make import check_wrappers, make_env, parse_options
from genesis_rl.envs.recording.recorder import (
    EpisodeRecorder,
    FrameRecord,
    SplitCounts,
    check_shapes,
    make_record,
    recording,
)
from genesis_rl.envs.wrappers.frame_source import find_frames
from genesis_rl.envs.wrappers.rendering import RenderedObs
from genesis_rl.perception.preprocessing import (
    Crop,
    Layout,
    Preprocessing,
    Resize,
    as_crop,
    as_nhwc_uint8,
)
from genesis_rl.perception.region import changing_region, reduced
from genesis_rl.utils.checks import Count, EnvSeed, PartialShare, check_fields
from genesis_rl.utils.process import ignore_interrupts, versions

Vec = Literal["subproc", "dummy"]
# Steps of the search for the region that changes, the longest episode of them, the distance of its
# frames, and the probability of repeating an action; largest share of the frame to cut out.
_CROP_STEPS, _CROP_EPISODE, _CROP_STRIDE, _CROP_STICKY = 800, 40, 4, 0.8
_MOST_CROP = 0.7
# Fields that do not apply to a source of frames.
_UNUSED = {
    "env": ("deterministic", "trust_remote_code"),
    "agent": ("wrappers", "image_key", "image_layout", "render", "crop"),
    "from_minari": ("env_options", "wrappers", "render", "deterministic", "sticky", "minari"),
}
#: Maps frames (n, S, S, 3) uint8, and which of them start an episode, (n,) bool, to a batch of
#: actions.
Policy = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_]], Any]


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Settings of a recording; exactly one of env, agent and from_minari is the source."""

    env: str | None = None
    """id of a registered environment; module:id imports the module first"""
    agent: str | None = None
    """folder of an agent, recorded in its own environment; None: random policy"""
    from_minari: str | None = None
    """id of a local Minari dataset with frames in its observations"""
    out: Path
    """output folder, with a pack per split"""
    steps: Count = 20_000
    """number of steps to record, over all environments"""
    env_options: str = "{}"
    """options of the environment as JSON, e.g. '{"max_episode_steps": 200}'; with agent, these
    override its own"""
    wrappers: tuple[str, ...] = ()
    """wrappers of the environment, module:Class, innermost first"""
    image_key: str | None = None
    """entry of a Dict observation with the image, or its path in nested Dicts, e.g. camera/rgb;
    None: inferred from the space"""
    image_layout: Layout = "auto"
    """axis order of a frame, e.g. HWC; auto: inferred from its shape"""
    render: bool = False
    """use rendered frames, for environments without image observations; vector observations are
    recorded as the factor state, for pretrain/probe.py"""
    crop: Crop | Literal["auto"] | None = None
    """region of interest of every frame in pixels, cut out before resizing: top, left, height and
    width; auto: the region that changes in frames of the random policy. The encoder trained on the
    recording uses it"""
    image_size: Count = 64
    """side of the recorded images in pixels"""
    resize: Resize = "stretch"
    """resizing of other frames: stretch, letterbox (black borders), crop (central square) or
    none"""
    deterministic: bool = False
    """use the agent's deterministic actions instead of sampled ones"""
    sticky: PartialShare = 0.0
    """probability of repeating the previous action"""
    unique: bool = False
    """record distinct images only, without steps: smaller, for pretraining alone"""
    validation: PartialShare = 0.1
    """fraction of the episodes held out for validation"""
    test: PartialShare = 0.1
    """fraction of the episodes held out for the test"""
    n_envs: Count = 8
    """number of parallel environments"""
    vec: Vec = "subproc"
    """subproc: one process per environment; dummy: all in this process"""
    seed: EnvSeed = 0
    """seed of the environments and the actions"""
    minari: str | None = None
    """id of a local Minari dataset to also write the steps to, e.g. cars/random-v0"""
    trust_remote_code: bool = False
    """allow importing modules and reading paths named in the settings of agent or from_minari"""

    def __post_init__(self) -> None:
        """Validate every field."""
        sources = [name for name in _UNUSED if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError(f"exactly one of {', '.join(_UNUSED)} must be set, got {sources}.")
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in _UNUSED[sources[0]] and value != entry.default:
                raise ValueError(f"{entry.name} must not be set with {sources[0]}, got {value!r}.")
        check_fields(self)
        if not self.shares["train"] > 0:
            raise ValueError(
                "validation and test must have a sum below 1, got"
                f" {self.validation} and {self.test}."
            )
        if self.unique and self.minari is not None:
            raise ValueError("unique must be False with minari, which records steps, got True.")
        _ = self.options
        _ = self.preprocessing
        if self.crop != "auto":
            as_crop(self.crop)
        elif sources != ["env"]:
            raise ValueError(f"crop must be a region with {sources[0]}, got 'auto'.")
        check_wrappers(self.wrappers)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the environment."""
        return parse_options(self.env_options)

    @property
    def region(self) -> Crop | None:
        """Given region of interest; None also if it is to be found."""
        return None if self.crop == "auto" else self.crop

    @property
    def preprocessing(self) -> Preprocessing:
        """Resizing of the frames."""
        return Preprocessing(self.resize)

    @property
    def shares(self) -> dict[str, float]:
        """Fractions of the episodes by split, without empty splits."""
        held_out = {"validation": self.validation, "test": self.test}
        shares = {"train": 1 - sum(held_out.values()), **held_out}
        return {split: share for split, share in shares.items() if share > 0 or split == "train"}

    def meta(self, **more: Any) -> dict[str, Any]:
        """Return the metadata of a recording: settings, versions and further entries."""
        omitted = ("out", "trust_remote_code")
        settings = {name: value for name, value in asdict(self).items() if name not in omitted}
        return {
            "dataset": "recording",
            "resize": self.resize,
            "settings": settings,
            "versions": versions(),
            **more,
        }


@dataclass(frozen=True)
class RecordingEnvMaker:
    """Picklable factory of one environment with frame records as observations."""

    config: CollectConfig

    def __call__(self) -> gym.Env[Any, Any]:
        """Make the environment.

        Raises:
            ValueError: if it cannot be created or has no frames.
        """
        if multiprocessing.parent_process() is not None:
            cv2.setNumThreads(1)
            ignore_interrupts()
        config = self.config
        return FrameRecordObs(_make_env(config), config)


def _make_env(config: CollectConfig) -> gym.Env[Any, Any]:
    """Make one environment with frames in its observations."""
    env = _env_id(config)
    if not config.render:
        return make_env(env, config.options, config.wrappers)
    options = {**config.options, "render_mode": "rgb_array"}
    return RenderedObs(make_env(env, options, config.wrappers), state=True)


def _env_id(config: CollectConfig) -> str:
    if config.env is None:
        raise ValueError("env must be the id of an environment, got None.")
    return config.env


class FrameRecordObs(gym.Wrapper[Any, Any, Any, Any]):
    """Replaces observations and infos by frame records of fixed shapes."""

    def __init__(self, env: gym.Env[Any, Any], config: CollectConfig) -> None:
        """Find the frames, and reset once to infer the observation space.

        Raises:
            ValueError: if there are no frames of a valid size.
        """
        super().__init__(env)
        self._source = find_frames(
            env.observation_space,
            key=config.image_key,
            layout=config.image_layout,
            crop=config.region,
        )
        #: Height and width of the environment's frames in pixels, before cropping.
        self.frame_size = self._source.full_size
        config.preprocessing.check(*self._source.size, config.image_size)
        self._format: dict[str, Any] = {
            "layout": self._source.layout,
            "white": self._source.white,
            "image_size": config.image_size,
            "preprocessing": config.preprocessing,
            "crop": self._source.crop,
        }
        self._shapes: dict[str, tuple[int, ...]] = {}
        record = self.reset()[0]
        self._shapes = {name: value.shape for name, value in record.items()}
        self.observation_space = gym.spaces.Dict(
            {
                name: gym.spaces.Box(0, 255, value.shape, np.uint8)
                if value.dtype == np.uint8
                else gym.spaces.Box(-np.inf, np.inf, value.shape, np.float32)
                for name, value in record.items()
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FrameRecord, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._record(observation, info), {}

    def step(self, action: Any) -> tuple[FrameRecord, Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._record(observation, info), reward, terminated, truncated, {}

    def _record(self, observation: Any, info: Mapping[str, Any]) -> FrameRecord:
        shape = np.shape(info.get("true_masks", 0))
        cropped = self._source.crop is not None and "true_masks" in info
        if cropped and shape != self._source.full_size:
            raise ValueError(
                f"info true_masks must have the size of the frame, {self._source.full_size}, with "
                f"crop, got {shape}."
            )
        record = make_record(self._source.frames(observation), info, **self._format)
        if self._shapes:
            check_shapes(record, self._shapes)
        return record


def collect(config: CollectConfig, policy: Policy | None = None) -> dict[str, SplitCounts]:
    """Record an environment.

    Equal settings give equal packs, if the environment and the policy are reproducible.

    Args:
        config: the settings, with ``env``.
        policy: the policy; None: uniform random actions.

    Returns:
        Counts per split. With few episodes, validation or test may be missing.

    Raises:
        ValueError: if the environment cannot be created or recorded, or the folder is in use.
        StoppedError: after SIGINT or SIGTERM.
    """
    env = _env_id(config)
    if config.crop == "auto":
        config = replace(config, crop=find_crop(config))
    with closing(_make_vector(config)) as envs:
        meta = config.meta(policy="random" if policy is None else "given")
        meta["versions"] |= _env_versions(env)
        meta["frame_size"] = list(envs.get_attr("frame_size")[0])
        with recording(
            config.out,
            envs.single_action_space,
            num_steps=config.steps,
            shares=config.shares,
            unique=config.unique,
            meta=meta,
            about=env,
        ) as recorder:
            return _run(envs, policy, recorder, config)


def find_crop(config: CollectConfig) -> Crop | None:
    """Find the region of the environment's frames that changes under a random policy.

    Args:
        config: the settings, with ``env``.

    Returns:
        A square region, in pixels of the frames; None if most of the frame changes.

    Raises:
        ValueError: if the environment cannot be created or has no frames.
    """
    rng = np.random.default_rng(config.seed)
    frames = []
    with closing(_make_env(config)) as env:
        source = find_frames(
            env.observation_space, key=config.image_key, layout=config.image_layout
        )
        env.action_space.seed(config.seed)
        observation, action, ended = None, env.action_space.sample(), True
        for step in range(_CROP_STEPS):
            if ended or step % _CROP_EPISODE == 0:
                observation, _ = env.reset(seed=int(rng.integers(2**31)))
                ended = False
            else:
                if rng.random() > _CROP_STICKY:
                    action = env.action_space.sample()
                observation, _, terminated, truncated, _ = env.step(action)
                ended = terminated or truncated
            if step % _CROP_STRIDE == 0:
                pixels = source.frames(observation)
                frame = as_nhwc_uint8(pixels, layout=source.layout, white=source.white)[0]
                frames.append(reduced(frame))
    region = changing_region(frames, source.full_size)
    height, width = source.full_size
    return None if region[2] * region[3] > _MOST_CROP * height * width else region


def _make_vector(config: CollectConfig) -> AsyncVectorEnv | SyncVectorEnv:
    makers = [RecordingEnvMaker(config)] * config.n_envs
    mode = AutoresetMode.DISABLED
    if config.vec == "dummy" or config.n_envs == 1:
        return SyncVectorEnv(makers, autoreset_mode=mode)
    # Forked processes would share the OpenGL state of this one.
    context = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.set_forkserver_preload([__name__])
    try:
        return AsyncVectorEnv(makers, context=context, autoreset_mode=mode)
    except (EOFError, ConnectionError) as error:
        raise ValueError(
            f"env must be registered in worker processes, got {config.env!r}. Use module:id with"
            " the module that registers it, such as genesis_rl:genesis_rl/ObjectGoal-v0, or"
            " vec dummy."
        ) from error


def _run(
    envs: AsyncVectorEnv | SyncVectorEnv,
    policy: Policy | None,
    recorder: EpisodeRecorder,
    config: CollectConfig,
) -> dict[str, SplitCounts]:
    """Step the environments until all steps are recorded."""
    n = envs.num_envs
    rng = np.random.default_rng(config.seed)
    seeds: list[int | None] = rng.integers(2**31, size=n).tolist()
    envs.action_space.seed(config.seed)
    first = np.ones(n, np.bool_)
    records, _ = envs.reset(seed=seeds)
    actions: Any = None
    while True:
        for i in np.flatnonzero(first).tolist():
            recorder.begin(i, _row(records, i))
        chosen = envs.action_space.sample() if policy is None else policy(records["image"], first)
        actions = repeat_some(chosen, actions, first, config.sticky, rng)
        records, rewards, terminated, truncated, _ = envs.step(actions)
        for i in range(n):
            end = terminated[i], truncated[i]
            recorder.step(i, actions[i], rewards[i], *end, _row(records, i))
        if not recorder.left:
            return recorder.close()
        first = np.logical_or(terminated, truncated)
        if first.any():
            records, _ = envs.reset(options={"reset_mask": first})


def repeat_some(
    actions: npt.NDArray[Any],
    previous: npt.NDArray[Any] | None,
    first: npt.NDArray[np.bool_],
    sticky: float,
    rng: np.random.Generator,
) -> npt.NDArray[Any]:
    """Replace random actions of a batch by the previous ones, except at the start of an episode."""
    if previous is None or not sticky:
        return actions
    repeated = (rng.random(len(first)) < sticky) & ~first
    shape = len(first), *[1] * (actions.ndim - 1)
    return np.where(repeated.reshape(shape), previous, actions)


def _row(records: Mapping[str, npt.NDArray[Any]], index: int) -> FrameRecord:
    return {name: value[index] for name, value in records.items()}


def _env_versions(env_id: str) -> dict[str, str]:
    """Return the versions of Gymnasium, the environment's package and those that it uses."""
    entry = gym.spec(env_id.rpartition(":")[2]).entry_point  # module: is imported by now
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    packages = importlib.metadata.packages_distributions().get(module.split(".")[0], [])
    used = {"crafter", "mujoco", "pettingzoo"} & sys.modules.keys()
    names = {"gymnasium", *packages, *used}
    return {name: importlib.metadata.version(name) for name in sorted(names)}
