"""Crafter and PettingZoo as Gymnasium environments, on stand-ins with their APIs."""

import sys
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env


class OldEnv:
    """Crafter's API: no seed in reset, four results of a step, and size (width, height)."""

    def __init__(
        self, size: tuple[int, int], seed: int = 9, length: int = 4, dies: int = 0
    ) -> None:
        self.size, self.seed, self.length, self.dies = size, seed, length, dies
        self.action_space = SimpleNamespace(n=5)
        self.info = {"discount": 1.0}
        self.episode = 0

    def reset(self) -> Any:
        self.episode += 1
        self.steps = 0
        return self.render()

    def step(self, action: int) -> tuple[Any, float, bool, dict[str, Any]]:
        self.steps += 1
        dead = self.steps == self.dies
        self.info["discount"] = 1 - float(dead)
        return self.render(), 1, dead or self.steps >= self.length, self.info

    def render(self) -> Any:
        return np.full((self.size[1], self.size[0], 3), (self.seed + self.episode) % 256, np.uint8)


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crafter", SimpleNamespace(Env=OldEnv))
    monkeypatch.setitem(sys.modules, "pair", SimpleNamespace(parallel_env=Pair))


def crafter(**options: Any) -> gym.Env[Any, Any]:
    return gym.make("genesis_rl/Crafter-v0", **options)


def test_crafter_follows_the_api_of_gymnasium() -> None:
    check_env(crafter(render_mode="rgb_array").unwrapped)
    env = crafter(size=(32, 16))
    assert env.observation_space.shape == (16, 32, 3)
    assert env.reset(seed=5)[0].max() == 6 and env.reset()[0].max() == 7
    assert env.render() is None
    assert env.reset(seed=5)[0].max() == 6


@pytest.mark.parametrize(
    ("dies", "end"), [(0, (False, True)), (2, (True, False)), (4, (True, False))]
)
def test_death_terminates_and_time_truncates(dies: int, end: tuple[bool, bool]) -> None:
    env = crafter(dies=dies)
    env.reset(seed=0)
    for _ in range((dies or 4) - 1):
        assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == end


class Pair:
    """PettingZoo's parallel API: two agents whose frames are the sum of their actions."""

    metadata: dict[str, Any] = {"render_fps": 7}  # noqa: RUF012
    possible_agents = ("left", "right")

    def __init__(self, render_mode: str | None, length: int = 3) -> None:
        self.mode, self.length = render_mode, length
        self.spaces = {name: spaces.Discrete(100) for name in self.possible_agents}

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(0, 255, (16, 24, 3), np.uint8)

    def action_space(self, agent: str) -> Any:
        return self.spaces[agent]

    def _frames(self, value: int) -> dict[str, Any]:
        return {name: np.full((16, 24, 3), value, np.uint8) for name in self.possible_agents}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.steps = list(self.possible_agents), 0
        return self._frames(0), {name: {} for name in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert actions.keys() == {"left", "right"}
        self.steps += 1
        ended = dict.fromkeys(self.agents, self.steps == self.length)
        rewards = {"left": actions["left"], "right": -1}
        infos: Any = {name: {} for name in self.agents}
        frames = self._frames(sum(actions.values()))
        return frames, rewards, dict.fromkeys(self.agents, False), ended, infos

    def render(self) -> Any:
        return self._frames(1)["left"] if self.mode == "rgb_array" else None

    def close(self) -> None:
        pass


def pair(**options: Any) -> gym.Env[Any, Any]:
    return gym.make("genesis_rl/PettingZoo-v0", make="pair:parallel_env", **options)


def test_an_agent_of_pettingzoo() -> None:
    check_env(pair(render_mode="rgb_array").unwrapped)
    env: Any = pair()
    env.reset()
    assert env.metadata["render_fps"] == 7 and env.render().shape == (16, 24, 3)

    def episode() -> list[int]:
        env.reset(seed=3)
        results = [env.step(4) for _ in range(3)]
        assert [result[1:4] for result in results] == [(4, False, last) for last in (0, 0, 1)]
        return [result[0].max() for result in results]

    first = episode()
    assert episode() == first and len(set(first)) > 1  # the other agent's random actions
    other = pair(agent="right")
    other.reset(seed=0)
    assert other.step(1)[1] == -1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"make": "pair"}, "make must be module:function, got 'pair'"),
        ({"agent": "up"}, "left, right"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make("genesis_rl/PettingZoo-v0", **{"make": "pair:parallel_env", **options})
