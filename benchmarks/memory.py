"""Measures the peak memory of a new process per route: imports, one network, and batches of 1 and 64."""

import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.markdown import machine, table
from benchmarks.networks import IMAGES_FILE, RESNET, pde_preset, write_int8, write_networks
from benchmarks.routes import FUNCTION, ROUTES, why_left_out
from pdeinfer.spec.presets import Preset

BATCH_SIZES = (1, 64)


def main() -> int:
    """Run the benchmark, and return the exit code."""
    print(machine("openvino", "torch"))
    presets = [RESNET, pde_preset(1), pde_preset(5)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folders = write_networks(presets, Path(folder))
        for path in folders.values():
            write_int8(path)
        for route in ROUTES:
            if reason := why_left_out(route):
                print(f"Left out: {route}, since {reason}.\n")
                continue
            peaks = [
                "" if (preset, route) == (RESNET, FUNCTION) else _peak(preset, folders[preset], route)
                for preset in presets
            ]
            rows.append([route, *peaks])
    print("MiB at the peak, one thread:\n")
    print(table(["route", *(preset.name for preset in presets)], rows))
    return 0


def _peak(preset: Preset, folder: Path, route: str) -> str:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return f"{executor.submit(peak_memory, preset, folder, route).result():.0f}"


def peak_memory(preset: Preset, folder: Path, route: str) -> float:
    """Run a network of `networks`; return the peak memory of this process in MiB."""
    classify = ROUTES[route].open(preset, folder, 1)
    images = np.load(folder / IMAGES_FILE)
    for size in BATCH_SIZES:
        classify(images[:size])
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
