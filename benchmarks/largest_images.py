"""Measures what the largest image that the server accepts costs to decode, by format: seconds and memory.

    python -m benchmarks.largest_images [MEGAPIXELS]

Each image has one colour, which gives the smallest file for its size: what an attacker would send. Each is decoded
three times on one thread, in new processes; the table shows the shortest time and the most memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import PIL.Image

from benchmarks.machine import describe
from pdeinfer import PRESETS
from pdeinfer.images.convert import to_array
from serving.settings import Settings

ONE_ROW = "one row"

FORMATS: dict[str, tuple[str, str, dict[str, object]]] = {
    f"PNG RGB, {ONE_ROW}": ("RGB", "PNG", {}),
    "PNG RGB": ("RGB", "PNG", {}),
    "PNG RGBA": ("RGBA", "PNG", {}),
    "PNG 16-bit grey": ("I;16", "PNG", {}),
    "JPEG": ("RGB", "JPEG", {}),
    "JPEG progressive": ("RGB", "JPEG", {"progressive": True}),
    "WEBP": ("RGB", "WEBP", {}),
    "WEBP lossless, alpha": ("RGBA", "WEBP", {"lossless": True}),
    "TIFF LZW": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "GIF": ("P", "GIF", {}),
}


def main() -> int:
    """Measure and print a row per format."""
    pixels = int(float(sys.argv[1]) * 10**6) if len(sys.argv) > 1 else Settings().max_image_pixels
    side = int(pixels**0.5)
    print("\n".join(describe()))
    print(f"\n{side} x {side} pixels\n{'format':22}{'file':>12}{'seconds':>10}{'memory':>10}")
    for name in FORMATS:
        runs = [measure_in_new_process(name, side) for _ in range(3)]
        seconds, megabytes = min(run["seconds"] for run in runs), max(run["megabytes"] for run in runs)
        print(f"{name:22}{runs[0]['bytes'] / 1000:9.0f} kB{seconds:10.2f}{megabytes:7.0f} MB")
    return 0


def measure_in_new_process(name: str, side: int) -> dict[str, float]:
    """Return the size of a file in bytes, and the seconds and megabytes that decoding it takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        for function in ("write", "decode"):
            arguments = json.dumps([name, side, str(path)])
            code = f"from benchmarks.largest_images import {function}; {function}(*{arguments})"
            command = [sys.executable, "-c", code]
            result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # our own code
        measured: dict[str, float] = json.loads(result.stdout)
        return measured


def write(name: str, side: int, path: str) -> None:
    mode, file_format, options = FORMATS[name]
    size = (side * side, 1) if name.endswith(ONE_ROW) else (side, side)
    PIL.Image.new(mode, size).save(path, file_format, **options)


def decode(_: str, side: int, path: str) -> None:
    content = Path(path).read_bytes()
    to_array(PIL.Image.new("RGB", (8, 8)), PRESETS["digits-pde"].input)  # imports what the first call imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    to_array(content, PRESETS["digits-pde"].input, max_pixels=side * side)
    seconds = time.perf_counter() - started
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"bytes": len(content), "seconds": seconds, "megabytes": megabytes}))


if __name__ == "__main__":
    sys.exit(main())
