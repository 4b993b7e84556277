"""Probes of the simulator's state: attention over slots, and states of rendered environments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.envs.wrappers.rendering import RenderedObs
from genesis_rl.evaluation.probes.heads import MlpConfig, ProbeTarget, fit_attention, fit_linear
from genesis_rl.evaluation.probes.inputs import StateInputs
from genesis_rl.evaluation.probes.latents import Sample

CPU = torch.device("cpu")


def shuffled(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots of four objects in random order; the target is the position of the red one."""
    generator = torch.Generator().manual_seed(seed)
    slots = torch.zeros(count, 4, 6)
    slots[..., :2] = torch.rand(count, 4, 2, generator=generator) - 0.5
    colours = torch.rand(count, 4, generator=generator).argsort(1)
    slots[..., 2:] = torch.nn.functional.one_hot(colours, 4).float()
    red = (colours == 0).float().argmax(1)
    return slots, slots[torch.arange(count), red, :2]


def test_attention_finds_an_object_in_any_slot() -> None:
    features, values = {}, {}
    for seed, split in enumerate(("train", "test")):
        features[split], values[split] = shuffled(1500, seed)
    scale = {split: v / 0.3 for split, v in values.items()}
    target = ProbeTarget("position", scale)
    config = MlpConfig(epochs=15, batch_size=64, hidden=128)
    pooled = fit_attention(features, [target], config, seed=0, device=CPU)["position"]
    flat = {split: x.flatten(1) for split, x in features.items()}
    linear = fit_linear(flat, [target], 1.0)["position"]
    assert pooled > 0.95 > 0.5 > linear
    # The order of the slots does not matter.
    features["test"] = features["test"].flip(1)
    again = fit_attention(features, [target], config, seed=0, device=CPU)["position"]
    assert again == pytest.approx(pooled, abs=1e-5)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Sample]:
    def to_pack(state: Any, name: str) -> Sample:
        folder = tmp_path / name
        with PackWriter(folder, len(state), 8, masks=False) as writer:
            writer.write(np.zeros((len(state), 8, 8, 3), np.uint8), state=state)
        return Sample.draw(Pack.open(folder), len(state))

    return to_pack


def test_columns_that_vary_are_targets(write: Callable[..., Sample]) -> None:
    state = np.random.default_rng(0).normal(3, 2, (20, 3)).astype(np.float32)
    state[:, 1] = 5
    inputs = StateInputs({"train": write(state, "train"), "test": write(state[:9], "test")})
    assert [target.name for target in inputs.targets] == ["state_0", "state_2"]
    values = inputs.targets[1].values
    assert values["train"].shape == (20, 1) and values["test"].shape == (9, 1)
    assert float(values["train"].mean()) == pytest.approx(0, abs=1e-5)
    assert inputs.pixels(2)["test"].shape == (9, 12)


def test_packs_without_states_are_refused(write: Callable[..., Sample]) -> None:
    constant = write(np.ones((5, 2), np.float32), "constant")
    with pytest.raises(ValueError, match="state"):
        StateInputs({"train": constant, "test": constant})
    objects = write(np.zeros((5, 2, 9), np.float32), "objects")
    with pytest.raises(ValueError, match="state"):
        StateInputs({"train": objects, "test": objects})


class Rendered(gym.Env[Any, Any]):
    render_mode = "rgb_array"
    action_space = gym.spaces.Discrete(2)

    def __init__(self, space: gym.spaces.Space[Any], info: dict[str, Any] | None = None) -> None:
        self.observation_space, self.info = space, info or {}
        space.seed(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.last = self.observation_space.sample()
        return self.last, self.info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.last = self.observation_space.sample()
        return self.last, 0.0, False, False, self.info

    def render(self) -> Any:
        return np.zeros((32, 32, 3), np.uint8)


def test_observations_of_rendered_environments_are_states() -> None:
    box = gym.spaces.Box(-1, 1, (3,))
    env = Rendered(box)
    rendered = RenderedObs(env, state=True)
    np.testing.assert_array_equal(rendered.reset()[1]["true_state"], env.last)
    np.testing.assert_array_equal(rendered.step(0)[4]["true_state"], env.last)
    assert "true_state" not in RenderedObs(env).reset()[1]
    entries = gym.spaces.Dict({"achieved_goal": gym.spaces.Box(-1, 1, (2,)), "observation": box})
    assert RenderedObs(Rendered(entries), state=True).reset()[1]["true_state"].shape == (5,)
    image = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    assert "true_state" not in RenderedObs(Rendered(image), state=True).reset()[1]
    own = RenderedObs(Rendered(box, {"true_state": np.ones(7)}), state=True)
    assert own.reset()[1]["true_state"].shape == (7,)
