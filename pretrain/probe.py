"""Probe frozen latents: what small networks can tell from them of scenes or of single objects.

    python pretrain/probe.py runs/towers
    python pretrain/probe.py runs/towers-0 runs/towers-1 --data my/shapestacks --out probes.json
    python pretrain/probe.py runs/eyes --task properties --num-train 10000 --mlp.epochs 20

Trains MLPs on a training split's labelled images and scores them on the test split: for scenes of
ShapeStacks their stability, height and view (table 1 of the paper), for datasets of known objects
the position, size, colour and shape of each object from the slot that took it. Beside the models
stand raw pixels, untrained encoders, the commonest answer and, where the data have it, the ground
truth. Latents are inferred once and kept. Prints a table and writes JSON.
"""

import sys
from collections.abc import Sequence

import tyro
from rich.console import Console

from genesis_rl.probes import ProbeConfig, probe, table
from genesis_rl.process import keep_freed_memory, report_stop

# Rows are wider than the terminal that a pipe is taken for.
_PIPE_WIDTH = 240


@report_stop("probe.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Probe and report; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[ProbeConfig]
        config = tyro.cli(settings, args=argv, description=__doc__)
        keep_freed_memory()
        result = probe(config)
    except (ValueError, TypeError, OSError) as error:
        print(f"probe.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    console.print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
