"""The library of the fused operator pdeinfer.GlobalLayer, which the wheel holds where it could be compiled."""

import ctypes
import os
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parents[1] / "kernels/libpdeinfer.so"


def register_kernel(options: Any) -> bool:
    """Give sessions of these ONNX Runtime options the fused operator; return whether they have it.

    They have not where there is no library or ONNX Runtime cannot load it, and where the environment variable
    PDEINFER_KERNEL is "0". (The library reads it too: the name of an instruction set, "baseline", "avx2" or "avx512",
    chooses that one, and anything else none.)
    """
    if os.environ.get("PDEINFER_KERNEL") == "0" or not LIBRARY.exists():
        return False
    try:
        options.register_custom_ops_library(str(LIBRARY))
    except Exception:  # noqa: BLE001  # ONNX Runtime's own classes have no common base; the models run without it
        return False
    return True


def count_kernels() -> int:
    """Return how many PDE layers of the sessions that this thread has made run in the fused operator.

    Only after `register_kernel` has returned true.
    """
    count = ctypes.CDLL(str(LIBRARY)).pdeinfer_kernels_created
    count.restype = ctypes.c_int64
    return int(count())
