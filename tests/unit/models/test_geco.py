"""GECO against stored trajectories of the authors' controller."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genesis_rl.models.geco import Geco, GecoConfig

REFERENCE = Path(__file__).parents[2] / "fixtures" / "geco_reference.npz"


@pytest.mark.parametrize("case", range(4))
def test_trajectory(case: int) -> None:
    data = np.load(REFERENCE, allow_pickle=False)
    goal, step_size, alpha, beta_init, beta_min, speedup = data[f"case{case}_config"]
    geco = Geco(
        goal,
        step_size,
        alpha=alpha,
        beta_init=beta_init,
        beta_min=beta_min,
        speedup=speedup if speedup > 0 else 1.0,
    )
    for i, (err, kl) in enumerate(
        zip(data[f"case{case}_err"], data[f"case{case}_kl"], strict=True)
    ):
        err_now, kl_now = torch.tensor(err), torch.tensor(kl)
        loss = geco(err_now, kl_now)
        geco.update(err_now)
        for name, value in (
            ("loss", loss),
            ("beta_after", geco.beta),
            ("err_ema_after", geco.err_ema),
        ):
            assert float(value) == pytest.approx(data[f"case{case}_{name}"][i], rel=1e-10), name


@pytest.mark.parametrize(("case", "image_size"), [(0, 64), (1, 32)])
def test_config_is_independent_of_the_image_size(case: int, image_size: int) -> None:
    """The authors' defaults at both sizes follow from one config."""
    goal, step_size, *_ = np.load(REFERENCE)[f"case{case}_config"]
    geco = Geco.from_config(GecoConfig(), image_size)
    assert geco.goal == pytest.approx(goal, rel=1e-12)
    assert geco.step_size == pytest.approx(step_size, rel=1e-12)


def test_state_survives_saving() -> None:
    first = Geco(1.0, 0.1)
    for err in (3.0, 2.0, 0.5):
        first.update(torch.tensor(err))
    second = Geco(1.0, 0.1)
    second.load_state_dict(first.state_dict())
    for geco in (first, second):
        geco.update(torch.tensor(0.7))
    assert torch.equal(first.beta, second.beta)
    assert torch.equal(first.err_ema, second.err_ema)


@pytest.mark.parametrize(
    "bad", [{"alpha": 1.0}, {"step_size": 0.0}, {"beta_min": -1.0}, {"speedup": 0.0}]
)
def test_bad_values(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        GecoConfig(**bad)
