"""Generate the results pages from the files in results/.

    python tools/results.py
    python tools/results.py --check

With --check nothing is written and the exit status is 1 if a page is outdated, missing or not
generated.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop
from published.pages import pages, write_pages


@dataclass(frozen=True)
class ResultsConfig:
    """Input and output of the results pages."""

    folder: Path = Path("results")
    """folder of index.json and the files listed there"""
    out: Path = Path("docs/results")
    """output folder, which has no other Markdown files"""
    check: bool = False
    """check only whether the pages are up to date; exit status 1 if not"""


@report_stop("results.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Generate or check the pages; return the exit status."""
    try:
        config = parse_flags(ResultsConfig, argv, __doc__)
        if not config.check:
            write_pages(config.folder, config.out)
            return 0
        expected = pages(config.folder)
        current = {p.name: p.read_text(encoding="utf-8") for p in config.out.glob("*.md")}
    except (ValueError, OSError) as error:
        report_error("results.py", error, ResultsConfig)
        return 2
    names = sorted(n for n in expected | current if expected.get(n) != current.get(n))
    if names:
        print(
            f"{', '.join(names)} in {config.out} must match {config.folder}: run results.py",
            file=sys.stderr,
        )
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
