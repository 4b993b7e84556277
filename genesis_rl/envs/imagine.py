"""Watch dreams, alone or beside reality."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from genesis_rl import visualize
from genesis_rl.envs.imagination import ImaginationEnv
from genesis_rl.envs.make import check_wrappers, make_env, parse_options
from genesis_rl.envs.obs import GenesisObs
from genesis_rl.envs.watch import read_options
from genesis_rl.envs.window import has_window
from genesis_rl.frames import to_images
from genesis_rl.visualize.pixels import Picture

_ID = "genesis_rl/Imagination-v0"
_CELL = 96  # least side of a picture in the film, pixels
_LINE = 18  # height of a line of text, pixels


@dataclass(frozen=True)
class ImagineConfig:
    """What to watch, and where to."""

    model: str
    """the scene model: a run of pretrain/train.py, a folder of a saved model, a Hub id"""
    world_model: str
    """the world model: a run of pretrain/train_world_model.py"""
    options: dict[str, str] = field(default_factory=dict)
    """options of genesis_rl/Imagination-v0, as name value pairs, e.g. temperature 0.7 horizon 50"""
    env: str | None = None
    """id of the real environment, shown above the dream, which then starts from its first frame
    and takes the same actions; None: dreams alone"""
    env_options: str = "{}"
    """options of the real environment as JSON"""
    wrappers: tuple[str, ...] = ()
    """module:Class of wrappers around it, from the inside out"""
    render: bool = False
    """take its frames from rendering: for environments that observe none"""
    out: Path = Path("runs/imagine.gif")
    """film to write, .gif or .mp4"""
    window: bool = False
    """show a window instead of writing a file"""
    steps: int = 100
    """steps to watch; with speed, the least of one repeat, over all environments"""
    sticky: float = 0.7
    """probability to repeat the action before; actions are random"""
    fps: float = 10.0
    """steps per second of the film"""
    device: str = "auto"
    """auto, cpu or cuda"""
    seed: int = 0
    """seed of environments and actions"""
    speed: tuple[int, ...] = ()
    """measure steps per second of so many environments, e.g. 1 64 1024, and write no film"""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; wanted at least 1.")
        if not 0 <= self.sticky < 1:
            raise ValueError(f"sticky is {self.sticky}; wanted a value in [0, 1).")
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}; wanted a value above 0.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; wanted a value >= 0.")
        for count in self.speed:
            if count < 1:
                raise ValueError(f"speed has {count}; wanted numbers of at least 1.")
        if self.out.suffix not in (".gif", ".mp4"):
            raise ValueError(f"out is {self.out}; wanted a file that ends in .gif or .mp4.")
        if self.window and not has_window():
            raise ValueError(
                "window: this OpenCV is built without windows (opencv-python-headless); install"
                " opencv-python in its place, or write a file."
            )
        check_wrappers(self.wrappers)
        _ = self.real_options

    @property
    def real_options(self) -> dict[str, Any]:
        """Options of the real environment."""
        return parse_options(self.env_options) | (
            {"render_mode": "rgb_array"} if self.render else {}
        )

    @property
    def dream_options(self) -> dict[str, Any]:
        """Options of the imagined environment, models included.

        Raises:
            ValueError: if they are not flat slots, as films show them.
        """
        options = read_options(self.options)
        taken = {"model", "world_model", "device", "layout", "mask_geometry", "render_mode"}
        if taken & options.keys():
            raise ValueError(f"options has {sorted(taken & options.keys())}; wanted without.")
        return {
            "model": self.model,
            "world_model": self.world_model,
            "device": self.device,
            **options,
        }


class Moment(NamedTuple):
    """An environment at one step.

    Attributes:
        slots: (K, D).
        frame: what it shows, uint8 (H, W, 3); None: what the slots decode to.
        text: what else there is to say.
    """

    slots: npt.NDArray[np.float32]
    frame: Picture | None
    text: str


def film(config: ImagineConfig) -> Iterator[Picture]:
    """Yield pictures of a dream, or of reality above a dream: scene, slots and what is in each.

    Raises:
        ValueError: if an environment cannot be made, the models do not fit each other or reality's
            actions are not the dream's.
        TypeError: for an unknown option.
    """
    dream = make_dream(config)
    rng = np.random.default_rng(config.seed)
    dream.action_space.seed(config.seed)
    if config.env is None:
        moments = _dreams(dream, config, rng)
    else:
        moments = _both(dream, make_real(config, dream), config, rng)
    return (_draw(dream, row) for row in moments)


def make_dream(config: ImagineConfig) -> ImaginationEnv:
    """Make the imagined environment.

    Raises:
        ValueError, TypeError: see `ImaginationEnv`.
    """
    made: Any = gym.make(_ID, **config.dream_options).unwrapped
    dream: ImaginationEnv = made
    return dream


def make_real(config: ImagineConfig, dream: ImaginationEnv) -> gym.Env[Any, Any]:
    """Make the real environment, seen as the dream is.

    Raises:
        ValueError: if it cannot be made, shows no frames, or has other actions than the dream.
    """
    env = make_env(str(config.env), config.real_options, config.wrappers)
    check_actions(dream.action_space, env.action_space, str(config.env))
    slot_spec = dream.dream.world.slot_spec
    return GenesisObs(
        env,
        dream.dream.encoder,
        mask_geometry=slot_spec.mask_geometry,
        align=slot_spec.aligned,
        render=config.render,
        info_keys=("frame",),
    )


def check_actions(dreamt: gym.Space[Any], real: gym.Space[Any], env: str) -> None:
    """Refuse an environment whose actions are not those that the world model takes.

    Raises:
        ValueError: naming both.
    """
    both_boxes = isinstance(dreamt, gym.spaces.Box) and isinstance(real, gym.spaces.Box)
    same = dreamt == real
    if both_boxes and dreamt.shape == real.shape:
        bounds = ((dreamt.low, real.low), (dreamt.high, real.high))  # type: ignore[attr-defined]
        same = all(np.allclose(a, b) for a, b in bounds)
    if not same:
        raise ValueError(
            f"the actions of {env} are {real}, but the world model takes {dreamt}; wanted the"
            " environment that it was trained on."
        )


def _dreams(
    dream: ImaginationEnv, config: ImagineConfig, rng: np.random.Generator
) -> Iterator[list[Moment]]:
    """One episode after the other, until there were enough steps."""
    slots, info = dream.reset(seed=config.seed)
    text, over, action = _started(info), False, None
    for t in range(config.steps + 1):
        yield [Moment(slots, None, f"step {t}: {text}")]
        if over:
            slots, info = dream.reset()
            text, over, action = _started(info), False, None
            continue
        action = _next(dream, action, config.sticky, rng)
        slots, reward, end, cut, info = dream.step(action)
        text, over = _told(reward, end, cut, info), end or cut


def _both(
    dream: ImaginationEnv,
    real: gym.Env[Any, Any],
    config: ImagineConfig,
    rng: np.random.Generator,
) -> Iterator[list[Moment]]:
    """Reality and the dream from each of its first frames; it leads, and the dream may end."""
    with closing(real):
        seed: int | None = config.seed
        begin = True
        for t in range(config.steps + 1):
            if begin:
                seen, info = real.reset(seed=seed)
                dreamt, _ = dream.reset(seed=seed, options={"slots": seen})
                seed, begin, over, action = None, False, False, None
                texts = ["starts", "starts from its first frame"]
            else:
                action = _next(dream, action, config.sticky, rng)
                seen, earned, end, cut, info = real.step(action)
                texts[0], begin = _told(float(earned), end, cut, {}), end or cut
                if over:
                    texts[1] = "has ended"
                else:
                    dreamt, reward, end, cut, told = dream.step(action)
                    texts[1], over = _told(reward, end, cut, told), end or cut
            yield [
                Moment(seen, info["frame"], f"step {t}, reality: {texts[0]}"),
                Moment(dreamt, None, f"dream: {texts[1]}"),
            ]


def _next(dream: ImaginationEnv, action: Any, sticky: float, rng: np.random.Generator) -> Any:
    if action is not None and rng.random() < sticky:
        return action
    return dream.action_space.sample()


def _started(info: dict[str, Any]) -> str:
    return f"starts in a scene from {'the prior' if info['from_prior'] else 'data'}"


def _told(reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> str:
    words = [f"reward {reward:.2f}"]
    if "uncertainty" in info:
        words.append(f"uncertainty {info['uncertainty']:.2f}")
    words += [name.replace("_", "-") for name in ("uncertain", "non_finite") if info.get(name)]
    words += ["ends"] if terminated else ["is cut"] if truncated else []
    return ", ".join(words)


def _draw(dream: ImaginationEnv, moments: list[Moment]) -> Picture:
    """A row for each moment: the scene, its slots' masks, and what is in each; text below."""
    encoder = dream.dream.encoder
    decoded = encoder.decode(torch.from_numpy(np.stack([moment.slots for moment in moments])))
    pi = decoded.log_pi.exp()
    scenes = visualize.to_pictures(decoded.image)
    size = encoder.image_size
    for row, moment in enumerate(moments):
        if moment.frame is not None:
            fitted = to_images(
                moment.frame, image_size=size, layout="HWC", preprocessing=encoder.preprocessing
            )
            scenes[row] = visualize.to_pictures(fitted)[0]
    whole = np.stack([scenes, visualize.colour_masks(pi.squeeze(2))], axis=1)
    cells = np.concatenate([whole, visualize.to_pictures(pi * decoded.mu_x)], axis=1)
    page = visualize.mosaic(
        cells,
        captions=["scene", "slots", *(f"slot {k}" for k in range(1, encoder.num_slots + 1))],
        row_captions=["reality", "dream"][-len(moments) :],
        scale=-(-_CELL // size),
    )
    lines = np.full((_LINE * len(moments), page.shape[1], 3), 255, np.uint8)
    for row, moment in enumerate(moments):
        text = visualize.text_picture(moment.text, max_width=page.shape[1])[:_LINE]
        lines[row * _LINE : row * _LINE + text.shape[0], : text.shape[1]] = text
    return np.concatenate([page, lines])
