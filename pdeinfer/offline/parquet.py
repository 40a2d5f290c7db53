"""Reads the images in a Parquet file: a column of bytes, or of Hugging Face's structs {bytes, path}."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from pdeinfer.errors import ImageError, MissingDependencyError
from pdeinfer.images.damage import MACHINE_ERRORS

if TYPE_CHECKING:
    import pyarrow.parquet

_BATCH_BYTES = 2**25  # of images that are read together
_BATCH_ROWS = 256
_BUFFER_BYTES = 2**20
# A part of a row group is reached by reading what comes before it, so a large group is read in few parts.
_LEAST_ROWS = 1024
_MOST_PARTS = 16


class ParquetRows(NamedTuple):
    """Consecutive rows of a Parquet file.

    Attributes:
        column: the path of the column of bytes.
        group: the row group, and its first row in the file.
        start, stop: the rows within the group.
    """

    column: str
    group: int
    first: int
    start: int
    stop: int


def list_rows(path: str) -> Iterator[ParquetRows]:
    """Yield the rows of a Parquet file in parts.

    Raises:
        ImageError: the file is no Parquet file, is damaged, cannot be read, or has not exactly one column of images.
        MissingDependencyError: pyarrow is missing.
        OSError: the system failed, e.g. with too many open files.
    """
    with _open(path) as file:
        column, first = _find_column(path, file.schema_arrow), 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            step = max(_LEAST_ROWS, -(-rows // _MOST_PARTS))
            for start in range(0, rows, step):
                yield ParquetRows(column, group, first, start, min(start + step, rows))
            first += rows


def read_rows(path: str, rows: ParquetRows) -> Iterator[bytes | None]:
    """Yield the bytes of each row, or None for a null.

    Raises:
        ImageError: the file is damaged or cannot be read.
        OSError: the system failed, e.g. with too many open files.
    """
    from pyarrow import types

    with _reading(path), _open(path) as file:
        batches = file.iter_batches(
            batch_size=_batch_rows(file.metadata.row_group(rows.group), rows.column),
            row_groups=[rows.group],
            columns=[rows.column],
            use_threads=False,
        )
        position = 0
        while position < rows.stop:
            values = next(batches).column(0)
            if types.is_struct(values.type):
                values = values.field("bytes")
            for value in values[max(0, rows.start - position) : rows.stop - position]:
                yield value.as_py()
            position += len(values)


def _batch_rows(group: Any, column: str) -> int:
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema == column:
            rows: int = _BATCH_BYTES * group.num_rows // max(1, chunk.total_uncompressed_size)
            return max(1, min(_BATCH_ROWS, rows))
    return _BATCH_ROWS


def _find_column(path: str, schema: Any) -> str:
    """Return the path of the only column of images, or of the one that is named "image"."""
    found = {field.name: _bytes_path(field) for field in schema if _bytes_path(field)}
    kinds = [f"{field.name}: {field.type}" for field in schema if field.name in (found or schema.names)]
    name = "image" if "image" in found else next(iter(found), "")
    if (len(found) != 1 and name != "image") or schema.names.count(name) != 1:
        raise ImageError(
            f"{path}: expected one column of image files, of the type binary or struct<bytes: binary>, or one of them "
            f'named "image", got {", ".join(kinds)}'
        )
    return str(found[name])


def _bytes_path(field: Any) -> str | None:
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    if is_bytes(field.type):
        return str(field.name)
    if not types.is_struct(field.type) or field.type.get_field_index("bytes") < 0:
        return None
    return f"{field.name}.bytes" if is_bytes(field.type.field("bytes").type) else None


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn the errors of pyarrow for a file that is damaged or cannot be read into an ImageError."""
    try:
        yield
    except (StopIteration, ValueError, LookupError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            error.filename = error.filename or path
            raise
        if isinstance(error, ImageError):
            raise
        problem = " ".join(str(error).split()) or "rows are missing"
        raise ImageError(f"{path}: expected a Parquet file that is intact: {problem}") from error


@contextmanager
def _open(path: str) -> "Iterator[pyarrow.parquet.ParquetFile]":
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "parquet", f"reading {path}") from error
    with _reading(path):
        file = open(path, "rb")  # noqa: PTH123, SIM115  # pyarrow cannot encode every name
    with file:
        with _reading(path):
            # Read through a buffer: otherwise a whole row group would be in memory.
            opened = ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        yield opened
