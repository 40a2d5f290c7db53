"""ONNX Runtime as a build for CUDA, whose device 0 is the CPU."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class CudaOnCpu(SimpleNamespace):
    """The module `onnxruntime`; replace `sys.modules["onnxruntime"]` by it.

    PDE layers run in the fused operator if `kernel.CUDA_LIBRARY` is an operator for the CPU's provider, such as that of
    `tests.kernels.stand_in`.
    """

    def __init__(self) -> None:
        super().__init__(**vars(onnxruntime))
        self.get_available_providers = lambda: [CUDA, CPU]
        self.preload_dlls = lambda: None
        self.InferenceSession = _open
        self.OrtValue = SimpleNamespace(ortvalue_from_shape_and_type=_allocate)


def _open(model: bytes, options: Any, providers: list[Any], enable_fallback: int) -> Any:
    on_cuda = providers != [CPU]
    if on_cuda and (index := providers[0][1]["device_id"]) != "0":
        raise RuntimeError(f"CUDA failure 101: invalid device ordinal {index}")
    session = onnxruntime.InferenceSession(model, options, [CPU], enable_fallback=enable_fallback)
    if on_cuda:
        session.get_providers = lambda: [CUDA, CPU]
    return session


def _allocate(shape: Sequence[int], dtype: type, device: str, index: int) -> Any:
    """Return a buffer of the device, which is memory of the CPU."""
    assert (device, index) == ("cuda", 0)
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype)
