"""Builds what stands in for CUDA: its driver and NVRTC, and an operator for CUDA that runs in sessions on the CPU."""

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hatch_build import build_cuda_library, find_compiler
from tests.documents import ROOT

SOURCES = ROOT / "pdeinfer/kernels"
KERNELS = ("solve_one_step", "solve", "step_in_global_memory")


class _Dimensions(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in "xyz"]


class State(ctypes.Structure):
    """What a test sets and reads; cuda_stand_in.cc has its twin and explains it."""

    _fields_ = [
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
        ("driver_version", ctypes.c_int),
        ("multiprocessors", ctypes.c_int),
        ("devices", ctypes.c_int),
        ("is_descending", ctypes.c_int),
        ("compile_error", ctypes.c_int),
        ("is_refusing_once", ctypes.c_int),
        ("compilations", ctypes.c_int),
        ("code_loads", ctypes.c_int),
        ("launches", ctypes.c_int * len(KERNELS)),
        ("grid", _Dimensions),
        ("block", _Dimensions),
    ]


@dataclass(frozen=True)
class StandIn:
    """The driver's library and the operator that calls it.

    Attributes:
        driver: a library with the functions of CUDA's driver and of NVRTC that the operator needs.
        operator: the operator's library. Its execution provider is the CPU's.
        state: of the driver.
    """

    driver: Path
    operator: Path
    state: State
    _initial: bytes

    @classmethod
    def build(cls, folder: Path) -> "StandIn":
        """Compile both libraries into a folder."""
        driver = folder / "driver.so"
        flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
        flags += ["-Wno-unknown-pragmas", "-Wno-maybe-uninitialized", f"-I{SOURCES}"]
        source = Path(__file__).with_name("cuda_stand_in.cc")
        subprocess.run([*find_compiler(), *flags, source, "-o", driver], check=True)
        operator = build_operator(folder / "operator.so", driver)
        state = State.in_dll(ctypes.CDLL(str(driver)), "stand_in")
        return cls(driver, operator, state, bytes(state))

    def reset(self) -> None:
        ctypes.memmove(ctypes.byref(self.state), self._initial, len(self._initial))

    def launches(self) -> dict[str, int]:
        """Return how often each kernel was launched."""
        return dict(zip(KERNELS, self.state.launches, strict=True))


def build_operator(library: Path, driver: Path, nvrtc: Path | None = None, provider: str | None = None) -> Path:
    """Compile an operator for CUDA that uses these libraries, by default for sessions on the CPU; return its path."""
    definitions = [
        f'-DPROVIDER="{provider}"' if provider else "-DPROVIDER=nullptr",
        f'-DCUDA_DRIVER="{driver}"',
        f'-DNVRTC="{nvrtc or driver}"',
    ]
    build_cuda_library(SOURCES, library, definitions)
    return library
