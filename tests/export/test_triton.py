"""A model for Triton: its configuration parses as Triton's own, and its file answers as the package does."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from pdeinfer import PRESETS, Predictor
from pdeinfer.cli.main import main
from pdeinfer.errors import ExportError
from pdeinfer.export import export_to_triton
from pdeinfer.package import zoo
from pdeinfer.package.package import ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.runtime.session import create_session
from tests.conftest import GREY_PRESET, write_tiny_package
from tests.documents import ROOT
from tests.graph.nested import write_nested_functions

TYPES = {onnx.TensorProto.UINT8: triton.TYPE_UINT8, onnx.TensorProto.FLOAT: triton.TYPE_FP32}


def read_config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), triton.ModelConfig())


def signature(values: Any) -> list[tuple[str, int, list[int]]]:
    """The name, Triton's type, and the shape without the batch of ONNX inputs or outputs."""
    found = []
    for value in values:
        tensor = value.type.tensor_type
        assert tensor.shape.dim[0].dim_param == "batch"
        found.append((value.name, TYPES[tensor.elem_type], [size.dim_value for size in tensor.shape.dim[1:]]))
    return found


def check(folder: Path, labels: tuple[str, ...]) -> Any:
    """Compare the configuration of a model with its graph; return the graph."""
    config, model = read_config(folder), onnx.load(folder / "1" / "model.onnx")
    assert (config.name, config.backend) == (folder.name, "onnxruntime")
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, triton.ModelInstanceGroup.KIND_AUTO)]
    for described, graph in ((config.input, model.graph.input), (config.output, model.graph.output)):
        assert [(each.name, each.data_type, list(each.dims)) for each in described] == signature(graph)
    assert [each.label_filename for each in config.output if each.name == "probabilities"] == ["labels.txt"]
    assert (folder / "labels.txt").read_text().splitlines() == list(labels)
    return model


