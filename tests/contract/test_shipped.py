"""Shipped models: offline loading by name, recorded features, and the scores of their cards."""

import json
import math
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch

import genesis_rl
from genesis_rl.checkpoints import weights
from genesis_rl.data import Pack, PackWriter, open_dataset
from genesis_rl.data.sprite_scenes import render_scenes
from genesis_rl.evaluation.metrics import ari
from genesis_rl.evaluation.scoring import ScoreConfig, score
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training.validate import validate
from genesis_rl.worlds.sprites import ObjectComparisonWorld, ObjectGoalWorld, SpriteWorld

NAMES, WORLDS = weights.shipped(), weights.shipped(world_models=True)
# Slots of the models with an attention posterior.
ATTENTION = {"fetch": 12, "multi-dsprites-64": 6, "rooms": 7, "sprites-64": 8, "towers": 9}
FOLDER = Path(weights.__file__).parent / "pretrained"
FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_shipped_models_and_their_files() -> None:
    sprites = ["sprites", "sprites-64", "sprites-fast", "sprites-sharp", "sprites-sharp-fast"]
    assert NAMES == [
        *("fetch", "multi-dsprites", "multi-dsprites-64", "multi-dsprites-sharp", "rooms"),
        *(*sprites, "towers"),
    ]
    assert WORLDS == ["object-comparison"]
    for name in [*NAMES, *(f"world_models/{name}" for name in WORLDS)]:
        files = {path.name: path.stat().st_size for path in (FOLDER / name).iterdir()}
        assert files.keys() == {"README.md", "config.json", "model.safetensors"}
        assert sum(files.values()) < 10e6


@pytest.mark.parametrize("name", NAMES)
def test_models_load_by_name_without_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(*_: object, **__: object) -> None:
        raise AssertionError("the Hub must not be used")

    monkeypatch.setattr(weights, "download", no_hub)
    env = genesis_rl.GenesisObs(
        gym.make("genesis_rl/ObjectGoal-v0"), name, mask_geometry=True, device="cpu"
    )
    observation, _ = env.reset(seed=0)
    shapes = {"multi": (5, 8 + 4 + 3), "sprites": (7, 8 + 4 + 3)}
    with_attention = (ATTENTION.get(name), 16 + 8 + 3)
    expected = with_attention if name in ATTENTION else shapes[name.split("-")[0]]
    assert observation.shape == expected
    card = (FOLDER / name / "README.md").read_text()
    assert f'genesis_rl.load("{name}")' in card
    assert not re.search(r"/(home|root|tmp|work)/", card)


@pytest.mark.parametrize("name", NAMES)
def test_features_without_masks_are_those_of_the_slots(name: str) -> None:
    encoder = SlotEncoder(name, device="cpu")
    frames = render_scenes(ObjectComparisonWorld(image_size=encoder.image_size), 5).images
    slots = encoder(frames)
    features = encoder.features(frames, mask_geometry=False)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, slots.features.numpy(), atol=1e-5)
    with_masks = encoder.features(frames, mask_geometry=True)
    np.testing.assert_allclose(with_masks[..., :-3], features, atol=1e-5)
    np.testing.assert_allclose(with_masks[..., -3:], slots.mask_geometry().numpy(), atol=1e-5)


# On uniform squares the seeds of an attention posterior are ties, which depend on the CPU.
@pytest.mark.smoke
@pytest.mark.parametrize("name", sorted({*NAMES} - ATTENTION.keys()))
def test_features_equal_the_recorded_ones(name: str) -> None:
    # Not an image of a task, because the rendering of edges depends on OpenCV's version.
    image = np.full((64, 64, 3), 40, np.uint8)
    image[8:24, 12:28], image[36:56, 30:50], image[40:52, 6:18] = (220, 40, 40), (60, 90, 230), 180
    features = SlotEncoder(name, device="cpu").features(image, mask_geometry=True)
    record = json.loads((FIXTURES / "shipped_features.json").read_text())
    np.testing.assert_allclose(features, record[name], atol=1e-3)


def write_pack(folder: Path, images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]) -> Pack:
    with PackWriter(folder, *images.shape[:2]) as writer:
        writer.write(images, masks)
    return Pack.open(folder)


def render_pack(folder: Path, world: SpriteWorld, count: int) -> Pack:
    scenes = render_scenes(world, count, split="test")
    return write_pack(folder, scenes.images, scenes.masks)


def test_sprites_segments_task_images(tmp_path: Path) -> None:
    pack = render_pack(tmp_path / "pack", ObjectGoalWorld(image_size=32), 100)
    scores = validate(genesis_rl.load("sprites", "cpu"), pack, 100)
    assert scores["ari"] > 0.78 and scores["ari_fg"] > 0.74 and scores["msc"] > 0.71


def test_sprites_64_segments_same_coloured_objects(tmp_path: Path) -> None:
    pack = render_pack(tmp_path / "pack", ObjectComparisonWorld(image_size=64), 60)
    scores = validate(genesis_rl.load("sprites-64", "cpu"), pack, 60)
    assert scores["ari"] > 0.93 and scores["ari_fg"] > 0.95 and scores["msc"] > 0.9


def test_multi_dsprites_64_segments_multi_dsprites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path))
    pack = open_dataset("multi_dsprites", "test", num_images=100, image_size=64)
    scores = validate(genesis_rl.load("multi-dsprites-64", "cpu"), pack, 100)
    assert scores["ari"] > 0.9 and scores["ari_fg_2plus"] > 0.75 and scores["msc"] > 0.78


