"""Models on disk: weights and configs, pretrained models, the Hub, model cards, export to ONNX."""
