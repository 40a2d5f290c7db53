"""Describes what a measurement ran on: processor and versions."""

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

from pdeinfer.runtime.cpus import available_cpus

# Vector instructions, the widest first, and those for int8, bf16 and matrices: speed depends on them more than on the
# processor's name.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
_LOW_PRECISION = {"VNNI": {"avx512_vnni", "avx_vnni"}, "BF16": {"avx512_bf16"}, "AMX": {"amx_tile"}}

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
        f"hardware  {processor()}, {available_cpus()} CPUs{load}",
        f"versions  {', '.join(versions)}",
    ]


def processor() -> str:
    """Return the processor's name and instruction sets: "AMD EPYC (AVX-512, VNNI)"."""
    names, flags = _cpuinfo("model name"), cpu_flags()
    if not names:
        return platform.processor() or platform.machine()
    widest = [name for flag, name in _VECTORS.items() if flag in flags][:1]
    instructions = widest + [name for name, any_of in _LOW_PRECISION.items() if any_of & flags]
    return f"{names[0]} ({', '.join(instructions)})" if instructions else names[0]


def cpu_flags() -> set[str]:
    """Return the features of the CPU by their names in Linux; nothing on other systems."""
    return {flag for line in _cpuinfo("flags")[:1] for flag in line.split()}


def _cpuinfo(field: str) -> list[str]:
    """Return the values of a field of /proc/cpuinfo, one per CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == field]
