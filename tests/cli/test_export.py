"""`pdeinfer export`: its options and exit codes; `tests/export` tests what it writes."""

import signal
from pathlib import Path

import pytest

from pdeinfer.checks.report import Report
from pdeinfer.cli import main as cli
from pdeinfer.errors import ExportError, ParityError
from pdeinfer.package import zoo
from pdeinfer.package.package import ModelPackage
from pdeinfer.package.writing import new_package
from tests.cli.helpers import Captured, error_lines


class TestExport:
    """pdeinfer export."""

    @pytest.mark.parametrize(
        ("options", "given"),
        [
            ([], {}),
            (["--inline"], {"inline": True}),
            (["--format", "saved_model"], {"saved_model": True}),
            (["--format", "all", "--force"], {"saved_model": True, "force": True}),
            (["--format", "litert"], {"litert": True}),
            (["--calibrate", "photos"], {"calibrate": Path("photos")}),
        ],
    )
    def test_options_reach_the_exporter_and_its_reports_are_printed(
        self, options: list[str], given: dict[str, bool], capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def export_package(*args: object, **kwargs: object) -> list[Report]:
            calls.append((args, kwargs))
            return [Report("probabilities", "Keras", "the report", None, ())]

        monkeypatch.setattr("pdeinfer.cli.export.export_package", export_package)
        assert cli.main(["export", "runs/x", "-o", "build/x", *options]) == 0
        switches = dict.fromkeys(("inline", "saved_model", "litert", "temperature", "force"), False)
        expected = {**switches, "calibrate": None}
        assert calls == [(("runs/x", Path("build/x")), expected | given)]
        assert capsys.readouterr().out.startswith("the report against Keras\n")

    @pytest.mark.parametrize(
        ("output", "model"), [("build/x", "build/x"), (zoo.DEFAULT_MODEL, f"./{zoo.DEFAULT_MODEL}")]
    )
    def test_the_next_command_names_the_new_package_and_not_a_bundled_model(
        self, output: str, model: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pdeinfer.cli.export.export_package", lambda *_, **__: [])
        assert cli.main(["export", "runs/x", "-o", output]) == 0
        assert capsys.readouterr().out.endswith(f"--model {model}\n")

    def test_sigterm_removes_the_folder_that_is_being_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def export_package(_: object, output: Path, **__: object) -> None:
            with new_package(output):
                assert len(list(tmp_path.iterdir())) == 1
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr("pdeinfer.cli.export.export_package", export_package)
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            cli.main(["export", "runs/x", "-o", str(tmp_path / "p")])
        assert caught.value.code == 143
        assert list(tmp_path.iterdir()) == []
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize(
        ("output", "options"),
        [("repository", []), ("a/b", []), ("repository", ["--format", "triton"]), (".", ["--format", "triton"])],
    )
    def test_a_folder_inside_a_package_is_refused(
        self, output: str, options: list[str], package: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(package)
        assert cli.main(["export", ".", "-o", output, *options]) == 2
        assert "expected an output outside the model package" in error_lines(capsys)[0]
        ModelPackage.read(package).verify_checksums()

    @pytest.mark.parametrize(("error", "code"), [(ParityError, 1), (ExportError, 2)])
    def test_a_parity_error_is_exit_code_1_and_an_export_error_2(
        self, error: type[Exception], code: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def export_package(*_: object, **__: object) -> None:
            raise error("why")

        monkeypatch.setattr("pdeinfer.cli.export.export_package", export_package)
        assert cli.main(["export", "runs/x", "-o", "build/x"]) == code
        assert error_lines(capsys) == ["pdeinfer: error: why"]
