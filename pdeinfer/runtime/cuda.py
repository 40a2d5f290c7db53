"""Opens ONNX Runtime sessions on CUDA, or says why it cannot."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from pdeinfer.errors import DeviceError
from pdeinfer.runtime.onnx_runtime import reinstall_command

CUDA = "CUDAExecutionProvider"

_FATAL, _WARNING = 4, 2  # severities of ONNX Runtime's log; it starts with warnings


def has_cuda(onnxruntime: Any) -> bool:
    """Return whether this build of ONNX Runtime supports CUDA at all."""
    return CUDA in onnxruntime.get_available_providers()


def open_on_cuda(onnxruntime: Any, model: bytes, index: str, options: Any) -> Any:
    """Return an `InferenceSession` on a CUDA device, never one that fell back to the CPU.

    Raises:
        DeviceError: this build has no CUDA, its libraries or the device are missing, or the model cannot be loaded.
    """
    if not has_cuda(onnxruntime):
        raise DeviceError(
            f"cuda:{index} needs ONNX Runtime with CUDA, and this one has {onnxruntime.get_available_providers()}: "
            f"{reinstall_command('gpu')}"
        )
    # The CPU provider runs what CUDA cannot. Without TF32, ONNX Runtime's default: its 10-bit mantissa is not the
    # float32 arithmetic that export has compared with the original.
    providers = [(CUDA, {"device_id": index, "use_tf32": "0"}), "CPUExecutionProvider"]
    with _quiet(onnxruntime):
        missing = _preload_libraries(onnxruntime)
        try:
            session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise DeviceError(f"cuda:{index} cannot be used: {error}") from error
    if session.get_providers()[0] != CUDA:
        reason = missing or f"ONNX Runtime fell back to {session.get_providers()}"
        raise DeviceError(f"cuda:{index} cannot be used: {reason}: {reinstall_command('gpu')}")
    return session


def _preload_libraries(onnxruntime: Any) -> str:
    """Load CUDA's libraries from where pip installed them, and return the first failure, or an empty string."""
    if not hasattr(onnxruntime, "preload_dlls"):  # new in 1.21
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        onnxruntime.preload_dlls()
    return printed.getvalue().strip().partition("\n")[0]


@contextlib.contextmanager
def _quiet(onnxruntime: Any) -> Iterator[None]:
    """Turn off the process-wide log of ONNX Runtime, which repeats on stderr what the errors say."""
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
