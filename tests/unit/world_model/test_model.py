"""World models: actions, one step, files."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genesis_rl.world_model import ActionSpec, SlotSpec, WorldModel, WorldModelConfig

K, D = 3, 6
MOVES = ActionSpec("discrete", n=4)
FORCES = ActionSpec("box", low=(-2.0, -math.inf), high=(0.0, math.inf))
SLOTS = SlotSpec("a" * 64, K, (2, 1), mask_geometry=True)
SMALL = WorldModelConfig(width=16, layers=2, ensemble=3)


def made(config: WorldModelConfig = SMALL, spec: ActionSpec = MOVES) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(config, spec, SLOTS).eval()
    # As after training: no buffer has its initial value.
    model.scale.mean.copy_(torch.linspace(-3, 2, D))
    model.scale.scale.copy_(torch.linspace(0.2, 4, D))
    model.change_scale.fill_(0.5)
    model.usual_reward.fill_(-0.1)
    model.reward_scale.fill_(2.0)
    model.event_bias.fill_(1.0)
    model.end_bias.fill_(2.0)
    return model


def scenes(n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(n, K, D, generator=generator), torch.arange(n) % 4


# ---- actions -----------------------------------------------------------------------------------


def test_encoded_actions() -> None:
    assert ActionSpec("discrete", n=3, start=2).encode(torch.tensor([2, 4])).tolist() == [
        [1, 0, 0],
        [0, 0, 1],
    ]
    # The first component is scaled to [-1, 1], the second is unbounded.
    assert FORCES.encode(torch.tensor([[-2.0, 7.0], [-0.5, -1.0]])).tolist() == [
        [-1, 7],
        [0.5, -1],
    ]


@pytest.mark.parametrize("spec", [MOVES, ActionSpec("discrete", n=2, start=5), FORCES])
def test_actions_through_json(spec: ActionSpec) -> None:
    assert ActionSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_actions_of_a_recording() -> None:
    discrete = {"type": "Discrete", "dtype": "int64", "n": 4, "start": 0}
    assert ActionSpec.from_json(discrete) == MOVES
    box = {
        "type": "Box",
        "dtype": "float32",
        "shape": [2],
        "low": [-2.0, None],
        "high": [0.0, None],
    }
    assert ActionSpec.from_json(box) == FORCES
    for other in (
        {"type": "MultiBinary", "n": 3},
        {**box, "shape": [2, 1]},
        {"kind": "discrete"},
        {"kind": "discrete", "n": 0},
        {"kind": "box", "low": [0.0], "high": [0.0]},
        {"kind": "box", "low": [0.0], "high": [1.0, 2.0]},
        {},
    ):
        with pytest.raises(ValueError, match=r"^(action space|low and high|n) "):
            ActionSpec.from_json(other)


def test_actions_of_another_space_are_refused() -> None:
    for spec, action in (
        (MOVES, torch.tensor([0, 4])),
        (MOVES, torch.tensor([-1, 0])),
        (MOVES, torch.tensor([0.0, 1.0])),
        (MOVES, torch.tensor([[0, 1]])),
        (FORCES, torch.zeros(3)),
        (FORCES, torch.zeros(3, 3)),
        (FORCES, torch.zeros(3, 2, dtype=torch.int64)),
    ):
        with pytest.raises(ValueError, match=r"^action "):
            spec.check(action)


# ---- one step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trunk", ["slots", "mlp"])
@pytest.mark.parametrize("spec", [MOVES, FORCES])
def test_a_step(trunk: str, spec: ActionSpec) -> None:
    model = made(WorldModelConfig(trunk=trunk, width=16, layers=2, ensemble=3), spec)  # type: ignore[arg-type]
    features, numbers = scenes()
    action = numbers if spec is MOVES else torch.randn(len(numbers), 2)
    found = model.step(features, action)
    assert found.features.shape == features.shape and found.features.dtype == torch.float32
    assert [part.shape for part in found[1:]] == 3 * [numbers.shape]
    assert ((found.terminated > 0) & (found.terminated < 1)).all()
    assert (found.uncertainty > 0).all()
    other = model.step(features, (numbers + 1) % 4 if spec is MOVES else action + 1)
    assert not torch.allclose(found.features, other.features)
    alone = model.step(features[2:3], action[2:3])
    for mine, whole in zip(alone, found, strict=True):
        assert torch.allclose(mine, whole[2:3], atol=1e-5)


def test_heads_and_uncertainty() -> None:
    model = made()
    features, action = scenes()
    mean = model.step(features, action)
    each = torch.stack(
        [model.step(features, action, head=torch.full((5,), head)).features for head in range(3)]
    )
    assert torch.allclose(each.mean(0), mean.features, atol=1e-5)
    scaled = (each - mean.features) / model.scale.scale
    assert torch.allclose(scaled.square().mean((0, 2, 3)).sqrt(), mean.uncertainty, atol=1e-5)
    mixed = model.step(features, action, head=torch.tensor([0, 1, 2, 0, 1])).features
    wanted = torch.stack([each[0, 0], each[1, 1], each[2, 2], each[0, 3], each[1, 4]])
    assert torch.allclose(mixed, wanted)


def test_noise_is_scaled_by_the_spread_of_the_next_slots() -> None:
    model = made()
    features, action = scenes()
    mean = model.step(features, action).features
    up = model.step(features, action, noise=torch.ones_like(features)).features - mean
    twice = model.step(features, action, noise=torch.full_like(features, 2)).features - mean
    assert torch.allclose(twice, 2 * up, atol=1e-5)
    sigma = model(model.scale(features), action).sigma
    assert torch.allclose(up, sigma * model.scale.scale, atol=1e-5) and (sigma > 0).all()


def test_slots_have_no_order() -> None:
    model = made()
    features, action = scenes()
    order = torch.tensor([2, 0, 1])
    found, turned = model.step(features, action), model.step(features[:, order], action)
    assert torch.allclose(found.features[:, order], turned.features, atol=1e-5)
    assert torch.allclose(found.reward, turned.reward, atol=1e-5)
    assert torch.allclose(found.terminated, turned.terminated, atol=1e-5)


def test_rewards_and_terminations_are_corrected_for_weights() -> None:
    model = made()
    features, action = scenes()
    output, found = model(model.scale(features), action), model.step(features, action)
    assert torch.allclose(found.terminated, torch.sigmoid(output.end_logit - 2))
    wanted = -0.1 + torch.sigmoid(output.event_logit - 1) * output.event_reward * 2
    assert torch.allclose(found.reward, wanted)


def test_invalid_arguments_of_a_step() -> None:
    model = made()
    features, action = scenes()
    with pytest.raises(ValueError, match="features"):
        model.step(features[..., :5], action)
    with pytest.raises(ValueError, match="action"):
        model.step(features, action[:2])
    with pytest.raises(ValueError, match="noise"):
        model.step(features, action, noise=torch.zeros(5, 3, 1))
    with pytest.raises(ValueError, match="head"):
        model.step(features, action, head=torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    "fields",
    [{"width": 0}, {"layers": 0}, {"ensemble": 0}, {"attention_heads": 3}, {"trunk": "cnn"}],
)
def test_invalid_configs(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(fields))} "):
        WorldModelConfig(**fields)  # type: ignore[arg-type]


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [MOVES, FORCES])
def test_saved_and_loaded(spec: ActionSpec, tmp_path: Path) -> None:
    model = made(spec=spec)
    model.save_pretrained(tmp_path / "run" / "best", extra={"step": 3})
    loaded = WorldModel.from_pretrained(tmp_path / "run", encoder_fingerprint="a" * 64)
    assert not loaded.training
    assert (loaded.config, loaded.action_spec, loaded.slot_spec) == (SMALL, spec, SLOTS)
    assert loaded.mask_geometry and loaded.encoder_fingerprint == "a" * 64
    features, numbers = scenes()
    action = numbers if spec is MOVES else torch.randn(len(numbers), 2)
    for mine, theirs in zip(
        model.step(features, action), loaded.step(features, action), strict=True
    ):
        assert torch.equal(mine, theirs)
    path = tmp_path / "run" / "best" / "config.json"
    data = json.loads(path.read_text())
    assert data["step"] == 3
    data["form"] = data.pop("slot_spec")  # of an earlier version
    path.write_text(json.dumps(data))
    assert WorldModel.from_pretrained(tmp_path / "run").slot_spec == SLOTS


def test_invalid_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="world_model"):
        WorldModel.from_pretrained(tmp_path)
    made().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"encoder .* aaaaaaaaaaaa.* bbbbbbbbbbbb"):
        WorldModel.from_pretrained(tmp_path, encoder_fingerprint="b" * 64)
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    for change, message in (
        ({"kind": None}, "kind"),
        ({"format": 9}, "format"),
        ({"config": {"depth": 2}}, "config.json "),
        ({"action_spec": {"kind": "discrete", "n": 5}}, "trunk.action.weight "),
        ({"slot_spec": {}}, "config.json "),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            WorldModel.from_pretrained(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json .*JSON"):
        WorldModel.from_pretrained(tmp_path)
    path.write_text(json.dumps(good))
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"model\.safetensors .*damaged"):
        WorldModel.from_pretrained(tmp_path)
