"""Parquet files as sources, intact and damaged."""

import os
from pathlib import Path

import pytest

from tests.offline.parquet import write_parquet
from tests.offline.reading import contents, errors, read


@pytest.mark.parametrize("is_struct", [False, True])
@pytest.mark.parametrize("rows", [3, 1000])
def test_parquet_gives_each_row_by_number(
    tmp_path: Path, is_struct: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdeinfer.offline.parquet._LEAST_ROWS", 2)
    monkeypatch.setattr("pdeinfer.offline.parquet._BATCH_ROWS", 3)
    images: list[bytes | None] = [b"%d" % number for number in range(20)]
    path = write_parquet(tmp_path / "a.parquet", images, is_struct=is_struct, rows=rows)

    assert read(path) == [(f"{path}/{number}", image) for number, image in enumerate(images)]


@pytest.mark.parametrize("name", [b"\xff.parquet", b"a:b.parquet"])
def test_parquet_may_have_any_name(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    write_parquet(tmp_path / "a.parquet", [b"a"]).rename(path)

    assert read(path) == [(f"{path}/0", b"a")]


def test_a_null_in_parquet_is_an_error_and_its_path_is_not_opened(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [b"a", None], is_struct=True)

    assert list(errors(path)) == [f"{path}/1"]
    assert contents(path) == {"0": b"a"}


def test_parquet_without_one_column_of_images_is_an_error(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for found, columns in (("a: int64", {"a": [1]}), ("a: binary, b: binary", {"a": [b"1"], "b": [b"2"]})):
        path = tmp_path / "a.parquet"
        parquet.write_table(pa.table(columns), path)
        (error,) = errors(path).values()
        assert found in str(error)


@pytest.mark.parametrize("kind", ["binary_view", "dictionary"])
def test_parquet_may_hold_its_images_as_views_or_in_a_dictionary(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    types = {"binary_view": pa.binary_view(), "dictionary": pa.dictionary(pa.int32(), pa.binary())}
    parquet.write_table(pa.table({"image": pa.array([b"a", None, b"a"], types[kind])}), path)

    assert list(errors(path)) == [f"{path}/1"]
    assert contents(path) == {"0": b"a", "2": b"a"}


@pytest.mark.parametrize("other", [b"b", 1])
def test_parquet_with_two_columns_of_one_name_is_an_error(tmp_path: Path, other: object) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_arrays([pa.array([other]), pa.array([b"a"])], ["image", "image"]), path)
    assert list(errors(path)) == [str(path)]


def test_damaged_parquet_is_an_error_for_each_row_that_cannot_be_read(tmp_path: Path) -> None:
    images: list[bytes | None] = [os.urandom(1000) for _ in range(20)]
    path = write_parquet(tmp_path / "a.parquet", images, rows=10)
    content = bytearray(path.read_bytes())
    start = content.index(images[0] or b"")
    content[start - 24 : start - 4] = b"\xff" * 20  # in the header of the first page

    path.write_bytes(content)
    found = read(path)
    assert [name for name, _ in found] == [f"{path}/{number}" for number in range(20)]
    assert len(errors(path)) == 10

    path.write_bytes(content[:-100])
    assert list(errors(path)) == [str(path)]
