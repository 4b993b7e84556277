"""Evaluation: selected episodes, scores and confidence intervals."""

from math import sqrt
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from genesis_rl.agents.evaluation import (
    Episodes,
    RandomPolicy,
    Scores,
    record_video,
    run_episodes,
    score,
    wilson_interval,
)
from genesis_rl.agents.stack import EpisodeSeeds


class Counting(gym.Env[Any, Any]):
    """Length and success of an episode are functions of its seed; the reward is the action."""

    def __init__(self, says_success: bool = True) -> None:
        self.observation_space = spaces.Box(0, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.says_success = says_success
        self.seeds: list[int | None] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self._seed = seed or 0
        self._left = 1 + self._seed % 5
        return np.array([self._seed], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        info = {"is_success": self._seed % 2 == 0} if self.says_success else {}
        return np.array([self._seed], np.float32), float(action), self._left == 0, False, info


class Constant:
    """A constant action; records the arguments."""

    def __init__(self, action: int = 2) -> None:
        self.action = action
        self.deterministic: set[bool] = set()

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        self.deterministic.add(deterministic)
        return np.full(len(observation), self.action), None


def counting(num_envs: int, **options: bool) -> VecEnv:
    return DummyVecEnv([lambda: EpisodeSeeds(Counting(**options))] * num_envs)


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7])
def test_episodes_are_independent_of_the_number_of_environments(num_envs: int) -> None:
    venv = counting(num_envs)
    episodes = run_episodes(venv, Constant(), episodes=7, seed=11)
    seeds = np.arange(11, 18)
    assert episodes.lengths.tolist() == (1 + seeds % 5).tolist()
    assert episodes.returns.tolist() == (2.0 * (1 + seeds % 5)).tolist()
    assert episodes.successes is not None
    assert episodes.successes.tolist() == (seeds % 2 == 0).tolist()
    # Run again: earlier episodes have no effect.
    again = run_episodes(venv, Constant(), episodes=7, seed=11)
    assert again.lengths.tolist() == episodes.lengths.tolist()


def test_more_environments_than_episodes() -> None:
    episodes = run_episodes(counting(4), Constant(), episodes=2, seed=3)
    assert episodes.lengths.tolist() == [4, 5]


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_is_passed_to_the_policy(deterministic: bool) -> None:
    policy = Constant()
    run_episodes(counting(2), policy, episodes=2, deterministic=deterministic)
    assert policy.deterministic == {deterministic}


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="episodes"):
        run_episodes(counting(1), Constant(), episodes=0)


def test_an_environment_without_success_has_no_rate() -> None:
    episodes = run_episodes(counting(2, says_success=False), Constant(), episodes=3)
    assert episodes.successes is None
    scores = score(episodes)
    assert scores.success_rate is None
    assert scores.success_interval is None
    assert "success" not in str(scores)


def test_episode_seeds_are_unchanged_before_seeding() -> None:
    env = EpisodeSeeds(Counting())
    env.reset(seed=5)
    env.reset()
    env.seed_episodes(100, 10)
    env.reset()
    env.reset(seed=7)
    env.reset()
    assert env.unwrapped.seeds == [5, None, 100, 7, 110]  # type: ignore[attr-defined]


def test_scores_sum_up() -> None:
    returns, lengths = np.array([1.0, 0.0, 0.0, 1.0]), np.array([3, 5, 100, 4])
    scores = score(Episodes(returns, lengths, np.array([True, False, False, True])))
    assert scores.episodes == 4
    assert scores.success_rate == 0.5
    assert scores.mean_return == 0.5
    assert scores.mean_length == 28
    assert scores.return_error == pytest.approx(sqrt(1 / 3) / 2)
    assert scores.success_interval == pytest.approx(wilson_interval(2, 4))
    assert str(scores) == (
        "success 50.0% (95% interval 15.0% to 85.0%), return 0.5 ± 0.29, length 28.0, 4 episodes"
    )


def test_one_episode_has_no_error() -> None:
    scores = score(Episodes(np.array([2.0]), np.array([9]), np.array([True])))
    assert scores.return_error is None
    assert str(scores).endswith("return 2, length 9.0, 1 episodes")
    assert Scores(**vars(scores)) == scores


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (190, 200)])
def test_wilson_interval_is_the_closed_form(successes: int, trials: int) -> None:
    z, p = 1.959963984540054, successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    low, high = wilson_interval(successes, trials)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert 0 <= low <= p <= high <= 1


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_refuses_other_counts(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"successes|trials"):
        wilson_interval(*counts)


def test_random_actions_are_uniform_and_repeatable() -> None:
    venv = counting(5)
    draws = [RandomPolicy(venv, seed=4).predict(None)[0] for _ in range(2)]
    assert draws[0].shape == (5,)
    assert np.array_equal(draws[0], draws[1])
    policy = RandomPolicy(venv, seed=4)
    many = np.concatenate([policy.predict(None)[0] for _ in range(300)])
    assert np.bincount(many, minlength=3) == pytest.approx(500, rel=0.15)


def test_a_video_needs_one_environment_with_frames(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="venv"):
        record_video(counting(2), Constant(), tmp_path / "video.mp4")
    with pytest.raises(ValueError, match="info_keys"):
        record_video(counting(1), Constant(), tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())
