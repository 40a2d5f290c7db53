"""The estimate of the memory that decoding takes, compared with what a process really used."""

import io
import json
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

from pdeinfer import PRESETS
from pdeinfer.images.convert import open_image
from pdeinfer.images.cost import estimate_webp
from tests.images.conftest import SMALL
from tests.images.image_makers import encode

ROOT = Path(__file__).parents[2]
GREY = PRESETS["digits-pde"].input
SIDE = 1600

MEASURE = """
import io, json, sys
import PIL.Image
from pdeinfer import PRESETS
from pdeinfer.images.convert import open_image, to_array

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024

spec = PRESETS["digits-pde"].input
to_array(PIL.Image.new("RGB", (64, 64)), spec)  # imports what the first call imports
content = open(sys.argv[1], "rb").read()
with open_image(content, spec) as opened:
    estimated = opened.estimate().bytes
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before = peak()
to_array(content, spec)
print(json.dumps([peak() - before, estimated]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resets the peak memory, as Linux can")
@pytest.mark.parametrize(
    ("mode", "size", "file_format", "options"),
    [
        ("RGB", (SIDE, SIDE), "PNG", {}),
        ("LA", (SIDE, SIDE), "PNG", {}),
        ("RGB", (SIDE, SIDE), "PNG", {"transparency": (0, 0, 0)}),
        ("RGB", (SIDE * SIDE, 1), "PNG", {}),
        ("RGB", (SIDE + 1, SIDE), "JPEG", {}),
        ("RGB", (SIDE, SIDE), "JPEG", {"progressive": True, "subsampling": 0}),
        ("RGBA", (SIDE, SIDE), "WEBP", {"lossless": True, "method": 0}),
        ("LA", (SIDE, SIDE), "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", (SIDE, SIDE), "TIFF", {"compression": "jpeg"}),
        ("P", (SIDE, SIDE), "GIF", {}),
    ],
    ids=["png", "png-la", "png-keyed", "png-row", "jpeg", "jpeg-progressive", "webp", "tiff-la", "tiff-jpeg", "gif"],
)
def test_decoding_takes_no_more_memory_than_estimated(
    tmp_path: Path, mode: str, size: tuple[int, int], file_format: str, options: dict[str, object]
) -> None:
    path = tmp_path / "image"
    PIL.Image.new(mode, size).save(path, file_format, **options)
    command = [sys.executable, "-c", MEASURE, str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    used, estimated = json.loads(result.stdout)

    assert estimated / 4 < used < estimated + 2**20


def estimate(size: tuple[int, int], file_format: str, **options: object) -> int:
    file = io.BytesIO()
    PIL.Image.new("RGB", size).save(file, file_format, **options)
    with open_image(file.getvalue(), GREY) as opened:
        return opened.estimate().bytes


def test_a_jpeg_costs_the_pixels_that_are_left_after_its_reduction() -> None:
    reduced, whole = estimate((4000, 3000), "JPEG"), estimate((4001, 3000), "JPEG")

    assert reduced < 2_000_000
    assert whole > 60_000_000


def test_a_progressive_jpeg_costs_its_coefficients_at_full_size() -> None:
    assert estimate((4000, 3000), "JPEG", progressive=True) > 12_000_000 * 6


def test_a_tile_larger_than_its_image_costs_its_own_pixels() -> None:
    from tests.serving.hostile_images import tiff

    with open_image(tiff((8, 8), (4000, 4000), 8, b""), GREY) as opened:
        assert opened.estimate().bytes > 16_000_000


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0"}], ids=["lossy", "lossless", "extended"]
)
def test_the_size_of_a_webp_is_read_from_its_first_bytes(options: dict[str, object]) -> None:
    estimate = estimate_webp(encode(PIL.Image.new("RGB", (300, 20)), "WEBP", **options)[:30])

    assert estimate is not None
    assert estimate[1:] == (300, 20)
    assert estimate_webp(SMALL) is None
