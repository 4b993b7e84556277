"""Saved scene probes: predictions, fingerprint check, damaged folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genesis_rl.evaluation.probes import MlpConfig, SceneProbe
from genesis_rl.evaluation.probes.heads import ProbeTarget, fit_mlps, moments
from genesis_rl.evaluation.probes.saved import SceneProbeWriter

K, WIDTH = 2, 3
QUICK = MlpConfig(hidden=16, epochs=30, batch_size=32, learning_rate=1e-2)


class Model(nn.Module):
    """The attributes of a model that probes use."""

    latent_sizes = (1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.config: Any = type("Config", (), {"num_slots": K, "__repr__": lambda _: "Config"})()
        self.weight = nn.Parameter(torch.ones(2))


@pytest.fixture(scope="module")
def data() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 100.0, 0.01, 1.0, 1.0, 1.0])
    return {
        split: torch.randn(n, K * WIDTH, generator=generator) * scale + 3 * scale
        for split, n in (("train", 256), ("test", 100))
    }


@pytest.mark.parametrize("standardised", [False, True])
def test_a_saved_probe_predicts_as_evaluated(
    data: dict[str, torch.Tensor], standardised: bool, tmp_path: Path
) -> None:
    mean, scale = moments(data["train"])
    values = {s: ((x - mean)[:, 0] + (x - mean)[:, 3] > 0).long() for s, x in data.items()}
    big = {s: (x[:, 4] > 2.5).long() * 3 for s, x in data.items()}
    targets = [ProbeTarget("sum", values, (0, 1)), ProbeTarget("big", big, (2, 5, 6, 9))]
    x = {s: (v - mean) / scale for s, v in data.items()} if standardised else data
    fits = fit_mlps(x, targets, QUICK, seed=0, device=torch.device("cpu"))
    model: Any = Model()
    SceneProbeWriter(tmp_path, model, (mean, scale) if standardised else None).save(targets, fits)
    for target in targets:
        probe = SceneProbe.load(tmp_path / target.name, device="cpu")
        predicted = probe(data["test"].view(-1, K, WIDTH))
        torch.testing.assert_close(predicted.sum(1), torch.ones(100))
        assert probe.config.classes == target.classes
        assert target.score(predicted, "test") == pytest.approx(fits[target.name].score, abs=0.011)
    if standardised:  # otherwise one feature drowns the others
        assert fits["sum"].score > 0.9


@pytest.fixture
def folder(data: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    values = {s: (x[:, 0] > 3).long() for s, x in data.items()}
    target = ProbeTarget("sign", values, (0, 1))
    fits = fit_mlps(
        data, [target], MlpConfig(hidden=4, epochs=1), seed=0, device=torch.device("cpu")
    )
    model: Any = Model()
    SceneProbeWriter(tmp_path, model).save([target], fits)
    return tmp_path / "sign"


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        SceneProbe.load(folder, encoder_fingerprint="0" * 64)
    with pytest.raises(ValueError, match="slots"):
        SceneProbe.load(folder, device="cpu")(torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match=r"config\.json .*JSON"):
        SceneProbe.load(tmp_path / "nothing")
    config = folder / "config.json"
    text = config.read_text()
    for old, new, message in (
        ("scene_probe", "world_model", "scene probe"),
        ('"format": 1', '"format": 9', "format "),
        ('"hidden": 4', '"hidden": 5', "hidden.weight "),
        ('"accuracy"', '"luck"', "luck"),
    ):
        config.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            SceneProbe.load(folder, device="cpu")
