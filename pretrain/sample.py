"""Draw figures of a pretrained model: scenes from its prior, decompositions, slots edited.

    python pretrain/sample.py runs/eyes
    python pretrain/sample.py runs/eyes --figures scenes edits --num 4 --seed 1
    python pretrain/sample.py someone/eyes --data object_goal --out figures

Writes PNG and GIF files and an index.html that shows them with captions, which name the figures of
the paper that they correspond to.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.figures import FIGURES, SampleConfig, draw
from genesis_rl.process import report_stop


@report_stop("sample.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Draw; return the exit status."""
    names = "\n".join(f"  {name}: {figure.title}" for name, figure in FIGURES.items())
    try:
        config = tyro.cli(
            tyro.conf.PositionalRequiredArgs[SampleConfig],
            args=argv,
            description=f"{__doc__}\nfigures (--figures NAME ...):\n{names}",
        )
        files = draw(config)
    except (ValueError, TypeError, OSError) as error:
        print(f"sample.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for path in files:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
