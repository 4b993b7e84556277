import base64
from pathlib import Path

import numpy as np
import pytest

from genesis_rl.visualization import save_gif, save_mp4
from genesis_rl.visualization.report import Report


def test_a_page_needs_no_other_file(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    save_mp4(film, [np.full((16, 16, 3), level, np.uint8) for level in (0, 200)], fps=2)
    page = Report("A <title>").heading("One").text("a & b").figures({"score": 0.12345, "n": 3})
    page.picture(np.zeros((2, 3, 3), np.uint8), "black").video(film, "film")
    page.save(tmp_path / "new" / "report.html")
    html = (tmp_path / "new" / "report.html").read_text()
    assert "A &lt;title&gt;" in html and "a &amp; b" in html
    assert "<td>0.123</td>" in html and "<td>3</td>" in html
    assert base64.b64encode(film.read_bytes()).decode() in html
    assert "data:image/png;base64,iVBOR" in html
    assert 'src="http' not in html and "href=" not in html
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_films_are_told_from_pictures(tmp_path: Path) -> None:
    film = tmp_path / "film.gif"
    save_gif(film, [np.full((4, 6, 3), level, np.uint8) for level in (0, 200)])
    Report("x").picture(film.read_bytes(), "film").save(tmp_path / "report.html")
    data = base64.b64encode(film.read_bytes()).decode()
    assert f"data:image/gif;base64,{data}" in (tmp_path / "report.html").read_text()


def test_rows_fit_the_head() -> None:
    with pytest.raises(ValueError, match="cells"):
        Report("x").table(["a", "b"], [["only"]])
