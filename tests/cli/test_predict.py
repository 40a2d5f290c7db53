"""`pdeinfer predict`: output, exit codes, and errors on one line."""

import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer.cli import main as cli
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.predictor import Predictor
from tests.cli.helpers import Captured, error_lines, needs_terminal
from tests.images.image_makers import DAMAGED_EXIF, encode, gif_of_comments, heic, needs_proc, unreadable


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

    @needs_proc
    @pytest.mark.parametrize("options", [[], ["--isolate"]])
    def test_a_file_that_cannot_be_read_is_an_error_line_and_the_others_are_classified(
        self, options: list[str], images: Path, package_folder: Path, capsys: Captured
    ) -> None:
        unreadable(images / "b2.png")
        assert cli.main(["predict", str(images), "--model", str(package_folder), "--csv", *options]) == 1
        output = capsys.readouterr()
        assert [line.split(",")[0] for line in output.out.splitlines()[1:]] == [
            str(images / n) for n in ("a.png", "c.png")
        ]
        assert f"{images / 'b2.png'}: expected" in output.err

    def test_a_failure_of_the_machine_names_the_file_and_comes_after_the_predictions(
        self, images: Path, package_folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        (images / "c.tiff").write_bytes(b"II*\0" + bytes(12))
        monkeypatch.setattr("pdeinfer.images.tiff.check_tags", fail)
        assert cli.main(["predict", str(images), "--model", str(package_folder)]) == 2
        output = capsys.readouterr()
        assert len(output.out.splitlines()) == 2
        assert str(images / "c.tiff") in output.err.splitlines()[-1]

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

    def test_pillows_warnings_of_damage_beside_the_pixels_are_not_printed(
        self, tmp_path: Path, package_folder: Path, capsys: Captured
    ) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(encode(PIL.Image.new("L", (8, 8)), "JPEG", exif=DAMAGED_EXIF))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert cli.main(["predict", str(path), "--model", str(package_folder)]) == 0
        assert (caught, capsys.readouterr().err) == ([], "")

    def test_a_file_name_that_is_not_utf_8_is_escaped(self, images: Path, package_folder: Path) -> None:
        name = os.fsdecode(os.fsencode(images) + b"/caf\xe9.png")
        shutil.copy(images / "a.png", name)
        command = [sys.executable, "-m", "pdeinfer", "predict", name, "--model", str(package_folder)]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
        for options in ([], ["--json"]):
            result = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=True)
            assert r"\udce9.png" in result.stdout
        assert json.loads(result.stdout)["image"] == f"{images}/caf\\udce9.png"  # valid Unicode for every reader

    def test_control_characters_in_a_file_name_do_not_reach_the_terminal(
        self, images: Path, package_folder: Path, capsys: Captured
    ) -> None:
        shutil.copy(images / "a.png", images / "no\x1b[31m\n.png")
        files = [str(images / name) for name in ("no\x1b[31m\n.png", "not\x1b[31m.png")]
        assert cli.main(["predict", *files, "--model", str(package_folder)]) == 1
        out, err = capsys.readouterr()
        assert out.startswith(rf"{images}/no\x1b[31m\n.png: ")
        assert err.startswith(rf"pdeinfer: error: {images}/not\x1b[31m.png: ")

    def test_csv_quotes_a_carriage_return(self, images: Path, package_folder: Path, capsys: Captured) -> None:
        shutil.copy(images / "a.png", images / "old\rline.png")
        assert cli.main(["predict", str(images / "old\rline.png"), "--csv", "--model", str(package_folder)]) == 0
        out = capsys.readouterr().out
        _, (name, *_) = csv.reader(io.StringIO(out, newline=""))
        assert (name, out.count("\n")) == (str(images / "old\rline.png"), 2)

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
