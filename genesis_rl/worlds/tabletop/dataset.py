"""Scenes of multi-object Fetch as a named dataset, cached as packs."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import SPLITS, open_or_make, pack_folder
from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.offscreen import require_gl
from genesis_rl.worlds.sprites import from_options
from genesis_rl.worlds.tabletop.rendering import TableRenderer
from genesis_rl.worlds.tabletop.rules import (
    MAX_DISTRACTORS,
    MIN_DISTRACTORS,
    RELATIONS,
    SKILLS,
    Layout,
    Relation,
    Skill,
    sample_layout,
)
from genesis_rl.worlds.tabletop.simulation import CAMERAS, STATE_COLUMNS, FetchSimulation

#: Default number of images by split.
SIZES = {"train": 20_000, "validation": 2_000, "test": 2_000}

_FRAMES = 10  # of an episode
_INTERVAL = 4  # actions between two frames
_STICKY = 0.8  # probability that an action is repeated: a random walk would stay at the start
_ROWS = MAX_DISTRACTORS + 3  # objects, goal, gripper


@dataclass(frozen=True)
class FetchScenes:
    """Scenes of all twelve tasks of multi-object Fetch, under random actions."""

    image_size: int = 64
    """side of the frames in pixels"""
    camera: str = "frontview"
    """name of the camera"""
    skills: tuple[Skill, ...] = SKILLS
    """skills, uniformly distributed"""
    relations: tuple[Relation, ...] = RELATIONS
    """relations, uniformly distributed"""
    empty_table: bool = False
    """without objects and goal, to train a background"""
    arm_mask: bool = False
    """whether the arm is an instance of the masks; otherwise it is background"""
    seed: int = 0
    """seed of the episodes"""

    def __post_init__(self) -> None:
        """Check values."""
        if not isinstance(self.image_size, int) or not 16 <= self.image_size <= 1024:
            raise ValueError(f"image_size must be an integer in 16..1024, got {self.image_size!r}.")
        if self.camera not in CAMERAS:
            raise ValueError(f"camera must be one of {', '.join(CAMERAS)}, got {self.camera!r}.")
        for name, known in (("skills", SKILLS), ("relations", RELATIONS)):
            values = getattr(self, name)
            if isinstance(values, str) or not values or not set(values) <= set(known):
                raise ValueError(f"{name} must be among {', '.join(known)}, got {values!r}.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed!r}.")


class Episode(NamedTuple):
    """Frames of an episode.

    Attributes:
        images: (T, H, W, 3) uint8.
        masks: (T, H, W) uint8: 0 = background, i + 1 = row i of the state.
        state: (T, 7, 14) float32: five objects, the goal, the gripper; 0 for absent ones; columns
            `genesis_rl.worlds.tabletop.STATE_COLUMNS`.
        shape: (T, 7) int64: 0 = sphere, 1 = cube; of rows that objects have.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    state: npt.NDArray[np.float32]
    shape: npt.NDArray[np.int64]

    def factors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the ground truth by name, T rows each, with a row per object."""
        axes = {name: self.state[..., axis] for axis, name in enumerate("xyz")}
        colour = self.state[..., STATE_COLUMNS.index("red") :][..., :3]
        return {"state": self.state, **axes, "colour": colour, "shape": self.shape}


class EpisodeRenderer(ExitStack):
    """Renderer of episodes; use it in a `with` block, which releases the OpenGL contexts."""

    def __init__(self, config: FetchScenes, split: str) -> None:
        """Choose the episodes; scenes and OpenGL contexts are created on first use."""
        super().__init__()
        self._config, self._seed = config, (config.seed, SPLITS.index(split))
        self._scenes: dict[Skill, tuple[FetchSimulation, TableRenderer]] = {}

    def render(self, number: int) -> Episode:
        """Simulate and render an episode, which depends on the seed, the split and its number."""
        config, rng = self._config, np.random.default_rng((*self._seed, number))
        skill = config.skills[rng.integers(len(config.skills))]
        relation = config.relations[rng.integers(len(config.relations))]
        distractors = int(rng.integers(MIN_DISTRACTORS[relation], MAX_DISTRACTORS + 1))
        simulation, renderer = self._scene(skill)
        layout = Layout()
        if not config.empty_table:
            layout = sample_layout(skill, relation, distractors, simulation.start, rng)
        simulation.reset(layout)
        action, frames = rng.uniform(-1, 1, 4), []
        for step in range(_FRAMES * _INTERVAL):
            if step % _INTERVAL == 0:
                frames.append((renderer.image(), renderer.instances(), simulation.state))
            if rng.random() >= _STICKY:
                action = rng.uniform(-1, 1, 4)
            simulation.step(action)
        images, masks, state = (np.stack(parts) for parts in zip(*frames, strict=True))
        masks[masks == state.shape[1]] = _ROWS if config.arm_mask else 0
        state = _pad(state)
        cubes = (state[..., STATE_COLUMNS.index("object")] == 1) & (skill != "Reach")
        return Episode(images, masks, state, cubes.astype(np.int64))

    def _scene(self, skill: Skill) -> tuple[FetchSimulation, TableRenderer]:
        if skill not in self._scenes:
            config = self._config
            simulation = FetchSimulation(skill, 0 if config.empty_table else MAX_DISTRACTORS + 1)
            renderer = TableRenderer(simulation, config.image_size, camera=config.camera)
            self._scenes[skill] = simulation, self.enter_context(renderer)
        return self._scenes[skill]


def _pad(state: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Insert rows of absent objects, (T, N, F) to (T, 7, F); the gripper stays in the last row."""
    missing = np.zeros((len(state), _ROWS - state.shape[1], state.shape[2]), np.float32)
    return np.concatenate([state[:, :-1], missing, state[:, -1:]], 1)


def open_fetch(root: Path, split: str, *, num_images: int | None = None, **options: Any) -> Pack:
    """Open a split of scenes of multi-object Fetch; render it if it is missing.

    Args:
        root: folder of all datasets.
        split: "train", "validation" or "test".
        num_images: number of images; by default 20,000 for training, else 2,000.
        **options: options of `FetchScenes`.

    Raises:
        ValueError: for an invalid value of an option.
        TypeError: for an unknown option.
        OSError: if the pack cannot be written.
        ImportError: if the robot's files are not installed.
        RuntimeError: if no OpenGL library is installed.
    """
    config = from_options(FetchScenes, options)
    count = SIZES[split] if num_images is None else num_images
    if count < 1:
        raise ValueError(f"num_images must be at least 1, got {count}.")
    meta = {"dataset": "fetch", "split": split, "num_images": count, **asdict(config)}

    def write(folder: Path) -> None:
        require_gl()
        bar = ProgressBar(total=count, desc=f"fetch, {split}", unit="img")
        writer = PackWriter(folder, count, config.image_size, meta=meta)
        with EpisodeRenderer(config, split) as renderer, bar, writer:
            for number in range(ceil(count / _FRAMES)):
                episode, used = renderer.render(number), slice(count - writer.written)
                factors = {name: values[used] for name, values in episode.factors().items()}
                writer.write(episode.images[used], episode.masks[used], **factors)
                bar.update(len(episode.images[used]))

    return open_or_make(pack_folder(root, "fetch", split, meta), write)
