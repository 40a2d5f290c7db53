"""int8 files: what is quantized, how far they are from `model.onnx`, and what the card says of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest
from onnx import numpy_helper

from pdeinfer import PRESETS, ModelPackage, PdeSpec, PeronaMalik, Predictor
from pdeinfer.arrays import Array
from pdeinfer.checks.measuring import evaluate
from pdeinfer.checks.parity import synthetic_images
from pdeinfer.cli.main import main
from pdeinfer.datasets import load_dataset
from pdeinfer.export import broken_rules, export_package, exporter
from pdeinfer.export.original import Original
from pdeinfer.export.quantization import to_int8
from pdeinfer.export.rewrite.graph import convert_classifier, without_functions
from pdeinfer.package import zoo
from pdeinfer.package.package import MODEL_FILES, ONNX_FILE
from pdeinfer.runtime.session import create_session

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def training_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the digits' first 256 training images."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(load_dataset("digits", None).train.images[:256]):
        PIL.Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def package(digits_run: Path, training_images: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A package of digits-pde with an int8 file."""
    folder = tmp_path_factory.mktemp("packages") / "digits"
    export_package(digits_run, folder, calibrate=training_images)
    return ModelPackage.read(folder)


def read_model(package: ModelPackage, precision: str) -> Any:
    return onnx.load(package.path / MODEL_FILES[precision])


def arrays(model: Any) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def classify(model: Any, images: Array) -> Array:
    return create_session(model.SerializeToString(), "cpu").run("probabilities", {"image": images})


def smooth_images(spec: Any) -> Array:
    return synthetic_images(spec.height, spec.width, spec.channels)["smooth noise"]


def test_the_card_lists_the_int8_file_and_its_measurements(package: ModelPackage) -> None:
    assert package.precisions == ("float32", "int8")
    package.verify_checksums()
    assert package.card.variants.keys() == {"int8"}
    variant = package.card.variants["int8"]
    report = variant["parity"]
    assert report["reference"].startswith("model.onnx on ONNX Runtime")
    assert report["candidate"].startswith("model.int8.onnx")
    assert max(row["count"] for row in report["comparisons"]) == variant["test_images"] == 359
    assert (report["passed"], report["tolerance"]) == (True, None)
    readme = (package.path / "README.md").read_text()
    assert (
        f"| model.int8.onnx (precision int8): test accuracy | {100 * variant['test_accuracy']:.2f} % of 359" in readme
    )


@pytest.mark.parametrize(("limit", "warnings"), [(1.0, 0), (-1.0, 1)])
def test_an_inaccurate_file_is_kept_with_a_warning(
    limit: float,
    warnings: int,
    package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(exporter, "MAX_ACCURACY_LOSS", limit)
    test = load_dataset("digits", None).test
    original = Original(None, None, None, test)
    exporter._measure_int8(original, package.path, {"test images": test.images[:1]})
    stated = (100 * package.card.variants["int8"]["test_accuracy"], 100 * evaluate(package.path).accuracy)
    expected = "model.int8.onnx is inaccurate: it classifies {:.2f} % of the test images correctly, model.onnx {:.2f} %"
    assert [record.getMessage() for record in caplog.records] == warnings * [expected.format(*stated)]


def test_evaluate_repeats_an_accuracy_near_float32(package: ModelPackage) -> None:
    evaluation = evaluate(package.path, precision="int8")
    assert evaluation.equals_card
    # Two of 359 images; digits-pde lost none.
    assert evaluation.correct >= evaluate(package.path).correct - 2


def test_int8_quantizes_every_convolution_and_nothing_in_a_pde_layer(package: ModelPackage) -> None:
    model, original = read_model(package, "int8"), read_model(package, "float32")
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in original.graph.node) > 0
    for convolution in convolutions:
        assert {makers[name] for name in convolution.input} == {"DequantizeLinear"}
    assert list(model.functions) == list(original.functions)
    values, (call,) = arrays(model), (node for node in model.graph.node if node.op_type == "GlobalLayer")
    weights = [values[name] for name in call.input if name in values]
    assert weights
    assert {array.dtype for array in weights} == {np.dtype(np.float32)}


def test_int8_weights_have_7_bits(package: ModelPackage) -> None:
    weights = [array for array in arrays(read_model(package, "int8")).values() if array.dtype == np.int8 and array.ndim]
    kernels = [array for array in weights if array.ndim == 4]
    assert kernels
    assert all(2 * 255 * int(np.abs(kernel.astype(int)).max()) < 2**15 for kernel in kernels)


def test_probabilities_stay_float32_and_add_up_to_1(package: ModelPackage) -> None:
    images = smooth_images(package.card.preset.input)
    for precision in package.precisions:
        with Predictor(package, precision=precision) as predictor:
            probabilities = predictor.predict_proba(images)
            assert predictor.info().precision == precision
        assert probabilities.dtype == np.float32
        assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-6


def test_every_precision_uses_the_fused_operator_where_float32_does(package: ModelPackage) -> None:
    found = set()
    for precision in package.precisions:
        with Predictor(package, precision=precision, device="cpu") as predictor:
            found.add(predictor.info().pde_layers)
    assert len(found) == 1


@pytest.mark.parametrize("name", zoo.names())
def test_every_bundled_network_is_quantized_with_and_without_its_function(name: str) -> None:
    bundled = zoo.load(name)
    model, images = onnx.load(bundled.path / ONNX_FILE), smooth_images(bundled.card.preset.input)
    expected = classify(model, images)
    quantized = to_int8(model, images)
    inlined = without_functions(quantized)
    for candidate in (quantized, inlined):
        assert broken_rules(candidate, bundled.card.preset) == []
        assert np.abs(classify(candidate, images) - expected).max() <= 0.5  # measured: 0.33, digits-pde on noise
    assert not inlined.functions
    assert model == onnx.load(bundled.path / ONNX_FILE)


def test_a_layer_that_takes_several_maps_is_quantized_around() -> None:
    from pdeinfer.nn import Classifier

    digits = PRESETS["digits-pde"]
    pde = PdeSpec(num_steps=2, velocity="pointwise", diffusivity=PeronaMalik(0.5), start="residual")
    preset = replace(digits, network=replace(digits.network, widths=(8, 8), pde=pde))
    model, images = convert_classifier(Classifier(preset)), smooth_images(preset.input)
    quantized = to_int8(model, images)
    assert broken_rules(quantized, preset) == []
    assert np.abs(classify(quantized, images) - classify(model, images)).max() < 0.1


def test_a_package_with_an_int8_file_verifies(package: ModelPackage, capsys: Captured) -> None:
    assert main(["verify", str(package.path)]) == 0
    rules, parity = (line for line in capsys.readouterr().out.splitlines() if "model.int8.onnx" in line)
    assert "nodes in model.int8.onnx" in rules
    assert "model.int8.onnx on ONNX Runtime" in parity


@pytest.mark.parametrize("missing", [True, False])
def test_calibration_without_images_fails_and_leaves_nothing(
    missing: bool, digits_run: Path, tmp_path: Path, capsys: Captured
) -> None:
    images = tmp_path / "images"
    if not missing:
        images.mkdir()
    options = ["--calibrate", str(images), "--output", str(tmp_path / "package")]
    assert main(["export", str(digits_run), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pdeinfer: error: {images}: expected ")
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if missing else ["images"])
