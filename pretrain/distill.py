"""Distil a pretrained encoder: a network of some ten MFLOP that sees the same slots.

    python pretrain/distill.py runs/eyes --out runs/fast-eyes
    python pretrain/distill.py runs/eyes --data data/cars --out runs/fast-eyes
    python pretrain/distill.py runs/eyes --out runs/fast-eyes --resume

The teacher sees the images that it was trained on (or --data) once; the student then learns its
posterior means and masks. The run's folder is an encoder like any other: wrappers, agents and
world models take it. At the end report.json tells how close it comes, and how fast it is.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.distillation import DistillConfig, distill
from genesis_rl.text_tables import as_text
from genesis_rl.training import NonFiniteError, StoppedError

# What a process ended by SIGTERM returns.
_TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Train and report; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[DistillConfig]
        config = tyro.cli(settings, args=argv, description=__doc__)
        report = distill(config)
    except (ValueError, TypeError, OSError) as error:
        print(f"distill.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except NonFiniteError as error:
        print(f"distill.py: {error}", file=sys.stderr)
        return 1
    except StoppedError as error:
        print(error, file=sys.stderr)
        return _TERMINATED
    print(as_text(report["tables"]))
    print(config.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
