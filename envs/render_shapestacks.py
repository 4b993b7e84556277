"""Render block towers in the style of ShapeStacks: images, instance masks, stability labels.

    python envs/render_shapestacks.py --out data/towers --scenarios 1000
    python envs/render_shapestacks.py --out packs/towers --scenarios 5000 --pack
    python envs/render_shapestacks.py --out data/towers --scenarios 20000 --first 500 --count 500
    python envs/render_shapestacks.py --out data/again --mjcf ShapeStacks/mjcf

Writes the original layout of ShapeStacks, for `open_dataset("shapestacks", source=...)` and other
readers, or packs for training. The same command resumes an interrupted run. The third command is
one job of an array: the last job to finish writes the lists of the splits.
"""

import sys

from genesis_rl.utils.flags import program
from genesis_rl.worlds.offscreen import require_gl
from genesis_rl.worlds.towers.plan import RenderConfig
from genesis_rl.worlds.towers.record import record_packs
from genesis_rl.worlds.towers.simulation import Agreement
from genesis_rl.worlds.towers.tree import record_tree


@program(
    "render_shapestacks.py",
    RenderConfig,
    __doc__,
    advice="the same command resumes",
    errors=(ValueError, OSError, RuntimeError),
)
def main(config: RenderConfig) -> int:
    """Run the program; return the exit status."""
    require_gl()
    agreement = report_packs(config) if config.pack else report_tree(config)
    for violation, (agreeing, towers) in agreement.items():
        print(f"  {violation:24}{agreeing:6} of {towers} as simulated")
    return 0


def report_packs(config: RenderConfig) -> dict[str, Agreement]:
    """Render packs and print their sizes."""
    packs, agreement = record_packs(config)
    for pack in packs.values():
        print(f"{pack.folder}: {len(pack)} images")
    return agreement


def report_tree(config: RenderConfig) -> dict[str, Agreement]:
    """Render the original layout, or a part of it, and print its size."""
    report = record_tree(config)
    print(f"{config.out}: {report.complete} of {report.scenarios} scenarios")
    return report.agreement


if __name__ == "__main__":
    sys.exit(main())
