"""Export a pretrained encoder to an ONNX file, verified against PyTorch.

    python pretrain/export.py runs/encoder
    python pretrain/export.py runs/encoder --out encoder.onnx

The ONNX model maps frames (B, 3, H, W) in [0, 1] to z_m, z_c and log_pi; the docstring of
genesis_rl.checkpoints.export shows its use with onnxruntime. IODINE cannot be exported. Requires
the extra genesis_rl[onnx]. The exit status is 1 if the outputs differ from PyTorch's.
"""

import sys

import tyro

from genesis_rl.checkpoints.export import ExportConfig, ParityError, export
from genesis_rl.utils.flags import program


@program(
    "export.py",
    tyro.conf.PositionalRequiredArgs[ExportConfig],
    __doc__,
    errors=(ValueError, OSError),
    failures=(ParityError,),
)
def main(config: ExportConfig) -> int:
    """Export an encoder; return the exit status."""
    print(export(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
