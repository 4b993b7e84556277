"""Videos of imagined rollouts, alone or next to the real environment, and their speed."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode

from genesis_rl import visualization
from genesis_rl.envs.imagination.env import ImaginationEnv, ImaginationVectorEnv
from genesis_rl.envs.make import check_wrappers, make_env, parse_options
from genesis_rl.envs.relational.scripted import steps_per_second
from genesis_rl.envs.watch import AnimationPath, Window, read_options
from genesis_rl.envs.wrappers.obs import GenesisObs, GenesisVectorObs
from genesis_rl.perception.preprocessing import to_images
from genesis_rl.utils.checks import Count, Natural, PartialShare, Positive, check_fields
from genesis_rl.visualization.grids import Picture

_ID = "genesis_rl/Imagination-v0"
_CELL = 96  # minimum side of an image in the video, in pixels
_LINE = 18  # height of a text line, in pixels


@dataclass(frozen=True)
class ImagineConfig:
    """Models, environments and output of a video."""

    encoder: str
    """encoder: a run directory of pretrain/train.py, a pretrained model or a Hub id"""
    world_model: str
    """world model: a run directory of pretrain/train_world_model.py, a pretrained model or a Hub
    id"""
    options: dict[str, str] = field(default_factory=dict)
    """options of genesis_rl/Imagination-v0, as name value pairs, e.g. temperature 0.7 horizon 50"""
    env: str | None = None
    """id of the real environment, shown above the imagined rollout, which starts from its first
    frame and takes the same actions; None: imagined rollouts only"""
    env_options: str = "{}"
    """options of the real environment as JSON"""
    wrappers: tuple[str, ...] = ()
    """wrappers of the real environment, module:Class, innermost first"""
    render: bool = False
    """use rendered frames, for real environments without image observations"""
    out: AnimationPath = Path("runs/imagine.gif")
    """video file to write, .gif or .mp4"""
    window: Window = False
    """show the video in a window instead of writing a file"""
    steps: Count = 100
    """number of steps; with speed, minimum steps per repeat over all environments"""
    sticky: PartialShare = 0.7
    """probability of repeating the previous action; actions are random"""
    fps: Positive = 10.0
    """steps per second of the video"""
    device: str = "auto"
    """auto, cpu or cuda"""
    seed: Natural = 0
    """seed of the environments and the actions"""
    speed: tuple[Count, ...] = ()
    """measure steps per second with these numbers of environments, e.g. 1 64 1024; no video"""

    def __post_init__(self) -> None:
        """Validate every field."""
        check_fields(self)
        check_wrappers(self.wrappers)
        _ = self.real_options

    @property
    def real_options(self) -> dict[str, Any]:
        """Options of the real environment."""
        return parse_options(self.env_options) | (
            {"render_mode": "rgb_array"} if self.render else {}
        )

    @property
    def imagination_options(self) -> dict[str, Any]:
        """Arguments of the imagined environment, with the models.

        Raises:
            ValueError: for options that have a flag or that the video fixes.
        """
        options = read_options(self.options)
        reserved = {"encoder", "world_model", "device", "layout", "render_mode"}
        invalid = sorted(reserved & options.keys())
        if invalid:
            raise ValueError(f"options must not contain any of {sorted(reserved)}, got {invalid}.")
        return {
            "encoder": self.encoder,
            "world_model": self.world_model,
            "device": self.device,
            **options,
        }


class Snapshot(NamedTuple):
    """One environment at one step.

    Attributes:
        slots: (K, D).
        frame: uint8 (H, W, 3); None: the frame decoded from the slots.
        text: caption.
    """

    slots: npt.NDArray[np.float32]
    frame: Picture | None
    text: str


def video_frames(config: ImagineConfig) -> Iterator[Picture]:
    """Yield video frames with a row per environment: scene, masks and the content of each slot.

    Raises:
        ValueError: if an environment cannot be created, the models do not match, or the action
            spaces differ.
        TypeError: for an unknown option.
    """
    imagined = make_imagined(config)
    rng = np.random.default_rng(config.seed)
    imagined.action_space.seed(config.seed)
    if config.env is None:
        snapshots = _imagined_rollouts(imagined, config, rng)
    else:
        snapshots = _paired_rollouts(imagined, make_real(config, imagined), config, rng)
    return (_render(imagined, rows) for rows in snapshots)


def make_imagined(config: ImagineConfig) -> ImaginationEnv:
    """Make the imagined environment.

    Raises:
        ValueError, TypeError: see `ImaginationEnv`.
    """
    imagined: Any = gym.make(_ID, **config.imagination_options).unwrapped
    env: ImaginationEnv = imagined
    return env


def make_real(config: ImagineConfig, imagined: ImaginationEnv) -> gym.Env[Any, Any]:
    """Make the real environment, with observations in the form of the imagined one.

    Raises:
        ValueError: if it cannot be created, has no frames, or another action space.
    """
    env = make_env(str(config.env), config.real_options, config.wrappers)
    check_actions(imagined.action_space, env.action_space, str(config.env))
    slot_spec = imagined.engine.world.slot_spec
    return GenesisObs(
        env,
        imagined.engine.encoder,
        mask_geometry=slot_spec.mask_geometry,
        align=slot_spec.aligned,
        render=config.render,
        info_keys=("frame",),
    )


def check_actions(imagined: gym.Space[Any], real: gym.Space[Any], env: str) -> None:
    """Check that the real environment has the action space of the world model.

    Raises:
        ValueError: naming both.
    """
    both_boxes = isinstance(imagined, gym.spaces.Box) and isinstance(real, gym.spaces.Box)
    same = imagined == real
    if both_boxes and imagined.shape == real.shape:
        bounds = ((imagined.low, real.low), (imagined.high, real.high))  # type: ignore[attr-defined]
        same = all(np.allclose(a, b) for a, b in bounds)
    if not same:
        raise ValueError(
            f"env must have the action space of the world model, {imagined}, got {env} with {real}."
            " Use the environment that the world model was trained on."
        )


def _imagined_rollouts(
    env: ImaginationEnv, config: ImagineConfig, rng: np.random.Generator
) -> Iterator[list[Snapshot]]:
    """Yield episode after episode, for the given number of steps."""
    slots, info = env.reset(seed=config.seed)
    text, done, action = _reset_caption(info), False, None
    for t in range(config.steps + 1):
        yield [Snapshot(slots, None, f"step {t}: {text}")]
        if done:
            slots, info = env.reset()
            text, done, action = _reset_caption(info), False, None
            continue
        action = _next_action(env, action, config.sticky, rng)
        slots, reward, terminated, truncated, info = env.step(action)
        text = _step_caption(reward, terminated, truncated, info)
        done = terminated or truncated


def _paired_rollouts(
    imagined: ImaginationEnv,
    real: gym.Env[Any, Any],
    config: ImagineConfig,
    rng: np.random.Generator,
) -> Iterator[list[Snapshot]]:
    """Yield real episodes and a rollout from the first frame of each, which may end earlier."""
    with closing(real):
        seed: int | None = config.seed
        done = True
        for t in range(config.steps + 1):
            if done:
                slots, info = real.reset(seed=seed)
                predicted, _ = imagined.reset(seed=seed, options={"slots": slots})
                seed, done, predicted_done, action = None, False, False, None
                texts = ["reset", "reset to the first real frame"]
            else:
                action = _next_action(imagined, action, config.sticky, rng)
                slots, reward, end, cut, info = real.step(action)
                texts[0], done = _step_caption(float(reward), end, cut, {}), end or cut
                if predicted_done:
                    texts[1] = "has ended"
                else:
                    predicted, reward, end, cut, extra = imagined.step(action)
                    texts[1] = _step_caption(reward, end, cut, extra)
                    predicted_done = end or cut
            yield [
                Snapshot(slots, info["frame"], f"step {t}, real: {texts[0]}"),
                Snapshot(predicted, None, f"imagined: {texts[1]}"),
            ]


def _next_action(env: ImaginationEnv, action: Any, sticky: float, rng: np.random.Generator) -> Any:
    if action is not None and rng.random() < sticky:
        return action
    return env.action_space.sample()


def _reset_caption(info: dict[str, Any]) -> str:
    return f"reset to a scene from {'the prior' if info['from_prior'] else 'data'}"


def _step_caption(reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> str:
    words = [f"reward {reward:.2f}"]
    if "uncertainty" in info:
        words.append(f"uncertainty {info['uncertainty']:.2f}")
    words += [name.replace("_", "-") for name in ("uncertain", "non_finite") if info.get(name)]
    words += ["terminated"] if terminated else ["truncated"] if truncated else []
    return ", ".join(words)


def _render(env: ImaginationEnv, snapshots: list[Snapshot]) -> Picture:
    """Render a row per snapshot: scene, masks and the content of each slot; captions below."""
    encoder = env.engine.encoder
    decoded = encoder.decode(torch.from_numpy(np.stack([s.slots for s in snapshots])))
    pi = decoded.log_pi.exp()
    scenes = visualization.to_pictures(decoded.image)
    size = encoder.image_size
    for row, snapshot in enumerate(snapshots):
        if snapshot.frame is not None:
            fitted = to_images(
                snapshot.frame, image_size=size, layout="HWC", preprocessing=encoder.preprocessing
            )
            scenes[row] = visualization.to_pictures(fitted)[0]
    scene_cells = np.stack([scenes, visualization.colour_masks(pi.squeeze(2))], axis=1)
    cells = np.concatenate([scene_cells, visualization.to_pictures(pi * decoded.mu_x)], axis=1)
    page = visualization.mosaic(
        cells,
        captions=["scene", "slots", *(f"slot {k}" for k in range(1, encoder.num_slots + 1))],
        row_captions=["real", "imagined"][-len(snapshots) :],
        scale=-(-_CELL // size),
    )
    lines = np.full((_LINE * len(snapshots), page.shape[1], 3), 255, np.uint8)
    for row, snapshot in enumerate(snapshots):
        text = visualization.text_picture(snapshot.text, max_width=page.shape[1])[:_LINE]
        lines[row * _LINE : row * _LINE + text.shape[0], : text.shape[1]] = text
    return np.concatenate([page, lines])


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
) -> Iterator[ImaginationSpeed]:
    """Measure steps per second under random actions, resets included.

    Args:
        imagination: arguments of `ImaginationVectorEnv`, with the models.
        counts: numbers of environments.
        env: id of the real environment; None: imagined environments only.
        env_options: options of the real environment.
        steps: minimum number of steps per repeat, over all environments.

    Yields:
        One measurement per count.

    Raises:
        ValueError, TypeError: if an environment cannot be created.
    """
    mode = AutoresetMode.SAME_STEP
    for count in counts:
        envs = ImaginationVectorEnv(num_envs=count, autoreset_mode=mode, **imagination)
        speed = ImaginationSpeed(count, steps_per_second(envs, steps=steps))
        if env is not None:
            with closing(_real(env, count, dict(env_options or {}))) as real:
                frames = steps_per_second(real, steps=steps)
                geometry = envs.engine.world.mask_geometry
                encoded = GenesisVectorObs(real, envs.engine.encoder, mask_geometry=geometry)
                slots = steps_per_second(encoded, steps=steps)
            speed = speed._replace(real_frames=frames, real_slots=slots)
        yield speed


def _real(env: str, count: int, options: dict[str, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Make real environments, batched if the environment has a vector entry point."""
    mode = AutoresetMode.SAME_STEP
    if gym.spec(env).vector_entry_point is not None:
        return gym.make_vec(env, count, autoreset_mode=mode, **options)
    vector = {"autoreset_mode": mode}
    return gym.make_vec(env, count, vectorization_mode="sync", vector_kwargs=vector, **options)
