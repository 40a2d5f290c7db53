"""`make demo` prints a row for each step, names a step that fails, and leaves no process running."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest

from pdeinfer import Predictor
from scripts import demo
from tests.servers import ROOT
from tests.waiting import wait_until

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the demo's folder, with the output of an earlier demo and a file of the user's."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    (tmp_path / "demo/run").mkdir(parents=True)
    (tmp_path / "demo/run/run.json").write_text("{}")
    (tmp_path / "demo/notes.txt").write_text("mine")
    yield tmp_path / "demo"
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_every_step_prints_a_row_and_the_server_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(demo, "TRAIN", (*demo.TRAIN, "--epochs", "2"))

    assert demo.main() == 0

    output = capsys.readouterr().out
    steps = re.findall(r"^  ([a-z]+) .+ \d+\.\d$", output, re.MULTILINE)
    assert steps == ["train", "export", "serve", "classify", "stop"]
    assert "2 epochs" in output
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(re.findall(r"http://[\d.:]+", output)[0])


def test_a_failed_step_exits_with_1_and_shows_its_name_and_the_end_of_its_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    program = "print('first'); print('\\n' * 30 + 'no data'); raise SystemExit(3)"
    monkeypatch.setattr(demo, "TRAIN", (sys.executable, "-c", program))

    assert demo.main() == 1

    error = capsys.readouterr().err
    assert "the step 'train' failed: exit code 3" in error
    assert f"The end of {folder / 'train.log'}:" in error
    assert error.rstrip().endswith("no data")
    assert "first" not in error


def test_a_terminated_demo_stops_its_child_processes(tmp_path: Path) -> None:
    started = "import time\nwhile True: print('.', flush=True); time.sleep(0.02)"
    program = (
        "import pathlib, sys; from scripts import demo;"
        f"demo.FOLDER = pathlib.Path({str(tmp_path)!r}); demo.TRAIN = (sys.executable, '-c', {started!r});"
        "sys.exit(demo.main())"
    )
    log = tmp_path / "train.log"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: (log.exists() and log.stat().st_size) or process.poll() is not None)
        process.terminate()
        _, error = process.communicate(timeout=30)

    assert process.returncode == 130
    assert error.strip() == "demo: interrupted"
    size = log.stat().st_size
    time.sleep(0.5)
    assert log.stat().st_size == size


def test_an_interruption_stops_the_server(tmp_path: Path, package_folder: Path) -> None:
    processes = []

    def interrupted() -> None:
        with demo.server(tmp_path / "log", package_folder) as process:
            processes.append(process)
            assert demo.wait_until_ready(process, tmp_path / "log").startswith("http://127.0.0.1:")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert [process.poll() for process in processes] == [-signal.SIGKILL]


def test_answers_that_differ_in_order_length_label_or_score_are_unequal(package_folder: Path) -> None:
    with Predictor(package_folder, device="cpu") as predictor:
        prediction = predictor.predict(np.full((8, 8, 1), 90, np.uint8))
    first, second, *rest = prediction.top

    assert demo.is_equal(prediction.to_dict(), prediction)
    for top in (
        (second, first, *rest),
        (first, second),
        (replace(first, label="other"), second, *rest),
        (replace(first, score=first.score + 1e-5), second, *rest),
    ):
        assert not demo.is_equal(replace(prediction, top=top).to_dict(), prediction)
