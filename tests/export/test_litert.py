"""Files for LiteRT equal the network, and an int8 file is kept only if it is accurate."""

import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from ai_edge_litert.interpreter import Interpreter

from pdeinfer import PRESETS, ModelPackage, Predictor
from pdeinfer.cli.main import main
from pdeinfer.datasets import load_dataset
from pdeinfer.export import exporter, litert
from pdeinfer.package.package import LITERT_FILE, LITERT_INT8, LITERT_INT8_FILE
from tests.export.variants import VARIANTS, network
from tests.package.packages import change_card

Captured = pytest.CaptureFixture[str]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def training_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(load_dataset("digits", None).train.images[:128]):
        PIL.Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def package(digits_run: Path, training_images: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A package of digits-pde with both files for LiteRT."""
    folder = tmp_path_factory.mktemp("packages") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "MAX_ACCURACY_LOSS", 0.01)  # 3 of the 359 test images; it lost 1
        exporter.export_package(digits_run, folder, litert=True, calibrate=training_images)
    return ModelPackage.read(folder)


def operators(content: bytes) -> Counter[str]:
    return Counter(operator["op_name"] for operator in Interpreter(model_content=content)._get_ops_details())


def test_the_card_holds_both_files_and_their_measurements(package: ModelPackage) -> None:
    package.verify_checksums()
    assert {LITERT_FILE, LITERT_INT8_FILE} <= package.card.files.keys()
    (report,) = (report for name, report in package.card.parity.items() if name.startswith(LITERT_FILE))
    assert (report["passed"], report["tolerance"]) == (True, 1e-5)
    assert {row["batch_size"] for row in report["comparisons"]} == {1, 2, 7, 64}
    assert "test images" in {row["images"] for row in report["comparisons"]}
    measured = package.card.variants[LITERT_INT8]
    assert measured["test_accuracy"] >= 0.97
    assert measured["test_images"] == 359
    assert "| model.int8.tflite: test accuracy |" in package.read_file("README.md").decode()
    assert package.precisions == ("float32", "int8")  # what ONNX Runtime runs


def test_the_file_answers_as_the_predictor_at_any_batch_size(package: ModelPackage) -> None:
    runner = Interpreter(model_content=package.read_file(LITERT_FILE)).get_signature_runner("serving_default")
    with Predictor(package) as predictor:
        for count in (1, 3, 40, 2):
            images = RNG.integers(0, 256, (count, 8, 8, 1), np.uint8)
            found = runner(image=images)["probabilities"]
            np.testing.assert_allclose(found, predictor.predict_proba(images), atol=1e-5)


def test_the_files_hold_operators_of_litert_alone(package: ModelPackage) -> None:
    for name in (LITERT_FILE, LITERT_INT8_FILE):
        assert not any("Flex" in operator or operator == "CUSTOM" for operator in operators(package.read_file(name)))


def test_the_int8_file_computes_pde_layers_in_float32_and_the_rest_in_int8(package: ModelPackage) -> None:
    interpreter = Interpreter(model_content=package.read_file(LITERT_INT8_FILE))
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    dtypes: dict[str, set[type]] = {}
    for operator in interpreter._get_ops_details():
        (result,) = (tensors[index] for index in operator["outputs"])
        place = "PDE layer" if "/global_layer" in result["name"] else operator["op_name"]
        dtypes.setdefault(place, set()).add(result["dtype"])
    assert {"CONV_2D", "FULLY_CONNECTED"} < dtypes.keys()
    assert np.float32 in dtypes.pop("PDE layer")  # TensorFlow still rounds some fields to 8 bits in between
    assert {place for place, found in dtypes.items() if np.float32 in found} == {"CAST", "DEQUANTIZE"}
    (image,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["dtype"], answer["dtype"]) == (np.uint8, np.float32)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_form_of_a_pde_layer_is_converted(name: str, saved_network: Callable[..., Path]) -> None:
    from pdeinfer.checks.parity import compare, synthetic_images
    from pdeinfer.export.reference import keras_probabilities
    from pdeinfer.nn.loading import load_classifier

    classifier = load_classifier(saved_network(network(name)))
    content = litert.convert(classifier)
    report = compare(
        ("Keras", lambda images: keras_probabilities(classifier, images)),
        litert.open_litert(LITERT_FILE, content),
        synthetic_images(8, 8, 1),
        batch_sizes=(7, 64),
    )
    assert report.passed, report


def test_converting_leaves_the_network_as_it_was(saved_network: Callable[..., Path]) -> None:
    import keras

    from pdeinfer.nn.loading import load_classifier

    classifier = load_classifier(saved_network(PRESETS["digits-pde"]))
    litert.convert(classifier)

    assert {layer.roll for layer in classifier.pde_layers().values()} == {keras.ops.roll}


@pytest.mark.parametrize(("shift", "axis"), [(1, -2), (-1, -2), (1, -3), (-1, -3), (2, 1), (-3, 2)])
def test_the_shift_is_that_of_numpy(shift: int, axis: int) -> None:
    array = RNG.normal(size=(2, 4, 5, 3))
    assert np.array_equal(litert._roll(array, shift, axis), np.roll(array, shift, axis))


def test_a_file_that_differs_is_not_left(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    right = litert._roll
    monkeypatch.setattr(litert, "_roll", lambda array, shift, axis: right(array, -shift, axis))

    assert main(["export", str(digits_run), "--format", "litert", "--output", str(tmp_path / "package")]) == 1
    assert "NOT EQUAL" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_inaccurate_int8_file_is_left_out_with_a_warning(
    digits_run: Path,
    training_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(exporter, "MAX_ACCURACY_LOSS", -1.0)  # nothing is accurate enough
    exporter.export_package(digits_run, tmp_path / "package", litert=True, calibrate=training_images)

    card = ModelPackage.read(tmp_path / "package").card
    assert LITERT_FILE in card.files
    assert LITERT_INT8_FILE not in card.files
    assert card.variants.keys() == {"int8"}
    assert [record.levelname for record in caplog.records if LITERT_INT8_FILE in record.getMessage()] == ["WARNING"]


def test_a_package_with_files_for_litert_verifies(package: ModelPackage, capsys: Captured) -> None:
    assert main(["verify", str(package.path)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("litert: "))
    assert "ok" in line
    assert {name for name in (LITERT_FILE, LITERT_INT8_FILE) if name in line} == {LITERT_FILE, LITERT_INT8_FILE}


@pytest.mark.parametrize("damage", ["another network", "truncated"])
def test_a_wrong_file_fails_verification(damage: str, package: ModelPackage, tmp_path: Path, capsys: Captured) -> None:
    content = package.read_file(LITERT_INT8_FILE if damage == "another network" else LITERT_FILE)
    content = content[:100] if damage == "truncated" else content
    folder = tmp_path / "package"
    shutil.copytree(package.path, folder)
    (folder / LITERT_FILE).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    change_card(folder, lambda card: card["files"].update({LITERT_FILE: record}))

    assert main(["verify", str(folder), "--allow-skipped"]) == 1
    assert "litert: FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(("command", "code"), [("verify", 1), ("export", 2)])
def test_without_litert_verification_skips_it_and_export_names_the_install_command(
    command: str, code: int, package: ModelPackage, digits_run: Path, tmp_path: Path
) -> None:
    script = """
import sys
sys.modules["ai_edge_litert"] = sys.modules["tensorflow"] = None  # what Python does for modules not installed
from pdeinfer.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    output = tmp_path / "package"
    arguments = {
        "verify": ["verify", str(package.path)],
        "export": ["export", str(digits_run), "--format", "litert", "--output", str(output)],
    }[command]
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)

    assert result.returncode == code
    lines = (result.stdout + result.stderr).splitlines()
    assert any("pip install 'pdeinfer[litert]'" in line for line in lines)
    if command == "verify":
        assert any(line.startswith("litert: skipped") for line in lines)
    assert "Traceback" not in result.stderr
    assert not output.exists()
