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

import tyro

from genesis_rl.evaluation.probes import ProbeConfig, probe
from genesis_rl.evaluation.tables import probe_table
from genesis_rl.utils.flags import program
from genesis_rl.utils.process import keep_freed_memory
from genesis_rl.utils.tables import as_text


@program("probe.py", tyro.conf.PositionalRequiredArgs[ProbeConfig], __doc__)
def main(config: ProbeConfig) -> int:
    """Train and evaluate probes; return the exit status."""
    keep_freed_memory()
    result = probe(config)
    print(as_text([probe_table(result)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
