"""Model cards: what the Hub reads of them, and what people do."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from genesis_rl.checkpoints.loading import Pretrained
from genesis_rl.checkpoints.model_card import (
    CardOptions,
    ModelScores,
    data_name,
    model_card,
    public_settings,
)
from genesis_rl.evaluation.diagnostics import Finding
from genesis_rl.evaluation.tables import SECTIONS
from genesis_rl.models import MODELS, build_model
from genesis_rl.models.geco import GecoConfig
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.training import PretrainConfig
from genesis_rl.training.presets import PRESETS

SMOKE = dataclasses.replace(PRESETS["smoke"].config, out=Path("/home/me/runs/encoder"))
METADATA: dict[str, Any] = {
    "model": "genesis",
    "genesis_rl": "0.1.0",
    "step": 1234,
    "seconds": 90.0,
    "hardware": "A Processor (3 threads)",
    "versions": {"genesis_rl": "0.1.0", "torch": "9.8"},
}
FIGURES = ModelScores(
    "7 held-out images",
    {"mse": 0.0123456, "ari": 0.5, "msc": None, "iwae": 1234.5, "ari_images": 7},
    {"one_slot": {"ari": 0.0}, "fixed_grid": {"ari": 0.25}},
    (Finding("one_slot", "error", "One slot explains everything.", "slots", 1.0, "2"),),
)


def loaded(config: PretrainConfig = SMOKE, **metadata: Any) -> Pretrained:
    return Pretrained(build_model(config.model), Preprocessing("crop"), METADATA | metadata)


def card(config: PretrainConfig = SMOKE, figures: ModelScores = FIGURES, **options: Any) -> str:
    return model_card(config, loaded(config), figures, CardOptions(**options))


def front(text: str) -> dict[str, Any]:
    """The front matter as the Hub reads it."""
    data: Any = ModelCard(text).data
    return dict(data.to_dict())


def test_the_hub_reads_the_front_matter() -> None:
    text = card()
    assert text.startswith("---\n")
    data = front(text)
    assert data["license"] == "apache-2.0" and data["library_name"] == "genesis_rl"
    assert data["datasets"] == ["object_goal"] and data["metrics"] == ["mse", "ari"]
    assert {"object-centric", "genesis", "arxiv:1907.13052"} <= set(data["tags"])
    (index,) = data["model-index"]
    (result,) = index["results"]
    assert result["dataset"] == {"name": "object_goal", "type": "object_goal"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {"mse": 0.01235, "ari": 0.5}


def sections(text: str) -> dict[str, str]:
    """Return the texts below the headings."""
    parts = re.split(r"^#+ (.*)\n", ModelCard(text).text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def table(section: str) -> dict[str, list[str]]:
    """Return the cells of the rows of a section's table by the first cell."""
    lines = [line.strip("|") for line in section.splitlines() if line.startswith("|")]
    rows = ([cell.strip() for cell in line.split("|")] for line in lines)
    return {first: cells for first, *cells in rows}


def test_sections() -> None:
    parts = sections(card(load_by="me/encoder"))
    assert list(parts)[1:] == ["Use", "Scores", "Training", "Limits", "Settings"]
    assert 'genesis_rl.load("me/encoder")' in parts["Use"] and "(B, 3, 32, 32)" in parts["Use"]
    assert FIGURES.images in parts["Scores"] and FIGURES.findings[0].message in parts["Scores"]
    scores, training = table(parts["Scores"]), table(parts["Training"])
    names = {row.key: row.name for row in (*SECTIONS["Images"], *SECTIONS["Objects"])}
    assert scores[names["ari"]] == ["high", "0.5", "0", "0.25"]
    assert scores[names["mse"]] == ["low", "0.01235", "", ""]
    assert names["msc"] not in scores  # which no image had
    assert re.findall(r"[\d.,]+", training["updates"][0]) == ["1,234", "4", "4,936"]
    assert training["wall time"][0].startswith("1.5 ")
    assert training["hardware"] == [METADATA["hardware"]] and "9.8" in training["versions"][0]
    assert "crop" in parts["Limits"]
    settings = json.loads(parts["Settings"].split("```json\n")[1].split("```")[0])
    assert settings["model_name"] == "genesis" and settings["batch_size"] == 4


def test_titles_and_licenses_are_chosen() -> None:
    text = card(title="My encoder", license="mit")
    parts = sections(text)
    assert next(iter(parts)) == "My encoder" and 'genesis_rl.load("OWNER/NAME")' in parts["Use"]
    data = front(text)
    assert data["license"] == "mit" and data["model-index"][0]["name"] == "My encoder"


@pytest.mark.parametrize(
    ("change", "name", "numbers"),
    [
        ({"geco": GecoConfig(goal=0.25, beta_min=0.5)}, "GECO", ["0.25", "0.5"]),
        ({"objective": "elbo", "beta": 0.25}, "ELBO", ["0.25"]),
        ({"objective": "elbo", "beta_end": 4.0}, "ELBO", ["1", "4"]),
    ],
)
def test_objectives(change: dict[str, Any], name: str, numbers: list[str]) -> None:
    text = card(dataclasses.replace(SMOKE, **change))
    (objective,) = table(sections(text)["Training"])["objective"]
    assert name in objective and re.findall(r"[\d.]+", objective) == numbers


def test_nothing_is_told_of_the_machine() -> None:
    config = dataclasses.replace(SMOKE, data="/home/me/frames/kitchen", data_options="{}")
    text = card(config)
    assert "/home" not in text and "kitchen" in text
    assert data_name(config) == "kitchen" and data_name(SMOKE) == "object_goal"
    settings = public_settings(config)
    assert "out" not in settings and settings["data"] == "kitchen"
    assert table(sections(text)["Training"])["data"] == ["kitchen"]


def test_without_scores_the_card_says_so() -> None:
    text = card(figures=ModelScores("nothing", {"mse": None}))
    assert not table(sections(text)["Scores"]) and "doctor" not in text
    data = front(text)
    assert "model-index" not in data and not data.get("metrics")
    assert "model-index" not in front(card(figures=ModelScores("", {"ari": math.nan})))


def test_older_checkpoints_lack_the_hardware() -> None:
    found = {k: v for k, v in METADATA.items() if k not in ("hardware", "versions")}
    old = Pretrained(build_model(SMOKE.model), Preprocessing(), found)
    training = table(sections(model_card(SMOKE, old, FIGURES))["Training"])
    assert training["hardware"][0] and training["versions"] == ["genesis_rl 0.1.0"]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_card(name: str) -> None:
    small = [preset.config for preset in PRESETS.values()]
    config = next(c for c in small if type(c.model) is MODELS[name][0] and c.model.image_size == 32)
    found = Pretrained(build_model(config.model), Preprocessing(), METADATA | {"model": name})
    text = model_card(config, found, FIGURES)
    assert name in front(text)["tags"]
    assert ("slots" in sections(text)["Limits"]) == (config.model.num_slots > 1)
