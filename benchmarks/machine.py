"""Describes what a measurement ran on: processor and versions."""

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

from pdeinfer.runtime.cpus import available_cpus

# Vector instructions, the widest first: speed depends on them more than on the processor's name.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}

PACKAGES = ("pdeinfer", "onnxruntime", "numpy", "keras", "tensorflow")


def describe(*peers: str) -> list[str]:
    """Return lines on the command, the hardware and the versions, including those of `peers`."""
    versions = [f"Python {platform.python_version()}"]
    for package in (*PACKAGES, *peers):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return [
        f"command   {shlex.join(['python', *sys.orig_argv[1:]])}",
        f"hardware  {_processor()}, {available_cpus()} CPUs{load}",
        f"versions  {', '.join(versions)}",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if not names:
        return platform.processor() or platform.machine()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    widest = next((f" with {name}" for flag, name in _VECTORS.items() if flag in flags), "")
    return f"{names[0]}{widest}"
