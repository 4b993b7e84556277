"""Write a pretrained model's encoder as an ONNX file, checked against PyTorch.

    python pretrain/export.py runs/eyes
    python pretrain/export.py runs/eyes --out eyes.onnx

The file takes frames (B, 3, H, W) in [0, 1] and gives z_m, z_c and log_pi; the docstring of
genesis_rl.export shows how to use it with onnxruntime alone. IODINE cannot be exported. Needs the
extra: pip install "genesis_rl[onnx]". The exit status is 1 if the file would not compute what
PyTorch does.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.export import ExportConfig, ParityError, export
from genesis_rl.process import report_stop


@report_stop("export.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Export; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[ExportConfig]
        config = tyro.cli(settings, args=argv, description=__doc__)
        print(export(config))
    except (ValueError, OSError) as error:
        print(f"export.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ParityError as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
