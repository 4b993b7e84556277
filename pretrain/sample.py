"""Draw figures of a pretrained model: samples of its prior, decompositions, edits of slots.

    python pretrain/sample.py runs/encoder
    python pretrain/sample.py runs/encoder --figures scenes edits --num 4 --seed 1
    python pretrain/sample.py someone/encoder --data object_goal --out figures

Writes PNG and GIF files and an index.html with captions, which contain the corresponding figures of
the paper.
"""

import sys

import tyro

from genesis_rl.utils.flags import program
from genesis_rl.visualization.catalogue import FIGURES, SampleConfig, draw

_NAMES = "\n".join(f"  {name}: {figure.title}" for name, figure in FIGURES.items())


@program(
    "sample.py",
    tyro.conf.PositionalRequiredArgs[SampleConfig],
    f"{__doc__}\nfigures (--figures NAME ...):\n{_NAMES}",
)
def main(config: SampleConfig) -> int:
    """Draw figures; return the exit status."""
    for path in draw(config):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
