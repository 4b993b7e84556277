"""pretrain/fit_prior.py on saved models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import genesis_rl
from genesis_rl.checkpoints.loading import save_pretrained

DATA = ("--data", "object_goal", "--data-options", '{"image_size": 32, "num_images": 16}')


def test_a_new_prior_leaves_the_slots(
    tmp_path: Path,
    small_model: Callable[..., Any],
    run_program: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path))
    attention = {"posterior": "attention", "background": "static", "mask_decoder": "local"}
    sizes = {"mask_latent_size": 8, "component_latent_size": 4, "component_decoder": "flat"}
    save_pretrained(small_model(**attention, **sizes), tmp_path / "old")
    flags = ("--steps", "2", "--prior-flow-layers", "2", "--device", "cpu", *DATA)
    new = tmp_path / "new"
    status, text, errors = run_program(
        "pretrain/fit_prior.py", str(tmp_path / "old"), str(new), *flags
    )
    assert status == 0 and str(new) in text, errors
    before, after = genesis_rl.load(tmp_path / "old", "cpu"), genesis_rl.load(new, "cpu")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(before.infer(x).features, after.infer(x).features)
    assert (before.config.prior_flow_layers, after.config.prior_flow_layers) == (0, 2)

    save_pretrained(small_model(), tmp_path / "paper")
    for model, out, message in (
        (tmp_path / "old", new, "out must be a new or an empty folder"),
        (tmp_path / "paper", tmp_path / "other", "model must have posterior='attention'"),
    ):
        status, _, errors = run_program("pretrain/fit_prior.py", str(model), str(out), *flags)
        assert status == 2 and message in errors
