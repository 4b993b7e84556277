"""Options of registered environments, found without making one."""

from typing import Any

import gymnasium as gym
import pytest

from genesis_rl.envs.make import accepts_option


@pytest.mark.parametrize(
    ("env_id", "accepted"),
    [
        ("genesis_rl/ObjectGoal-v0", True),
        ("genesis_rl:genesis_rl/FetchReachOdd-v0", True),
        ("genesis_rl/ShapeStacks-v0", True),
        ("genesis_rl/Imagination-v0", False),  # has no such option
        ("CartPole-v1", False),
        ("absent_package:Absent-v0", False),
    ],
)
def test_ground_truth_states_are_found_by_the_options_type(env_id: str, accepted: bool) -> None:
    assert accepts_option(env_id, "observation", "state") == accepted
    assert not accepts_option(env_id, "observation", "sound")


class Untyped(gym.Env[Any, Any]):
    def __init__(self, observation="image") -> None:  # type: ignore[no-untyped-def]
        """Take an option of unknown values."""


class Forwarding(Untyped):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class Closed(Untyped):
    def __init__(self, size: int = 3) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("env_class", "accepted"), [(Untyped, True), (Forwarding, True), (Closed, False)]
)
def test_options_without_literals_accept_any_value(
    env_class: Any, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.register("Own-v0", entry_point=env_class)
    assert accepts_option("Own-v0", "observation", "state") == accepted
