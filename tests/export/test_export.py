"""Every preset exports to a package that equals the Keras network; anything else is a clear error."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from pdeinfer import PRESETS, ExportError, ModelPackage, ModelPackageError, PdeSpec, Predictor, Preset
from pdeinfer.cli.main import main
from pdeinfer.export import broken_rules, export_package, exporter, verify_package
from pdeinfer.package import zoo
from pdeinfer.package.package import DIGEST_FILE, FIELDS_FILE, KERAS_FILE, ONNX_FILE
from pdeinfer.package.writing import write_card
from pdeinfer.runtime.kernel import register_kernel
from tests.export.conftest import train_a_step

DIGITS = PRESETS["digits-pde"]
# Of the others, cifar10-global and mnist-pde with other numbers of time steps are exported as these are; test_variants
# exports the layers of cifar10-global-signed and -source.
WHOLE = ("digits-pde", "mnist-cnn", "mnist-pde")
SLOW = ("mnist-residual", "cifar10-resnet32")
ABLATIONS = ("cifar10-global-constant-d", "cifar10-global-no-advection", "cifar10-global-no-diffusion")  # in digits-pde
STEPPED = ("cifar10-global-k5", "cifar10-global-m2", "cifar10-global-tiny")  # exported after a step of training


@pytest.fixture(scope="module")
def digits_package(saved_network: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of digits-pde with random weights, SavedModel included."""
    folder = tmp_path_factory.mktemp("packages") / "digits"
    export_package(saved_network(DIGITS), folder, saved_model=True)
    return folder


def has_fused_operator() -> bool:
    """Whether this machine has pdeinfer's operator library, and so proves a network with PDE layers twice."""
    return register_kernel(onnxruntime.SessionOptions())


def resized(preset: Preset, height: int, width: int, **pde: Any) -> Preset:
    network = replace(preset.network, pde=replace(preset.network.pde, **pde))
    return replace(preset, input=replace(preset.input, height=height, width=width), network=network)


@pytest.mark.parametrize(
    "preset",
    [
        *(PRESETS[name] for name in WHOLE),
        *(pytest.param(PRESETS[name], marks=pytest.mark.slow) for name in SLOW),
        *(
            replace(DIGITS, name=name, network=replace(DIGITS.network, pde=PRESETS[name].network.pde))
            for name in ABLATIONS
        ),
        resized(replace(DIGITS, network=replace(DIGITS.network, widths=(8, 8, 16))), 12, 20, num_steps=2),
        resized(DIGITS, 2, 3, num_steps=3),
        replace(
            DIGITS, labels=("no", "yes"), network=replace(DIGITS.network, pde=PdeSpec(velocity=None, diffusivity=None))
        ),
    ],
    ids=[*WHOLE, *SLOW, *ABLATIONS, "not-square", "sides-of-1-and-2", "nothing-but-a-source"],
)
def test_every_network_exports_and_equals_the_original(
    preset: Preset, saved_network: Callable[..., Path], tmp_path: Path
) -> None:
    reports = export_package(saved_network(preset), tmp_path / "package")
    has_pde_layers = preset.name not in ("mnist-cnn", "mnist-residual", "cifar10-resnet32")
    assert [report.passed for report in reports] == [True] * (2 + has_pde_layers * (1 + has_fused_operator()))
    assert reports[0].comparisons
    package = ModelPackage.read(tmp_path / "package")
    assert package.card.preset == preset
    assert (FIELDS_FILE in package.card.files) == has_pde_layers
    package.verify_checksums()


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPPED)
def test_a_network_trained_for_a_step_exports_and_equals_the_original(
    name: str, saved_network: Callable[..., Path], tmp_path: Path
) -> None:
    import keras

    classifier = keras.saving.load_model(saved_network(PRESETS[name]))
    loss, still = train_a_step(classifier)
    assert 0 < loss < 10
    assert still == []
    classifier.save(tmp_path / "model.keras")
    reports = export_package(tmp_path / "model.keras", tmp_path / "package")
    assert [report.passed for report in reports] == [True] * (3 + has_fused_operator())
    assert ModelPackage.read(tmp_path / "package").card.preset == PRESETS[name]


