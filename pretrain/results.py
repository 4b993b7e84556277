"""Generate the results page from the files in results/.

    python pretrain/results.py
    python pretrain/results.py --check

With --check nothing is written and the exit status is 1 if the page is outdated.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from genesis_rl.process import report_stop
from genesis_rl.results import page, write_page


@dataclass(frozen=True)
class ResultsConfig:
    """Input and output of the results page."""

    folder: Path = Path("results")
    """folder of index.json and the files listed there"""
    out: Path = Path("docs/results.md")
    """output file"""
    check: bool = False
    """check only whether the page is up to date; exit status 1 if not"""


@report_stop("results.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Generate or check the page; return the exit status."""
    config = tyro.cli(ResultsConfig, args=argv, description=__doc__)
    try:
        if not config.check:
            write_page(config.folder, config.out)
            return 0
        current = config.out.read_text(encoding="utf-8")
        if current == page(config.folder):
            return 0
    except (ValueError, OSError) as error:
        print(f"results.py: {error}", file=sys.stderr)
        return 2
    print(f"{config.out} is outdated for {config.folder}: run results.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
