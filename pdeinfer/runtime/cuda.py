"""Opens ONNX Runtime sessions on CUDA, or says why it cannot."""

import contextlib
import ctypes
import functools
import io
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pdeinfer.errors import DeviceError
from pdeinfer.runtime.cuda_session import CudaSession, batch_sizes
from pdeinfer.runtime.kernel import count_kernels, register_kernel
from pdeinfer.runtime.onnx_runtime import check_error, reinstall_command

logger = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"

# How cuDNN chooses the algorithm of a convolution. This is ONNX Runtime's default, with which all published times were
# measured. `make gpu-check` measures the others.
CONVOLUTION_SEARCH = "EXHAUSTIVE"

# Opening a session turns off ONNX Runtime's log and redirects stdout. Both are process-wide: of two threads that do
# this at once, the second would restore what the first had set.
_opening = threading.Lock()

_FATAL, _WARNING = 4, 2  # severities of ONNX Runtime's log; it starts with warnings


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """What a session on CUDA is opened with.

    Attributes:
        index: of the device.
        batch_size: the largest batch that runs at once.
        memory_limit: the most bytes of the device's memory for the network's weights and values; None: no limit.
    """

    index: int
    batch_size: int
    memory_limit: int | None = None

    def provider(self, *, graphs: bool) -> tuple[str, dict[str, str]]:
        """Return the execution provider with its options, as ONNX Runtime takes them."""
        options = {
            "device_id": str(self.index),
            # Without TF32: its 10-bit mantissa is not the float32 arithmetic that export has compared with the
            # original.
            "use_tf32": "0",
            "arena_extend_strategy": "kSameAsRequested",  # by default, the arena doubles with each extension
            "cudnn_conv_algo_search": CONVOLUTION_SEARCH,
            "enable_cuda_graph": str(int(graphs)),
        }
        if self.memory_limit is not None:
            options["gpu_mem_limit"] = str(self.memory_limit)
        return CUDA, options


def has_cuda(onnxruntime: Any) -> bool:
    """Return whether this build of ONNX Runtime supports CUDA at all."""
    return CUDA in onnxruntime.get_available_providers()


def has_cuda_device() -> bool:
    """Return whether the driver offers a CUDA device; no context is created."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def open_on_cuda(
    onnxruntime: Any, model: bytes, options: CudaOptions, make_session_options: Callable[[], Any], *, fused: bool
) -> CudaSession:
    """Open a session on a CUDA device that has computed blank images, never one that fell back to the CPU.

    It is opened with the fused operator and CUDA graphs, or with what works of these: ONNX Runtime refuses graphs if a
    node runs on the CPU, as those of int8 files do.

    Raises:
        DeviceError: this build has no CUDA, its libraries or the device are missing, or the network fails there.
    """
    device = f"cuda:{options.index}"
    if not has_cuda(onnxruntime):
        raise DeviceError(
            f"{device} needs ONNX Runtime with CUDA, and this one has {onnxruntime.get_available_providers()}: "
            f"{reinstall_command('gpu')}"
        )
    sizes, reason = batch_sizes(options.batch_size), ""
    with _opening, _quiet(onnxruntime):
        missing = _preload_libraries(onnxruntime)
        for kernel in (True, False) if fused else (False,):
            for graphs in (True, False):
                session_options = make_session_options()
                if kernel and not register_kernel(session_options, device):
                    break
                provider = options.provider(graphs=graphs)
                open_session = functools.partial(_open, onnxruntime, model, provider, session_options, kernel, missing)
                try:
                    session = CudaSession(onnxruntime, open_session, options.index, sizes, graphs)
                except DeviceError:
                    raise
                except Exception as error:  # noqa: BLE001  # the next try, or the caller, names the last one
                    check_error(error, device)
                    reason = str(error)
                    continue
                if not graphs:
                    logger.info("no CUDA graphs on %s: %s", device, reason)
                return session
            else:
                if kernel:
                    logger.info("PDE layers run without the fused operator on %s: %s", device, reason)
    raise DeviceError(f"{device} cannot be used: {reason}")


def _open(
    onnxruntime: Any,
    model: bytes,
    provider: tuple[str, dict[str, str]],
    session_options: Any,
    kernel: bool,
    missing: str,
) -> tuple[Any, bool]:
    """Return a session, and whether PDE layers run in the fused operator. Kernels are counted by thread.

    Args:
        kernel: whether the operator is registered.
        missing: why CUDA may not work.

    Raises:
        DeviceError: the session fell back to the CPU.
    """
    device = f"cuda:{provider[1]['device_id']}"
    before = count_kernels(device) if kernel else 0
    # The CPU provider runs what CUDA cannot. enable_fallback=0: raise an error instead of printing it and trying
    # another device.
    providers = [provider, "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model, session_options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != CUDA:
        reason = missing or f"ONNX Runtime fell back to {session.get_providers()}"
        raise DeviceError(f"{device} cannot be used: {reason}: {reinstall_command('gpu')}")
    return session, kernel and count_kernels(device) > before


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
