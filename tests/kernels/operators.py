"""PDE layers run by the fused operator."""

import numpy as np
import onnx
from numpy.typing import NDArray

from pdeinfer.runtime.session import create_session
from tests.kernels.layers import PdeLayer


def run(layer: PdeLayer, threads: int = 1, model: onnx.ModelProto | None = None) -> NDArray[np.float32]:
    model = model or layer.model()
    session = create_session(model.SerializeToString(), "cpu", threads)
    assert session.pde_layers == "fused"
    return session.run("result", layer.feeds(model))


def error(result: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    return float(np.abs(result - expected).max() / max(np.abs(expected).max(), 1e-3))
