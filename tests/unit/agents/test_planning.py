"""Planning with a world model of known dynamics and rewards."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from genesis_rl.agents.planning import Plan, Planner, PlannerOptions, coloured_filter
from genesis_rl.world_model import (
    ActionSpec,
    Prediction,
    SlotSpec,
    WorldModel,
    WorldModelConfig,
)

SLOTS = SlotSpec("a" * 64, 1, (1, 1), mask_geometry=False)
MOVES = ActionSpec("discrete", n=4, start=1)
FORCES = ActionSpec("box", low=(-1.0, -1.0), high=(1.0, 3.0))
SMALL = PlannerOptions(horizon=6, samples=64, iterations=3, elites=8)


class Plane(WorldModel):
    """A slot whose two features are its position; actions move it, and a goal has a reward.

    Discrete actions 1..4 move by one in x or y, vectors by themselves. The reward is 1 at the goal
    (discrete) or the negative squared distance (box). The episode ends in the pit.
    """

    def __init__(
        self,
        spec: ActionSpec = MOVES,
        goal: tuple[int, int] = (2, 2),
        pit: tuple[int, int] = (9, 9),
    ) -> None:
        super().__init__(WorldModelConfig(width=4, layers=1, ensemble=1), spec, SLOTS)
        self.goal, self.pit = torch.tensor(goal).float(), torch.tensor(pit).float()
        self.scenes = 0

    def step(
        self,
        features: Tensor,
        action: Tensor,
        *,
        noise: Tensor | None = None,
        head: Tensor | None = None,
    ) -> Prediction:
        self.scenes += len(features)
        self.action_spec.check(action)
        if self.action_spec.kind == "discrete":
            moves = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
            action = moves[action - self.action_spec.start]
        features = features + action[:, None]
        place = features[:, 0]
        distance = (place - self.goal).square().sum(1)
        goal = (distance < 0.1).float()
        reward = goal if self.action_spec.kind == "discrete" else -distance
        end = goal.maximum(((place - self.pit).square().sum(1) < 0.1).float())
        return Prediction(features, reward, end, place[:, 0].abs())


def at(*places: tuple[float, float]) -> npt.NDArray[np.float32]:
    return np.array(places, np.float32)[:, None]


def follow(planner: Planner, place: tuple[float, float], steps: int) -> list[Any]:
    """Execute planned actions in the world model itself."""
    features, state, actions = torch.from_numpy(at(place)), None, []
    for step in range(steps):
        action, state = planner.predict(features.numpy(), state, np.array([step == 0]))
        features = planner.world_model.step(features, torch.from_numpy(action)).features
        actions.append(action[0])
    assert state is not None and int(state.steps[0]) == steps - 1
    return [*actions, features[0, 0].numpy()]


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_discrete_actions_reach_the_goal(beta: float) -> None:
    planner = Planner(Plane(), PlannerOptions(samples=128, noise_beta=beta, elites=16))
    *actions, place = follow(planner, (0, 0), 4)
    assert sorted(int(a) for a in actions) == [1, 1, 3, 3]  # on a shortest path
    assert place.tolist() == [2, 2]


def test_vectors_reach_the_goal_within_their_bounds() -> None:
    planner = Planner(Plane(FORCES, goal=(2, 4)), SMALL)
    *actions, place = follow(planner, (0, 0), 4)
    np.testing.assert_allclose(place, [2, 4], atol=0.2)
    assert all((a >= [-1, -1]).all() and (a <= [1, 3]).all() for a in actions)
    assert actions[0].dtype == np.float32 and actions[0].shape == (2,)
    assert abs(actions[0][0] - 1) < 0.2  # as far as possible


def test_unbounded_vectors() -> None:
    spec = ActionSpec("box", low=(-math.inf, 0.0), high=(math.inf, math.inf))
    *_, place = follow(Planner(Plane(spec, goal=(-3, 2)), SMALL), (0, 0), 5)
    np.testing.assert_allclose(place, [-3, 2], atol=0.3)


def test_returns_are_discounted_and_stop_at_terminations() -> None:
    options = PlannerOptions(horizon=4, samples=2, elites=1, gamma=0.5)
    planner = Planner(Plane(goal=(1, 0), pit=(0, 1)), options)
    # Reach the goal at the first step; at the third, after leaving it; after the pit.
    sequences = torch.tensor([[[1, 2, 1, 2], [2, 1, 1, 1], [3, 4, 1, 1], [2, 2, 2, 2]]])
    returns = planner.returns(torch.from_numpy(at((0, 0))), sequences)
    assert returns.tolist() == [[1, 0.25, 0, 0]]


def test_uncertainty_and_non_finite_predictions_lower_returns() -> None:
    planner = Planner(Plane(), PlannerOptions(horizon=2, gamma=1.0, uncertainty_penalty=0.1))
    sequences = torch.tensor([[[1, 1], [1, 2]]])
    returns = planner.returns(torch.from_numpy(at((0, 0))), sequences)
    np.testing.assert_allclose(returns, [[-0.3, -0.1]], atol=1e-6)
    returns = planner.returns(torch.from_numpy(at((math.nan, 0))), sequences)
    assert returns.tolist() == [[-math.inf, -math.inf]]


def test_plans_depend_on_the_seed_only() -> None:
    first, again, other = (
        Planner(Plane(goal=(9, 0)), SMALL, seed=seed).predict(at((0, 0))) for seed in (3, 3, 4)
    )
    assert torch.equal(first[1].kept, again[1].kept) and first[0] == again[0]
    assert not torch.equal(first[1].kept, other[1].kept)


@pytest.mark.parametrize("spec", [MOVES, FORCES])
def test_a_batch_equals_single_environments(spec: ActionSpec) -> None:
    places = [(0.0, 0.0), (3.0, 1.0), (-1.0, 2.0)]
    world = Plane(spec)
    planner = Planner(world, SMALL)
    actions, batch = planner.predict(at(*places))
    world.scenes = 0
    following, batch = planner.predict(at(*places), batch, np.array([False, True, False]))
    assert world.scenes == 3 * 64 * 6 * 3  # all environments in each call
    assert following.dtype == (np.int64 if spec is MOVES else np.float32)
    for i, place in enumerate(places):
        action, state = planner.predict(at(place))
        np.testing.assert_array_equal(action[0], actions[i])
        action, single = planner.predict(at(place), state, np.array([i == 1]))
        np.testing.assert_array_equal(action[0], following[i])
        assert all(torch.allclose(a[i], b[0]) for a, b in zip(batch, single, strict=True))
    # A new episode forgets its plan.
    np.testing.assert_array_equal(following[1], actions[1])
    assert batch.steps.tolist() == [1, 0, 1]


def test_the_plan_is_shifted_and_its_elites_are_kept() -> None:
    options = PlannerOptions(horizon=4, samples=64, iterations=2, elites=8, kept_share=0.5)
    planner = Planner(Plane(), options)
    action, plan = planner.predict(at((0, 0)))
    assert plan.kept.shape == (1, 4, 4) and plan.parameters.shape == (1, 4, 4)
    torch.testing.assert_close(plan.parameters.sum(-1), torch.ones(1, 4))
    best = plan.kept[0, 0].tolist()
    assert action[0] == best[0] and sorted(best) == [1, 1, 3, 3]
    # With a single random sample, the following action can only be that of the kept sequences.
    tiny = Planner(
        Plane(), PlannerOptions(horizon=4, samples=5, iterations=1, elites=4, kept_share=1.0)
    )
    start = torch.from_numpy(at((0, 0)))
    place = planner.world_model.step(start, torch.from_numpy(action)).features
    following, _ = tiny.predict(place.numpy(), plan, np.array([False]))
    assert following[0] == best[1]


@pytest.mark.parametrize(("beta", "low", "high"), [(0.0, -0.06, 0.06), (2.0, 0.6, 1.0)])
def test_noise_has_unit_variance_and_is_correlated_over_steps(
    beta: float, low: float, high: float
) -> None:
    kernel = coloured_filter(8, beta)
    torch.testing.assert_close(kernel.square().sum(1), torch.ones(8))
    noise = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0)) @ kernel.T
    assert low < float((noise[:, :-1] * noise[:, 1:]).mean()) < high


def test_invalid_arguments() -> None:
    planner = Planner(Plane(), SMALL)
    with pytest.raises(ValueError, match=r"^observation must have shape \(any, 1, 2\), got"):
        planner.predict(np.zeros((2, 3, 2), np.float32))
    plan = planner.predict(at((0, 0)))[1]
    assert isinstance(plan, Plan)
    with pytest.raises(ValueError, match=r"^state must be of 2 environments, got 1\."):
        planner.predict(at((0, 0), (1, 1)), plan)
    for changes, message in (
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"samples": 0, "elites": 0}, "samples must be at least 1"),
        ({"samples": 8, "elites": 9}, "elites must be at most samples, 8, got 9"),
        ({"iterations": 0}, "iterations must be"),
        ({"kept_share": 1.5}, "kept_share must be in"),
        ({"noise_beta": -1.0}, "noise_beta must be"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"gamma": 0.0}, "gamma must be"),
        ({"uncertainty_penalty": -1.0}, "uncertainty_penalty must be"),
    ):
        values: dict[str, Any] = changes
        with pytest.raises(ValueError, match=f"^{message}"):
            PlannerOptions(**values)
