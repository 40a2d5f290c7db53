"""The library of the fused operator pdeinfer.GlobalLayer, which the wheel contains if it could be compiled."""

import ctypes
import os
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parents[1] / "kernels/libpdeinfer.so"


def register_kernel(options: Any) -> bool:
    """Add the fused operator to the options of an ONNX Runtime session; return whether that worked.

    It fails if there is no library, if ONNX Runtime cannot load it, or if the environment variable PDEINFER_KERNEL
    is "0". The library reads the variable too: "baseline", "avx2" or "avx512" selects an instruction set, and any other
    value makes it refuse to load.
    """
    if os.environ.get("PDEINFER_KERNEL") == "0" or not LIBRARY.exists():
        return False
    try:
        options.register_custom_ops_library(str(LIBRARY))
    except Exception:  # noqa: BLE001  # ONNX Runtime's exceptions have no common base class
        return False
    return True


def count_kernels() -> int:
    """Return how many PDE layers run in the fused operator, over all sessions that this thread has created.

    Call it only after `register_kernel` has returned True.
    """
    count = ctypes.CDLL(str(LIBRARY)).pdeinfer_kernels_created
    count.restype = ctypes.c_int64
    return int(count())
