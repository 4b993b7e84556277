"""Export a pretrained encoder to an ONNX file, verified against PyTorch.

    python pretrain/export.py runs/encoder
    python pretrain/export.py runs/encoder --out encoder.onnx

The ONNX model maps frames (B, 3, H, W) in [0, 1] to z_m, z_c and log_pi; the docstring of
genesis_rl.checkpoints.export shows its use with onnxruntime. IODINE cannot be exported. Requires
the extra genesis_rl[onnx]. The exit status is 1 if the outputs differ from PyTorch's.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.checkpoints.export import ExportConfig, ParityError, export
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("export.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Export an encoder; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[ExportConfig]
        config = parse_flags(settings, argv, __doc__)
        print(export(config))
    except (ValueError, OSError) as error:
        report_error("export.py", error, settings)
        return 2
    except ParityError as error:
        report_error("export.py", error, settings)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
