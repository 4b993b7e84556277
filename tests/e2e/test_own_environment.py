"""Three commands from an unknown environment to an agent on its objects."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genesis_rl.checkpoints.loading import load_pretrained
from genesis_rl.data.transitions import Transitions

Run = Callable[..., tuple[int, str, str]]
SHORT = "--steps 4 --batch-size 8 --device cpu --threads 1 --no-tensorboard".split()
STATIC = "--model.background static".split()
PREDICTED = "--model.background predicted --stage-1.steps 4 --stage-1.batch-size 8".split()
MINIGRID = "--wrappers minigrid.wrappers:RGBImgPartialObsWrapper".split()


@pytest.mark.parametrize(
    ("package", "env", "more", "background"),
    [
        ("Box2D", "CarRacing-v3", [], PREDICTED),
        ("minigrid", "minigrid:MiniGrid-Empty-5x5-v0", MINIGRID, STATIC),
    ],
    ids=["CarRacing", "MiniGrid"],
)
@pytest.mark.slow
def test_from_an_environment_to_an_agent(
    package: str,
    env: str,
    more: list[str],
    background: list[str],
    tmp_path: Path,
    run_program: Run,
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (extra envs)")
    data, model, agent, again = (str(tmp_path / name) for name in ("data", "model", "a", "again"))

    where = ["--vec", "dummy", "--n-envs", "4"]
    flags = ["--env", env, *more, "--steps", "240", *where]
    status, out, errors = run_program("envs/collect.py", *flags, "--out", data)
    assert status == 0, errors
    assert f"{data}/train: " in out and "validation" in out and "test" in out

    flags = ["--data", data, "--out", model, *SHORT, *background]
    status, out, errors = run_program("pretrain/train.py", *flags)
    assert status == 0, errors
    assert f"preset auto, from {data}" in out and "--model.num-slots" in out
    assert json.loads((Path(model) / "train.json").read_text())["data"] == data
    assert load_pretrained(model).model.config.image_size == 64

    ppo = "--ppo.n-steps 32 --ppo.batch-size 32 --ppo.n-epochs 1 --total-timesteps 256".split()
    ppo += "--eval-episodes 1 --policy.width 16 --no-tensorboard --threads 1".split()
    options = ["--env-options", '{"max_episode_steps": 40}', *where]
    flags = ["--encoder", model, "--env", env, *more, *options, *ppo, "--out", agent]
    status, out, errors = run_program("agents/train.py", *flags)
    assert status == 0, errors
    assert "256 steps" in out

    # The fourth: what the agent does is data again.
    flags = ["--agent", agent, "--steps", "100", "--out", again, *where]
    status, _, errors = run_program("envs/collect.py", *flags)
    assert status == 0, errors
    seen, new = Transitions.open(data), Transitions.open(again)
    assert new.action_space == seen.action_space
    assert new.pack.meta["settings"]["env"] == env
    lengths = np.diff(new.episodes, axis=1)
    assert lengths.max() <= 40  # the agent's own options
    assert abs(new.images.mean() - seen.images.mean()) < 20
