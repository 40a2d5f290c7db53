"""The libraries of the fused operator pdeinfer.GlobalLayer, which the wheel contains if they could be compiled."""

import ctypes
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pdeinfer.runtime.onnx_runtime import check_error

logger = logging.getLogger(__name__)

LIBRARY = Path(__file__).parents[1] / "kernels/libpdeinfer.so"  # for CPUs
CUDA_LIBRARY = LIBRARY.with_name("libpdeinfer_cuda.so")


def register_kernel(options: Any, device: str = "cpu") -> bool:
    """Add the fused operator to the options of an ONNX Runtime session; return whether that worked.

    It fails if there is no library, if ONNX Runtime cannot load it, if there is no CUDA driver, or if the environment
    variable PDEINFER_KERNEL is "0". The library for CPUs reads the variable too: "baseline", "avx2" or "avx512" selects
    an instruction set. Any other value, and a set that the CPU lacks, makes it refuse to load; this is a warning.

    Register one operator per session, that of its device: ONNX Runtime rejects a session with both, and one whose
    operator no execution provider claims.

    Args:
        options: the `onnxruntime.SessionOptions`.
        device: "cpu", "cuda" or "cuda:N".
    """
    library = _library(device)
    if os.environ.get("PDEINFER_KERNEL") == "0" or not library.exists():
        return False
    try:
        options.register_custom_ops_library(str(library))
    except Exception as error:  # noqa: BLE001  # the network runs without the operator
        check_error(error, device)
        if "PDEINFER_KERNEL" in str(error):  # the library refuses the variable's value
            _warn_of_choice(os.environ.get("PDEINFER_KERNEL"))
        else:
            logger.info("PDE layers run without the fused operator on %s: %s", device, error)
        return False
    return True


@functools.cache  # once for each value, not for each session
def _warn_of_choice(value: str | None) -> None:
    logger.warning(
        "PDE layers run without the fused operator: PDEINFER_KERNEL must be 0, or baseline, avx2 or avx512 if the CPU "
        "has it, not %r",
        value,
    )


def count_kernels(device: str = "cpu") -> int:
    """Return how many PDE layers run in the fused operator of a device, over all sessions that this thread has created.

    Call it only after `register_kernel` has returned True for the device.
    """
    return _counter(_library(device))()


@functools.cache  # ctypes makes classes for each library that it opens
def _counter(library: Path) -> Callable[[], int]:
    count = ctypes.CDLL(str(library)).pdeinfer_kernels_created
    count.restype = ctypes.c_int64
    return cast(Callable[[], int], count)


def _library(device: str) -> Path:
    return LIBRARY if device == "cpu" else CUDA_LIBRARY
