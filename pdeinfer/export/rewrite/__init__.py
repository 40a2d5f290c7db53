"""Rewrites a network's graph so that its PDE layers are calls of one ONNX function."""
