"""`pdeinfer classify` is stopped, killed, or finds a full disk, and goes on without losing or repeating a row."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pdeinfer.cli import main as cli
from pdeinfer.errors import ClassifyError
from pdeinfer.offline.classifier import Options
from pdeinfer.offline.parts import Parts
from pdeinfer.offline.results import Count
from pdeinfer.offline.run import classify
from tests.conftest import GREY_PRESET, write_tiny_package
from tests.offline.makers import options, picture, read_rows, write_pictures, write_tar
from tests.offline.parquet import write_parquet
from tests.servers import is_alive
from tests.waiting import wait_until

CHUNK = 256
REPEATS = 6  # chunks

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that take a while to decode, one of them damaged; together they fill a chunk."""
    folder = tmp_path_factory.mktemp("sources") / "photos"
    paths = write_pictures(folder, 1, side=300)
    for number in range(1, CHUNK):
        shutil.copyfile(paths[0], folder / f"{number:05}.png")
    (folder / "00007.png").write_bytes(picture(7)[:50])
    return folder


def command(photos: Path, package: Path, result: Path) -> list[str]:
    base = [sys.executable, "-m", "pdeinfer", "classify", *[str(photos)] * REPEATS]
    return [*base, "--out", str(result), "--model", str(package), "--workers", "2", "--device", "cpu"]


def parts_of(result: Path) -> list[Path]:
    return sorted(result.with_name(f"{result.name}.parts").glob("0*.jsonl"))


