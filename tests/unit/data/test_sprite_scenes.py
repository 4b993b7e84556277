from math import dist
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.data import open_dataset
from genesis_rl.data.sprite_scenes import (
    FreeScenes,
    SpriteScenesConfig,
    render_scenes,
    sample_scene,
)
from genesis_rl.worlds.sprites import (
    STATE_COLUMNS,
    ObjectGoalWorld,
    Scene,
    SpriteWorld,
    from_options,
    sample_positions,
    scene_state,
)
from genesis_rl.worlds.sprites.drawing import COLOURS, OUTLINES, Sprite

DEMO: dict[str, Any] = {
    "image_size": 32,
    "num_objects": 3,
    "object_scale": 0.25,
    "agent_scale": 0.25,
    "unique_colours": True,
    "background": "lightgrey",
}


def scenes(world: SpriteWorld | FreeScenes, n: int = 100) -> list[Scene]:
    return [world.sample(np.random.default_rng(i)) for i in range(n)]


def place(sprite: Sprite) -> tuple[float, float]:
    return sprite.x, sprite.y


def agent(scene: Scene) -> Sprite:
    assert scene.agent is not None
    return scene.agent


@pytest.mark.parametrize("options", [{}, DEMO, {"object_scale": (0.1, 0.2)}])
def test_objects_keep_their_distances(options: dict[str, Any]) -> None:
    world = ObjectGoalWorld(**options)
    for scene in scenes(world):
        assert place(agent(scene)) == (0.5, 0.5) and len(scene.objects) == world.num_objects
        for i, a in enumerate(scene.objects):
            edge = a.scale / 2 + 0.08
            assert edge <= a.x <= 1 - edge and edge <= a.y <= 1 - edge
            for b in [*scene.objects[:i], agent(scene)]:
                assert dist(place(a), place(b)) >= (a.scale + b.scale) / 2 + 0.08


def test_places_fill_the_square() -> None:
    world = ObjectGoalWorld(num_objects=1)
    x, y = np.array([place(scene.objects[0]) for scene in scenes(world, 400)]).T
    for axis in (x, y):
        assert (
            axis.min() < 0.17 and axis.max() > 0.83 and axis.mean() == pytest.approx(0.5, abs=0.04)
        )


def test_margins_are_options() -> None:
    tight = ObjectGoalWorld(wall_margin=0.0, object_margin=0.0)
    edge = min(min(o.x, o.y) for scene in scenes(tight) for o in scene.objects)
    assert 0.075 <= edge < 0.155


def test_nothing_starts_touched() -> None:
    world = ObjectGoalWorld(num_objects=1, object_scale=0.05, agent_scale=0.4, object_margin=0.0)
    for scene in scenes(world):
        assert dist(place(scene.objects[0]), (0.5, 0.5)) >= 0.4


def test_the_agent_starts_anywhere_by_option() -> None:
    starts = np.array([place(agent(s)) for s in scenes(ObjectGoalWorld(random_start=True))])
    assert starts.min() >= 0.075 and starts.max() <= 0.925 and (starts.std(axis=0) > 0.2).all()


def test_exactly_one_target_at_any_index() -> None:
    world = ObjectGoalWorld()
    drawn = scenes(world)
    for scene in drawn:
        blue = [(o.colour, o.shape) == (COLOURS["blue"], "square") for o in scene.objects]
        assert blue.count(True) == 1 and blue.index(True) == scene.target
    assert {scene.target for scene in drawn} == {0, 1, 2, 3}
    pairs = {(o.colour, o.shape) for scene in drawn for o in scene.objects}
    assert len(pairs) == 12


def test_another_target() -> None:
    world = ObjectGoalWorld(target_colour="red", target_shape="star_4")
    for scene in scenes(world, 5):
        assert scene.target is not None
        target = scene.objects[scene.target]
        assert (target.colour, target.shape) == (COLOURS["red"], "star_4")


def test_colours_are_unique_by_option() -> None:
    for scene in scenes(ObjectGoalWorld(**DEMO)):
        colours = [sprite.colour for sprite in scene.sprites]
        assert len(set(colours)) == 4
    world = SpriteWorld(**DEMO)
    for scene in scenes(world):
        assert len({sprite.colour for sprite in scene.sprites}) == 4 and scene.target is None


def test_backgrounds_are_drawn_from_several() -> None:
    world = ObjectGoalWorld(background=("black", (9, 9, 9), "white"))
    assert {scene.background for scene in scenes(world)} == {(0,) * 3, (9,) * 3, (255,) * 3}
    assert scenes(ObjectGoalWorld(background=[9, 8, 7]), 1)[0].background == (9, 8, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 4}, "image_size"),
        ({"image_size": 64.0}, "image_size"),
        ({"num_objects": 0}, "num_objects"),
        ({"num_objects": 40}, "num_objects"),
        ({"object_scale": 0.9}, "object_scale"),
        ({"object_scale": 1.5}, "object_scale"),
        ({"agent_scale": 0}, "agent_scale"),
        ({"colours": ("blue", "blurple")}, "colour"),
        ({"colours": ()}, "colours"),
        ({"shapes": ("square", "cube")}, "shape"),
        ({"shapes": "square"}, "shapes"),
        ({"agent_shape": "cube"}, "shape"),
        ({"agent_colour": "blurple"}, "colour"),
        ({"background": "red"}, "background"),
        ({"wall_margin": -0.1}, "wall_margin"),
        ({"object_margin": 0.5}, "object_margin"),
        ({"unique_colours": True}, "unique_colours"),
        ({"target_colour": "pink"}, "target_colour"),
        ({"target_shape": "cube"}, "shape"),
        ({"colours": ("blue",), "shapes": ("square",)}, "colours"),
        ({"colours": ("blue", "red"), "target_colour": "red", "unique_colours": True}, "target_"),
    ],
)
def test_bad_worlds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectGoalWorld(**options)


