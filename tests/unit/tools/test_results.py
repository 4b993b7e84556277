"""The results pages: contents, summary tables, and errors of damaged folders."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.evaluation.runs import group
from published.pages import pages, read_index, write_pages

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"


def record(run: str, *, seed: int = 0, **scores: float | None) -> dict[str, Any]:
    return {
        "run": f"runs/{run}",
        "model": "genesis",
        "model_config": {},
        "num_slots": 5,
        "split": "test",
        "num_images": 200,
        "frechet": "own",
        "frechet_images": 100,
        "scores": scores,
        "baselines": {"one_slot": {"ari": 0.0, "msc": 0.0625}, "real": {"frechet": 2.25}},
        "training": {
            "step": 1500,
            "images_seen": 24000,
            "minutes": 9.96,
            "img_per_s": 40.2,
            "hardware": "AMD EPYC (1 thread)",
            "config": {"seed": seed},
        },
        "versions": {"torch": "2.13.0"},
    }


def write(folder: Path, sections: Any, *records: dict[str, Any], **page: Any) -> None:
    index = [{"page": "models", "title": "Models", "sections": sections, **page}]
    (folder / "index.json").write_text(json.dumps(index))
    if records:
        result = {"runs": records, "groups": group(records)}
        (folder / "models.json").write_text(json.dumps(result))


def page(folder: Path) -> str:
    return pages(folder)["models.md"]


def test_a_section_has_scores_baselines_runs_remarks_and_pictures(tmp_path: Path) -> None:
    section = {
        "title": "Scores",
        "text": "By `train.py`.",
        "evaluation": "models.json",
        "published": [{"name": "theirs", "scores": {"ari": 0.25, "ari_fg": 0.5}}],
        "findings": ["GENESIS wins."],
        "pictures": [{"file": "a.png", "caption": "Slots"}],
    }
    first = record("a", seed=3, ari=0.5, mse=0.0125, frechet=None)
    second = record("b", seed=4, ari=0.7, mse=0.0125, frechet=None)
    write(tmp_path, [section], first, second)
    lines = page(tmp_path).splitlines()
    assert lines[0] == "# Models"
    assert "## Scores" in lines and "By `train.py`." in lines and "- GENESIS wins." in lines
    caption = "First 200 images of the test split; Frechet distance (own features) of 100 scenes"
    assert any(line.startswith(caption) for line in lines)
    assert "|  | ARI ↑ | MSE ↓ | Frechet ↓ |" in lines
    assert "| genesis, 2 runs | 0.6000 ± 0.1414 | 0.0125 ± 0.0000 | - |" in lines
    assert "| *theirs* | 0.2500 |  |  |" in lines  # no column for what ours have not
    assert "| *one slot* | 0.0000 |  |  |" in lines
    assert "| *real* |  |  | 2.250 |" in lines
    row = "| a | 3 | 1,500 | 24,000 | 10.0 | 40 | AMD EPYC (1 thread) | torch 2.13.0 |"
    assert row in lines and row.replace("| a | 3", "| b | 4") in lines
    assert lines[-3:] == ["![Slots](a.png)", "", "*Slots*"]


def test_segmentations_by_responsibilities_have_a_table_of_their_own(tmp_path: Path) -> None:
    one = record("a", ari=0.5, posterior_ari=0.75, posterior_msc=0.625)
    write(tmp_path, [{"title": "Models", "evaluation": "models.json"}], one)
    lines = page(tmp_path).splitlines()
    assert "|  | ARI ↑ |" in lines and "| genesis | 0.5000 |" in lines
    start = lines.index("|  | ARI ↑ | mSC ↑ |")
    assert lines[start + 2 : start + 4] == ["| genesis | 0.7500 | 0.6250 |", ""]


def test_one_model_on_several_images_has_a_row_for_each(tmp_path: Path) -> None:
    scores: Any = {"ari": 0.5, "ari_fg": 0.25, "msc": 0.125}
    posterior: Any = {f"posterior_{name}": value / 2 for name, value in scores.items()}
    files = []
    for data, steps in (("object_goal", 0), ("object_goal", 3), ("object_comparison", 0)):
        one = record("a", **scores, **posterior) | {"data": data, "refine_steps": steps}
        files.append(f"{data}-{steps}.json")
        (tmp_path / files[-1]).write_text(json.dumps({"runs": [one], "groups": []}))
    write(tmp_path, [{"title": "Tasks", "across": files}])
    text = page(tmp_path)
    figures = "0.5000 | 0.2500 | 0.1250 | 0.2500 | 0.1250 | 0.0625 |"
    for data, steps in (("object_goal", 0), ("object_goal", 3), ("object_comparison", 0)):
        assert f"\n| a | {data}, test, 200 | {steps} | {figures}\n" in text
    assert "`results/object_goal-0.json`, `results/object_goal-3.json`" in text
    (tmp_path / files[0]).write_text('{"runs": [{}]}')
    with pytest.raises(ValueError, match=r"object_goal-0\.json .*'run'"):
        page(tmp_path)


def test_imagined_scenes_have_a_table_of_their_own(tmp_path: Path) -> None:
    one = record("a", ari=0.5, valid=0.25, nearest_pixels=0.125)
    one["baselines"]["real"] = {"frechet": 2.25, "valid": 0.97}
    write(tmp_path, [{"title": "Models", "evaluation": "models.json"}], one)
    lines = page(tmp_path).splitlines()
    start = lines.index("Validity and novelty of 200 scenes from the prior:")
    assert "|  | ARI ↑ |" in lines[:start] and "| genesis | 0.5000 |" in lines[:start]
    assert lines[start + 2 : start + 6] == [
        "|  | valid ↑ | nearest training image, pixels |",
        "| --- | ---: | ---: |",
        "| genesis | 0.2500 | 0.1250 |",
        "| *real* | 0.9700 |  |",
    ]


def test_tables_are_shown_as_their_file_has_them(tmp_path: Path) -> None:
    write(tmp_path, [{"title": "Agents", "tables": "rl.json"}])
    tables = [
        {"caption": "Success.", "head": ["", "Goal"], "rows": [["state", "0.97"]]},
        {"caption": "", "head": ["", "bytes"], "rows": [["pixels", "12,288"]]},
    ]
    (tmp_path / "rl.json").write_text(json.dumps({"tables": tables}))
    shown = page(tmp_path)
    assert "Success.\n\n|  | Goal |\n| --- | ---: |\n| state | 0.97 |\n\n|  | bytes |" in shown
    assert shown.endswith("All figures and settings: `results/rl.json`.\n")
    (tmp_path / "rl.json").write_text("{}")
    with pytest.raises(ValueError, match=r"rl\.json .*'tables'"):
        page(tmp_path)


def probes(**more: Any) -> dict[str, Any]:
    runs = [
        record(name, seed=seed, stability=s)
        for seed, (name, s) in enumerate((("a", 0.6), ("b", 0.7)))
    ]
    other = {
        **record("c", stability=0.5),
        "model": "iodine",
        "intervals": {"stability": [0.45, 0.55]},
    }
    baselines = [
        {"name": "majority", "scores": {"stability": 0.512}},
        {"name": "state", "scores": {"stability": 0.9}, "intervals": {"stability": [0.88, 0.919]}},
    ]
    return {
        "task": "scenes",
        "num_images": {"train": 50000, "test": 400},
        "questions": {"stability": {"classes": [0, 1], "test": 400}},
        "runs": [*runs, other],
        "groups": group([*runs, other]),
        "baselines": baselines,
        "hardware": "AMD EPYC (2 threads)",
        "versions": {"torch": "2.13.0"},
    } | more


def test_probes_stand_beside_the_papers_figures(tmp_path: Path) -> None:
    write(tmp_path, [{"title": "Towers", "probes": "probes.json"}])
    (tmp_path / "probes.json").write_text(json.dumps(probes()))
    lines = page(tmp_path).splitlines()
    title = "Accuracy in % of MLPs on frozen latents: 50,000 labelled images, 400 test images"
    assert f"{title}, probed on AMD EPYC (2 threads)." in lines
    columns = "genesis, 2 runs | genesis_s | monet | bd_vae | dc_vae | iodine | majority | state"
    assert f"| Task |  | {columns} |" in lines
    ours = "65.0 ± 7.1 |  |  |  |  | 50.0 [45.0, 55.0] | 51.2 | 90.0 [88.0, 91.9]"
    assert f"| Stability | ours | {ours} |" in lines
    theirs = "64.0 | 63.2 | 59.6 | 60.1 | 59.0 |  | 50.0 | "
    assert f"|  | paper, original data | {theirs} |" in lines
    assert any(line.startswith("| b | 1 | 1,500 |") for line in lines)
    (tmp_path / "probes.json").write_text(json.dumps(probes(groups=[{}])))
    with pytest.raises(ValueError, match=r"probes\.json .*'runs'"):
        page(tmp_path)


def test_models_without_a_run_have_no_row_of_training(tmp_path: Path) -> None:
    alone = {**record("a", ari=0.5), "training": None}
    write(tmp_path, [{"title": "Models", "evaluation": "models.json"}], alone)
    assert "images seen" not in page(tmp_path)
    assert "| genesis | 0.5000 |" in page(tmp_path)


def test_summaries_read_their_cells_from_the_files(tmp_path: Path) -> None:
    summary = [
        {"labels": ["ours", "a, b"], "file": "models.json"},
        {"labels": ["a", "a"], "file": "models.json", "at": "runs/0/scores"},
        {
            "labels": ["tables", "c"],
            "file": "rl.json",
            "at": "tables/0/rows",
            "columns": {"ARI ↑": "1/0"},
        },
        {"labels": ["probes", "d"], "file": "probes.json", "columns": {"mSC ↑": "stability"}},
    ]
    sections = [{"title": "First runs, of 2", "summary": summary}]
    columns = {"ARI ↑": "ari", "mSC ↑": "msc"}
    runs = [record("a", seed=1, ari=0.5, msc=0.25), record("b", seed=2, ari=0.7, msc=0.25)]
    write(tmp_path, sections, *runs, columns=columns, text="All of it.")
    (tmp_path / "rl.json").write_text(json.dumps({"tables": [{"rows": [["0.1"], ["0.9"]]}]}))
    (tmp_path / "probes.json").write_text(json.dumps(probes()))
    found = pages(tmp_path)
    anchor = "(#first-runs-of-2)"
    assert found["models.md"].startswith(
        "# Models\n\nAll of it.\n\n"
        "| model | data | ARI ↑ | mSC ↑ |\n| --- | --- | ---: | ---: |\n"
        f"| [ours]{anchor} | a, b | 0.6000 ± 0.1414 | 0.2500 ± 0.0000 |\n"
        f"| [a]{anchor} | a | 0.5000 | 0.2500 |\n"
        f"| [tables]{anchor} | c | 0.9 |  |\n"
        f"| [probes]{anchor} | d |  | 65.0 |\n"
    )
    first = "ours, a, b: ARI 0.6000 ± 0.1414, mSC 0.2500 ± 0.0000"
    assert f"| [Models](models.md) | All of it. | {first} |\n" in found["index.md"]
    sections[0]["summary"] = [{"labels": ["a"], "file": "models.json", "at": "groups/7"}]
    write(tmp_path, sections, columns=columns)
    with pytest.raises(ValueError, match=r"models\.json"):
        pages(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"page": "x"}, "pages"),
        ([{"title": "x"}], "ResultsPage"),
        ([{"page": "x"}], "title"),
        ([{"page": "x", "title": "x", "sections": [{"text": "x"}]}], "title"),
        ([{"page": "x", "title": "x", "sections": [{"title": "x", "txt": "y"}]}], "txt"),
    ],
)
def test_damaged_indices_are_refused(index: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        pages(tmp_path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"pictures": [{"path": "y"}]}, "pictures"),
        ({"published": [{"name": "y"}]}, "published"),
        ({"summary": [{"name": "y"}]}, "summary"),
        ({"evaluation": "gone.json"}, r"gone\.json"),
        ({"evaluation": "index.json"}, r"index\.json .* evaluate\.py"),
    ],
)
def test_damaged_sections_are_refused(
    section: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path, [{"title": "x", **section}])
    with pytest.raises(ValueError, match=message):
        write_pages(tmp_path, tmp_path / "pages")
    assert not (tmp_path / "pages").exists()


def program() -> Callable[[list[str]], int]:
    path = ROOT / "tools" / "results.py"
    spec = importlib.util.spec_from_file_location("results_program", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[list[str]], int] = module.main
    return main


def test_the_program_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, out = program(), tmp_path / "pages"
    flags = ["--folder", str(tmp_path), "--out", str(out)]
    assert main([*flags, "--check"]) == 2  # no index
    write(tmp_path, [{"title": "Old"}])
    assert main([*flags, "--check"]) == 1  # no pages
    assert main(flags) == 0
    assert main([*flags, "--check"]) == 0
    (out / "other.md").write_text("")
    assert main([*flags, "--check"]) == 1
    assert "other.md" in capsys.readouterr().err
    (out / "other.md").unlink()
    write(tmp_path, [{"title": "New"}])
    assert main([*flags, "--check"]) == 1
    assert "models.md" in capsys.readouterr().err
    assert "## Old" in (out / "models.md").read_text()


def test_the_projects_pages_match_its_files() -> None:
    shown = {
        path.name: path.read_text(encoding="utf-8")
        for path in (ROOT / "docs" / "results").glob("*.md")
    }
    assert shown == pages(RESULTS)


def test_every_page_has_a_short_summary_and_every_file_a_section() -> None:
    index = read_index(RESULTS)
    for one in index:
        rows = [row for section in one.sections for row in section.summary]
        assert 1 <= len(rows) <= 30, one.page
        assert all(len(row.labels) == len(one.labels) for row in rows), one.page
    sections = [section for one in index for section in one.sections]
    named = {
        name
        for s in sections
        for name in (s.evaluation, s.probes, s.tables, *s.across)
        if name is not None
    }
    assert {"index.json", *named} == {path.name for path in RESULTS.glob("*.json")}
