"""Convert an original dataset, or your own images or videos, to packs for training.

    python pretrain/convert.py objects_room --source DIR --out packs/objects_room
    python pretrain/convert.py gqn --source DIR --out packs/gqn --data-options '{"num_files": 10}'
    python pretrain/convert.py images --source DIR --out packs/mine --resize crop --skip-damaged
    python pretrain/train.py --data packs/mine --preset multi-dsprites

Writes one pack per split. If files are missing, the error lists them and their source. The same
command resumes an interrupted conversion.
"""

import sys

import tyro

from genesis_rl.data.convert import READERS, ConvertConfig, convert_splits
from genesis_rl.utils.flags import program


@program(
    "convert.py",
    tyro.conf.PositionalRequiredArgs[ConvertConfig],
    f"{__doc__}\nDatasets: {', '.join(READERS)}.",
    advice="the same command resumes",
)
def main(config: ConvertConfig) -> int:
    """Convert a dataset; return the exit status."""
    for pack in convert_splits(config).values():
        damaged = pack.meta["damaged"]
        skipped = f", damaged records skipped: {damaged}" if damaged else ""
        if hidden := pack.meta.get("hidden", 0):
            skipped += f", hidden files skipped: {hidden}"
        print(f"{pack.folder}: {len(pack)} images{skipped}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
