"""World models: windows of recordings, training and scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genesis_rl.data import PackWriter
from genesis_rl.data.transitions import Transitions
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model import ActionSpec, SlotSpec, WorldModel, WorldModelConfig
from genesis_rl.world_model.evaluation import classification, event_scores, open_loop, psnr
from genesis_rl.world_model.sequences import Sequences, encode
from genesis_rl.world_model.training import fit_scales, rollout_loss

MOVES = ActionSpec("discrete", n=2)
SLOTS = SlotSpec("a" * 64, 2, (1, 0), mask_geometry=False)
CPU = torch.device("cpu")


def record(folder: Path, lengths: list[int], **meta: Any) -> Transitions:
    """Record episodes of noise with the given lengths; each is terminated with a reward of 1."""
    rng = np.random.default_rng(0)
    frames = sum(lengths) + len(lengths)
    space = {"type": "Discrete", "dtype": "int64", "n": 2, "start": 0}
    with PackWriter(folder, frames, 32, masks=False, meta={"action_space": space} | meta) as writer:
        for length in lengths:
            ends = np.zeros(length + 1, np.bool_)
            ends[length - 1] = True
            writer.write(
                rng.integers(256, size=(length + 1, 32, 32, 3), dtype=np.uint8),
                action=rng.integers(2, size=length + 1),
                reward=ends.astype(np.float32),
                terminated=ends,
                truncated=np.zeros(length + 1, np.bool_),
                first=np.arange(length + 1) == 0,
            )
    return Transitions.open(folder)


def walk(n: int, seed: int = 0) -> Sequences:
    """Episodes of slot 0 going up or down from 0 until it is at 3 (reward 1) or -3 (none).

    Slot 1 stands still and the other way round in every second episode.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[list[float], int, float, float]] = []
    last: list[int] = []
    for episode in range(n):
        place, still, first = 0, float(rng.normal()), len(rows)
        while abs(place) < 3:
            action = int(rng.integers(2))
            after = place + 2 * action - 1
            slots = [float(place), 10 + still]
            rows.append((slots, action, float(after == 3), float(abs(after) == 3)))
            place = after
        rows.append(([float(place), 10 + still], 0, 0.0, 0.0))
        if episode % 2:
            rows[first:] = [(slots[::-1], *rest) for slots, *rest in rows[first:]]  # type: ignore[misc]
        last += (len(rows) - first) * [len(rows) - 1]
    features, actions, rewards, ends = zip(*rows, strict=True)
    return Sequences(
        torch.tensor(features)[..., None],
        torch.tensor(actions),
        torch.tensor(rewards),
        torch.tensor(ends),
        torch.tensor(last),
        torch.from_numpy(np.flatnonzero(np.arange(len(last)) < np.array(last))),
    )


# ---- recorded windows --------------------------------------------------------------------------


def test_every_step_starts_a_window(tmp_path: Path) -> None:
    transitions = record(tmp_path, [3, 1])
    features = np.arange(6, dtype=np.float32).reshape(6, 1, 1)
    data = Sequences.of(transitions, features, MOVES, CPU)
    assert data.starts.tolist() == [0, 1, 2, 4]
    windows = data.windows(data.starts, 2)
    assert windows.features[..., 0, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 3], [4, 5, 5]]
    assert windows.valid.tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]
    assert windows.terminated.tolist() == [[0, 0], [0, 1], [1, 0], [1, 0]]
    assert windows.rewards.tolist() == windows.terminated.tolist()
    assert windows.actions[0].tolist() == transitions.actions[:2].tolist()
    assert data.whole(2).tolist() == [0, 1] and data.whole(3).tolist() == [0]


