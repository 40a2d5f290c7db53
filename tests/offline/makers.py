"""Sources to classify, and results read back."""

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import PIL.Image

from pdeinfer.offline.classifier import Options
from pdeinfer.package import zoo
from tests.images.image_makers import encode, random_pixels

Row = dict[str, Any]


def picture(seed: int, side: int = 8) -> bytes:
    """Return a PNG of random grey pixels."""
    return encode(PIL.Image.fromarray(random_pixels(side, side, seed=seed)), "PNG")


def write_pictures(folder: Path, count: int, side: int = 8) -> list[Path]:
    """Write so many pictures into a new folder, and return their paths in order."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number, side))
    return paths


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar file."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def options(package: Path, **changes: Any) -> Options:
    """Return the options to classify with a package."""
    return Options(str(package), zoo.load(package).digest, device="cpu", **changes)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a result as JSON values."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        return [_from_csv(row) for row in csv.DictReader(file)]


def _from_csv(row: Mapping[str, str]) -> Row:
    text = {name: row[name] or None for name in ("source", "label", "error_code", "error")}
    values = {name: json.loads(row[name]) if row[name] else None for name in ("score", "top_labels", "top_scores")}
    return text | values
