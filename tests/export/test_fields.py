"""`inspect` on fields.onnx equals the Keras layers, and its levels the naive reference."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import pdeinfer
from pdeinfer import (
    PRESETS,
    LayerFields,
    ModelPackage,
    ModelPackageError,
    PdeSpec,
    PeronaMalik,
    Preset,
    ResidualNetwork,
)
from pdeinfer.arrays import Array
from pdeinfer.checks.fields import TOLERANCE, compare_fields
from pdeinfer.checks.report import Report
from pdeinfer.cli.main import main
from pdeinfer.export import broken_fields_rules, export_package, exporter, verify_package
from pdeinfer.export.fields_proof import original_fields, prove_fields
from pdeinfer.export.onnx_file import OPSET, write
from pdeinfer.export.rewrite.graph import convert_stages
from pdeinfer.inspection.inspector import Inspector
from pdeinfer.nn.loading import load_classifier
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import FIELDS_FILE, KERAS_FILE, ONNX_FILE
from pdeinfer.package.writing import new_package, write_card
from tests.references import naive_solve

DIGITS = PRESETS["digits-pde"]
IMAGE = np.random.default_rng(5).integers(0, 256, (9, 11, 3), dtype=np.uint8)


def digits_with(pde: PdeSpec) -> Preset:
    return replace(DIGITS, network=replace(DIGITS.network, pde=pde))


NETWORKS = {
    "k5": DIGITS,
    "three-layers": replace(DIGITS, name="three-layers", network=ResidualNetwork((4, 6, 8, 8), 1, PdeSpec())),
    "one-velocity-for-both": PRESETS["mnist-pde"],
    "no-advection": digits_with(PdeSpec(num_steps=2, velocity=None)),
    "no-diffusion": digits_with(PdeSpec(num_steps=2, diffusivity=None)),
    "constant": digits_with(PdeSpec(num_steps=2, dt=0.1, diffusivity=0.7)),
    "nothing-but-a-source": digits_with(PdeSpec(velocity=None, diffusivity=None)),
    "perona-malik-learned-start": digits_with(PdeSpec(num_steps=3, diffusivity=PeronaMalik(0.5), start="residual")),
    "two-layers-of-maps": replace(
        DIGITS,
        name="two-layers",
        network=ResidualNetwork(
            (4, 8, 8), 1, PdeSpec(num_steps=2, velocity="pointwise", diffusivity=PeronaMalik(0.5), start="residual")
        ),
    ),
    "no-source": digits_with(PdeSpec(num_steps=3, source=None)),
    "learned-source": digits_with(
        PdeSpec(num_steps=2, velocity_activation="linear", isotropic=True, source="depthwise")
    ),
}


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def package(
    request: pytest.FixtureRequest, saved_network: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    """A package of a network with random weights, with what `inspect` reads of it; the classifier is not converted."""
    path = saved_network(request.param)
    with new_package(tmp_path_factory.mktemp("packages") / "package") as folder:
        shutil.copy(path, folder / KERAS_FILE)
        (folder / ONNX_FILE).write_bytes(b"not needed")
        write(convert_stages(load_classifier(path)), request.param, folder / FIELDS_FILE, broken_fields_rules)
        write_card(folder, ModelCard(request.param, parameters=0, macs=0, opset=OPSET))
    return ModelPackage.read(folder.with_name("package"))


@pytest.fixture(scope="module")
def digits(saved_network: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A package of digits-pde with random weights."""
    folder = tmp_path_factory.mktemp("packages") / "digits"
    export_package(saved_network(DIGITS), folder)
    return ModelPackage.read(folder)


def assert_close(actual: Array, expected: Array) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


def test_inspect_equals_the_keras_layers(package: ModelPackage) -> None:
    spec = package.card.preset.input
    image = np.random.default_rng(1).integers(0, 256, (spec.height, spec.width, spec.channels), dtype=np.uint8)
    layers = pdeinfer.inspect(image, package)
    expected = original_fields(load_classifier(package.path / KERAS_FILE), image[np.newaxis])
    pairs = {"u": "velocity", "v": "velocity", "Dx": "diffusivity", "Dy": "diffusivity"}
    for layer in layers:
        assert_close(layer.levels, expected[f"{layer.name}/levels"][0])
        for index, (symbol, pair) in enumerate(pairs.items()):
            if f"{layer.name}/{symbol}" in expected:
                assert_close(getattr(layer, pair)[index % 2], expected[f"{layer.name}/{symbol}"][0])
    assert {name.partition("/")[0] for name in expected} == {"probabilities", *(layer.name for layer in layers)}


