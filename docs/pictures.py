"""Draw the pictures of the index and of the environment pages: `python docs/pictures.py`."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

import genesis_rl
from genesis_rl.data.sprite_scenes import render_scenes
from genesis_rl.envs import TASKS
from genesis_rl.envs.rooms.scripted import rooms_policy
from genesis_rl.visualization import decomposition_grid, mosaic, save_png, slot_colours
from genesis_rl.worlds.rooms.dataset import RoomScenes, RoomViewRenderer
from genesis_rl.worlds.sprites import ObjectGoalWorld

DOCS = Path(__file__).parent
FOLDER = DOCS / "environments"


def frames(name: str, seed: int, **options: Any) -> list[npt.NDArray[np.uint8]]:
    """Render an episode of random actions, the frame after the reset first."""
    env = gym.make(f"genesis_rl/{name}-v0", render_mode="rgb_array", **options)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    rendered, ended = [np.asarray(env.render())], False
    while not ended and len(rendered) < 10:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        ended = terminated or truncated
        rendered.append(np.asarray(env.render()))
    env.close()
    return rendered


def write_decompositions() -> None:
    """Draw test scenes with their slots by ``sprites-64``, ``fetch`` and ``rooms``."""
    goal = render_scenes(ObjectGoalWorld(image_size=64), 6, split="test").images
    fetch = genesis_rl.open_dataset("fetch", "test", num_images=100).images[5::17]
    rooms = genesis_rl.open_dataset("rooms", "test", image_size=64, num_images=100).images[1::17]
    for name, file, scenes in (
        ("sprites-64", "sprites_64_decomposition.png", goal),
        ("fetch", "fetch_decomposition.png", fetch),
        ("rooms", "environments/rooms_decomposition.png", rooms),
    ):
        images = torch.from_numpy(np.array(scenes)).permute(0, 3, 1, 2).float() / 255
        model = genesis_rl.load(name, "cpu")
        with torch.no_grad():
            picture = decomposition_grid(images, model.decode(model.infer(images)))
        save_png(DOCS / file, picture)


def write_fetch_tasks() -> None:
    """Draw starts of tasks of multi-object Fetch from both cameras."""
    names = ("FetchReachRed", "FetchReachOdd", "FetchPushOdd", "FetchPickReddest", "FetchPickRed")
    rows = [
        np.stack([frames(name, 2, render_size=160, camera=camera)[0] for name in names])
        for camera in ("frontview", "topview")
    ]
    save_png(DOCS / "fetch_tasks.png", mosaic(np.stack(rows), captions=names))


def write_rooms() -> None:
    """Draw views of rooms with their instances, and an episode of Rooms."""
    palette = np.concatenate([np.zeros((1, 3), np.uint8), slot_colours(3)])
    rows: list[npt.NDArray[np.uint8]] = []
    for scenes in (RoomScenes(image_size=160), RoomScenes(image_size=160, textures="test")):
        views = RoomViewRenderer(scenes, "test").render(range(8))
        rows += [views.images, palette[views.masks]]
    captions = ["training\ntextures", "instances", "test\ntextures", "instances"]
    save_png(FOLDER / "rooms_views.png", mosaic(np.stack(rows), row_captions=captions))
    env = gym.make("genesis_rl/Rooms-v0", render_mode="rgb_array", render_size=160)
    env.reset(seed=1)
    episode = [np.asarray(env.render())]
    for action in rooms_policy(env, np.random.default_rng(0)):
        ended = env.step(action)[2]
        episode.append(np.asarray(env.render()))
        if ended:
            break
    env.close()
    steps = np.linspace(0, len(episode) - 1, 8).astype(int)
    captions = ["reset", *(f"step {step}" for step in steps[1:])]
    picture = mosaic(np.stack([episode[step] for step in steps])[None], captions=captions)
    save_png(FOLDER / "rooms.png", picture)


def main() -> None:
    """Write the pictures."""
    write_decompositions()
    first = [frames(name, 1, render_size=160)[0] for name in TASKS]
    save_png(FOLDER / "relational-tasks.png", mosaic(np.stack(first)[None], captions=TASKS))
    episode = frames("ShapeStacks", 4, height=4, hover_offset=0.1, reach=0.1, render_size=160)
    captions = ["reset", *(f"step {i}" for i in range(1, len(episode)))]
    save_png(FOLDER / "shapestacks.png", mosaic(np.stack(episode)[None], captions=captions))
    write_fetch_tasks()
    write_rooms()
    episode = frames("Compose", 1, encoder="multi-dsprites-sharp", reward="objects")
    captions = ["reset", *(f"step {i}" for i in range(1, len(episode)))]
    save_png(FOLDER / "compose.png", mosaic(np.stack(episode)[None], captions=captions, scale=4))


if __name__ == "__main__":
    main()
