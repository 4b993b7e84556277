"""Draw figures of a pretrained model: samples of its prior, decompositions, edits of slots.

    python pretrain/sample.py runs/encoder
    python pretrain/sample.py runs/encoder --figures scenes edits --num 4 --seed 1
    python pretrain/sample.py someone/encoder --data object_goal --out figures

Writes PNG and GIF files and an index.html with captions, which contain the corresponding figures of
the paper.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop
from genesis_rl.visualization.catalogue import FIGURES, SampleConfig, draw


@report_stop("sample.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Draw figures; return the exit status."""
    names = "\n".join(f"  {name}: {figure.title}" for name, figure in FIGURES.items())
    try:
        settings = tyro.conf.PositionalRequiredArgs[SampleConfig]
        config = parse_flags(settings, argv, f"{__doc__}\nfigures (--figures NAME ...):\n{names}")
        files = draw(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("sample.py", error, settings)
        return 2
    for path in files:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
