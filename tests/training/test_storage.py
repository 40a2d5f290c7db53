"""Images that would fill the memory are held in a file."""

from pathlib import Path

import numpy as np
import pytest

from training import storage
from training.storage import allocator, memory_bytes


def test_a_file_holds_images_that_need_more_than_a_quarter_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(storage, "memory_bytes", lambda: 4_000)
    in_memory = allocator(1_000, tmp_path / "run")((10, 10, 10, 1))
    assert not isinstance(in_memory, np.memmap)
    assert capsys.readouterr().out == ""
    in_file = allocator(1_001, tmp_path / "new" / "run")((10, 10, 10, 1))
    assert isinstance(in_file, np.memmap)
    assert str(tmp_path) in capsys.readouterr().out
    in_file[3] = 7
    assert in_file.sum() == 700
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_full_disk_is_an_error_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "memory_bytes", lambda: 4)
    with pytest.raises(OSError, match=r"No space left|File too large|Invalid argument"):
        allocator(2**60, tmp_path / "run")((2**30, 2**15, 2**15, 1))
    assert list(tmp_path.iterdir()) == []


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    physical = memory_bytes()
    assert physical is not None
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(storage, "_CGROUP_LIMIT", limit)
    limit.write_text("1048576\n")
    assert memory_bytes() == 1_048_576
    limit.write_text("max\n")
    assert memory_bytes() >= physical
