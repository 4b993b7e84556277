"""Self-contained HTML reports with images, videos and tables."""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from genesis_rl.files import new_file
from genesis_rl.visualize import png_bytes

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } figcaption { color: #555; font-size: .9rem; }
img, video { max-width: 100%; } img.pixels { image-rendering: pixelated; }
"""


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

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str | float]]) -> Self:
        """Add a table; floats are formatted with three decimals.

        Raises:
            ValueError: if a row and the head differ in length.
        """
        lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
        for row in rows:
            if len(row) != len(head):
                raise ValueError(f"row {list(row)} must have {len(head)} cells, got {len(row)}.")
            cells = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row)
            lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
        return self._add("<table>\n" + "\n".join(lines) + "\n</table>")

    def figures(self, values: Mapping[str, str | float]) -> Self:
        """Add a table of names and values."""
        return self.table(["", ""], list(values.items()))

    def picture(
        self, picture: npt.NDArray[np.uint8] | bytes, caption: str = "", *, pixels: bool = True
    ) -> Self:
        """Add a picture.

        Args:
            picture: (H, W, 3) uint8, or the bytes of a PNG or GIF file.
            caption: text below it.
            pixels: enlarge without interpolation.
        """
        data = picture if isinstance(picture, bytes) else png_bytes(picture)
        kind = ' class="pixels"' if pixels else ""
        format_ = "gif" if data.startswith(b"GIF8") else "png"
        source = f"data:image/{format_};base64,{base64.b64encode(data).decode()}"
        return self._figure(f'<img{kind} alt="{escape(caption)}" src="{source}">', caption)

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
