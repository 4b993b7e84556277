"""Recording of agents in their environments."""

from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from genesis_rl.agents.algorithms import build_model
from genesis_rl.agents.bundle import save_agent
from genesis_rl.agents.collect import collect_with_agent
from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.checkpoints.loading import load_pretrained
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.recording.collect import CollectConfig
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Preprocessing, resize


def save(folder: Path, encoder_path: str, **changes: Any) -> str:
    """Agent with initial weights."""
    options: dict[str, Any] = {"env": "Pixel-v0", "vec": "dummy", "n_envs": 2} | changes
    pretrained = None
    if "obs" not in options:
        pretrained = load_pretrained(encoder_path, device="cpu")
        options |= {"encoder": encoder_path, "encoder_device": "cpu"}
    config = AgentConfig(**options)
    encoder = None if pretrained is None else SlotEncoder(pretrained.model, device="cpu")
    with closing(make_vec_env(config, encoder)) as venv:
        save_agent(folder, build_model(config, venv), config, pretrained)
    return str(folder)


def record(tmp_path: Path, agent: str, name: str = "data", **changes: Any) -> Transitions:
    given = {"steps": 60, "n_envs": 2, "vec": "dummy", "validation": 0, "test": 0}
    config = CollectConfig(agent=agent, out=tmp_path / name, image_size=32, **{**given, **changes})
    assert collect_with_agent(config)["train"].steps == 60
    return Transitions.open(config.out)


def test_frames_belong_to_actions_and_ends(tmp_path: Path, encoder_path: str) -> None:
    data = record(tmp_path, save(tmp_path / "agent", encoder_path))
    assert data.pack.meta["policy"] == "agent" and data.pack.meta["settings"]["env"] == "Pixel-v0"
    assert data.pack.meta["agent"]["encoder_fingerprint"]
    assert len(set(data.actions[data.sequences(1)[:, 0]].tolist())) > 1
    # The reward is the action; episodes of even length are truncated, others terminated.
    np.testing.assert_array_equal(data.rewards, data.actions)
    for first, last in data.episodes:
        ended = data.terminated[last - 1], data.truncated[last - 1]
        if any(ended):
            assert ended == ((last - first) % 2 == 1, (last - first) % 2 == 0)
        frames = data.images[first : last + 1]
        assert (frames[:, 0, 0] == frames[0, 0, 0]).mean() > 0.5  # one background per episode
    assert data.terminated.any() and data.truncated.any()


@pytest.mark.parametrize("obs", ["pixels", "state"])
def test_agents_without_an_encoder(tmp_path: Path, encoder_path: str, obs: str) -> None:
    env = "Pixel-v0" if obs == "pixels" else "State-v0"
    data = record(tmp_path, save(tmp_path / "agent", encoder_path, obs=obs, env=env))
    assert data.images.std() > 10


@pytest.mark.parametrize(("changes", "recorded"), [({}, "crop"), ({"obs": "pixels"}, "stretch")])
def test_the_resize_that_made_the_frames_square_is_recorded(
    tmp_path: Path, encoder_path: str, changes: dict[str, Any], recorded: Any
) -> None:
    agent = save(tmp_path / "agent", encoder_path, **changes)
    data = record(tmp_path, agent, resize="crop")
    assert data.pack.preprocessing == Preprocessing(recorded)


def test_ground_truth_by_options_of_the_environment(tmp_path: Path, encoder_path: str) -> None:
    env, options = "genesis_rl/ObjectGoal-v0", '{"image_size": 32, "num_objects": 2}'
    agent = save(tmp_path / "agent", encoder_path, env=env, env_options=options)
    more = '{"masks_in_info": true, "state_in_info": true}'
    data = record(tmp_path, agent, env_options=more)
    assert data.pack.masks is not None and data.pack.masks.max() == 3
    assert data.states is not None and data.states.shape[1] == 3  # two objects and the agent


def test_the_same_seed_gives_the_same_data(tmp_path: Path, encoder_path: str) -> None:
    agent = save(tmp_path / "agent", encoder_path)
    one, two = (record(tmp_path, agent, name, seed=5, sticky=0.5) for name in ("one", "two"))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.actions, two.actions)
    other = record(tmp_path, agent, "other", seed=6)
    assert len(other.images) != len(one.images) or (other.images != one.images).any()


def test_deterministic_and_sticky_actions(tmp_path: Path, encoder_path: str) -> None:
    agent = save(tmp_path / "agent", encoder_path)
    greedy = record(tmp_path, agent, "greedy", deterministic=True)
    drawn = record(tmp_path, agent, "drawn")
    sticky = record(tmp_path, agent, "sticky", sticky=0.9)

    def repeats(data: Transitions) -> float:
        rows = data.sequences(2)
        return float((data.actions[rows[:, 0]] == data.actions[rows[:, 1]]).mean())

    assert repeats(drawn) < 0.6 < repeats(sticky)
    assert repeats(greedy) > repeats(drawn)


def test_frames_are_those_of_the_environment(tmp_path: Path, encoder_path: str) -> None:
    agent = save(tmp_path / "agent", encoder_path)
    data = record(tmp_path, agent, n_envs=1, seed=5)
    env = gym.make("Pixel-v0").unwrapped
    first, last = data.episodes[0]
    # The first episode of the first environment, found again by its seed.
    frame, _ = env.reset(seed=5)
    for row in range(first, last + 1):
        shown = resize(np.asarray(frame)[None], 32, Preprocessing())[0]
        np.testing.assert_array_equal(data.images[row], shown)
        if row < last:
            frame = env.step(data.actions[row])[0]
