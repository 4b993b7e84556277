"""Convert an original data set, or your own images or videos, to packs that training reads fast.

    python pretrain/convert.py objects_room --source DIR --out packs/objects_room
    python pretrain/convert.py gqn --source DIR --out packs/gqn --data-options '{"num_files": 10}'
    python pretrain/convert.py images --source DIR --out packs/mine --resize crop --skip-damaged
    python pretrain/train.py --data packs/mine --preset multi-dsprites

Writes one pack per split. Where files are missing it says which, and where to get them. The same
command again goes on where it was interrupted and does nothing when all is done.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.data.originals import READERS, ConvertConfig, convert_splits
from genesis_rl.process import report_stop


@report_stop("convert.py", "the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Convert and report; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[ConvertConfig]
        names = f"Data sets: {', '.join(READERS)}."
        config = tyro.cli(settings, args=argv, description=f"{__doc__}\n{names}")
        packs = convert_splits(config)
    except (ValueError, TypeError, OSError) as error:
        print(f"convert.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for pack in packs.values():
        damaged = pack.meta["damaged"]
        left_out = f", damaged records left out: {damaged}" if damaged else ""
        if hidden := pack.meta.get("hidden", 0):
            left_out += f", hidden files left out: {hidden}"
        print(f"{pack.folder}: {len(pack)} images{left_out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
