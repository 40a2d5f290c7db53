"""`pdeinfer verify`: each check is one line, and a failed one is exit code 1."""

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from pdeinfer.checks.report import Comparison, Report
from pdeinfer.cli import main as cli
from pdeinfer.errors import BackendError, MissingDependencyError
from pdeinfer.package import zoo
from pdeinfer.package.package import FIELDS_FILE, ONNX_FILE, ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.predictor import Predictor
from tests.cli.helpers import Captured, error_lines
from tests.graph.nested import write_nested_functions
from tests.runtime.cuda_on_cpu import CudaOnCpu


class TestVerify:
    """pdeinfer verify."""

    @staticmethod
    def parity(difference: float) -> list[Report]:
        comparison = Comparison("noise", 64, difference, difference, batch_size=1, top1_equal=64)
        return [Report("probabilities", "Keras", ONNX_FILE, 1e-5, (comparison,))]

    def test_each_check_is_one_line(
        self, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pdeinfer.export.verification.verify_package", lambda _: self.parity(1e-7))
        assert cli.main(["verify", str(package_folder)]) == 0
        checksums, prediction, reference, rules, checker, parity = capsys.readouterr().out.splitlines()
        assert checksums == "checksums: ok, 1 file"
        assert prediction.startswith("prediction: ok, ONNX Runtime ")
        assert prediction.endswith(" on cpu")
        assert reference.startswith("reference: skipped, ")
        assert rules == "graph rules: ok, 4 nodes in model.onnx"
        assert checker == f"onnx checker: ok, onnx {onnx.__version__}"
        assert parity == "parity: ok, model.onnx within 1.0e-07 of Keras"

    def test_a_bundled_package_equals_its_reference(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pdeinfer.export.verification.verify_package", lambda _: self.parity(1e-7))
        assert cli.main(["verify", "digits-pde"]) == 0
        _, _, reference, *_ = capsys.readouterr().out.splitlines()
        assert reference.startswith("reference: ok, model.onnx on cpu, ONNX Runtime ")

    def test_the_device_predicts_and_is_compared_with_the_reference(
        self, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnCpu())
        monkeypatch.setattr("pdeinfer.export.verification.verify_package", lambda _: self.parity(1e-7))
        assert cli.main(["verify", "digits-pde", "--device", "cuda"]) == 0
        _, prediction, reference, *_ = capsys.readouterr().out.splitlines()
        assert prediction.endswith(" on cuda:0")
        assert reference.startswith("reference: ok, model.onnx on cuda:0, ")

    def test_a_device_that_cannot_be_used_is_exit_code_2(self, capsys: Captured) -> None:
        assert cli.main(["verify", "digits-pde", "--device", "cuda:99"]) == 2
        assert "cuda:99" in error_lines(capsys)[0]

    def test_on_another_device_a_missing_reference_is_exit_code_1(
        self, package_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnCpu())
        monkeypatch.setattr("pdeinfer.export.verification.verify_package", lambda _: self.parity(1e-7))
        assert cli.main(["verify", str(package_folder), "--device", "cuda"]) == 1
        assert cli.main(["verify", str(package_folder), "--device", "cuda", "--allow-skipped"]) == 0

    def test_a_changed_file_fails_and_is_not_loaded(
        self, package_folder: Path, tmp_path: Path, capsys: Captured
    ) -> None:
        folder = Path(shutil.copytree(package_folder, tmp_path / "p"))
        (folder / ONNX_FILE).write_bytes(b"x" * (folder / ONNX_FILE).stat().st_size)
        assert cli.main(["verify", str(folder)]) == 1
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"checksums: FAILED, {folder / ONNX_FILE} is damaged: ")

    def test_a_network_that_computes_nan_fails(
        self, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Predictor, "predict_proba", lambda *_: np.full((1, 10), np.nan, np.float32))
        assert cli.main(["verify", str(package_folder)]) == 1
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"prediction: FAILED, {ONNX_FILE}: ")

    def test_a_file_that_onnx_rejects_fails(
        self, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pdeinfer.export.verification.broken_rules", lambda *_: ["onnx.checker: no", "inputs: two"])
        assert cli.main(["verify", str(package_folder)]) == 1
        line = capsys.readouterr().out.splitlines()[-1]
        assert line == "onnx checker: FAILED, model.onnx: onnx.checker: no; inputs: two"

    def test_a_difference_above_the_tolerance_fails(
        self, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pdeinfer.export.verification.verify_package", lambda _: self.parity(1e-3))
        assert cli.main(["verify", str(package_folder)]) == 1
        line = capsys.readouterr().out.splitlines()[-1]
        assert line == "parity: FAILED, model.onnx within 1.0e-03 of Keras (tolerance 1e-05)"

    @pytest.mark.parametrize(("options", "code"), [([], 1), (["--allow-skipped"], 0)])
    def test_checks_without_their_dependency_are_skipped_and_named_last(
        self, options: list[str], code: int, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def verify_package(_: object) -> None:
            raise MissingDependencyError("tensorflow", "train", "parity")

        monkeypatch.setattr("pdeinfer.export.verification.verify_package", verify_package)
        monkeypatch.setitem(sys.modules, "onnx", None)
        assert cli.main(["verify", str(package_folder), *options]) == code
        *_, rules, checker, parity, last = capsys.readouterr().out.splitlines()
        assert rules == "graph rules: ok, 4 nodes in model.onnx"
        assert checker.startswith("onnx checker: skipped, checking the ONNX files needs onnx")
        assert parity.startswith("parity: skipped, parity needs tensorflow")
        assert last.startswith("3 of 6 checks were skipped: reference, onnx checker, parity")

    def test_a_failed_check_is_exit_code_1_although_skipped_checks_are_allowed(
        self, package_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnx", None)
        monkeypatch.setattr("pdeinfer.export.verification.verify_package", lambda _: self.parity(1e-3))
        assert cli.main(["verify", str(package_folder), "--allow-skipped"]) == 1

    def test_parity_is_skipped_if_keras_runs_on_another_backend(
        self, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def verify_package(_: object) -> None:
            raise BackendError("export needs KERAS_BACKEND=tensorflow; Keras runs on jax")

        monkeypatch.setattr("pdeinfer.export.verification.verify_package", verify_package)
        assert cli.main(["verify", str(package_folder)]) == 1
        assert "parity: skipped, export needs KERAS_BACKEND=tensorflow; Keras runs on jax" in (
            capsys.readouterr().out.splitlines()
        )

    def test_a_fields_file_that_is_not_onnx_fails(self, tmp_path: Path, capsys: Captured) -> None:
        folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
        (folder / FIELDS_FILE).write_bytes(b"not an ONNX file")
        write_card(folder, ModelPackage.read(folder).card)
        assert cli.main(["verify", str(folder)]) == 1
        assert (
            f"graph rules: FAILED, {folder / FIELDS_FILE}: the model is not an ONNX file"
            in capsys.readouterr().out.splitlines()[-1]
        )

    def test_a_broken_graph_rule_fails_without_onnx(
        self, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
        write_nested_functions(folder / FIELDS_FILE)
        write_card(folder, ModelPackage.read(folder).card)
        monkeypatch.setitem(sys.modules, "onnx", None)
        assert cli.main(["verify", str(folder), "--allow-skipped"]) == 1
        assert "graph rules: FAILED, fields.onnx: the model defines" in capsys.readouterr().out.splitlines()[-1]

    def test_onnx_is_not_given_a_file_of_nested_functions(
        self, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
        write_nested_functions(folder / FIELDS_FILE)
        write_card(folder, ModelPackage.read(folder).card)

        def check_model(model: onnx.ModelProto, **_: object) -> None:
            assert len(model.functions) < 2  # it would run for hours

        monkeypatch.setattr(onnx.checker, "check_model", check_model)
        assert cli.main(["verify", str(folder)]) == 1
        assert "graph rules: FAILED, fields.onnx: the model defines" in capsys.readouterr().out.splitlines()[-1]

    def test_text_of_a_package_cannot_forge_lines(self, package: Path, capsys: Captured) -> None:
        (package / "extra\nparity: ok\x1b[8m").touch()
        assert cli.main(["verify", str(package)]) == 1
        (line,) = capsys.readouterr().out.splitlines()
        assert line.endswith(r"extra\nparity: ok\x1b[8m")

    def test_a_damaged_card_is_a_failed_check(self, package: Path, capsys: Captured) -> None:
        card = package / "card.json"
        card.write_text(card.read_text().replace("tiny-grey", "tiny-gray"))
        assert cli.main(["verify", str(package)]) == 1
        assert capsys.readouterr().out.startswith(f"card: FAILED, {card} is damaged")

    def test_a_folder_that_is_not_a_package_is_exit_code_2(self, tmp_path: Path, capsys: Captured) -> None:
        assert cli.main(["verify", str(tmp_path)]) == 2
        (line,) = error_lines(capsys)
        assert str(tmp_path) in line
