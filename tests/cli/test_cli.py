"""The command line: output, exit codes, and errors on one line."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from pdeinfer.checks.report import Comparison, Report
from pdeinfer.cli import main as cli
from pdeinfer.errors import BackendError, ExportError, MissingDependencyError, ParityError
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.package import zoo
from pdeinfer.package.package import FIELDS_FILE, ONNX_FILE, ModelPackage, write_card
from pdeinfer.predictor import Predictor
from pdeinfer.version import __version__
from tests.conftest import GREY_PRESET, write_tiny_package
from tests.images.image_makers import gif_of_comments, heic, png
from tests.runtime.cuda_on_cpu import CudaOnCpu

Captured = pytest.CaptureFixture[str]

needs_terminal = pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images, one of them truncated."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        PIL.Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(folder / name)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:100])
    return folder


def error_lines(capsys: Captured) -> list[str]:
    return capsys.readouterr().err.splitlines()


class TestPredict:
    """pdeinfer predict."""

    def test_an_image_is_one_line(self, images: Path, package_folder: Path, capsys: Captured) -> None:
        path = images / "a.png"
        assert cli.main(["predict", str(path), "--model", str(package_folder), "--top-k", "2"]) == 0
        with Predictor(package_folder) as predictor:
            first, second = predictor.predict(path, top_k=2).top
        expected = f"{path}: {first.label} {first.score:.1%}, {second.label} {second.score:.1%}\n"
        assert capsys.readouterr() == (expected, "")

    def test_json_is_one_object_per_line_and_image(self, images: Path, package_folder: Path, capsys: Captured) -> None:
        paths = [str(images / "a.png"), str(images / "c.png")]
        assert cli.main(["predict", *paths, "--model", str(package_folder), "--json", "--device", "cpu"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        with Predictor(package_folder) as predictor:
            expected = [{"image": path, **predictor.predict(path).to_dict()} for path in paths]
        assert lines == expected

    def test_csv_is_a_table_of_the_best_classes(self, images: Path, package_folder: Path, capsys: Captured) -> None:
        shutil.copy(images / "a.png", images / 'a, "quoted".png')
        assert cli.main(["predict", str(images), "--model", str(package_folder), "--csv"]) == 1
        header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
        assert header == ["image", "label", "index", "score"]
        with Predictor(package_folder) as predictor:
            for row, name in zip(rows, ('a, "quoted".png', "a.png", "c.png"), strict=True):
                best = predictor.predict(images / name)
                assert row[:3] == [str(images / name), best.label, str(best.index)]
                assert float(row[3]) == pytest.approx(best.score, abs=1e-6)

    @pytest.mark.parametrize("threshold", ["0", "1"])
    def test_an_answer_below_the_threshold_has_no_label(
        self, threshold: str, images: Path, package_folder: Path, capsys: Captured
    ) -> None:
        arguments = ["predict", str(images / "a.png"), "--model", str(package_folder), "--threshold", threshold]
        outputs = []
        for options in ([], ["--json"], ["--csv"]):
            assert cli.main([*arguments, *options]) == 0
            outputs.append(capsys.readouterr().out)
        is_known = threshold == "0"
        assert (": unknown (" in outputs[0]) is not is_known
        values = json.loads(outputs[1])
        assert (values["label"] == values["top"][0]["label"]) is is_known
        assert (values["index"] is not None) is is_known
        (row,) = csv.DictReader(io.StringIO(outputs[2]))
        assert (row["label"] != "", row["index"] != "") == (is_known, is_known)

    @pytest.mark.parametrize("threshold", ["-1", "1.5", "nan", "x"])
    def test_a_threshold_outside_0_to_1_is_a_usage_error(self, threshold: str, capsys: Captured) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["predict", "a.png", f"--threshold={threshold}"])
        assert caught.value.code == 2
        assert "from 0 to 1" in capsys.readouterr().err

    @needs_terminal
    @pytest.mark.parametrize("redirects", [True, False])
    def test_a_terminal_shows_progress_while_the_output_goes_elsewhere(
        self, redirects: bool, images: Path, package_folder: Path, tmp_path: Path
    ) -> None:
        paths = [str(images / "a.png")] * 3
        program = "import sys; from pdeinfer.cli import main, output; output._SECONDS = 0; main.main(sys.argv[1:])"
        command = [sys.executable, "-c", program, "predict", *paths, "--model", str(package_folder), "--csv"]
        parent, child = os.openpty()
        with (tmp_path / "out.csv").open("w") as file:
            subprocess.run(command, stdout=file if redirects else child, stderr=child, stdin=child, check=True)
        os.close(child)
        shown = os.read(parent, 100_000).decode()
        os.close(parent)
        assert bool(re.search(r"3 of 3 images, [\d,]+/s, 0:00 left", shown)) is redirects
        assert len((tmp_path / "out.csv").read_text().splitlines()) == (4 if redirects else 0)
        if redirects:
            assert shown.endswith("\r\x1b[K")

    def test_a_bad_image_is_an_error_line_and_the_others_are_classified(
        self, images: Path, package_folder: Path, capsys: Captured
    ) -> None:
        too_long = "x" * 300
        arguments = ["predict", str(images), "/no/such.png", too_long, "--model", str(package_folder), "--json"]
        assert cli.main(arguments) == 1
        output = capsys.readouterr()
        answered = [json.loads(line)["image"] for line in output.out.splitlines()]
        assert answered == [str(images / "a.png"), str(images / "c.png")]
        first, second, third = output.err.splitlines()
        assert first.startswith(f"pdeinfer: error: {images / 'b.png'}: ")
        assert second.startswith("pdeinfer: error: /no/such.png: ")
        assert third.startswith(f"pdeinfer: error: {too_long}: ")

    def test_a_file_name_of_two_lines_is_one_error_line(self, package_folder: Path, capsys: Captured) -> None:
        assert cli.main(["predict", "two\nlines.png", "--model", str(package_folder)]) == 1
        (line,) = error_lines(capsys)
        assert "two lines.png" in line

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_nan_is_an_error_line_and_not_a_prediction(
        self, options: list[str], images: Path, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Predictor, "_run", lambda _, __, pixels: np.full((len(pixels), 10), np.nan, np.float32))
        assert cli.main(["predict", str(images / "a.png"), "--model", str(package_folder), *options]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{images / 'a.png'}: the network" in err

    def test_a_file_name_that_is_not_utf_8_is_escaped(self, images: Path, package_folder: Path) -> None:
        name = os.fsdecode(os.fsencode(images) + b"/caf\xe9.png")
        shutil.copy(images / "a.png", name)
        command = [sys.executable, "-m", "pdeinfer", "predict", name, "--model", str(package_folder)]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
        for options in ([], ["--json"]):
            result = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=True)
            assert r"caf\udce9.png" in result.stdout
        assert json.loads(result.stdout)["image"] == name

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_json_does_not_depend_on_the_output_encoding(
        self, images: Path, package_folder: Path, encoding: str
    ) -> None:
        name = images / "caf\xe9 \N{GRINNING FACE}.png"
        shutil.copy(images / "a.png", name)
        command = [sys.executable, "-m", "pdeinfer", "predict", name, "--model", str(package_folder), "--json"]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        result = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert json.loads(result.stdout.decode(encoding))["image"] == str(name)

    def test_a_folder_without_images_is_exit_code_1(
        self, tmp_path: Path, package_folder: Path, capsys: Captured
    ) -> None:
        assert cli.main(["predict", str(tmp_path), "--model", str(package_folder)]) == 1
        assert error_lines(capsys)[0].endswith("found none")

    def test_a_folder_names_and_counts_what_is_left_out_and_recursive_takes_it(
        self, tmp_path: Path, package_folder: Path, capsys: Captured
    ) -> None:
        photos = tmp_path / "photos"
        (photos / "below").mkdir(parents=True)
        for name in ("a.jfif", "below/b.jpe"):
            PIL.Image.new("L", (8, 8)).save(photos / name, "JPEG")
        (photos / "notes.txt").write_text("hello")
        arguments = ["predict", str(photos), "--model", str(package_folder), "--top-k", "1"]

        assert cli.main(arguments) == 0
        output = capsys.readouterr()
        assert [line.partition(": ")[0] for line in output.out.splitlines()] == [str(photos / "a.jfif")]
        assert str(photos / "below") in output.err
        assert str(photos / "notes.txt") in output.err
        assert output.err.splitlines()[-1].endswith(": 2")

        assert cli.main([*arguments, "--recursive"]) == 0
        output = capsys.readouterr()
        assert len(output.out.splitlines()) == 2
        assert output.err.splitlines()[-1].endswith(": 1")

    def test_names_match_predictions_across_batches(self, images: Path, package_folder: Path, capsys: Captured) -> None:
        paths = [str(images / name) for name in ("a.png", "c.png", "b.png")] * 30
        assert cli.main(["predict", *paths, "--model", str(package_folder), "--json"]) == 1
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["image"] for line in lines] == [path for path in paths if not path.endswith("b.png")]
        assert len({(line["image"], line["label"], round(line["score"], 5)) for line in lines}) == 2

    def test_an_unknown_model_and_device_are_exit_code_2(
        self, images: Path, package_folder: Path, capsys: Captured
    ) -> None:
        path = str(images / "a.png")
        assert cli.main(["predict", path, "--model", "nope"]) == 2
        (line,) = error_lines(capsys)
        assert "'nope'" in line
        assert cli.main(["predict", path, "--model", str(package_folder), "--device", "tpu"]) == 2
        (line,) = error_lines(capsys)
        assert "'tpu'" in line

    def test_an_isolated_image_that_costs_too_much_is_an_error_and_the_others_are_classified(
        self, tmp_path: Path, package_folder: Path, capsys: Captured
    ) -> None:
        (tmp_path / "bomb.gif").write_bytes(gif_of_comments(60_000_000))
        PIL.Image.new("L", (20, 20), 200).save(tmp_path / "image.png")
        code = cli.main(["predict", str(tmp_path), "--isolate", "--model", str(package_folder), "--json"])
        output = capsys.readouterr()

        assert code == 1
        assert "bomb.gif: decoding it took more memory" in output.err
        with Predictor(package_folder) as predictor:
            expected = predictor.predict(tmp_path / "image.png").to_dict()
        assert json.loads(output.out) == {"image": str(tmp_path / "image.png"), **expected}

    def test_heic_photos_are_classified(self, tmp_path: Path, package_folder: Path, capsys: Captured) -> None:
        (tmp_path / "a.heic").write_bytes(content := heic(PIL.Image.new("RGB", (20, 20), "red")))
        with IsolatedDecoders() as decoders, Predictor(package_folder) as predictor:
            expected = predictor.predict(decoders.to_array(content, predictor.info().input)).to_dict()

        assert cli.main(["predict", str(tmp_path), "--model", str(package_folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"image": str(tmp_path / "a.heic"), **expected}

    def test_a_missing_precision_is_exit_code_2(self, images: Path, package_folder: Path, capsys: Captured) -> None:
        options = ["--model", str(package_folder), "--precision", "int8"]
        assert cli.main(["predict", str(images / "a.png"), *options]) == 2
        (line,) = error_lines(capsys)
        assert f"{package_folder} has no int8 file" in line

    @pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5"])
    def test_a_wrong_top_k_is_a_usage_error(self, top_k: str, capsys: Captured) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["predict", "a.png", "--top-k", top_k])
        assert stopped.value.code == 2
        assert f"argument --top-k: expected a positive integer, got '{top_k}'" in capsys.readouterr().err

    def test_a_missing_onnx_runtime_is_exit_code_2_and_names_the_command(
        self, images: Path, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert cli.main(["predict", str(images / "a.png"), "--model", str(package_folder)]) == 2
        assert error_lines(capsys)[0].endswith("pip install 'pdeinfer[cpu]'")


class TestList:
    """pdeinfer list."""

    def test_bundled_models_are_one_row_each(
        self, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_tiny_package(tmp_path / "tiny-grey", GREY_PRESET)
        monkeypatch.setattr(zoo, "_MODELS", tmp_path)
        monkeypatch.setattr(zoo, "DEFAULT_MODEL", "tiny-grey")
        assert cli.main(["list"]) == 0
        header, line = capsys.readouterr().out.splitlines()
        columns = ["name", "input", "classes", "parameters", "MACs", "test accuracy", "size"]
        assert header.split() == " ".join(columns).split()
        assert line.split() == ["tiny-grey", "8x8x1", "10", "640", "640", "50.00%", "3", "KiB", "default"]
        for column in columns[1:]:  # right-aligned below their headings
            assert line[header.index(column) + len(column) - 1] != " "

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_missing_fused_operator_is_noted_on_stderr(
        self, exists: bool, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = tmp_path / "library.so"
        if exists:
            library.touch()
        monkeypatch.setattr("pdeinfer.cli.list.LIBRARY", library)
        assert cli.main(["list"]) == 0
        notes = error_lines(capsys)
        assert len(notes) == (not exists)
        assert all("fused operator" in note for note in notes)


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
        checksums, prediction, reference, rules, parity = capsys.readouterr().out.splitlines()
        assert checksums == "checksums: ok, 1 file"
        assert prediction.startswith("prediction: ok, ONNX Runtime ")
        assert prediction.endswith(" on cpu")
        assert reference.startswith("reference: skipped, ")
        assert rules == "graph rules: ok, 4 nodes in model.onnx"
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

    def test_a_broken_graph_rule_fails(
        self, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "pdeinfer.export.verification.broken_rules", lambda *_: ["control flow: Loop", "data outside"]
        )
        assert cli.main(["verify", str(package_folder)]) == 1
        line = capsys.readouterr().out.splitlines()[-1]
        assert line == "graph rules: FAILED, model.onnx: control flow: Loop; data outside"

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
        *_, rules, parity, last = capsys.readouterr().out.splitlines()
        assert rules.startswith("graph rules: skipped, checking the graph needs onnx")
        assert parity.startswith("parity: skipped, parity needs tensorflow")
        assert last.startswith("3 of 5 checks were skipped: reference, graph rules, parity")

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
        assert "graph rules: FAILED, fields.onnx: not an ONNX file" in capsys.readouterr().out.splitlines()[-1]

    def test_a_damaged_card_is_a_failed_check(self, package: Path, capsys: Captured) -> None:
        card = package / "card.json"
        card.write_text(card.read_text().replace("tiny-grey", "tiny-gray"))
        assert cli.main(["verify", str(package)]) == 1
        assert capsys.readouterr().out.startswith(f"card: FAILED, {card} is damaged")

    def test_a_folder_that_is_not_a_package_is_exit_code_2(self, tmp_path: Path, capsys: Captured) -> None:
        assert cli.main(["verify", str(tmp_path)]) == 2
        (line,) = error_lines(capsys)
        assert str(tmp_path) in line


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
        assert calls == [((Path("runs/x"), Path("build/x")), expected | given)]
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

    @pytest.mark.parametrize(("error", "code"), [(ParityError, 1), (ExportError, 2)])
    def test_a_parity_error_is_exit_code_1_and_an_export_error_2(
        self, error: type[Exception], code: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def export_package(*_: object, **__: object) -> None:
            raise error("why")

        monkeypatch.setattr("pdeinfer.cli.export.export_package", export_package)
        assert cli.main(["export", "runs/x", "-o", "build/x"]) == code
        assert error_lines(capsys) == ["pdeinfer: error: why"]


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

    def test_an_interruption_is_exit_code_130_without_a_traceback(
        self, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def names() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(zoo, "names", names)
        assert cli.main(["list"]) == 130
        assert capsys.readouterr() == ("", "")

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

    def test_a_full_disk_is_one_line_and_exit_code_2(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "pdeinfer", "list"]
            result = subprocess.run(
                command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert (result.returncode, result.stderr) == (2, "pdeinfer: error: [Errno 28] No space left on device\n")

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
