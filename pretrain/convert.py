"""Convert an original dataset, or your own images or videos, to packs for training.

    python pretrain/convert.py objects_room --source DIR --out packs/objects_room
    python pretrain/convert.py gqn --source DIR --out packs/gqn --data-options '{"num_files": 10}'
    python pretrain/convert.py images --source DIR --out packs/mine --resize crop --skip-damaged
    python pretrain/train.py --data packs/mine --preset multi-dsprites

Writes one pack per split. If files are missing, the error lists them and their source. The same
command resumes an interrupted conversion.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.data.convert import READERS, ConvertConfig, convert_splits
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("convert.py", "the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Convert a dataset; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[ConvertConfig]
        names = f"Datasets: {', '.join(READERS)}."
        config = parse_flags(settings, argv, f"{__doc__}\n{names}")
        packs = convert_splits(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("convert.py", error, settings)
        return 2
    for pack in packs.values():
        damaged = pack.meta["damaged"]
        skipped = f", damaged records skipped: {damaged}" if damaged else ""
        if hidden := pack.meta.get("hidden", 0):
            skipped += f", hidden files skipped: {hidden}"
        print(f"{pack.folder}: {len(pack)} images{skipped}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
