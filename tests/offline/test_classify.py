"""`pdeinfer classify`: rows, formats, refusals, errors."""

import errno
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np
import PIL.Image
import pytest

from pdeinfer.cli import main as cli
from pdeinfer.errors import ClassifyError, ImageTooCostlyError, ModelPackageError
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.images.limits import MAX_FILE_BYTES
from pdeinfer.offline import local, ray_cluster
from pdeinfer.offline.chunks import DamagedChunk, FileChunk, NamedImage, to_line
from pdeinfer.offline.classifier import ChunkClassifier, Options
from pdeinfer.offline.parts import Parts
from pdeinfer.offline.results import COLUMNS, write_rows
from pdeinfer.offline.run import classify
from pdeinfer.predictor import Predictor
from tests.images.image_makers import DAMAGED_EXIF, avif, encode, gif_of_comments, heic, needs_proc, unreadable
from tests.offline.makers import Row, options, picture, read_rows, write_pictures, write_tar
from tests.offline.parquet import write_parquet

Captured = pytest.CaptureFixture[str]

RESULT_ROW = json.dumps(dict.fromkeys(COLUMNS)).encode()


def expected_rows(package: Path, images: dict[str, bytes], top_k: int = 5, threshold: float = 0.0) -> list[Row]:
    """Return the rows for images by name, each classified alone."""
    rows = []
    with Predictor(package, threshold=threshold) as predictor:
        for name, content in images.items():
            found = predictor.predict(content, top_k)
            rows.append(
                {
                    "source": name,
                    "label": found.label,
                    "score": pytest.approx(found.score, rel=1e-5),
                    "top_labels": [entry.label for entry in found.top],
                    "top_scores": pytest.approx([entry.score for entry in found.top], rel=1e-5),
                    "error_code": None,
                    "error": None,
                }
            )
    return rows


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_source_gives_rows_in_order_in_every_format(suffix: str, tmp_path: Path, package_folder: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    files = write_pictures(tmp_path / "photos", 3)
    shard = write_tar(tmp_path / "shard.tar", [("b.png", picture(10)), ("a.png", picture(11)), ("a.cls", b"1")])
    images = {str(path): path.read_bytes() for path in files}
    images |= {f"{shard}/b.png": picture(10), f"{shard}/a.png": picture(11)}
    sources = [tmp_path / "photos", shard]
    if suffix == ".parquet":
        table = write_parquet(tmp_path / "table.parquet", [picture(12)])
        sources.append(table)
        images[f"{table}/0"] = picture(12)
    result = tmp_path / "new" / f"result{suffix}"

    arguments = [
        "--out",
        str(result),
        "--model",
        str(package_folder),
        "--top",
        "2",
        "--workers",
        "2",
        "--batch-size",
        "2",
    ]
    assert cli.main(["classify", *map(str, sources), *arguments]) == 0

    assert read_rows(result) == expected_rows(package_folder, images, top_k=2)
    assert list(result.parent.iterdir()) == [result]


def test_parquet_has_the_documented_types(tmp_path: Path, package_folder: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    write_pictures(tmp_path / "photos", 1)
    classify([str(tmp_path / "photos")], tmp_path / "a.parquet", options(package_folder), workers=1)

    schema = pyarrow.parquet.read_schema(tmp_path / "a.parquet")
    kinds = ["string", "string", "float", "list<element: string>", "list<element: float>", "string", "string"]
    assert [(field.name, str(field.type)) for field in schema] == list(zip(COLUMNS, kinds, strict=True))


@pytest.mark.parametrize("name", [b"run:1.parquet", b"\xff.parquet"])
def test_a_parquet_result_may_have_any_name(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    result = Path(os.fsdecode(name))
    assert write_rows([RESULT_ROW + b"\n"], result, ".parquet") == (1, 0)
    assert pyarrow.parquet.read_table(io.BytesIO(result.read_bytes())).num_rows == 1


def test_a_parquet_result_takes_rows_of_many_classes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    row = dict.fromkeys(COLUMNS) | {"top_labels": [f"class {number:05}" for number in range(150_000)]}
    part = (json.dumps(row) + "\n").encode() * 2
    assert write_rows([part, part], tmp_path / "a.parquet", ".parquet") == (4, 0)
    assert [found["top_labels"] for found in read_rows(tmp_path / "a.parquet")] == [row["top_labels"]] * 4


def test_images_that_cannot_be_read_are_rows_with_errors(
    tmp_path: Path, package_folder: Path, capsys: Captured
) -> None:
    folder = tmp_path / "photos"
    good, cut, *_ = write_pictures(folder, 2)
    cut.write_bytes(cut.read_bytes()[:60])
    (folder / "large.ppm").write_bytes(b"P6 20000 20000 255\n" + bytes(100))
    (folder / "sparse.png").write_bytes(picture(0))
    os.truncate(folder / "sparse.png", MAX_FILE_BYTES + 1)
    named = tmp_path / "notes.txt"
    named.write_text("no image")
    shard = write_tar(tmp_path / "shard.tar", [("a.png", b"no image")])
    result = tmp_path / "a.csv"

    code = cli.main(
        ["classify", *map(str, (folder, named, shard)), "--out", str(result), "--model", str(package_folder)]
    )

    assert code == 1
    rows = {Path(row["source"]).name: row for row in read_rows(result)}
    assert {name: row["error_code"] for name, row in rows.items()} == {
        good.name: None,
        cut.name: "invalid_image",
        "large.ppm": "image_too_large",
        "sparse.png": "image_too_large",
        "notes.txt": "invalid_image",
        "a.png": "invalid_image",
    }
    assert rows["a.png"]["error"].startswith(f"{shard}/a.png: ")
    assert rows["a.png"]["label"] is rows["a.png"]["score"] is rows["a.png"]["top_labels"] is None
    assert "6 images, 5 with errors" in capsys.readouterr().out


def test_names_that_are_not_utf_8_and_hold_line_breaks_are_one_row_each(tmp_path: Path, package_folder: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (b"\xff.png", b"old\rline.png", b'two\nlines "quoted", error_code": ".png', b"\xe2\x80\xa8.png"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(picture(0))

    for suffix in (".jsonl", ".csv"):
        count = classify([str(folder)], tmp_path / f"a{suffix}", options(package_folder), workers=1)
        assert count == (4, 0)
        names = [Path(row["source"]).name for row in read_rows(tmp_path / f"a{suffix}")]
        assert names == ["old\rline.png", 'two\nlines "quoted", error_code": ".png', "\u2028.png", "\\udcff.png"]


def test_an_answer_below_the_threshold_has_no_label(tmp_path: Path, package_folder: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    classify([str(tmp_path / "photos")], tmp_path / "a.jsonl", options(package_folder, threshold=1.0), workers=1)

    (row,) = read_rows(tmp_path / "a.jsonl")
    assert row["label"] is row["error_code"] is None
    assert row["score"] == row["top_scores"][0]


def test_isolated_decoding_refuses_costly_images(tmp_path: Path, package_folder: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    (tmp_path / "photos" / "costly.gif").write_bytes(gif_of_comments(10**8))
    classify([str(tmp_path / "photos")], tmp_path / "a.jsonl", options(package_folder, isolate=True), workers=1)

    good, costly = read_rows(tmp_path / "a.jsonl")
    assert good["error_code"] is None
    assert costly["error_code"] == "image_too_costly"


@pytest.mark.parametrize("encoder", [avif, heic])
@pytest.mark.parametrize("isolate", [False, True])
def test_avif_and_heic_are_classified_from_every_source(
    encoder: Callable[..., bytes], isolate: bool, tmp_path: Path, package_folder: Path
) -> None:
    pytest.importorskip("pyarrow")
    content = encoder(PIL.Image.open(io.BytesIO(picture(0))), quality=100)
    (tmp_path / "photo.heic").write_bytes(content)
    write_tar(tmp_path / "a.tar", [("photo.avif", content)])
    write_parquet(tmp_path / "a.parquet", [content])
    sources = [str(tmp_path / name) for name in ("photo.heic", "a.tar", "a.parquet")]
    classify(sources, tmp_path / "a.jsonl", options(package_folder, isolate=isolate), workers=1)

    rows = read_rows(tmp_path / "a.jsonl")
    assert [row["error"] for row in rows] == [None] * 3
    assert rows[0]["top_scores"] == rows[1]["top_scores"] == rows[2]["top_scores"]


def test_other_images_start_no_decoding_process(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IsolatedDecoders, "take", None)
    (path,) = write_pictures(tmp_path / "photos", 1)

    assert b'"error": null' in ChunkClassifier(options(package_folder)).classify(FileChunk([(str(path), 1, 1)]))


def test_pillows_warnings_of_damage_beside_the_pixels_are_not_printed(tmp_path: Path, package_folder: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(PIL.Image.new("L", (8, 8)), "JPEG", exif=DAMAGED_EXIF))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert b'"error": null' in ChunkClassifier(options(package_folder)).classify(FileChunk([(str(path), 1, 1)]))
    assert caught == []


def test_control_characters_in_the_name_of_the_result_do_not_reach_the_terminal(
    tmp_path: Path, package_folder: Path, capsys: Captured
) -> None:
    write_pictures(tmp_path / "photos", 1)
    result = tmp_path / "no\x1b[31m.csv"
    assert cli.main(["classify", str(tmp_path / "photos"), "--out", str(result), "--model", str(package_folder)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/no\\x1b[31m.csv: 1 images, 0 with errors\n"


def test_each_kind_of_error_has_its_code(package_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = ChunkClassifier(options(package_folder))
    monkeypatch.setattr(classifier, "_decode", lambda *_, **__: (_ for _ in ()).throw(ImageTooCostlyError("slow")))
    assert b'"error_code": "image_too_costly"' in classifier.classify(FileChunk([("a.png", 1, 1)]))

    monkeypatch.setattr(classifier, "_decode", lambda *_, **__: np.zeros((8, 8, 1), np.uint8))
    monkeypatch.setattr(Predictor, "predict_proba", lambda *_: np.full((1, 10), np.nan, np.float32))
    assert b'"error_code": "inference_failed"' in classifier.classify(FileChunk([("a.png", 1, 1)]))


def test_a_process_refuses_another_package_than_the_one_meant(package_folder: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ModelPackageError):
        ChunkClassifier(replace(options(package_folder), digest="0" * 64))


def test_an_existing_result_is_refused_and_kept(tmp_path: Path, package_folder: Path, capsys: Captured) -> None:
    write_pictures(tmp_path / "photos", 1)
    result = tmp_path / "a.csv"
    result.write_text("precious")

    assert cli.main(["classify", str(tmp_path / "photos"), "--out", str(result), "--model", str(package_folder)]) == 2

    assert str(result) in capsys.readouterr().err
    assert result.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "photos"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.png", "--out", "a.csv"],
        ["photos", "--out", "a.txt"],
        ["photos", "--out", "a.csv", "--model", "none"],
        ["photos", "--out", "a.csv", "--precision", "int8"],
        ["photos", "--out", "a.csv", "--device", "cuda:9"],
    ],
)
def test_what_cannot_start_leaves_nothing(
    arguments: list[str], tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    write_pictures(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)

    assert cli.main(["classify", "--model", str(package_folder), *arguments]) == 2

    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_name_that_is_too_long_is_named_once(tmp_path: Path, capsys: Captured) -> None:
    for length in (252, 300):  # too long with ".parts", or at all
        name = f"{'a' * (length - 4)}.csv"
        assert cli.main(["classify", str(tmp_path), "--out", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count(name) == 1


def test_without_a_current_folder_the_error_names_it(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert cli.main(["classify", "/a", "--out", "/a.csv"]) == 2
    assert "current folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments"), [("pyarrow", ["--out", "a.parquet"]), ("ray", ["--out", "a.csv", "--engine", "ray"])]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    module: str,
    arguments: list[str],
    tmp_path: Path,
    package_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    write_pictures(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)

    assert cli.main(["classify", "photos", *arguments, "--model", str(package_folder)]) == 2

    assert "pip install 'pdeinfer[" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("problem", [ValueError("Invalid\naddress"), RuntimeError("no GCS"), ConnectionError("no")])
def test_a_cluster_that_ray_refuses_is_an_error(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    ray, exceptions = ModuleType("ray"), ModuleType("ray.exceptions")
    ray.is_initialized = lambda: False
    ray.init = lambda **_: (_ for _ in ()).throw(problem)
    exceptions.RayError = Exception
    for name, module in {"ray": ray, "ray.data": ModuleType("ray.data"), "ray.exceptions": exceptions}.items():
        monkeypatch.setitem(sys.modules, name, module)

    with pytest.raises(ClassifyError, match="RAY_ADDRESS"):
        list(ray_cluster.classify(Path("plan"), [], Options("a", "b"), None))


def test_an_actor_reads_relative_paths_in_the_folder_of_the_command(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "command" / "photos", 1)
    (tmp_path / "actor").mkdir()
    monkeypatch.chdir(tmp_path / "actor")  # and back, after the test
    plan = tmp_path / "plan.jsonl"
    plan.write_text(to_line(FileChunk([("photos/00000.png", 1, 1)])))
    batch = {"number": [0], "offset": [0]}

    missing = ray_cluster._Actor(plan, options(package_folder), tmp_path / "none")(batch)
    assert "photos/00000.png: expected the folder" in missing["problem"][0]
    done = ray_cluster._Actor(plan, options(package_folder), tmp_path / "command")(batch)
    assert done["problem"] == [""]
    assert json.loads(done["rows"][0])["error"] is None


@pytest.mark.parametrize(("option", "code"), [("--batch-size", 0), ("--workers", 2)])
def test_a_huge_number_ends_in_no_traceback(option: str, code: int, tmp_path: Path, package_folder: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    arguments = ["classify", str(tmp_path / "photos"), "--out", str(tmp_path / "a.csv"), option, "9" * 20]
    try:
        found = cli.main([*arguments, "--model", str(package_folder), "--device", "cpu"])
    except SystemExit as stopped:
        found = stopped.code
    assert found == code


def test_a_process_without_memory_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "ChunkClassifier", lambda _: (_ for _ in ()).throw(MemoryError))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    local._work(theirs, Path("plan"), Options("a", "b"))
    error = ours.recv()
    assert isinstance(error, ClassifyError)
    assert "--workers" in str(error)


def test_what_a_folder_holds_besides_images_is_named_and_counted(
    tmp_path: Path, package_folder: Path, capsys: Captured
) -> None:
    write_pictures(tmp_path / "photos", 1)
    for number in range(12):
        (tmp_path / "photos" / f"{number:02}.txt").write_text("no image")
    arguments = ["--out", str(tmp_path / "a.csv"), "--model", str(package_folder), "--workers", "1"]

    assert cli.main(["classify", str(tmp_path / "photos"), *arguments]) == 0

    *named, more, total = capsys.readouterr().err.splitlines()
    assert len(named) == 10
    assert "00.txt: a file of no known image format" in named[0]
    assert more == "pdeinfer: left out: 2 more"
    assert total.endswith(": 12")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_has_the_rate_and_the_time_left(is_terminal: bool, tmp_path: Path, package_folder: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    program = "import sys; from pdeinfer.cli import main, output; output._SECONDS = output._LOG_SECONDS = 0; "
    program += "sys.exit(main.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "classify", str(tmp_path / "photos"), "--model", str(package_folder)]
    parent, child = os.openpty()

    found = subprocess.run(
        [*command, "--out", str(tmp_path / "a.csv")], check=True, stderr=child if is_terminal else subprocess.PIPE
    )

    os.close(child)
    shown = os.read(parent, 100_000).decode() if is_terminal else found.stderr.decode()
    os.close(parent)
    assert re.search(r"2 of 2 images, [\d,]+/s, 0:00 left", shown)
    assert ("\x1b" in shown) is is_terminal


def test_one_process_at_a_time_writes_a_result(tmp_path: Path, package_folder: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    result = tmp_path / "a.csv"

    with Parts(result), pytest.raises(ClassifyError):
        classify([str(tmp_path / "photos")], result, options(package_folder), workers=1)

    assert classify([str(tmp_path / "photos")], result, options(package_folder), workers=1) == (1, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_file_system_without_locks_is_a_warning_and_another_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def fail_with(number: int) -> None:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", fail)

    for number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        fail_with(number)
        with Parts(tmp_path / "a.csv"):
            assert "no locks" in caplog.text
        caplog.clear()
    fail_with(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), Parts(tmp_path / "a.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_no_open_file_is_removed_on_windows(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[IO[bytes]] = []
    unlink, hold = Path.unlink, Parts._hold

    def unlink_closed(path: Path, missing_ok: bool = False) -> None:
        if any(Path(file.name) == path and not file.closed for file in opened):
            raise PermissionError(errno.EACCES, "used by another process", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    monkeypatch.setattr(Parts, "_hold", lambda parts, lock: (opened.append(lock), hold(parts, lock)))
    (image,) = write_pictures(tmp_path / "photos", 1)
    result = tmp_path / "a.csv"

    assert classify([str(image)], result, options(package_folder), workers=1) == (1, 0)
    assert opened
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "photos"]


def test_files_in_a_tar_are_decoded_one_by_one(package_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Recorded(DamagedChunk):
        def read(self) -> Iterator[NamedImage]:
            for name in ("a", "b"):
                seen.append(f"read {name}")
                yield name, picture(0)

    def decode(*_: object, name: str) -> np.ndarray:
        seen.append(f"decode {name}")
        return np.zeros((8, 8, 1), np.uint8)

    classifier = ChunkClassifier(options(package_folder))
    monkeypatch.setattr(classifier, "_decode", decode)
    classifier.classify(Recorded("shard.tar", ""))

    assert seen == ["read a", "decode a", "read b", "decode b"]


@needs_proc
def test_a_file_that_cannot_be_read_is_a_row_with_an_error(tmp_path: Path, package_folder: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    path = unreadable(tmp_path / "photos" / "b.png")

    assert classify([str(tmp_path / "photos")], tmp_path / "a.jsonl", options(package_folder), workers=1) == (2, 1)
    assert read_rows(tmp_path / "a.jsonl")[1]["error"].startswith(f"{path}: expected")


@pytest.mark.parametrize("pattern", ["", "*", "**/*"])
def test_a_result_in_a_folder_that_is_classified_is_no_source(
    pattern: str, tmp_path: Path, package_folder: Path
) -> None:
    write_pictures(tmp_path / "photos", 2)
    result = tmp_path / "photos" / "a.csv"
    left_out: list[object] = []

    classify(
        [str(tmp_path / "photos" / pattern)], result, options(package_folder), workers=1, leave_out=left_out.append
    )

    assert len(read_rows(result)) == 2
    assert left_out == []


def test_a_folder_that_holds_modules_runs_none_of_them(tmp_path: Path, package_folder: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    for name in ("pickle", "random", "subprocess", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    program = "import sys; sys.path.remove(''); from pdeinfer.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "classify", ".", "--out", "a.csv", "--model", str(package_folder)]
    done = subprocess.run([*command, "--workers", "1"], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"a.csv: 1 images, 0 with errors\n")
