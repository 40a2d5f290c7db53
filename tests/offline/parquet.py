"""Parquet files of images."""

from pathlib import Path

import pytest


def write_parquet(path: Path, images: list[bytes | None], *, is_struct: bool = False, rows: int = 1000) -> Path:
    """Write a Parquet file of images and labels; is_struct: as Hugging Face has them; rows: of each row group."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    if is_struct:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": image, "path": "/etc/passwd"} for image in images], kind)
    else:
        column = pa.array(images, pa.binary())
    table = pa.table({"label": list(range(len(images))), "image": column})
    parquet.write_table(table, path, row_group_size=rows)
    return path