def test_unknown_options_are_named() -> None:
    with pytest.raises(TypeError, match="size"):
        from_options(ObjectGoalWorld, {"size": 32})


def test_sampling_restarts_after_a_bad_first_position() -> None:
    """Two points fit only at opposite ends: most first places leave no room for the second."""
    spacing = [[0.9, 0.9]] * 2
    a, b = sample_positions(np.random.default_rng(0), [0.1, 0.1], wall_margin=0.0, spacing=spacing)
    assert dist(a, b) >= 0.9


def test_state_describes_the_scene() -> None:
    scene = ObjectGoalWorld(**DEMO).sample(np.random.default_rng(3))
    state = scene_state(scene)
    assert state.shape == (4, len(STATE_COLUMNS)) and state.dtype == np.float32
    column = {name: state[:, i] for i, name in enumerate(STATE_COLUMNS)}
    assert column["is_agent"].tolist() == [0, 0, 0, 1]
    for row, sprite in enumerate(scene.sprites):
        assert column["x"][row] == np.float32(sprite.x) and column["y"][row] == np.float32(sprite.y)
        assert column["scale"][row] == np.float32(sprite.scale)
        assert [column[c][row] * 255 for c in ("red", "green", "blue")] == list(sprite.colour)
        assert [shape for shape in OUTLINES if column[shape][row]] == [sprite.shape]


def test_sampled_agents_stand_anywhere_they_may() -> None:
    world = ObjectGoalWorld(**DEMO)
    drawn = [sample_scene(world, np.random.default_rng(i)) for i in range(200)]
    agents = np.array([place(agent(scene)) for scene in drawn])
    assert agents.min() >= 0.125 and agents.max() <= 0.875
    assert agents.min() < 0.15 and agents.max() > 0.85
    for scene in drawn:
        assert min(dist(place(agent(scene)), place(o)) for o in scene.objects) >= 0.25


def test_free_scenes_follow_the_published_ones() -> None:
    drawn = scenes(FreeScenes(), 200)
    objects = [o for scene in drawn for o in scene.objects]
    assert {scene.agent for scene in drawn} == {None} and len(objects) == 1000
    assert {o.scale for o in objects} == {0.15, 0.22}
    assert {o.shape for o in objects} == {"square", "triangle", "star_4", "circle"}
    assert len({o.colour for o in objects}) == 4
    gaps = [
        dist(place(a), place(b))
        for scene in drawn
        for a in scene.objects
        for b in scene.objects
        if a is not b
    ]
    assert 0.15 <= min(gaps) < 0.17


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "blue"}, "background"),
        ({"centre_distance": -1}, "centre_distance"),
        ({"wall_margin": 0.5}, "wall_margin"),
        ({"centre_distance": 0.9}, "num_objects"),
        ({"shapes": ("cube",)}, "shape"),
        ({"num_objects": 0}, "num_objects"),
        ({"object_scale": 2}, "object_scale"),
    ],
)
def test_bad_free_scenes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreeScenes(**options)


@pytest.mark.parametrize("world", [ObjectGoalWorld(**DEMO), FreeScenes(image_size=32)])
def test_rendered_scenes_have_masks_and_state(world: SpriteWorld | FreeScenes) -> None:
    batch = render_scenes(world, 6)
    assert batch.images.shape == (6, 32, 32, 3) and batch.masks.shape == (6, 32, 32)
    sprites = batch.state.shape[1]
    for image, mask, state in zip(batch.images, batch.masks, batch.state, strict=True):
        assert (image[mask == 0].astype(int).mean(axis=0)).std() < 20
        label = sprites  # the last sprite is in front
        rows, columns = np.nonzero(mask == label)
        assert (columns.mean() + 0.5) / 32 == pytest.approx(state[label - 1, 0], abs=0.04)
        assert 1 - (rows.mean() + 0.5) / 32 == pytest.approx(state[label - 1, 1], abs=0.06)


def test_scenes_depend_on_seed_split_and_index_alone() -> None:
    world = ObjectGoalWorld(**DEMO)
    images = render_scenes(world, 6).images
    np.testing.assert_array_equal(render_scenes(world, 2, first=3).images, images[3:5])
    for options in ({"seed": 1}, {"split": "validation"}, {"split": "test"}):
        assert (render_scenes(world, 6, **options).images != images).any()
    with pytest.raises(ValueError, match=r"^split "):
        render_scenes(world, 1, split="dev")


def test_open_dataset_keeps_scenes_by_their_options(tmp_path: Path) -> None:
    options = {"root": tmp_path, "num_images": 300, **DEMO}
    pack = open_dataset("object_goal", **options)
    expected = render_scenes(ObjectGoalWorld(**DEMO), 300)
    np.testing.assert_array_equal(pack.images, expected.images)
    np.testing.assert_array_equal(pack.masks, expected.masks)
    np.testing.assert_array_equal(pack.factors["state"], expected.state)
    assert pack.meta["world"]["object_scale"] == 0.25 and pack.meta["split"] == "train"
    assert open_dataset("object_goal", **options).folder == pack.folder
    other = open_dataset("object_goal", **{**options, "num_objects": 2})
    assert other.folder != pack.folder
    free = open_dataset("sprite_scenes", "test", root=tmp_path, num_images=3)
    assert free.images.shape == (3, 64, 64, 3)


def test_bad_counts_and_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="num_images"):
        SpriteScenesConfig(FreeScenes(), num_images=0)
    with pytest.raises(ValueError, match="seed"):
        SpriteScenesConfig(FreeScenes(), num_images=1, seed=-1)
