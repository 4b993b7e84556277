"""Options of registered environments, found without making one."""

import pytest

import genesis_rl  # noqa: F401 - registers the environments
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
