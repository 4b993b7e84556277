"""Tables as text, for the terminal, model cards and the results page.

A table is JSON data: ``caption`` (may be empty), ``head`` and ``rows`` of cells, as in
`published.pages`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def as_text(tables: Iterable[Mapping[str, Any]]) -> str:
    """Format tables as text, the first column left-aligned, the others right-aligned."""
    return "\n\n".join(_one(table) for table in tables)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> str:
    """Format a table as Markdown, the first ``text`` columns left-aligned, the others right."""
    lines = [head, ["---"] * text + ["---:"] * (len(head) - text), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def figure(value: float | None, digits: int) -> str:
    """Format a number with ``digits`` decimals; empty for None and non-finite numbers."""
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _one(table: Mapping[str, Any]) -> str:
    cells = [table["head"], *table["rows"]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [table["caption"]] if table["caption"] else []
    for row in cells:
        first, *rest = zip(row, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        lines.append(" | ".join(aligned).rstrip())
    return "\n".join(lines)
