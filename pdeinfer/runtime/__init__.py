"""ONNX Runtime: sessions, devices, and the fused operator."""
