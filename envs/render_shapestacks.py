"""Render towers of blocks like ShapeStacks': images, instance labels, stability labels.

    python envs/render_shapestacks.py --out data/towers --scenarios 1000
    python envs/render_shapestacks.py --out packs/towers --scenarios 5000 --pack
    python envs/render_shapestacks.py --out data/towers --scenarios 20000 --first 500 --count 500
    python envs/render_shapestacks.py --out data/again --mjcf ShapeStacks/mjcf

Writes ShapeStacks' original layout, which `open_dataset("shapestacks", source=...)` and other
readers of it take, or packs for training. The same command again goes on where it was interrupted.
The second-last command is a job of an array: the last one to end writes the lists of the splits.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.process import report_stop
from genesis_rl.towers import require_gl
from genesis_rl.towers.plan import RenderConfig
from genesis_rl.towers.record import record_packs
from genesis_rl.towers.simulation import Agreement
from genesis_rl.towers.tree import record_tree


@report_stop("render_shapestacks.py", "the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Render and report; return the exit status."""
    try:
        config = tyro.cli(RenderConfig, args=argv, description=__doc__)
        require_gl()
        agreement = report_packs(config) if config.pack else report_tree(config)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"render_shapestacks.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for violation, (agreeing, towers) in agreement.items():
        print(f"  {violation:24}{agreeing:6} of {towers} as simulated")
    return 0


def report_packs(config: RenderConfig) -> dict[str, Agreement]:
    """Render packs and print what they hold."""
    packs, agreement = record_packs(config)
    for pack in packs.values():
        print(f"{pack.folder}: {len(pack)} images")
    return agreement


def report_tree(config: RenderConfig) -> dict[str, Agreement]:
    """Render a tree, or a part of it, and print what it holds."""
    report = record_tree(config)
    print(f"{config.out}: {report.complete} of {report.scenarios} scenarios")
    return report.agreement


if __name__ == "__main__":
    sys.exit(main())