@pytest.mark.parametrize("name", zoo.names())
def test_a_bundled_model_is_converted_with_its_answers(name: str, tmp_path: Path) -> None:
    folder, reports = export_to_triton(Path(name), tmp_path)

    preset = zoo.load(name).card.preset
    model = check(folder, preset.labels)
    assert [report.passed for report in reports] == [True]
    assert not model.functions
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert sorted(path.name for path in folder.rglob("*")) == ["1", "config.pbtxt", "labels.txt", "model.onnx"]
    shape = (5, preset.input.height, preset.input.width, preset.input.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    session = create_session((folder / "1" / "model.onnx").read_bytes(), "cpu")
    with Predictor(name) as predictor:
        expected = predictor.predict_proba(images)
    np.testing.assert_allclose(session.run("probabilities", {"image": images}), expected, atol=1e-5)


def test_a_trained_network_is_exported_with_its_features(
    saved_network: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = PRESETS["digits-pde"]
    assert main(["export", str(saved_network(preset)), "--format", "triton", "-o", str(tmp_path / "models")]) == 0

    model = check(tmp_path / "models" / "digits-pde", preset.labels)
    assert [value.name for value in model.graph.output] == ["probabilities", "features"]
    output = capsys.readouterr().out
    assert "against Keras on TensorFlow" in output
    assert "digits-pde/1/model.onnx on ONNX Runtime" in output
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_the_spelling_says_whether_a_name_is_a_folder_or_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_package(Path("digits-pde"), GREY_PRESET)
    assert main(["export", "./digits-pde", "--format", "triton", "-o", "mine"]) == 0
    assert main(["export", "digits-pde", "--format", "triton", "-o", "theirs"]) == 0
    assert [path.name for path in (*Path("mine").iterdir(), *Path("theirs").iterdir())] == ["tiny-grey", "digits-pde"]


def test_a_card_alone_makes_no_package_of_the_folders_above(tmp_path: Path) -> None:
    (tmp_path / "card.json").touch()
    folder, _ = export_to_triton("digits-pde", tmp_path / "models")
    assert read_config(folder).name == "digits-pde"


def test_a_bundled_model_is_replaced_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["export", "digits-pde", "--format", "triton", "-o", ".", "--force"]) == 0
    assert read_config(Path("digits-pde")).name == "digits-pde"


def test_a_package_of_nested_functions_is_refused_before_it_is_inlined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
    write_nested_functions(package / "model.onnx")
    write_card(package, ModelPackage.read(package).card)
    monkeypatch.setattr("pdeinfer.export.triton.without_functions", None)
    assert main(["export", str(package), "--format", "triton", "-o", str(tmp_path / "models")]) == 2
    assert "the model defines 9 functions" in capsys.readouterr().err


def test_a_package_is_converted_without_tensorflow(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # what Python does for modules that are not installed
from pdeinfer.cli.main import main
sys.exit(main(["export", *sys.argv[1:]]))
"""
    package = zoo.load("mnist-pde").path
    command = [sys.executable, "-c", script, str(package), "--format", "triton", "--output", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)

    assert read_config(tmp_path / "mnist-pde").name == "mnist-pde"


def test_an_existing_model_is_replaced_only_with_force_and_others_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    arguments = ["export", "digits-pde", "--format", "triton", "-o", str(tmp_path)]
    assert main(arguments) == 0
    config = tmp_path / "digits-pde" / "config.pbtxt"
    config.write_text("mine")

    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert config.read_text() == "mine"
    assert main([*arguments, "--force"]) == 0
    assert read_config(config.parent).name == "digits-pde"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits-pde", "other"]


def test_other_versions_and_a_changed_configuration_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = export_to_triton("mnist-pde", tmp_path)
    export_to_triton("mnist-pde", tmp_path, force=True)
    assert not caplog.records
    config = folder / "config.pbtxt"
    written = config.read_text()
    config.write_text("mine")
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_text("newer")
    (folder / "notes.txt").symlink_to("nowhere")

    export_to_triton("mnist-pde", tmp_path, force=True)
    names = ["1", "2", "config.pbtxt", "config.pbtxt.old", "labels.txt", "notes.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "2" / "model.onnx").read_text() == "newer"
    assert (config.read_text(), (folder / "config.pbtxt.old").read_text()) == (written, "mine")
    messages = " ".join(record.getMessage() for record in caplog.records)
    assert "keeps version 2" in messages
    assert "kept as config.pbtxt.old" in messages


def test_a_configuration_that_was_kept_before_is_not_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = export_to_triton("mnist-pde", tmp_path)
    for text in ("first", "second", "third"):
        (folder / "config.pbtxt").write_text(text)
        export_to_triton("mnist-pde", tmp_path, force=True)
    kept = [(folder / f"config.pbtxt.old{suffix}").read_text() for suffix in ("", ".2", ".3")]
    assert kept == ["first", "second", "third"]
    assert caplog.messages[-1].endswith("kept as config.pbtxt.old.3")


def test_a_version_that_is_a_link_stays_one_and_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, _ = export_to_triton("mnist-pde", tmp_path)
    (tmp_path / "newer").mkdir()
    (folder / "2").symlink_to("../newer")
    export_to_triton("mnist-pde", tmp_path, force=True)
    assert (folder / "2").readlink() == Path("../newer")
    assert "keeps version 2" in caplog.text


def test_a_folder_that_is_no_model_of_triton_is_not_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "digits-pde" / "precious"
    precious.mkdir(parents=True)

    with pytest.raises(ExportError, match="digits-pde"):
        export_to_triton("digits-pde", tmp_path, force=True)
    assert precious.is_dir()


def test_a_model_that_differs_from_its_package_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pdeinfer.export import triton as module

    inline = module.without_functions

    def damage(model: Any) -> Any:
        inlined = inline(model)
        (last,) = (node for node in inlined.graph.node if node.op_type == "Softmax")
        inlined.graph.node.append(onnx.helper.make_node("Softmax", [last.output[0]], ["again"], axis=1))
        last.output[0], inlined.graph.node[-1].output[0] = "again", last.output[0]
        inlined.graph.node[-1].input[0] = "again"
        return inlined

    monkeypatch.setattr(module, "without_functions", damage)
    assert main(["export", "digits-pde", "--format", "triton", "-o", str(tmp_path)]) == 1
    assert "NOT EQUAL" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(zoo.load("digits-pde").path, package)
    (package / "model.onnx").write_bytes(b"damaged")

    assert main(["export", str(package), "--format", "triton", "-o", str(tmp_path / "models")]) == 2
    assert not any((tmp_path / "models").glob("*"))


@pytest.mark.parametrize("option", [["--fit-temperature"], ["--calibrate", "photos"]])
def test_options_that_change_a_package_are_refused(option: list[str], tmp_path: Path) -> None:
    assert main(["export", "digits-pde", "--format", "triton", "-o", str(tmp_path), *option]) == 2
    assert list(tmp_path.iterdir()) == []