def test_fetch_segments_scenes_of_all_tasks(
    robot: None, opengl: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path))
    pack = open_dataset("fetch", "test", num_images=100)
    scores = validate(genesis_rl.load("fetch", "cpu"), pack, 100)
    assert scores["ari_fg_2plus"] > 0.83 and scores["msc"] > 0.78


def test_rooms_segments_rooms(
    opengl: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path))
    pack = open_dataset("rooms", "test", num_images=100, image_size=64)
    scores = validate(genesis_rl.load("rooms", "cpu"), pack, 100)
    assert scores["ari_fg_2plus"] > 0.82 and scores["msc"] > 0.83


def test_refinement_of_sprites_sharp_segments_same_coloured_objects(tmp_path: Path) -> None:
    pack = render_pack(tmp_path / "pack", ObjectGoalWorld(image_size=32), 60)
    model = genesis_rl.load("sprites-sharp", "cpu")
    unrefined, refined = (
        score(model, pack, ScoreConfig(num_images=60, iw_samples=1, refine_steps=steps))
        for steps in (0, 3)
    )
    scores: dict[str, Any] = {**refined}
    assert scores["ari_fg"] > 0.93 and scores["msc"] > 0.86
    assert scores["posterior_ari_fg"] > 0.95 and scores["posterior_msc"] > 0.88
    for name in ("ari", "ari_fg", "msc", "posterior_ari", "posterior_ari_fg", "posterior_msc"):
        assert scores[name] > unrefined[name], name


@pytest.mark.parametrize(
    ("name", "min_scores"),
    [
        ("multi-dsprites", {"ari": 0.77, "ari_fg_2plus": 0.46, "msc": 0.56}),
        ("multi-dsprites-sharp", {"ari": 0.85, "ari_fg_2plus": 0.66, "msc": 0.68}),
    ],
)
def test_multi_dsprites_models_segment_its_images(
    name: str, min_scores: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path))
    pack = open_dataset("multi_dsprites", "test", image_size=32, num_images=200)
    scores = validate(genesis_rl.load(name, "cpu"), pack, 200)
    for score_name, value in min_scores.items():
        assert scores[score_name] > value, score_name


def test_towers_segments_tower_images(tmp_path: Path) -> None:
    towers = np.load(FIXTURES / "towers.npz")
    pack = write_pack(tmp_path / "pack", towers["images"], towers["masks"])
    scores = validate(genesis_rl.load("towers", "cpu"), pack, 16)
    assert scores["ari"] > 0.88 and scores["ari_fg"] > 0.74 and scores["msc"] > 0.71


def test_prior_of_towers_samples_a_room_with_objects() -> None:
    model = genesis_rl.load("towers", "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        slots = model.sample(40, generator=generator)
    areas = slots.log_pi.exp().mean((2, 3, 4))
    assert areas[:, 0].min() > 0.5  # the room
    blocks = (areas[:, 1:] > 0.005).sum(1).float()
    assert 2 <= float(blocks.mean()) <= 6


def test_features_of_the_student_match_the_teacher() -> None:
    images = render_scenes(ObjectGoalWorld(image_size=64), 200, split="test").images
    teacher, student = (
        torch.from_numpy(SlotEncoder(name, device="cpu").features(images, mask_geometry=True))
        for name in ("sprites", "sprites-fast")
    )
    residual = (student - teacher).square().sum((0, 1))
    r2 = 1 - residual / (teacher - teacher.mean(0)).square().sum((0, 1))
    assert float(r2[:8].mean()) > 0.9 and float(r2[-3:].mean()) > 0.8, r2
    assert np.isfinite(student.numpy()).all()


def test_wrappers_return_the_decoded_masks_of_a_student() -> None:
    env = gym.make("genesis_rl/ObjectGoal-v0", masks_in_info=True)
    _, info = genesis_rl.GenesisObs(env, "sprites-fast", info_keys=("masks",)).reset(seed=3)
    masks = info["masks"]
    assert masks.shape == (7, 32, 32) and np.allclose(masks.sum(0), 1, atol=1e-5)
    truth = info["true_masks"][::2, ::2]
    score_of_masks = ari(torch.from_numpy(truth)[None], torch.from_numpy(masks.argmax(0))[None])
    assert float(score_of_masks) > 0.5  # 0 with the coarse masks of the student's encoder


@pytest.mark.smoke
def test_imagination_with_shipped_models() -> None:
    env = gym.make(
        "genesis_rl/Imagination-v0", encoder="sprites-fast", world_model="object-comparison"
    )
    real = genesis_rl.GenesisObs(
        gym.make("genesis_rl/ObjectComparison-v0"), "sprites-fast", mask_geometry=True
    )
    assert env.observation_space.shape == real.observation_space.shape
    assert env.action_space == real.action_space
    first, _ = env.reset(seed=0)
    after, reward, terminated, _, _ = env.step(env.action_space.sample())
    assert np.isfinite(after).all() and not np.array_equal(after, first)
    assert math.isfinite(float(reward)) and isinstance(terminated, bool)
    with pytest.raises(ValueError, match="encoder"):
        gym.make("genesis_rl/Imagination-v0", encoder="sprites", world_model="object-comparison")
    card = (FOLDER / "world_models" / "object-comparison" / "README.md").read_text()
    assert 'world_model="object-comparison"' in card
    assert not re.search(r"/(home|root|tmp|work)/", card)
