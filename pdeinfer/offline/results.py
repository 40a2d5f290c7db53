"""Writes the rows of all parts as one file: JSON Lines, CSV or Parquet."""

import json
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from pdeinfer.errors import ClassifyError, MissingDependencyError
from pdeinfer.files import csv_table

COLUMNS = ("source", "label", "score", "top_labels", "top_scores", "error_code", "error")
FORMATS = (".parquet", ".csv", ".jsonl")

_GROUP_BYTES = 2**24  # of JSON: about 65,536 rows, which become one row group
# pyarrow reads a group in blocks and refuses a row that takes more than two, as one with many classes does.
_BLOCK_BYTES = 2**20
_MOST_BLOCK_BYTES = 2**31 - 1


class Count(NamedTuple):
    """The number of rows that were written, and how many of them have an error."""

    rows: int
    errors: int


def check_format(result: Path) -> None:
    """Raise ClassifyError if results cannot be written to a file of that name, MissingDependencyError if not yet."""
    if result.suffix.lower() not in FORMATS:
        raise ClassifyError(f"{result}: expected a name that ends in {', '.join(FORMATS)}")
    if result.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError("pyarrow", "parquet", f"writing {result.name}") from error


def write_rows(parts: Iterable[bytes], path: Path, suffix: str) -> Count:
    """Write the lines of JSON in the parts to a file in the format that a suffix names, and return their number."""
    rows = errors = 0

    def counted() -> Iterator[bytes]:
        nonlocal rows, errors
        for part in parts:
            rows += part.count(b"\n")
            errors += part.count(b'"error_code": "')  # within a text, the quotes are escaped
            yield part

    write = {".jsonl": _write_json_lines, ".csv": _write_csv, ".parquet": _write_parquet}[suffix.lower()]
    write(counted(), path)
    return Count(rows, errors)


def _write_json_lines(parts: Iterable[bytes], path: Path) -> None:
    with path.open("wb") as file:
        file.writelines(parts)


def _write_csv(parts: Iterable[bytes], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv_table(file)
        table.writerow(COLUMNS)
        for part in parts:
            table.writerows([_cell(json.loads(line)[name]) for name in COLUMNS] for line in part.splitlines())


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _write_parquet(parts: Iterable[bytes], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import json as pyarrow_json
    from pyarrow import parquet

    text, number = pa.string(), pa.float32()
    kinds = (text, text, number, pa.list_(text), pa.list_(number), text, text)
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    options = pyarrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    # An open file: pyarrow would take a name with a colon for a URL, and cannot encode every name.
    with path.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
        for group in _grouped(parts):
            block = pyarrow_json.ReadOptions(block_size=min(max(len(group), _BLOCK_BYTES), _MOST_BLOCK_BYTES))
            writer.write_table(pyarrow_json.read_json(BytesIO(group), read_options=block, parse_options=options))


def _grouped(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the parts joined to groups of about `_GROUP_BYTES`."""
    group, size = [], 0
    for part in parts:
        group.append(part)
        size += len(part)
        if size >= _GROUP_BYTES:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)