def start_until(arguments: Sequence[str], is_reached: Callable[[], bool]) -> subprocess.Popen[bytes]:
    """Start a command and return once a state is reached."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    while not is_reached() and process.poll() is None:
        time.sleep(0.001)
    return process


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def assert_complete(result: Path, photos: Path) -> None:
    rows = read_rows(result)
    assert [row["source"] for row in rows] == [str(path) for path in sorted(photos.iterdir())] * REPEATS
    assert [row["error_code"] for row in rows].count("invalid_image") == REPEATS
    assert len({(row["label"], row["score"]) for row in rows}) == 2  # of the image, and of the damaged one
    assert [path.name for path in result.parent.iterdir()] == [result.name]


@needs_kill
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_killed_again_and_again_it_loses_and_repeats_no_row(
    suffix: str, photos: Path, package_folder: Path, tmp_path: Path
) -> None:
    result = tmp_path / f"a{suffix}"
    arguments = command(photos, package_folder, result)
    for wanted in (1, 3):
        process = start_until(arguments, lambda wanted=wanted: len(parts_of(result)) >= wanted)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not result.exists()
    before = {path: path.stat().st_mtime_ns for path in parts_of(result)}

    process = start_until(arguments, lambda: len(parts_of(result)) > len(before))
    kept = {path: path.stat().st_mtime_ns for path in before}
    _, shown = process.communicate()

    assert process.returncode == 1  # for the damaged images
    assert kept == before
    assert f"{len(before) * CHUNK:,} of {REPEATS * CHUNK:,} images were classified before" in shown.decode()
    assert_complete(result, photos)


@needs_kill
def test_no_process_outlives_one_that_is_killed(photos: Path, package_folder: Path, tmp_path: Path) -> None:
    result = tmp_path / "a.jsonl"
    process = start_until(command(photos, package_folder, result), lambda: bool(parts_of(result)))
    children = children_of(process.pid)
    process.kill()
    process.communicate()

    assert len(children) >= 2
    wait_until(lambda: not any(is_alive(child) for child in children))


@needs_kill
def test_a_process_that_dies_is_an_error_and_the_same_command_goes_on(
    photos: Path, package_folder: Path, tmp_path: Path
) -> None:
    result = tmp_path / "a.jsonl"
    arguments = command(photos, package_folder, result)
    process = start_until(arguments, lambda: bool(parts_of(result)))
    worker = next(
        child for child in children_of(process.pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    os.kill(worker, signal.SIGKILL)

    _, shown = process.communicate()
    assert process.returncode == 2
    assert b"SIGKILL" in shown
    assert b"Traceback" not in shown

    assert subprocess.run(arguments, check=False, capture_output=True).returncode == 1
    assert_complete(result, photos)


@needs_kill
def test_ctrl_c_stops_it_without_a_traceback(photos: Path, package_folder: Path, tmp_path: Path) -> None:
    result = tmp_path / "a.jsonl"
    arguments = command(photos, package_folder, result)
    process = start_until(arguments, lambda: bool(parts_of(result)))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does

    _, shown = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in shown
    assert parts_of(result)


@needs_kill
@pytest.mark.parametrize("kibibytes", [8, 40, 200])  # too few for the plan, for a part, for the result
def test_a_full_disk_is_an_error_that_leaves_nothing_half_written(
    kibibytes: int, photos: Path, package_folder: Path, tmp_path: Path
) -> None:
    result = tmp_path / "a.csv"
    arguments = command(photos, package_folder, result)

    limited = ["bash", "-c", f'ulimit -f {kibibytes}; exec "$@"', "bash", *arguments]
    full = subprocess.run(limited, check=False, capture_output=True)

    assert full.returncode == 2
    assert b"Traceback" not in full.stderr
    assert b"a.csv.parts/" in full.stderr
    assert (b"To resume" in full.stderr) is result.with_name("a.csv.parts").exists()
    assert not result.exists()
    assert not list(tmp_path.rglob(".partial-*"))
    assert subprocess.run(arguments, check=False, capture_output=True).returncode == 1
    assert_complete(result, photos)


@pytest.fixture
def begun(package: Path, tmp_path: Path) -> tuple[list[str], Path, Options]:
    """Sources, a result of which a part is there, and the options."""
    folder = tmp_path / "photos"
    first, *_ = write_pictures(folder, 2)
    for number in range(2, CHUNK + 1):  # one more than a chunk
        shutil.copyfile(first, folder / f"{number:05}.png")
    shard = write_tar(tmp_path / "shard.tar", [("a.png", picture(0))])
    result, how = tmp_path / "a.jsonl", options(package)
    sources = [str(folder), str(shard)]
    with pytest.raises(InterruptedError):
        classify(sources, result, how, workers=1, report=stop_after_the_first)
    assert len(parts_of(result)) == 1
    return sources, result, how


def stop_after_the_first(done: int, _: int) -> None:
    if done:
        raise InterruptedError


def test_what_was_begun_is_finished(begun: tuple[list[str], Path, Options]) -> None:
    sources, result, how = begun

    assert classify(sources, result, how, workers=1) == (CHUNK + 2, 0)

    assert len({row["source"] for row in read_rows(result)}) == CHUNK + 2
    assert not result.with_name("a.jsonl.parts").exists()


@pytest.mark.parametrize("change", ["added", "removed", "changed", "shard"])
def test_a_changed_source_is_refused_by_name(change: str, begun: tuple[list[str], Path, Options]) -> None:
    sources, result, how = begun
    folder, shard = map(Path, sources)
    name = {"added": "00010-copy.png", "removed": "00003.png", "changed": "00004.png", "shard": "shard.tar"}[change]
    match change:
        case "added" | "changed":
            (folder / name).write_bytes(picture(5))
        case "removed":
            (folder / name).unlink()
        case "shard":
            write_tar(shard, [("a.png", picture(1))])
            os.utime(shard, (1, 1))

    with pytest.raises(ClassifyError, match=name):
        classify(sources, result, how, workers=1)

    assert len(parts_of(result)) == 1


@pytest.mark.parametrize("name", ["2.tar", "3.tar"])
def test_a_file_more_or_less_behind_all_others_is_refused_by_name(name: str, package: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", [("a.png", picture(number))])
    sources, result, how = [str(tmp_path / "*.tar")], tmp_path / "a.jsonl", options(package)
    with pytest.raises(InterruptedError):
        classify(sources, result, how, workers=1, report=stop_after_the_first)
    if (tmp_path / name).exists():
        (tmp_path / name).unlink()
    else:
        write_tar(tmp_path / name, [("a.png", picture(0))])

    with pytest.raises(ClassifyError, match=name):
        classify(sources, result, how, workers=1)


def test_a_run_that_ended_before_its_first_part_binds_the_next_one_to_nothing(
    begun: tuple[list[str], Path, Options],
) -> None:
    sources, result, how = begun
    for part in parts_of(result):
        part.unlink()

    assert classify(sources[1:], result, replace(how, top_k=2), workers=1) == (1, 0)


def test_other_sources_and_options_are_refused_by_name(begun: tuple[list[str], Path, Options], tmp_path: Path) -> None:
    sources, result, how = begun
    other = write_tiny_package(tmp_path / "other", replace(GREY_PRESET, labels=tuple("abcdefghij")))

    for names, changed, match in (
        (sources[:1], how, "shard.tar', now None"),
        ([sources[0], "b", "c"], how, "begun with the source .*shard.tar', now 'b':"),
        (sources, replace(how, top_k=2), "top_k 5, now 2"),
        (sources, replace(how, threshold=0.5), "threshold"),
        (sources, options(other), "model .*digest"),
    ):
        with pytest.raises(ClassifyError, match=match):
            classify(names, result, changed, workers=1)

    assert classify(sources, result, replace(how, batch_size=3), workers=2) == (CHUNK + 2, 0)


def test_a_package_that_is_replaced_in_its_place_is_refused(begun: tuple[list[str], Path, Options]) -> None:
    sources, result, how = begun
    shutil.rmtree(how.model)
    write_tiny_package(Path(how.model), replace(GREY_PRESET, labels=tuple("abcdefghij")))

    with pytest.raises(ClassifyError, match="digest"):
        classify(sources, result, options(Path(how.model)), workers=1)


@pytest.mark.parametrize("moment", ["before", "after", "cleaning"])
def test_killed_around_the_moment_when_the_result_appears(
    moment: str, begun: tuple[list[str], Path, Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, result, how = begun
    killed = {"before": "replace", "after": "iterdir", "cleaning": "rmdir"}[moment]
    original = getattr(Path, killed)

    def kill(path: Path, *rest: object) -> object:
        if (killed == "replace" and path.name != "joined") or (killed == "iterdir" and not result.exists()):
            return original(path, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, killed, kill)
    with pytest.raises(KeyboardInterrupt):
        classify(sources, result, how, workers=1)
    monkeypatch.undo()
    assert result.exists() is (moment != "before")

    if moment != "before":
        for names, changed in ((sources[:1], how), (sources, replace(how, top_k=2))):
            with pytest.raises(ClassifyError, match="exists"):
                classify(names, result, changed, workers=1)
    if moment == "cleaning":  # nothing but an empty folder was left
        return

    assert classify(sources, result, how, workers=1) == (CHUNK + 2, 0)
    assert len(read_rows(result)) == CHUNK + 2
    assert not result.with_name("a.jsonl.parts").exists()


def test_after_a_kill_at_the_end_the_same_command_still_counts_the_errors(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(picture(0)[:50])
    arguments = ["classify", str(tmp_path / "a.png"), "--out", str(tmp_path / "a.csv"), "--model", str(package_folder)]
    monkeypatch.setattr(Parts, "remove", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(arguments)
    monkeypatch.undo()

    assert cli.main(arguments) == 1
    assert "1 images, 1 with errors" in capsys.readouterr().out


def test_the_result_is_on_the_disk_before_its_parts_are_removed(
    begun: tuple[list[str], Path, Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, result, how = begun
    calls: list[tuple[str, str]] = []
    sync, replace_path, unlink = os.fsync, Path.replace, Path.unlink

    def record(name: str, path: Path) -> None:
        calls.append((name, path.name))

    def fsync(file: int) -> None:
        record("fsync", Path(f"/proc/self/fd/{file}").readlink())
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda old, new: (record("replace", old), replace_path(old, new)))
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (record("unlink", path), unlink(path, **how)))
    classify(sources, result, how, workers=1)

    appears = calls.index(("replace", "joined"))
    assert ("fsync", "joined") in calls[:appears]
    assert ("fsync", f"{result.name}.parts") in calls[calls.index(("fsync", "joined")) : appears]  # `finished` is there
    assert ("fsync", result.parent.name) in calls[appears : calls.index(("unlink", "00000000.jsonl"))]


def test_shell_patterns_that_name_the_parts_are_resumed(begun: tuple[list[str], Path, Options]) -> None:
    sources, result, how = begun

    assert classify([*sources, f"{result}.parts"], result, how, workers=1) == (CHUNK + 2, 0)


@pytest.mark.parametrize("names", [["notes.txt"], ["lock", "notes.txt"], ["00000000.jsonl"], ["job.json"]])
def test_a_folder_of_somebody_else_is_refused_and_kept(names: list[str], package: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "photos", 1)[0]
    folder = tmp_path / "a.jsonl.parts"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("precious")

    with pytest.raises(ClassifyError, match=rf"a\.jsonl\.parts.* {names[-1]}"):
        classify([str(source)], tmp_path / "a.jsonl", options(package), workers=1)

    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(names, "precious")


def test_files_that_others_write_into_the_folder_are_kept(begun: tuple[list[str], Path, Options]) -> None:
    sources, result, how = begun
    folder = result.with_name("a.jsonl.parts")
    for name in (".DS_Store", "Thumbs.db"):
        (folder / name).touch()

    classify(sources, result, how, workers=1, report=lambda *_: (folder / "notes.txt").touch())

    assert sorted(path.name for path in folder.iterdir()) == [".DS_Store", "Thumbs.db", "notes.txt"]


def test_a_result_that_appears_meanwhile_is_kept(begun: tuple[list[str], Path, Options]) -> None:
    sources, result, how = begun

    def write(done: int, total: int) -> None:
        if done == total:
            result.write_text("precious")

    with pytest.raises(ClassifyError, match=result.name):
        classify(sources, result, how, workers=1, report=write)

    assert result.read_text() == "precious"
    result.unlink()
    assert classify(sources, result, how, workers=1) == (CHUNK + 2, 0)


def test_a_link_to_a_result_that_does_not_exist_yet_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "a.csv"
    link.symlink_to(tmp_path / "disk" / "b.csv")

    with Parts(link) as parts:
        parts.check_job({})
        assert (tmp_path / "disk" / "b.csv.parts").is_dir()
        assert parts.holds(link)
        parts.finish(lambda path: Count(path.write_text("rows"), 0))

    assert link.is_symlink()
    assert (tmp_path / "disk" / "b.csv").read_text() == link.read_text() == "rows"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "disk"]


def test_a_large_row_group_is_finished_in_parts(tmp_path: Path, package_folder: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(number % 5) for number in range(2500)])
    result, how = tmp_path / "a.jsonl", options(package_folder)

    with pytest.raises(InterruptedError):
        classify([str(path)], result, how, workers=1, report=stop_after_the_first)
    assert classify([str(path)], result, how, workers=2) == (2500, 0)

    assert [row["source"] for row in read_rows(result)] == [f"{path}/{number}" for number in range(2500)]
