"""Export of the encoder to ONNX, verified against PyTorch.

The ONNX model maps ``frames`` (B, 3, H, W), float32 in [0, 1], RGB, H = W = the model's image size,
for any B >= 1, to the posterior means ``z_m`` (B, K, D_m), ``z_c`` (B, K, D_c) and ``log_pi``
(B, K, 1, H, W), as `SlotEncoder`. Latents that the model lacks have width 0. Usage with onnxruntime
and NumPy only:

    import json
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession("encoder.onnx")
    metadata = session.get_modelmeta().custom_metadata_map  # model, config, preprocessing, ...
    size = json.loads(metadata["config"])["image_size"]
    frames = np.zeros((1, size, size, 3), np.uint8)  # from a camera
    x = np.float32(frames.transpose(0, 3, 1, 2)) / np.float32(255)
    z_m, z_c, log_pi = session.run(None, {"frames": x})
    features = np.concatenate([z_m, z_c], axis=-1)  # (B, K, D_m + D_c)

The caller resizes frames as given by ``preprocessing`` in the metadata.
"""

from genesis_rl.checkpoints.export.encoder import Export, ExportConfig, export, export_encoder
from genesis_rl.checkpoints.export.parity import TOLERANCE, ParityError, deviation

__all__ = [
    "TOLERANCE",
    "Export",
    "ExportConfig",
    "ParityError",
    "deviation",
    "export",
    "export_encoder",
]
