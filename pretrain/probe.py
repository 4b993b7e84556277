"""Probe frozen latents: train small networks to predict factors of scenes or objects.

    python pretrain/probe.py runs/towers
    python pretrain/probe.py runs/towers-0 runs/towers-1 --data my/shapestacks --out probes.json
    python pretrain/probe.py runs/encoder --task properties --num-train 10000 --mlp.epochs 20
    python pretrain/probe.py runs/reacher --task state

Trains MLPs on labelled images of the training split and evaluates them on the test split: for
ShapeStacks on the scene's stability, height and view (table 1 of the paper), for datasets with
object labels on the position, size, colour and shape of each object from its slot, for recordings
of rendered environments on the simulator's state. Baselines are raw pixels, untrained encoders, the
most frequent class or the mean and, if available, the ground truth. Latents are cached. Prints a
table and writes JSON.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.evaluation.probes import ProbeConfig, probe
from genesis_rl.evaluation.tables import probe_table
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import keep_freed_memory, report_stop
from genesis_rl.utils.tables import as_text


@report_stop("probe.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Train and evaluate probes; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[ProbeConfig]
        config = parse_flags(settings, argv, __doc__)
        keep_freed_memory()
        result = probe(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("probe.py", error, settings)
        return 2
    print(as_text([probe_table(result)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
