"""What holds for all commands: help, wrong usage, interruption, pipes, a full disk."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pdeinfer.cli import main as cli
from pdeinfer.package import zoo
from pdeinfer.version import __version__
from tests.cli.helpers import Captured
from tests.documents import ROOT
from tests.images.image_makers import png


class TestProcess:
    """All commands."""

    @pytest.mark.parametrize("command", ["list", "predict", "inspect", "verify", "evaluate", "export", "train"])
    def test_help_shows_examples(self, command: str, capsys: Captured) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0
        assert f"examples:\n  pdeinfer {command}" in capsys.readouterr().out

    def test_the_version_is_printed(self, capsys: Captured) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["--version"])
        assert (stopped.value.code, capsys.readouterr().out) == (0, f"pdeinfer {__version__}\n")

    @pytest.mark.parametrize("arguments", [[], ["nope"], ["predict"], ["export", "x"], ["verify"], ["list", "x"]])
    def test_wrong_usage_is_exit_code_2(self, arguments: list[str], capsys: Captured) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("usage: pdeinfer")

    @pytest.mark.parametrize("arguments", ["evaluate digits-pde --data-dir", "train --out", "classify a --out"])
    def test_an_empty_path_is_not_taken_for_the_current_folder(self, arguments: str, capsys: Captured) -> None:
        with pytest.raises(SystemExit):
            cli.main([*arguments.split(), ""])
        assert f"{arguments.rsplit(maxsplit=1)[-1]}: expected a path, got ''" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", ["export x --output s3://bucket/a", "classify a --out s3://bucket/a.csv"])
    def test_a_url_is_not_taken_for_a_local_path(self, arguments: str, capsys: Captured) -> None:
        with pytest.raises(SystemExit):
            cli.main(arguments.split())
        assert f"got a URL: {arguments.rsplit(maxsplit=1)[-1]}" in capsys.readouterr().err

    def test_an_interruption_is_exit_code_130_without_a_traceback(
        self, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def names() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(zoo, "names", names)
        assert cli.main(["list"]) == 130
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(("command", "code"), [("predict", 130), ("train", 130), ("serve", 0)])
    def test_ctrl_c_while_the_command_is_imported_ends_it_quietly(
        self, command: str, code: int, tmp_path: Path
    ) -> None:
        """NumPy is the first large library that each imports."""
        (tmp_path / "numpy.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
        done = subprocess.run(
            [sys.executable, "-m", "pdeinfer", command, "a.png"],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        )
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")

    @pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system cannot block signals")
    @pytest.mark.parametrize("command", ["predict", "classify"])
    def test_ctrl_c_does_not_reach_the_processes_that_a_command_starts(
        self, command: str, images: Path, package_folder: Path, tmp_path: Path
    ) -> None:
        """They get it before their own code runs, as when a terminal sends it to all of the group."""
        (tmp_path / "sitecustomize.py").write_text(
            "import os, signal, sys\n"
            "if 'pdeinfer' not in sys.orig_argv:\n"
            "    open(os.path.join(os.path.dirname(__file__), str(os.getpid())), 'w').close()\n"
            "    signal.raise_signal(signal.SIGINT)\n"
        )
        arguments = [command, str(images / "a.png"), "--isolate", "--model", str(package_folder), "--device", "cpu"]
        arguments += ["--out", str(tmp_path / "a.csv"), "--workers", "1"] if command == "classify" else []
        done = subprocess.run(
            [sys.executable, "-m", "pdeinfer", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        )
        assert (done.returncode, done.stderr) == (0, "")
        started = [path for path in tmp_path.iterdir() if path.name.isdecimal()]
        assert len(started) == {"predict": 1, "classify": 3}[command]  # decoding; also a worker and Python's tracker

    def test_a_reader_that_stops_early_is_no_error(self, images: Path, package_folder: Path) -> None:
        paths = [str(images / "a.png")] * 2000  # more output than a pipe holds
        process = subprocess.Popen(
            [sys.executable, "-m", "pdeinfer", "predict", *paths, "--model", str(package_folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.read() == b""
        assert process.wait() == 1

    @pytest.mark.parametrize(("error", "line"), [(MemoryError("of a run"), "of a run"), (MemoryError(), "MemoryError")])
    def test_too_little_memory_is_one_line_and_exit_code_2(
        self, error: MemoryError, line: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: object) -> int:
            raise error

        monkeypatch.setattr(cli, "_run", fail)
        assert cli.main(["list"]) == 2
        assert capsys.readouterr().err == f"pdeinfer: error: {line}\n"

    @pytest.mark.parametrize("command", ["-m pdeinfer list", "-m pdeinfer --version", "-m training.run --help"])
    def test_a_full_disk_is_one_line_and_exit_code_2(self, command: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        with Path("/dev/full").open("w") as full:
            result = subprocess.run(
                [sys.executable, *command.split()],
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (result.returncode, result.stderr) == (2, "pdeinfer: error: [Errno 28] No space left on device\n")

    @pytest.mark.parametrize("arguments", ["predict", "predict no-such-file", "list --nope"])
    def test_errors_that_nobody_can_read_keep_their_exit_code(self, arguments: str) -> None:
        command = [sys.executable, "-m", "pdeinfer", *arguments.split()]
        with Path("/dev/full").open("w") as full:
            assert subprocess.run(command, stderr=full, check=False).returncode == 2

    def test_an_image_of_too_many_pixels_is_one_line(self, tmp_path: Path, package_folder: Path) -> None:
        (tmp_path / "big.png").write_bytes(png(10_000, 10_000, 8, 2, b""))
        command = [sys.executable, "-m", "pdeinfer", "predict", tmp_path / "big.png", "--model", str(package_folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        (line,) = result.stderr.splitlines()
        assert result.returncode == 1
        assert line.endswith("expected at most 64000000 pixels, got 10000 x 10000")

    def test_predicting_imports_neither_training_nor_serving_code(self, images: Path, package_folder: Path) -> None:
        program = (
            "import sys; from pdeinfer.cli.main import main; code = main(sys.argv[1:]);"
            "heavy = {'tensorflow', 'keras', 'tf2onnx', 'onnx', 'fastapi', 'pydantic', 'serving', 'training'};"
            "sys.exit(f'imported {heavy & sys.modules.keys()}' if heavy & sys.modules.keys() else code)"
        )
        arguments = ["predict", str(images / "a.png"), "--model", str(package_folder)]
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(str(images / "a.png"))

    @pytest.mark.parametrize(("redirection", "output"), [(">&-", ""), ("2>&-", "digits-pde")])
    def test_a_closed_stream_is_like_the_null_device(self, redirection: str, output: str) -> None:
        command = ["sh", "-c", f'"$0" -m pdeinfer list {redirection}', sys.executable]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert output in done.stdout