def test_levels_and_gradients_equal_the_naive_reference(package: ModelPackage) -> None:
    for layer in pdeinfer.inspect(IMAGE, package):
        # (1, H, W, 2): channels do not depend on each other, and the reference is slow
        start, *rest = (
            np.zeros(layer.levels[0].shape) if field is None else field
            for field in (
                layer.levels[0],
                layer.source,
                *(layer.velocity or [None] * 2),
                *(layer.diffusivity or [None] * 2),
            )
        )
        start, source, u, v, dx, dy = (field[np.newaxis, ..., :2].astype(np.float64) for field in (start, *rest))
        fields = {"u": u, "v": v, "diffusivity_x": dx, "diffusivity_y": dy}
        for level in range(1, layer.spec.num_steps + 1):
            expected, _ = naive_solve(start, start, source, **fields, num_steps=level, dt=layer.spec.dt)
            assert_close(layer.levels[level][..., :2], expected[0])
        if layer.velocity_gradients is not None:
            (u_x, v_y), (_, height, width, _) = layer.velocity_gradients, u.shape
            for y, x in np.ndindex(height, width):
                assert_close(u_x[y, x, :2], (u[0, y, (x + 1) % width] - u[0, y, (x - 1) % width]) / 2)
                assert_close(v_y[y, x, :2], (v[0, (y + 1) % height, x] - v[0, (y - 1) % height, x]) / 2)


def test_absent_constant_and_shared_fields_match_the_preset(package: ModelPackage) -> None:
    for layer in pdeinfer.inspect(IMAGE, package):
        spec = layer.spec
        assert layer.levels.shape[0] == spec.num_steps + 1
        assert (layer.velocity is None) == (spec.velocity is None)
        assert (layer.diffusivity is None) == (spec.diffusivity is None)
        assert (layer.source is None) == (spec.source is None)
        if layer.velocity is not None:
            assert (layer.velocity[0] is layer.velocity[1]) == (spec.velocity == "preactivation")
        if layer.diffusivity is not None:
            is_one = isinstance(spec.diffusivity, float | PeronaMalik) or spec.isotropic
            assert (layer.diffusivity[0] is layer.diffusivity[1]) == is_one
        if isinstance(spec.diffusivity, float):
            assert np.all(np.stack(layer.diffusivity) == np.float32(spec.diffusivity))
        if layer.source is not None:
            assert np.array_equal(layer.source, layer.levels[0]) == (spec.source == spec.start)


def test_the_layers_have_the_order_and_the_sizes_of_the_network(package: ModelPackage) -> None:
    shapes = [(layer.name, *layer.levels.shape[1:]) for layer in pdeinfer.inspect(IMAGE, package)]
    sizes = {
        "three-layers": [(8, 8, 4), (4, 4, 6), (2, 2, 8)],
        "two-layers": [(8, 8, 4), (4, 4, 8)],
        "mnist-pde": [(28, 28, 1)],
    }
    expected = sizes.get(package.card.preset.name, [(8, 8, 8)])
    assert shapes == [(f"layer{number}", *size) for number, size in enumerate(expected, 1)]


# --- replayed with other values -------------------------------------------------------------------------------------


def test_the_answer_is_that_of_the_network(package: ModelPackage) -> None:
    classifier = load_classifier(package.path / KERAS_FILE)
    pixels = np.random.default_rng(4).integers(0, 256, classifier.input_shape[1:], dtype=np.uint8)
    expected = original_fields(classifier, pixels[np.newaxis])["probabilities"][0]
    found = Inspector(package).inspect(pixels).probabilities
    assert found is not None
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize(
    "changes", [{"dt": 0.05}, {"num_steps": 1}, {"num_steps": 4, "dt": 0.1}, {"velocity": None}, {"diffusivity": None}]
)
def test_changed_values_give_the_answer_of_a_network_that_has_them(
    changes: dict[str, Any], package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdeinfer.nn import GlobalLayer

    classifier = load_classifier(package.path / KERAS_FILE)
    pixels = np.random.default_rng(4).integers(0, 256, classifier.input_shape[1:], dtype=np.uint8)
    inspector = Inspector(package)
    spec = replace(inspector.spec, **changes)
    inspection = inspector.inspect(pixels, spec)
    if spec.velocity is None:
        monkeypatch.setattr(GlobalLayer, "compute_velocity", lambda *_, **__: None)
    if spec.diffusivity is None:
        monkeypatch.setattr(GlobalLayer, "compute_diffusivity", lambda *_, **__: None)
    for layer in classifier.pde_layers().values():
        layer.spec = spec
    logits = classifier(pixels[np.newaxis], training=False)  # eagerly: the layers have their new spec
    expected = keras_softmax(logits)
    assert inspection.probabilities is not None
    assert np.abs(inspection.probabilities - expected[0]).max() <= TOLERANCE
    assert {layer.spec for layer in inspection.layers} == {spec}
    assert {len(layer.levels) for layer in inspection.layers} == {spec.num_steps + 1}


def keras_softmax(logits: Any) -> Array:
    import keras

    return np.asarray(keras.ops.softmax(logits))


# --- the proof ------------------------------------------------------------------------------------------------------


def weaken_a_kernel(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name))