def test_the_onnx_file_keeps_the_rules_and_describes_itself(digits_package: Path) -> None:
    model = onnx.load(digits_package / ONNX_FILE)
    assert broken_rules(model, DIGITS) == []
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18), ("pdeinfer", 2)]
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["labels"] == list(DIGITS.labels)
    assert Preset.from_dict(metadata["preset"]) == DIGITS
    assert ModelPackage.read(digits_package).card.opset == 18
    assert model.producer_name == "pdeinfer"


def test_the_card_holds_the_report(digits_package: Path) -> None:
    card = ModelPackage.read(digits_package).card
    for name, report in card.parity.items():
        assert report["candidate"] == name
        assert report["passed"] is True
    *classifiers, features, fields = card.parity.values()
    assert [row["field"] for row in features["comparisons"]] == ["features"]
    assert len(classifiers) == 2 + has_fused_operator()
    for report in classifiers:
        assert {row["batch_size"] for row in report["comparisons"]} == {1, 2, 7, 64}
    symbols = ("start", "u", "v", "Dx", "Dy", "levels", "output")
    expected = ["probabilities", *(f"layer1/{symbol}" for symbol in symbols)]
    assert [row["field"] for row in fields["comparisons"]] == expected
    assert card.parameters == 5490
    assert {
        "README.md",
        "model.onnx",
        "fields.onnx",
        "reference.npz",
        "model.keras",
        "saved_model/saved_model.pb",
    } <= card.files.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": list("0127456389")}, "model.onnx does not match its card: the labels"),
        ({"opset": 5}, "graph rules: FAILED, model.onnx: opset: expected 5, as the card says, got 18"),
        ({"parameters": 1}, "parity: FAILED, parameters in the card: expected 5490, as model.keras has, got 1"),
        ({"macs": 1}, "parity: FAILED, macs in the card: expected 172704, as model.keras has, got 1"),
    ],
)
def test_a_card_that_contradicts_its_files_is_refused(
    changes: dict[str, Any], message: str, digits_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_package, tmp_path / "package")
    card = tmp_path / "package" / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))
    (card.parent / DIGEST_FILE).unlink()
    assert main(["verify", str(tmp_path / "package")]) == 1
    assert message in capsys.readouterr().out


