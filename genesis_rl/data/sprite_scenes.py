"""Datasets of sprite-world scenes, for pretraining the encoder of an agent."""

from dataclasses import asdict, dataclass, replace
from math import dist
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import SPLITS, check_split
from genesis_rl.data.pack import PackWriter
from genesis_rl.utils.checks import Checked, Count, Natural
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.sprites import (
    Scene,
    SpriteWorld,
    check_scene_size,
    get_agent,
    sample_positions,
    scene_state,
)
from genesis_rl.worlds.sprites.drawing import Colour, Sprite, check_shapes, render, scales, several

_BATCH = 256  # scenes per write
_TRIES = 64  # positions sampled for the agent before its start position is used


@dataclass(frozen=True)
class FreeScenes:
    """The published pretraining scenes: overlapping objects of several sizes, without an agent.

    After Yoon et al. (ICML 2023, arXiv:2302.04419). Lengths are relative to the frame's width.
    """

    image_size: int = 64
    """side of the frames in pixels"""
    num_objects: int = 5
    """objects in every scene"""
    colours: tuple[Colour, ...] = ("blue", "green", "yellow", "red")
    """colours of the objects"""
    shapes: tuple[str, ...] = ("square", "triangle", "star_4", "circle")
    """shapes of the objects"""
    object_scale: float | tuple[float, ...] = (0.15, 0.22)
    """widths of the objects, sampled uniformly"""
    background: Colour | tuple[Colour, ...] = "black"
    """colour of the background, or several to sample from for every scene"""
    centre_distance: float = 0.15
    """smallest distance between two centres"""
    wall_margin: float = 0.0
    """smallest distance between an object and a wall"""

    def __post_init__(self) -> None:
        """Validate every option and sample a scene."""
        check_scene_size(self.image_size, self.num_objects)
        check_shapes(self.shapes)
        hidden = set(several(self.background)) & set(several(self.colours))
        if hidden:
            raise ValueError(f"background must not have colours of objects, got {hidden}.")
        if self.centre_distance < 0 or not 0 <= self.wall_margin < 0.5:
            raise ValueError(
                "centre_distance must be at least 0 and wall_margin in [0, 0.5),"
                f" got {self.centre_distance} and {self.wall_margin}."
            )
        self.sample(np.random.default_rng(0))

    def sample(self, rng: np.random.Generator) -> Scene:
        """Sample a scene.

        Raises:
            ValueError: if the objects cannot be placed.
        """
        n = self.num_objects
        palette, backgrounds = several(self.colours), several(self.background)
        choices = scales(self.object_scale, "object_scale")
        colour = rng.integers(len(palette), size=n).tolist()
        shape = rng.integers(len(self.shapes), size=n).tolist()
        sizes = [choices[i] for i in rng.integers(len(choices), size=n).tolist()]
        places = sample_positions(
            rng,
            [size / 2 for size in sizes],
            wall_margin=self.wall_margin,
            spacing=[[self.centre_distance] * n] * n,
        )
        objects = [
            Sprite(self.shapes[shape[i]], palette[colour[i]], sizes[i], *places[i])
            for i in range(n)
        ]
        return Scene(objects, None, backgrounds[int(rng.integers(len(backgrounds)))], None)


def sample_scene(world: SpriteWorld | FreeScenes, rng: np.random.Generator) -> Scene:
    """Sample a scene as of any step of an episode.

    Objects are placed as at the start of an episode, or anywhere if the agent can move them. The
    agent is placed anywhere inside the frame without touching an object.

    Args:
        world: the world to sample from.
        rng: random number generator.

    Returns:
        The scene.

    Raises:
        ValueError: if the objects cannot be placed.
    """
    if isinstance(world, FreeScenes):
        return world.sample(rng)
    scene = world.sample(rng, free_placement=True)
    agent = get_agent(scene)
    radius = agent.scale / 2
    for x, y in (radius + (1 - 2 * radius) * rng.random((_TRIES, 2))).tolist():
        if all(dist((x, y), (o.x, o.y)) >= agent.scale for o in scene.objects):
            return scene._replace(agent=replace(agent, x=x, y=y))
    return scene  # too little space: the agent stays at its start position, which is free


class SceneBatch(NamedTuple):
    """Scenes as arrays.

    Attributes:
        images: (n, H, W, 3) uint8.
        masks: (n, H, W) uint8: 0 = background, then the objects in order, then the agent.
        state: (n, N, F) float32, see `genesis_rl.worlds.sprites.scene_state`.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    state: npt.NDArray[np.float32]


def render_scenes(
    world: SpriteWorld | FreeScenes,
    num_images: int,
    *,
    seed: int = 0,
    split: str = "train",
    first: int = 0,
) -> SceneBatch:
    """Sample and render scenes `first` to `first + num_images` of a world.

    Args:
        world: the world to sample from.
        num_images: number of scenes.
        seed: seed of the scenes; scene i depends only on (seed, split, i).
        split: "train", "validation" or "test".
        first: index of the first scene.

    Returns:
        The scenes.

    Raises:
        ValueError: for an unknown split.
    """
    check_split(split)
    size = world.image_size
    images = np.empty((num_images, size, size, 3), np.uint8)
    masks = np.empty((num_images, size, size), np.uint8)
    states = []
    for i in range(num_images):
        rng = np.random.default_rng((seed, SPLITS.index(split), first + i))
        scene = sample_scene(world, rng)
        render(scene.sprites, size, scene.background, image=images[i], masks=masks[i])
        states.append(scene_state(scene))
    return SceneBatch(images, masks, np.stack(states))


@dataclass(frozen=True)
class SpriteScenesConfig(Checked):
    """Settings of a dataset of scenes."""

    world: SpriteWorld | FreeScenes
    """the world to sample from"""
    num_images: Count
    """scenes in the split"""
    seed: Natural = 0
    """seed of the scenes"""

    def meta(self, split: str) -> dict[str, Any]:
        """Return the settings that determine the content of a split, as JSON data."""
        kind = type(self.world).__name__
        return {"dataset": "sprite_scenes", "split": split, "kind": kind, **asdict(self)}


def write_sprite_scenes(
    folder: Path, config: SpriteScenesConfig, split: str, *, first: int = 0
) -> None:
    """Write a split, or a shard of it, as a pack with the scenes' state as factor "state".

    Args:
        folder: destination.
        config: settings of the dataset.
        split: "train", "validation" or "test".
        first: index of the first image in the split.

    Raises:
        ValueError: for an unknown split.
        OSError: if the folder cannot be written.
    """
    check_split(split)
    size, n = config.world.image_size, config.num_images
    bar = ProgressBar(total=n, desc=f"sprite scenes, {split}", unit="img")
    with bar, PackWriter(folder, n, size, meta=config.meta(split)) as writer:
        for start in range(first, first + n, _BATCH):
            count = min(_BATCH, first + n - start)
            scenes = render_scenes(config.world, count, seed=config.seed, split=split, first=start)
            writer.write(scenes.images, scenes.masks, state=scenes.state)
            bar.update(count)
