"""Memory of a server that receives many of the largest images it decodes at once."""

import asyncio
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest

from benchmarks.serving.load import Answer, Client, post, statuses
from tests.reliability.conftest import IS_FULL, NEEDS_PROC
from tests.servers import running_server

pytestmark = [pytest.mark.slow, NEEDS_PROC]

IMAGES = 50
MAX_MEGABYTES = 600  # as docs/reliability.md promises
# In each format, about the largest image that the server decodes.
FORMATS: dict[str, tuple[str, tuple[int, int], str, dict[str, object]]] = {
    "one-row-png": ("RGBA", (13_000_000, 1), "PNG", {}),
    "lossless-webp": ("RGBA", (4_900, 4_900), "WEBP", {"lossless": True, "method": 0}),
    "transparent-png": ("RGBA", (5_100, 5_100), "PNG", {}),
    "png": ("RGB", (6_800, 6_800), "PNG", {}),
    "progressive-jpeg": ("RGB", (8_000, 8_000), "JPEG", {"progressive": True, "subsampling": 0}),
    "large-jpeg": ("RGB", (7_999, 8_000), "JPEG", {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_fifty_of_the_largest_images_at_once_stay_within_the_promised_memory(
    tmp_path: Path, report: Callable[[str], None], name: str
) -> None:
    mode, size, file_format, options = FORMATS[name]
    file = BytesIO()
    PIL.Image.new(mode, size).save(file, file_format, **options)
    request = post("/classify", file.getvalue(), "Content-Type: image/png")

    async def attack(port: int) -> list[Answer]:
        clients = [Client(port) for _ in range(IMAGES)]
        answers = await asyncio.gather(*(client.send(request) for client in clients))
        for client in clients:
            await client.close()
        return list(answers)

    # This model pads images and scales all of them, which takes more memory for a single row than cropping would.
    timeout = "10" if IS_FULL else "3"  # they are decoded one by one
    with running_server(tmp_path / "log", "digits-pde", "--threads", "4", "--request-timeout", timeout) as server:
        before = peak_megabytes(server.process.pid)
        answers = asyncio.run(attack(server.port))
        peak = peak_megabytes(server.process.pid)

    found = statuses(answers)
    kilobytes = len(file.getvalue()) / 1000
    report(f"{IMAGES} of {kilobytes:.0f} kB: {dict(found)}; at most {peak} MB, {before} MB before")
    assert set(found) <= {200, 504}  # a slow machine does not decode all in time
    assert before + 50 < peak < MAX_MEGABYTES


def peak_megabytes(process: int) -> int:
    """Return the largest resident memory that a process has had."""
    return int(Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
