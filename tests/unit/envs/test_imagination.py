"""Imagined scenes: random numbers, initial scenes, ends, and batches against single scenes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from genesis_rl.data import Pack, PackWriter
from genesis_rl.envs.imagination import ImaginationOptions, ImaginedScenes, ImaginedStep, randomness
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model import ActionSpec, SlotSpec, WorldModel, WorldModelConfig

Build = Callable[..., Any]
MOVES = ActionSpec("discrete", n=4)
PUSHES = ActionSpec("box", low=(-1.0, -2.0), high=(1.0, 2.0))


def tiny_world(
    encoder: SlotEncoder, spec: ActionSpec = MOVES, *, geometry: bool = True
) -> WorldModel:
    torch.manual_seed(1)
    slot_spec = SlotSpec(encoder.fingerprint, encoder.num_slots, encoder.latent_sizes, geometry)
    world = WorldModel(WorldModelConfig(width=8, layers=1, ensemble=2), spec, slot_spec)
    with torch.no_grad():
        world.outcome.get_parameter("2.bias")[2] = -2.0  # episodes of a few steps
    return world.eval()


@pytest.fixture(scope="module")
def encoder(small_model: Build) -> SlotEncoder:
    return SlotEncoder(small_model(), device="cpu")


@pytest.fixture(scope="module")
def world(encoder: SlotEncoder) -> WorldModel:
    return tiny_world(encoder)


def start(
    encoder: SlotEncoder, world: WorldModel, seeds: list[int], **options: Any
) -> tuple[ImaginedScenes, Tensor]:
    scenes = ImaginedScenes(encoder, world, ImaginationOptions(**options), n_envs=len(seeds))
    rows = torch.arange(len(seeds))
    scenes.seed(rows, seeds)
    scenes.reset(rows)
    return scenes, rows


def test_random_bits_are_those_of_splitmix64() -> None:
    first = randomness.bits(torch.zeros(1, dtype=torch.int64), 3)[0].numpy().view(np.uint64)
    assert [hex(int(word)) for word in first] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_random_numbers_are_spread_as_they_should_be() -> None:
    keys = randomness.make_keys(torch.arange(500), torch.full((500,), 3))
    normal = randomness.normal(keys, 401)
    assert normal.shape == (500, 401)
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs(normal.pow(4).mean() - 3) < 0.1
    # Neither neighbours in a row nor neighbouring keys know of each other.
    for a, b in ((normal[:, :-1], normal[:, 1:]), (normal[:-1], normal[1:])):
        assert abs((a * b).mean()) < 0.01
    words = randomness.bits(keys, 200)
    chances = randomness.uniform(words)
    assert 0 <= chances.min() < 0.001
    assert 0.999 < chances.max() < 1
    assert np.bincount(randomness.below(words, 7).flatten().numpy()).min() > 0.95 * 1e5 / 7
    assert len(
        {*randomness.make_keys(torch.arange(2**16), torch.zeros(2**16).long()).tolist()}
    ) == (2**16)


def run(scenes: ImaginedScenes, rows: Tensor, actions: Tensor) -> tuple[Tensor, list[ImaginedStep]]:
    seen, steps = [scenes.features[rows].clone()], []
    for action in actions:
        steps.append(scenes.step(rows, action[rows]))
        seen.append(scenes.features[rows].clone())
    return torch.stack(seen, 1), steps


@pytest.mark.parametrize("spec", [MOVES, PUSHES], ids=["discrete", "box"])
@pytest.mark.parametrize("ensemble", ["head", "mean"])
def test_a_batch_equals_single_scenes(
    encoder: SlotEncoder, spec: ActionSpec, ensemble: str
) -> None:
    world = tiny_world(encoder, spec)
    shape = (6, 5, 2)
    actions = torch.randint(4, shape[:2]) if spec is MOVES else torch.randn(shape)
    seeds = [3, 1, 4, 1, 5]
    scenes, rows = start(encoder, world, seeds, ensemble=ensemble)
    seen, steps = run(scenes, rows, actions)
    for i, seed in enumerate(seeds):
        one, row = start(encoder, world, [seed], ensemble=ensemble)
        alone, apart = run(one, row, actions[:, i : i + 1])
        torch.testing.assert_close(alone[0], seen[i], rtol=1e-4, atol=1e-4)
        for a, b in zip(apart, steps, strict=True):
            assert bool(a.terminated) == bool(b.terminated[i])
            torch.testing.assert_close(a.reward[0], b.reward[i], rtol=1e-4, atol=1e-5)
    # The same seed gives the same scene, another one another; the batch does not matter.
    torch.testing.assert_close(seen[1, 0], seen[3, 0], rtol=1e-5, atol=1e-5)
    assert (seen[0, 0] - seen[1, 0]).abs().max() > 0.1


def test_the_same_seed_gives_bit_identical_rollouts(
    encoder: SlotEncoder, world: WorldModel
) -> None:
    actions = torch.zeros(4, 3, dtype=torch.int64)
    runs = [run(*start(encoder, world, [7, 8, 9]), actions)[0] for _ in range(2)]
    assert torch.equal(*runs)
    scenes, rows = start(encoder, world, [7, 8, 9])
    first = scenes.features.clone()
    scenes.reset(rows)
    assert not torch.equal(first, scenes.features)  # the next episode is another one
    scenes.seed(rows, [7, 8, 9])
    scenes.reset(rows)
    assert torch.equal(first, scenes.features)


def test_scenesfrom_the_prior_have_the_geometry_of_their_masks(
    encoder: SlotEncoder, world: WorldModel
) -> None:
    scenes, _ = start(encoder, world, list(range(4)))
    slots = scenes.features
    pi = encoder.decode(slots).log_pi.exp()[:, :, 0]
    torch.testing.assert_close(slots[..., -1], pi.mean((-2, -1)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slots[..., -1].sum(1), torch.ones(4), rtol=1e-4, atol=1e-4)
    bare, _ = start(encoder, tiny_world(encoder, geometry=False), list(range(4)))
    torch.testing.assert_close(bare.features, slots[..., :-3])


def test_scenesfrom_the_prior_may_be_drawn_once(encoder: SlotEncoder, world: WorldModel) -> None:
    scenes, rows = start(encoder, world, list(range(50)), prior_scenes=3)
    pool = scenes.features.unique(dim=0)
    assert len(pool) == 3
    assert scenes.from_prior.all()
    scenes.reset(rows)
    again, _ = start(encoder, world, [1000, 1001], prior_scenes=3)
    for features in (scenes.features, again.features):
        gaps = (features[:, None] - pool).abs().amax((2, 3))
        assert gaps.min(1).values.max() < 1e-5
    assert (pool[0] - pool[1]).abs().max() > 0.1


def test_temperatures_scale_the_noise(encoder: SlotEncoder, world: WorldModel) -> None:
    spread = []
    for temperature in (1e-4, 1.0):
        scenes, _ = start(encoder, world, list(range(20)), temperature=temperature)
        spread.append(scenes.features[..., :5].std(0).mean())
    assert spread[0] < 1e-3 * spread[1]
    spread = []
    for temperature in (1e-4, 1.0):
        scenes, rows = start(
            encoder, world, list(range(20)), model_temperature=temperature, ensemble="mean"
        )
        before = scenes.features.clone()
        scenes.step(rows, torch.zeros(20, dtype=torch.int64))
        mean = world.step(before, torch.zeros(20, dtype=torch.int64)).features
        spread.append((scenes.features - mean).std())
    assert spread[0] < 1e-3 * spread[1]


def test_the_horizon_and_the_uncertainty_truncate(encoder: SlotEncoder, world: WorldModel) -> None:
    actions = torch.zeros(3, 2, dtype=torch.int64)
    _, steps = run(*start(encoder, world, [0, 1], horizon=3, termination="threshold"), actions)
    assert [step.truncated.tolist() for step in steps] == [[False] * 2, [False] * 2, [True] * 2]
    assert not torch.stack([step.terminated for step in steps]).any()
    level = float(torch.stack([step.uncertainty for step in steps]).median())
    scenes, rows = start(encoder, world, [0, 1], max_uncertainty=level, uncertainty_penalty=2.0)
    _, wary = run(scenes, rows, actions)
    for calm, step in zip(steps, wary, strict=True):
        assert torch.equal(step.uncertain, step.uncertainty > level)
        assert torch.equal(step.truncated, step.uncertain)
        torch.testing.assert_close(step.reward, calm.reward - 2 * step.uncertainty)
    assert any(step.uncertain.any() for step in wary)


def test_terminations_are_sampled_by_their_probability(
    encoder: SlotEncoder, world: WorldModel
) -> None:
    scenes, rows = start(encoder, world, list(range(2000)))
    actions = torch.zeros(2000, dtype=torch.int64)
    chance = world.step(scenes.features, actions).terminated.mean()
    ended = scenes.step(rows, actions).terminated.float().mean()
    assert 0.02 < chance < 0.5
    assert abs(ended - chance) < 0.03


class Broken(WorldModel):
    """Predicts infinity for one scene."""

    def step(self, features: Tensor, action: Tensor, **options: Any) -> Any:
        ahead = super().step(features, action, **options)
        ahead.features[0, 1, 1] = torch.inf
        return ahead


def test_a_prediction_that_is_not_finite_truncates_the_episode(encoder: SlotEncoder) -> None:
    plain = tiny_world(encoder)
    broken = Broken(plain.config, plain.action_spec, plain.slot_spec).eval()
    broken.load_state_dict(plain.state_dict())
    scenes, rows = start(encoder, broken, [0, 1])
    before = scenes.features.clone()
    step = scenes.step(rows, torch.zeros(2, dtype=torch.int64))
    assert step.non_finite.tolist() == [True, False]
    assert step.truncated.tolist() == [True, False]
    assert not step.terminated[0]
    assert step.reward[0] == 0
    assert torch.equal(scenes.features[0], before[0])
    assert scenes.features.isfinite().all()
    assert not torch.equal(scenes.features[1], before[1])


def write_recording(folder: Path, images: npt.NDArray[np.uint8]) -> None:
    """Three episodes of 4, 2 and 4 frames, with the moves of a Discrete(4)."""
    first = np.isin(np.arange(10), (0, 4, 6))
    columns: dict[str, Any] = {
        "action": np.zeros(10, np.int64),
        "reward": np.zeros(10, np.float32),
        "terminated": np.zeros(10, np.bool_),
        "truncated": np.zeros(10, np.bool_),
        "first": first,
    }
    space = {"type": "Discrete", "dtype": "int64", "n": 4, "start": 0}
    meta = {"action_space": space}
    with PackWriter(folder, 10, 32, masks=False, meta=meta) as writer:
        writer.write(images, **columns)


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "data"))
    images = np.random.default_rng(0).integers(256, size=(10, 32, 32, 3), dtype=np.uint8)
    write_recording(tmp_path / "recording" / "train", images)
    return tmp_path / "recording"


def test_recorded_initial_scenes(encoder: SlotEncoder, world: WorldModel, recording: Path) -> None:
    images = Pack.open(recording / "train").images
    slots = torch.from_numpy(encoder.features(images, mask_geometry=True))
    for frames, rows in (("first", [0, 4, 6]), ("all", [0, 1, 2, 4, 6, 7, 8])):
        scenes, _ = start(
            encoder,
            tiny_world(encoder),
            list(range(60)),
            start="data",
            data=str(recording),
            data_frames=frames,
        )
        assert not scenes.from_prior.any()
        gaps = torch.cdist(scenes.features.flatten(1), slots.flatten(1))
        # Where slots are aligned, those of later frames may come in another order.
        at = gaps.min(1)
        near = at.indices[at.values < 1e-3]
        assert {*near.tolist()} <= {*rows}
        assert {0, 4, 6} <= {*near.tolist()}
        assert frames == "all" or len(near) == 60


def test_a_mixture_starts_in_either(
    encoder: SlotEncoder, world: WorldModel, recording: Path
) -> None:
    options: dict[str, Any] = {"start": "mixture", "data": str(recording), "prior_share": 0.25}
    scenes, _ = start(encoder, world, list(range(400)), **options)
    assert abs(scenes.from_prior.float().mean() - 0.25) < 0.07
    novel, _ = start(encoder, world, list(range(400)))
    picked = scenes.from_prior
    torch.testing.assert_close(scenes.features[picked], novel.features[picked])
    assert len(scenes.features[~picked].unique(dim=0)) == 3


def test_given_initial_scenes(encoder: SlotEncoder, world: WorldModel) -> None:
    scenes, rows = start(encoder, world, [0, 1])
    slots = torch.randn(2, 3, 12)
    scenes.reset(rows, slots)
    assert torch.equal(scenes.features, slots)
    with pytest.raises(ValueError, match="slots"):
        scenes.reset(rows, slots[..., :7])
    with pytest.raises(ValueError, match="slots"):
        scenes.reset(rows, slots * torch.nan)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"model_temperature": 0.0},
        {"horizon": 0},
        {"horizon": 2.5},
        {"prior_scenes": 0},
        {"prior_share": 1.5},
        {"max_uncertainty": 0.0},
        {"uncertainty_penalty": -1.0},
        {"start": "nowhere"},
        {"termination": "never"},
        {"ensemble": "all"},
        {"data_frames": "last"},
        {"data_split": "exam"},
        {"start": "data"},
        {"data": "somewhere"},
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options)).removeprefix("data_")):
        ImaginationOptions(**options)


def test_models_must_fit_each_other(
    small_model: Build, encoder: SlotEncoder, world: WorldModel, recording: Path
) -> None:
    with pytest.raises(ValueError, match="encoder"):
        ImaginedScenes(SlotEncoder(small_model(seed=1), device="cpu"), world)
    options = ImaginationOptions(start="data", data=str(recording))
    with pytest.raises(ValueError, match="data"):
        ImaginedScenes(encoder, tiny_world(encoder, PUSHES), options)


@pytest.mark.parametrize(
    ("name", "sampled"), [("monet", False), ("bd_vae", False), ("genesis_v2", True)]
)
def test_models_without_a_prior_start_in_data(
    small_model: Build, name: str, sampled: bool, recording: Path
) -> None:
    encoder = SlotEncoder(small_model(name), device="cpu")
    world = tiny_world(encoder)
    if sampled:
        assert start(encoder, world, [0])[0].features.isfinite().all()
    else:
        with pytest.raises(ValueError, match="start"):
            ImaginedScenes(encoder, world)
        with pytest.raises(ValueError):
            encoder.sample(torch.zeros(1, encoder.num_slots, sum(encoder.latent_sizes)))
    scenes, rows = start(encoder, world, [0, 1], start="data", data=str(recording))
    scenes.step(rows, torch.zeros(2, dtype=torch.int64))
    assert scenes.features.isfinite().all()
