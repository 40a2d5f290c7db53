"""ONNX Runtime: the only place that makes an inference session."""