def test_invalid_recordings(tmp_path: Path) -> None:
    transitions = record(tmp_path, [3])
    features = np.zeros((4, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"actions .*'n': 3.*'n': 2"):
        Sequences.of(transitions, features, ActionSpec("discrete", n=3), CPU)
    transitions.rewards = np.array([0, np.nan, 0, 0], np.float32)
    with pytest.raises(ValueError, match="rewards"):
        Sequences.of(transitions, features, MOVES, CPU)


def test_encoded_once_by_encoder_and_content(
    small_model: Callable[..., Any], tmp_path: Path
) -> None:
    encoder = SlotEncoder(small_model(), device="cpu")
    transitions = record(tmp_path / "pack", [3, 2])
    cache = tmp_path / "cache"
    features = encode(transitions, encoder, align=False, cache=cache)
    wanted = encoder.features(transitions.images, mask_geometry=True)
    assert np.allclose(features, wanted, atol=1e-5)
    (kept,) = cache.glob("*/features.npy")
    before = kept.stat().st_mtime_ns
    assert np.array_equal(encode(transitions, encoder, align=False, cache=cache), features)
    assert kept.stat().st_mtime_ns == before
    aligned = encode(transitions, encoder, align=True, cache=cache)
    assert np.allclose(np.sort(aligned, axis=1), np.sort(features, axis=1))
    assert np.array_equal(aligned[transitions.first], features[transitions.first])
    encode(record(tmp_path / "other", [3, 2], more=1), encoder, align=False, cache=cache)
    encode(transitions, SlotEncoder(small_model(seed=1), device="cpu"), align=False, cache=cache)
    assert len(list(cache.glob("*/features.npy"))) == 4
    kept.write_bytes(b"no")
    with pytest.raises(ValueError, match="damaged"):
        encode(transitions, encoder, align=False, cache=cache)


# ---- learning ----------------------------------------------------------------------------------


def trained() -> WorldModel:
    torch.manual_seed(0)
    config = WorldModelConfig(width=16, layers=1, ensemble=2)
    model, data = WorldModel(config, MOVES, SLOTS), walk(100)
    fit_scales(model, data)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(300):
        rows = torch.randint(len(data.starts), (32,))
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / 300)
        windows = data.windows(data.starts[rows], 3)
        loss = rollout_loss(model, windows, rows % 2, torch.ones(32, 2)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def test_a_small_world_is_learned() -> None:
    model = trained()
    # From 0 up to 3, the walker in slot 0 or in slot 1.
    starts = torch.tensor([[0.0, 10.5], [9.5, 0.0]])[..., None]
    rollout = open_loop(model, starts, torch.ones(2, 3, dtype=torch.int64))
    walker = torch.stack([rollout.features[0, :, 0, 0], rollout.features[1, :, 1, 0]])
    assert torch.allclose(walker, torch.tensor([1.0, 2, 3]).expand(2, 3), atol=0.4)
    still = torch.stack([rollout.features[0, :, 1, 0], rollout.features[1, :, 0, 0]])
    assert torch.allclose(still, torch.tensor([[10.5], [9.5]]).expand(2, 3), atol=0.4)
    assert (rollout.reward[:, :2].abs() < 0.2).all() and (rollout.reward[:, 2] > 0.8).all()
    assert (rollout.terminated[:, :2] < 0.2).all() and (rollout.terminated[:, 2] > 0.8).all()
    down = open_loop(model, starts, torch.zeros(2, 3, dtype=torch.int64))
    assert (down.reward.abs() < 0.2).all() and (down.terminated[:, 2] > 0.8).all()


def test_scales_of_the_data() -> None:
    model, data = WorldModel(WorldModelConfig(), MOVES, SLOTS), walk(200)
    fit_scales(model, data)
    assert model.usual_reward == 0 and model.reward_scale == 1
    rates = [float(values[data.starts].mean()) for values in (data.rewards, data.terminated)]
    for bias, rate in zip((model.event_bias, model.end_bias), rates, strict=True):
        assert float(bias) == pytest.approx(0.5 * np.log((1 - rate) / rate), abs=1e-4)
    # Every step changes one of the two slots by 1.
    change = float(model.change_scale * model.scale.scale)
    assert change == pytest.approx(np.sqrt(0.5), abs=1e-4)
    data.rewards.zero_()
    fit_scales(model, data)
    assert model.event_bias == 0


def test_the_loss_of_a_copy_is_the_unit() -> None:
    """Heads without change: an error of 1 for one step, more for later ones; masked padding."""
    model, data = WorldModel(WorldModelConfig(layers=1), MOVES, SLOTS), walk(50)
    fit_scales(model, data)
    for weights in model.change.parameters():
        torch.nn.init.zeros_(weights)
    heads = torch.zeros(len(data.starts), dtype=torch.int64)
    members = torch.ones(len(data.starts), 4)
    one, three = (
        rollout_loss(model, data.windows(data.starts, steps), heads, members) for steps in (1, 3)
    )
    assert one.dynamics.item() == pytest.approx(1, abs=1e-4)
    windows = data.windows(data.starts, 3)
    moved = (windows.features[:, 1:] - windows.features[:, :1]).square().mean((2, 3)) / 0.5
    wanted = (moved * windows.valid).sum() / windows.valid.sum()
    assert three.dynamics.item() == pytest.approx(float(wanted), rel=1e-4)


def test_each_head_is_trained_on_its_share() -> None:
    model, data = WorldModel(WorldModelConfig(layers=1, ensemble=2), MOVES, SLOTS), walk(20)
    fit_scales(model, data)
    members = torch.tensor([1.0, 0.0]).expand(len(data.starts), 2)
    windows = data.windows(data.starts, 1)
    heads = torch.zeros(len(data.starts), dtype=torch.int64)
    rollout_loss(model, windows, heads, members).total.backward()
    first, second = (next(head.parameters()).grad for head in model.change)
    assert first is not None and first.abs().max() > 0
    assert second is None or second.abs().max() == 0


# ---- scores ------------------------------------------------------------------------------------


def test_classification() -> None:
    events = np.array([True, False, True, False, False])
    scores = np.array([0.9, 0.6, 0.2, 0.2, 0.1])
    found = classification(scores, events)
    # Of the 6 pairs, 4 are in order, one is tied.
    assert found["auc"] == pytest.approx((4 + 0.5) / 6)
    assert found["f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["balanced_accuracy"] == pytest.approx(0.5 * (1 / 2 + 2 / 3))
    assert found["rate"] == pytest.approx(0.4)
    assert classification(scores, np.zeros(5, np.bool_))["auc"] is None


def test_rewards_are_predicted_when_nearer_to_the_event() -> None:
    model, data = WorldModel(WorldModelConfig(layers=1), MOVES, SLOTS), walk(50)
    model.usual_reward.fill_(0)
    model.reward_scale.fill_(2)
    windows = data.windows(data.starts, 2)
    windows = windows._replace(rewards=2 * windows.rewards)
    # Steps after the end are masked.
    padding = 9 * (1 - windows.valid)
    said = 0.6 * windows.rewards + padding
    found = event_scores(model, said, windows.terminated + padding, windows)
    for event in ("reward", "terminated"):
        assert found[event]["auc"] == found[event]["f1"] == 1
    rate = found["reward"]["rate"]
    assert rate is not None and found["reward"]["usual_mae"] == pytest.approx(2 * rate, rel=1e-5)
    assert found["reward"]["mae"] == pytest.approx(0.8 * rate, rel=1e-5)
    few = event_scores(model, 0.4 * windows.rewards, windows.terminated, windows)["reward"]
    assert few["auc"] == 1 and few["f1"] == 0


def test_psnr() -> None:
    black = torch.zeros(2, 3, 4, 4)
    assert psnr(black + 0.1, black) == pytest.approx(20, abs=1e-4)
    assert psnr(black, black) == 100