def test_verifying_does_not_run_the_saved_model(
    digits_package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_saved_model(folder: Path) -> None:
        raise AssertionError(f"{folder} is a program")

    monkeypatch.setattr("pdeinfer.export.proof.read_saved_model", read_saved_model)
    assert main(["verify", str(digits_package)]) == 0
    assert "parity: ok, model.onnx" in capsys.readouterr().out


def test_a_package_proves_itself_again(digits_package: Path) -> None:
    reports = verify_package(ModelPackage.read(digits_package))
    assert [report.passed for report in reports] == [True] * (3 + has_fused_operator())


def test_the_features_are_what_the_last_layer_takes(digits_package: Path) -> None:
    from pdeinfer.nn.loading import load_classifier

    kernel, bias = load_classifier(digits_package / KERAS_FILE).get_layer("logits").get_weights()
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    with Predictor(digits_package) as predictor:
        features, probabilities = predictor.embed(images), predictor.predict_proba(images)
    logits = features.astype(np.float64) @ kernel + bias
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert (features.shape, features.dtype) == ((50, 16), np.float32)
    np.testing.assert_allclose(probabilities, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_saved_model_runs_without_pdeinfer(digits_package: Path) -> None:
    script = """
import sys, tensorflow as tf, numpy as np
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = np.load(sys.argv[2])
np.save(sys.argv[3], signature(image=tf.constant(images))["probabilities"].numpy())
assert "pdeinfer" not in sys.modules
"""
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    inputs, outputs = digits_package.with_name("images.npy"), digits_package.with_name("probabilities.npy")
    np.save(inputs, images)
    subprocess.run(
        [sys.executable, "-c", script, str(digits_package / "saved_model"), str(inputs), str(outputs)], check=True
    )
    with Predictor(digits_package) as predictor:
        np.testing.assert_allclose(np.load(outputs), predictor.predict_proba(images), atol=1e-5)


def test_an_export_that_differs_fails_and_leaves_nothing(
    saved_network: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import keras

    softmax = keras.ops.softmax  # of the export; the reference has TensorFlow's own
    monkeypatch.setattr(keras.ops, "softmax", lambda logits: softmax(logits * 1.001))
    assert main(["export", str(saved_network(DIGITS)), "--output", str(tmp_path / "package")]) == 1
    first, *table = capsys.readouterr().err.splitlines()
    assert first == "pdeinfer: error: the export differs from the network:"
    assert "  NOT EQUAL" in table
    assert list(tmp_path.iterdir()) == []


def test_a_missing_source_and_an_existing_output_are_exit_code_2(
    digits_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "nothing"), "--output", str(tmp_path / "package")]) == 2
    assert "no such file" in capsys.readouterr().err
    before = (digits_package / "card.json").read_bytes()
    assert main(["export", str(digits_package / "model.keras"), "--output", str(digits_package)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (digits_package / "card.json").read_bytes() == before


def test_a_bundled_name_is_a_source_and_a_path_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = []

    def load_original(source: Path, _: object) -> None:
        sources.append(source)
        raise ExportError("enough")

    monkeypatch.setattr(exporter, "load_original", load_original)
    for source in ("digits-pde", "./digits-pde", "runs/second"):
        assert main(["export", source, "--output", str(tmp_path / "package")]) == 2
    assert sources == [zoo.load("digits-pde").path, Path("digits-pde"), Path("runs/second")]


@pytest.mark.parametrize("options", [[], ["--format", "triton"]])
def test_a_package_that_would_be_a_class_of_the_photos_is_refused(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, photos = tmp_path / "run", tmp_path / "photos"
    run.mkdir()
    photos.mkdir()
    record = {"preset": "digits-pde", "recipe": {"dataset": "folder"}, "seed": 0, "precision": "float32"}
    record |= {"data_dir": str(photos), "images": {"splits": {}}}
    (run / "run.json").write_text(json.dumps(record))
    assert main(["export", str(run), "--output", str(photos / "build" / "package"), *options]) == 2
    assert "expected an output outside the folder of photos" in capsys.readouterr().err
    assert list(photos.iterdir()) == []


def test_a_network_whose_probabilities_are_not_finite_is_named_before_it_is_converted(
    saved_network: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pdeinfer.nn.loading import load_classifier

    classifier = load_classifier(saved_network(DIGITS))
    last = classifier.get_layer("logits")
    last.set_weights([np.full_like(weights, np.nan) for weights in last.get_weights()])
    classifier.save(tmp_path / "diverged.keras")
    assert main(["export", str(tmp_path / "diverged.keras"), "--output", str(tmp_path / "package")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the network's own probabilities are not finite on noise" in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["diverged.keras"]


def test_export_without_tensorflow_names_the_install_command(
    saved_network: Callable[..., Path], tmp_path: Path
) -> None:
    script = """
import sys
sys.modules["tensorflow"] = None  # what Python does for a module that is not installed
from pdeinfer.cli.main import main
sys.exit(main(["export", sys.argv[1], "--output", sys.argv[2]]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(saved_network(DIGITS)), str(tmp_path / "package")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "pip install 'pdeinfer[train]'" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "package").exists()


def test_a_finished_training_gives_its_accuracy_and_its_test_images(tmp_path: Path) -> None:
    from training import run

    assert run.main(["--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    reports = export_package(tmp_path / "run", tmp_path / "package")
    counts = {row.count for row in reports[0].comparisons if row.name == "test images"}
    assert max(counts) == 359
    card = ModelPackage.read(tmp_path / "package").card
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert card.metrics["test_accuracy"] == metrics["test_accuracy"]
    assert card.training["recipe"]["epochs"] == 1
    assert "data_dir" not in card.training


def test_measurements_of_another_network_stay_out_of_the_card(
    saved_network: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copyfile(saved_network(DIGITS), run / "last-3.keras")
    card = zoo.load("digits-pde").card
    record = {**card.training, **card.metrics, "model_sha256": "0" * 64}
    (run / "metrics.json").write_text(json.dumps(record))
    assert main(["export", str(run / "last-3.keras"), "--output", str(tmp_path / "package")]) == 0
    card = ModelPackage.read(tmp_path / "package").card
    assert (card.metrics, card.training) == ({}, {})
    assert "test images were not found" in capsys.readouterr().out


def test_a_package_exported_again_keeps_what_its_card_says(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
    calibration = {"temperature": 1.5, "ece_before": 0.2, "ece_after": 0.1, "images": 359, "measured_on": "test images"}
    card = ModelPackage.read(folder).card
    write_card(folder, replace(card, metrics={**card.metrics, "calibration": calibration}))
    before = ModelPackage.read(folder)
    export_package(folder, folder, force=True)
    after = ModelPackage.read(folder)
    assert after.digest != before.digest
    assert (after.card.training, after.card.metrics) == (before.card.training, before.card.metrics)
    assert "are not calibrated" not in (folder / "README.md").read_text()
    assert "Apache" in (folder / "README.md").read_text()


def test_a_package_whose_network_was_changed_is_not_exported_again(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
    shutil.copyfile(zoo.load("mnist-pde").path / KERAS_FILE, folder / KERAS_FILE)
    with pytest.raises(ModelPackageError, match="damaged"):
        export_package(folder, tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("model.int8.onnx", "--calibrate DIR"),
        ("model.tflite", "--format litert"),
        ("model.int8.tflite", "--format litert --calibrate DIR"),
        ("saved_model", "--format saved_model"),
    ],
)
def test_files_that_an_export_would_lose_are_named(
    name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
    (folder / name).touch()
    for source in (folder, folder / KERAS_FILE):
        with pytest.raises(ExportError, match=re.escape(f"would lose {name} ({option} writes it)")):
            export_package(source, folder, force=True)

    monkeypatch.setattr(exporter, "load_original", None)  # ends the export after the warning
    with pytest.raises(TypeError):
        export_package(tmp_path / "other.keras", folder, force=True)
    (record,) = caplog.records
    assert f"loses {name} ({option} writes it)" in record.getMessage()
    assert (folder / name).exists()


def broken_models() -> dict[str, tuple[Callable[[onnx.ModelProto], None], str]]:
    def rename_input(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = ["pixels" if name == "image" else name for name in node.input]
        model.graph.input[0].name = "pixels"

    def fix_batch(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    def external(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.add(key="location", value="../secret")

    def loop(model: onnx.ModelProto) -> None:
        body = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["go"], ["still_go"])],
            "body",
            [
                onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
                onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            ],
            [onnx.helper.make_tensor_value_info("still_go", onnx.TensorProto.BOOL, [])],
        )
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(3), "trips"))
        model.graph.node.append(onnx.helper.make_node("Loop", ["trips", ""], [], body=body))

    def foreign_operator(model: onnx.ModelProto) -> None:
        model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
        model.graph.node.append(onnx.helper.make_node("Anything", ["image"], ["other"], domain="com.example"))

    def undefined_function(model: onnx.ModelProto) -> None:
        del model.functions[:]

    def foreign_function(model: onnx.ModelProto) -> None:
        model.functions[0].name = model.graph.node[-1].op_type

    def foreign_operator_in_the_function(model: onnx.ModelProto) -> None:
        body = model.functions[0]
        body.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
        body.node.append(onnx.helper.make_node("Anything", ["h"], ["other"], domain="com.example"))

    return {
        "another-input-name": (rename_input, "inputs: expected [('image', 'UINT8', ['batch', 8, 8, 1])]"),
        "fixed-batch": (fix_batch, "inputs: expected"),
        "external-data": (external, "data outside its file"),
        "loop": (loop, "Loop.body is a graph"),
        "foreign-operator": (foreign_operator, "the operator com.example.Anything"),
        "undefined-function": (undefined_function, "the operator pdeinfer.GlobalLayer"),
        "foreign-function": (
            foreign_function,
            "functions (pdeinfer.Softmax, ...), expected pdeinfer.GlobalLayer at most",
        ),
        "foreign-operator-in-the-function": (foreign_operator_in_the_function, "the operator com.example.Anything"),
    }


@pytest.mark.parametrize("name", broken_models())
def test_a_graph_that_breaks_a_rule_is_named(name: str, digits_package: Path) -> None:
    break_rule, message = broken_models()[name]
    model = onnx.load(digits_package / ONNX_FILE)
    break_rule(model)
    assert any(message in rule for rule in broken_rules(model, DIGITS)), broken_rules(model, DIGITS)