def exchange_u_and_v(model: onnx.ModelProto) -> None:
    names = {"layer1/u": "layer1/v", "layer1/v": "layer1/u"}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]


def drop(name: str) -> Callable[[onnx.ModelProto], None]:
    def drop_output(model: onnx.ModelProto) -> None:
        (output,) = (output for output in model.graph.output if output.name == name)
        model.graph.output.remove(output)

    return drop_output


def prove_damaged(package: ModelPackage, damage: Callable[[onnx.ModelProto], None]) -> Report:
    model = onnx.load_model_from_string(package.read_file(FIELDS_FILE))
    damage(model)
    classifier = load_classifier(package.path / KERAS_FILE)
    images = np.random.default_rng(2).integers(0, 256, (3, *classifier.input_shape[1:]), dtype=np.uint8)
    return prove_fields("Keras", classifier, model.SerializeToString(), images)


@pytest.mark.parametrize("damage", [weaken_a_kernel, exchange_u_and_v])
def test_wrong_fields_fail_the_proof(damage: Callable[[onnx.ModelProto], None], digits: ModelPackage) -> None:
    assert prove_damaged(digits, lambda _: None).passed
    assert not prove_damaged(digits, damage).passed


@pytest.mark.parametrize("name", ["layer1/u", "layer1/v"])
def test_missing_fields_are_an_error(name: str, digits: ModelPackage) -> None:
    with pytest.raises(ModelPackageError, match=rf"fields\.onnx lacks the output '{name}'"):
        prove_damaged(digits, drop(name))


def test_an_export_with_wrong_fields_fails_and_leaves_nothing(
    saved_network: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def convert_and_damage(classifier: object) -> onnx.ModelProto:
        model = convert_stages(classifier)
        weaken_a_kernel(model)
        return model

    monkeypatch.setattr(exporter, "convert_stages", convert_and_damage)
    assert main(["export", str(saved_network(DIGITS)), "--output", str(tmp_path / "package")]) == 1
    assert re.search(r"fields\.onnx(.|\n)*NOT EQUAL", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_whose_output_differs_from_its_levels_is_found(
    digits: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdeinfer.nn import GlobalLayer

    call = GlobalLayer.call
    monkeypatch.setattr(GlobalLayer, "call", lambda self, h, training=False: call(self, h, training) * 1.001)
    report = prove_damaged(digits, lambda _: None)
    wrong = [row.name for row in report.comparisons if row.max_relative > TOLERANCE]
    assert wrong == ["probabilities", "layer1/output"]


def test_an_exported_package_proves_its_fields_again(digits: ModelPackage) -> None:
    report = verify_package(digits)[-1]
    assert report.candidate.startswith("fields.onnx on ONNX Runtime")
    assert report.passed


def test_the_fields_file_keeps_its_rules(digits: ModelPackage) -> None:
    model = onnx.load_model_from_string(digits.read_file(FIELDS_FILE))
    assert broken_fields_rules(model, DIGITS) == []
    model.graph.output[0].name = "layer1/w"
    assert any("outputs: expected fields such as" in rule for rule in broken_fields_rules(model, DIGITS))


def test_a_nan_and_a_difference_at_one_batch_size_fail() -> None:
    images = np.zeros((3, 2, 2, 1), np.uint8)

    def fields(batch: Array) -> dict[str, Array]:
        return {"u": np.ones((len(batch), 2, 2, 1), np.float32)}

    def faulty(value: float) -> Callable[[Array], dict[str, Array]]:
        return lambda batch: {"u": fields(batch)["u"] * (value if len(batch) == 1 else 1)}

    assert compare_fields(("a", fields), ("b", fields), images).passed
    for value in (np.nan, 1.0001):
        report = compare_fields(("a", fields), ("b", faulty(value)), images)
        assert not report.passed
        assert str(report).endswith("NOT EQUAL")
    assert (
        compare_fields(("a", fields), ("b", faulty(np.nan)), images).to_dict()["comparisons"][0]["max_absolute"] is None
    )


def test_layers_are_compared_by_identity(digits: ModelPackage) -> None:
    (layer,) = pdeinfer.inspect(IMAGE, digits)
    assert isinstance(layer, LayerFields)
    assert layer == layer  # noqa: PLR0124  # arrays have no truth value: comparing them must not be tried
    assert layer != pdeinfer.inspect(IMAGE, digits)[0]
