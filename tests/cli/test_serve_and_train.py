"""`pdeinfer serve` and `pdeinfer train` pass their arguments on and name what is missing."""

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pdeinfer.cli import main as cli
from tests.cli.helpers import Captured
from training import run as training_run


class TestServe:
    """pdeinfer serve."""

    def test_the_server_receives_its_arguments_and_returns_the_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        received = []
        server = SimpleNamespace(main=lambda arguments: received.append(arguments) or 7)
        monkeypatch.setitem(sys.modules, "serving.process.run", server)
        assert cli.main(["serve", "digits-pde", "--port", "9000"]) == 7
        assert received == [["digits-pde", "--port", "9000"]]

    @pytest.mark.parametrize("package", ["fastapi", "uvicorn", "pydantic_settings"])
    def test_a_missing_dependency_is_named_with_the_install_command(self, package: str) -> None:
        start = "from pdeinfer.cli import main as cli; sys.exit(cli.main(['serve']))"
        program = f"import sys; sys.modules[{package!r}] = None; {start}"
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith(f"pdeinfer: error: serving needs {package}")
        assert result.stderr.endswith("pip install 'pdeinfer[serve]'\n")

    def test_an_error_in_the_server_is_not_mistaken_for_a_missing_package(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "serving.process.run", None)
        with pytest.raises(ModuleNotFoundError):
            cli.main(["serve"])


class TestTrain:
    """pdeinfer train."""

    def test_training_receives_its_arguments_and_returns_the_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        received = []
        training = SimpleNamespace(main=lambda arguments: received.append(arguments) or 7)
        monkeypatch.setitem(sys.modules, "training.run", training)
        assert cli.main(["train", "mnist-pde", "--epochs", "1"]) == 7
        assert received == [["mnist-pde", "--epochs", "1"]]

    def test_an_output_that_nobody_reads_ends_it_with_how_to_resume(
        self, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: object) -> int:
            (tmp_path / "run.json").touch()
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        monkeypatch.setattr(training_run, "_train", fail)
        assert cli.main(["train", "--out", str(tmp_path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "Broken" not in line
        assert line.endswith(f"pdeinfer train --out {tmp_path} --resume")

    def test_it_has_the_arguments_of_training_run(self, capsys: Captured) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "--help"])
        assert stopped.value.code == 0
        assert "--data-parallel" in capsys.readouterr().out

    @pytest.mark.parametrize("package", ["keras", "matplotlib"])
    def test_a_missing_dependency_is_named_with_the_install_command(self, package: str, tmp_path: Path) -> None:
        if package != "keras":  # which is imported first
            pytest.importorskip("keras", exc_type=ImportError)
        program = f"import sys; sys.modules[{package!r}] = None; from pdeinfer.cli.main import main; "
        program += "sys.exit(main(['train', '--epochs', '1']))"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert package in line
        assert line.endswith("pip install 'pdeinfer[train]'")

    @pytest.mark.parametrize(("command", "package"), [("train", "training"), ("serve", "serving")])
    def test_a_package_of_the_same_name_in_the_users_project_is_named(
        self, command: str, package: str, tmp_path: Path
    ) -> None:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        result = subprocess.run(
            [sys.executable, "-m", "pdeinfer", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        (line,) = result.stderr.splitlines()
        assert result.returncode == 2
        assert str(tmp_path / package / "__init__.py") in line
