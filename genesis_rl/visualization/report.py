"""Self-contained HTML reports with images, videos and tables."""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from genesis_rl.utils.files import new_file
from genesis_rl.visualization import png_bytes

_STYLE = """
:root { color-scheme: light dark; --text: #222; --soft: #555; --line: #ddd; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --soft: #aaa; --line: #444; --page: #16181c; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--text); background: var(--page); }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
td img { height: 3.5rem; display: block; margin-left: auto; }
pre { padding: .8rem; border: 1px solid var(--line); border-radius: .3rem; overflow-x: auto; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
img, video { max-width: 100%; } img.pixels { image-rendering: pixelated; }
"""

Picture = npt.NDArray[np.uint8] | bytes
Cell = str | float | Picture


class Report:
    """An HTML page; each method appends to it and returns the page.

    Example:
        >>> page = Report("A run").text("It went well.").table(["", "score"], [["all", 0.9]])
        >>> page.save("report.html")  # doctest: +SKIP
    """

    def __init__(self, title: str) -> None:
        """Create a page with a title."""
        self._title = title
        self._parts: list[str] = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> Self:
        """Add a section heading."""
        return self._add(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> Self:
        """Add a paragraph."""
        return self._add(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> Self:
        """Add lines of code."""
        return self._add(f"<pre><code>{escape(text)}</code></pre>")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Self:
        """Add a table; floats are formatted with three decimals, pictures are as in `picture`.

        Raises:
            ValueError: if a row and the head differ in length.
        """
        lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
        for row in rows:
            if len(row) != len(head):
                raise ValueError(f"row {list(row)} must have {len(head)} cells, got {len(row)}.")
            lines.append("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>")
        return self._add('<div class="table"><table>\n' + "\n".join(lines) + "\n</table></div>")

    def figures(self, values: Mapping[str, str | float]) -> Self:
        """Add a table of names and values."""
        return self.table(["", ""], list(values.items()))

    def picture(self, picture: Picture, caption: str = "", *, pixels: bool = True) -> Self:
        """Add a picture.

        Args:
            picture: (H, W, 3) uint8, or the bytes of a PNG or GIF file.
            caption: text below it.
            pixels: enlarge without interpolation.
        """
        return self._figure(_image(picture, caption, pixels=pixels), caption)

    def video(self, path: str | os.PathLike[str], caption: str = "") -> Self:
        """Embed an MP4 file."""
        data = base64.b64encode(Path(path).read_bytes()).decode()
        source = f"data:video/mp4;base64,{data}"
        return self._figure(f'<video controls loop muted autoplay src="{source}"></video>', caption)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page atomically."""
        body = "\n".join(self._parts)
        page = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head>\n"
            f"<body>\n{body}\n</body></html>\n"
        )
        with new_file(path) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def _figure(self, content: str, caption: str) -> Self:
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return self._add(f"<figure>{content}{below}</figure>")

    def _add(self, part: str) -> Self:
        self._parts.append(part)
        return self


def _image(picture: Picture, caption: str, *, pixels: bool) -> str:
    """Return the element of an embedded picture."""
    data = picture if isinstance(picture, bytes) else png_bytes(picture)
    kind = ' class="pixels"' if pixels else ""
    format_ = "gif" if data.startswith(b"GIF8") else "png"
    source = f"data:image/{format_};base64,{base64.b64encode(data).decode()}"
    return f'<img{kind} alt="{escape(caption)}" src="{source}">'


def _cell(cell: Cell) -> str:
    """Return the content of a table's cell."""
    if isinstance(cell, np.ndarray | bytes):
        return _image(cell, "", pixels=True)
    return escape(f"{cell:.3f}" if isinstance(cell, float) else str(cell))
