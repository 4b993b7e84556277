"""JSON files conform to the standard: numbers that are not finite are null."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genesis_rl.checkpoints.loading import load_pretrained, save_pretrained
from genesis_rl.checkpoints.model_card import _rows
from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.models import BdVaeConfig, build_model
from genesis_rl.training import PretrainConfig
from genesis_rl.training.folder import TrainingFolder
from genesis_rl.utils import log
from genesis_rl.utils.files import json_text, read_json, write_json
from genesis_rl.utils.log import RunLog
from genesis_rl.utils.tables import figure

ROOT = Path(__file__).parents[3]


def strict(text: str) -> Any:
    """Parse JSON; NaN and Infinity are errors, as in JavaScript."""

    def reject(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(text, parse_constant=reject)


def test_non_finite_numbers_are_null_at_any_depth(tmp_path: Path) -> None:
    data = {
        "a": [math.nan, 1.5, (math.inf, -math.inf)],
        "b": {"c": np.float64("nan"), "d": None, "e": "nan", "f": True, "g": 3},
        "path": Path("x") / "y",
    }
    write_json(tmp_path / "new" / "data.json", data)
    text = (tmp_path / "new" / "data.json").read_text()
    assert text.endswith("}\n") and '\n  "a": [' in text
    assert strict(text) == {
        "a": [None, 1.5, [None, None]],
        "b": {"c": None, "d": None, "e": "nan", "f": True, "g": 3},
        "path": "x/y",
    }
    assert read_json(tmp_path / "new" / "data.json") == strict(text)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.json"]
    assert json_text({"a": math.nan}) == '{"a": null}'


def test_a_serialisation_error_leaves_the_file_unchanged(tmp_path: Path) -> None:
    write_json(tmp_path / "data.json", [1])
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "data.json", {"a": object()})
    assert read_json(tmp_path / "data.json") == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


def test_a_model_config_is_strict_json(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(BdVaeConfig(image_size=32))
    save_pretrained(model, tmp_path, extra={"validation": {"ari": math.nan, "mse": 0.5}})
    assert strict((tmp_path / "config.json").read_text())["validation"] == {"ari": None, "mse": 0.5}
    # Saving a loaded model writes the loaded metadata again.
    loaded = load_pretrained(tmp_path, device="cpu")
    save_pretrained(loaded.model, tmp_path / "again", extra=loaded.metadata)
    assert strict((tmp_path / "again" / "config.json").read_text())["validation"]["ari"] is None


def test_a_config_with_nan_of_an_older_version_loads(tmp_path: Path) -> None:
    model = build_model(BdVaeConfig(image_size=32))
    save_pretrained(model, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(read_json(path) | {"validation": {"ari": math.nan}}))
    loaded = load_pretrained(tmp_path, device="cpu")
    assert math.isnan(loaded.metadata["validation"]["ari"])


def test_settings_and_packs_are_strict_json(tmp_path: Path) -> None:
    config = PretrainConfig(out=tmp_path / "run")
    TrainingFolder(config, {"limit": math.inf, "seed": 1}, ()).write_settings()
    assert strict((tmp_path / "run" / "train.json").read_text()) == {"limit": None, "seed": 1}
    meta = {"agent": {"score": math.nan}}
    with PackWriter(tmp_path / "pack", 1, 4, masks=False, meta=meta) as writer:
        writer.write(np.zeros((1, 4, 4, 3), np.uint8))
    assert strict((tmp_path / "pack" / "meta.json").read_text())["agent"] == {"score": None}
    assert Pack.open(tmp_path / "pack").meta["agent"] == {"score": None}


def test_the_log_is_strict_json_and_reads_nan(tmp_path: Path) -> None:
    with RunLog(tmp_path, tensorboard=False) as run_log:
        run_log.scalars(1, {"a": math.nan, "b": -math.inf, "c": 2.0})
    with RunLog(tmp_path, tensorboard=False, resume_step=1):
        pass  # opens the log again, which rewrites it
    (line,) = (tmp_path / log.FILE).read_text().splitlines()
    assert strict(line) | {"time": 0} == {"step": 1, "time": 0, "a": None, "b": None, "c": 2.0}
    (row,) = log.read(tmp_path)
    assert math.isnan(row["a"]) and math.isnan(row["b"]) and row["c"] == 2.0


def test_tables_show_non_finite_numbers_as_empty_cells() -> None:
    assert [figure(value, 2) for value in (None, math.nan, math.inf, 0.5)] == ["", "", "", "0.50"]
    assert _rows({"r2": None, "ari": 0.5}) == [("r2", ""), ("ari", "0.5000")]


def test_library_and_programs_write_json_by_write_json_only() -> None:
    direct_write = re.compile(r"write(_text|_bytes)?\((?:\s|\w+\()*json\.dump|json\.dump\(")
    folders = ("genesis_rl", "agents", "envs", "pretrain", "tools")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert [path.name for path in sources if direct_write.search(path.read_text())] == []
