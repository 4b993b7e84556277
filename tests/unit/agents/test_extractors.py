"""Features extractors: permutation invariance, scale, gradients of all parameters."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import nn

from genesis_rl.agents.extractors import (
    EXTRACTORS,
    DeepSetsExtractor,
    DictExtractor,
    FlatSlotsExtractor,
    RelationExtractor,
    SlotExtractor,
    SlotScale,
    SlotSetExtractor,
)

K, D = 5, 7
SETS = ["transformer", "relation", "deep_sets"]


def slot_space(k: int = K, d: int = D) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (k, d), np.float32)


def set_extractor(**options: int) -> SlotSetExtractor:
    torch.manual_seed(0)
    sizes = {"features_dim": 6, "width": 8, "heads": 2, "layers": 2} | options
    return SlotSetExtractor(slot_space(), **sizes)


def make(name: str, **options: int) -> SlotExtractor:
    torch.manual_seed(0)
    extractor: SlotExtractor = EXTRACTORS[name](
        slot_space(), **{"features_dim": 6, "width": 8} | options
    )
    return extractor


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "options"),
    [("transformer", {"heads": 1}), *((name, {}) for name in SETS)],
)
def test_the_order_of_the_slots_does_not_matter(
    name: str, options: dict[str, int], batch: int, layers: int
) -> None:
    extractor = make(name, layers=layers, **options)
    slots = torch.randn(batch, K, D)
    features = extractor(slots)
    assert features.shape == (batch, 6)
    assert features.std() > 0
    for _ in range(3):
        shuffled = slots[:, torch.randperm(K)]
        torch.testing.assert_close(extractor(shuffled), features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SETS)
def test_every_slot_matters(name: str) -> None:
    extractor = make(name)
    slots = torch.randn(1, K, D)
    features = extractor(slots)
    for k in range(K):
        changed = slots.clone()
        changed[:, k] += 1
        assert (extractor(changed) - features).abs().max() > 1e-4


@pytest.mark.parametrize("name", SETS)
def test_slots_of_other_frames_do_not_matter(name: str) -> None:
    extractor = make(name)
    slots = torch.randn(3, K, D)
    torch.testing.assert_close(extractor(slots)[1:2], extractor(slots[1:2]), atol=1e-6, rtol=0)


def test_updating_the_first_tokens_only_gives_the_same_tokens() -> None:
    block: Any = set_extractor().blocks[0]
    tokens = torch.randn(2, K + 1, 8)
    whole = block(tokens, num_queries=K + 1)
    torch.testing.assert_close(block(tokens, num_queries=1), whole[:, :1], atol=1e-6, rtol=0)
    # The reference is textbook attention.
    normed = block.norm_attention(tokens)
    key, value = block.key_value(normed).chunk(2, -1)
    heads = [x.unflatten(-1, (2, 4)) for x in (block.query(normed), key, value)]
    logits = torch.einsum("bqhd,bkhd->bhqk", *heads[:2]) / 2
    seen = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), heads[2]).flatten(2)
    middle = tokens + block.out(seen)
    torch.testing.assert_close(whole, middle + block.mlp(block.norm_mlp(middle)))


def test_relations_distinguish_pairs() -> None:
    # Equal values per feature, in other combinations.
    bound = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]], [[1.0, -1.0], [-1.0, 1.0]]])
    assert torch.equal(bound[0].sort(0).values, bound[1].sort(0).values)
    for name in SETS:
        torch.manual_seed(0)
        features = EXTRACTORS[name](slot_space(2, 2), features_dim=16)(bound)
        assert (features[0] - features[1]).abs().max() > 1e-3, name


def test_the_relation_network_includes_every_pair() -> None:
    extractor: Any = make("relation", layers=2)
    assert isinstance(extractor, RelationExtractor)
    slots = torch.randn(3, K, D)
    first, second = extractor.first, extractor.second
    joined = nn.Linear(2 * D, 8)
    with torch.no_grad():
        joined.weight.copy_(torch.cat([first.weight, second.weight], dim=1))
        joined.bias.copy_(first.bias)
    pairs = [
        extractor.pair(joined(torch.cat([slots[:, i], slots[:, j]], dim=-1)).relu())
        for i in range(K)
        for j in range(K)
    ]
    torch.testing.assert_close(extractor(slots), extractor.out(torch.stack(pairs).mean(0)))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_slots_over_time_are_one_slot_with_more_features(name: str) -> None:
    time = 3
    torch.manual_seed(0)
    stacked = EXTRACTORS[name](spaces.Box(-np.inf, np.inf, (time, K, D), np.float32))
    torch.manual_seed(0)
    wide = EXTRACTORS[name](slot_space(K, time * D))
    slots = torch.randn(4, time, K, D)
    concatenated = torch.cat(list(slots.unbind(1)), dim=-1)  # the layout of VecFrameStack
    for extractor, observations in ((stacked, slots), (wide, concatenated)):
        extractor.fit_scale(observations)
    assert torch.equal(stacked(slots), wide(concatenated))
    assert stacked.features_dim == wide.features_dim


@pytest.mark.parametrize("name", SETS)
def test_every_parameter_is_trained(name: str) -> None:
    extractor = make(name)
    extractor(torch.randn(4, K, D)).square().sum().backward()
    for name, parameter in extractor.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias of all keys has no effect on attention.
        assert "key_value" in name or parameter.grad.abs().max() > 0, name


def test_flat_slots_keep_their_order() -> None:
    extractor = FlatSlotsExtractor(slot_space())
    slots = torch.randn(2, K, D)
    assert extractor.features_dim == K * D
    assert torch.equal(extractor(slots), slots.reshape(2, K * D))
    extractor.scale.fit(slots)
    expected = ((slots - extractor.scale.mean) / extractor.scale.scale).reshape(2, K * D)
    torch.testing.assert_close(extractor(slots), expected)


def test_scale_is_per_feature_over_all_slots_with_a_floor() -> None:
    scale = SlotScale(3)
    slots = torch.randn(400, K, 3) * torch.tensor([20.0, 4.0, 0.001]) + torch.tensor([5.0, 0, -3])
    assert torch.equal(scale(slots), slots)
    scale.fit(slots)
    scaled = scale(slots)
    spread = scaled.flatten(0, 1).std(0, correction=0)
    torch.testing.assert_close(scaled.flatten(0, 1).mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(spread[:2], torch.ones(2))
    # 0.001 is below a tenth of 20, the minimum.
    assert spread[2] == pytest.approx(0.001 / (0.1 * 20), rel=0.1)


def test_scale_of_constant_slots_changes_their_mean_only() -> None:
    scale = SlotScale(2)
    scale.fit(torch.full((4, K, 2), 3.0))
    assert torch.equal(scale(torch.full((1, K, 2), 4.0)), torch.ones(1, K, 2))


def test_scale_is_saved_with_the_weights() -> None:
    extractor, other = set_extractor(), set_extractor()
    slots = 10 * torch.randn(8, K, D) + 3
    extractor.scale.fit(slots)
    assert not torch.allclose(extractor(slots), other(slots))
    other.load_state_dict(extractor.state_dict())
    assert torch.equal(extractor(slots), other(slots))


@pytest.mark.parametrize("shape", [(K, D), (2, K, D + 1), (0, K, D)])
def test_scale_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^slots "):
        SlotScale(D).fit(torch.zeros(shape))


@pytest.mark.parametrize("extractor_class", EXTRACTORS.values())
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (K * D,), np.float32),
        spaces.Box(0, 255, (32, 32, 3), np.uint8),
        spaces.Box(0, 1, (32, 32, 3), np.float32),
        spaces.Dict({"z_m": slot_space()}),
    ],
    ids=["flat", "image", "float image", "dict"],
)
def test_other_observations_are_refused(
    extractor_class: type[nn.Module], space: spaces.Space[object]
) -> None:
    with pytest.raises(ValueError, match="observation_space"):
        extractor_class(space)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads"),
        ({"heads": 0}, "heads"),
        ({"layers": 0}, "layers"),
        ({"width": 0}, "width"),
        ({"features_dim": 0}, "features_dim"),
    ],
)
def test_bad_sizes_are_named(options: dict[str, int], message: str) -> None:
    for name in ["transformer"] if "heads" in options else SETS:
        with pytest.raises(ValueError, match=message):
            make(name, **options)


MIXED = spaces.Dict(
    {
        "slots": spaces.Box(-np.inf, np.inf, (3, 5), np.float32),
        "observation.state": spaces.Box(-9, 9, (2, 2), np.float64),
        "gripper": spaces.Discrete(3),
    }
)


def test_entries_beside_slots_are_flattened_and_standardised() -> None:
    extractor = DictExtractor(MIXED, DeepSetsExtractor, {"features_dim": 8, "width": 8})
    assert extractor.features_dim == 8 + 4 + 3
    sampled = [MIXED.sample() for _ in range(64)]
    batch = {name: np.stack([entry[name] for entry in sampled]) for name in MIXED.spaces}
    batch["slots"] = 5 + 2 * batch["slots"]
    inputs: Any = preprocess_obs(
        {name: torch.as_tensor(value) for name, value in batch.items()}, MIXED
    )
    extractor.fit_scale(inputs)
    features = extractor(inputs)
    torch.testing.assert_close(features[:, :8], extractor.pool(inputs["slots"]))
    entries = features[:, 8:]
    torch.testing.assert_close(entries.mean(0), torch.zeros(7), atol=1e-4, rtol=0)
    torch.testing.assert_close(entries[:, 3:].std(0), torch.ones(4), atol=0.5, rtol=0)
    order = torch.randperm(3)
    moved = {**inputs, "slots": inputs["slots"][:, order]}
    torch.testing.assert_close(extractor(moved), features)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (MIXED["slots"], "observation_space must be a Dict"),
        (spaces.Dict({"slots": MIXED["slots"]}), "and other entries"),
        (
            spaces.Dict({"goal": MIXED["slots"], "other": MIXED["gripper"]}),
            'Dict of "slots" or "frames"',
        ),
        (
            spaces.Dict(
                {"slots": MIXED["slots"], "wrist": spaces.Box(0, 255, (40, 40, 3), np.uint8)}
            ),
            "keep must be entries without pixels, got 'wrist'",
        ),
    ],
)
def test_spaces_without_slots_and_entries(space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DictExtractor(space)
