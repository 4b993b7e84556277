"""Generate the results pages from the files in results/.

    python tools/results.py
    python tools/results.py --check

With --check nothing is written and the exit status is 1 if a page is outdated, missing or not
generated.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from genesis_rl.utils.flags import program
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


@program("results.py", ResultsConfig, __doc__, errors=(ValueError, OSError))
def main(config: ResultsConfig) -> int:
    """Generate or check the pages; return the exit status."""
    if not config.check:
        write_pages(config.folder, config.out)
        return 0
    expected = pages(config.folder)
    current = {p.name: p.read_text(encoding="utf-8") for p in config.out.glob("*.md")}
    names = sorted(n for n in expected | current if expected.get(n) != current.get(n))
    if names:
        print(
            f"{', '.join(names)} in {config.out} must match {config.folder}: run results.py",
            file=sys.stderr,
        )
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
