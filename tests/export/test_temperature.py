"""Calibrated exports: the fitted temperature, unchanged answers, and what the card says."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pdeinfer import ModelPackage, Predictor
from pdeinfer.checks.measuring import evaluate
from pdeinfer.cli.main import main
from pdeinfer.datasets import Split, load_dataset
from pdeinfer.errors import DatasetError
from pdeinfer.export import export_package, exporter, verify_package
from pdeinfer.export.temperature import fit_temperature
from pdeinfer.package import zoo
from pdeinfer.package.package import KERAS_FILE

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of digits-pde whose network makes mistakes."""
    from pdeinfer.nn.loading import load_classifier

    folder = tmp_path_factory.mktemp("run")
    package = zoo.load("digits-pde")
    classifier = load_classifier(package.path / KERAS_FILE)
    last = classifier.get_layer("logits")
    kernel, bias = last.get_weights()
    last.set_weights([kernel + np.random.default_rng(0).normal(0, 0.5, kernel.shape), bias])
    classifier.save(folder / KERAS_FILE)
    sha256 = hashlib.sha256((folder / KERAS_FILE).read_bytes()).hexdigest()
    outcome = {**package.card.metrics, "test_loss": 99.0, "model_sha256": sha256}
    (folder / "run.json").write_text(json.dumps(package.card.training))
    (folder / "metrics.json").write_text(json.dumps({**package.card.training, **outcome}))
    return folder


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (20_000, 5))
    probabilities = np.exp(logits / temperature)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = (rng.random((20_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize(("scale", "limit"), [(0.01, "0.05"), (100.0, "20")])
def test_a_best_temperature_outside_the_limits_is_an_error(scale: float, limit: str) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (2_000, 5))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn with temperature 1
    with pytest.raises(DatasetError, match=f"between 0.05 and 20, got the limit {limit} for 2000"):
        fit_temperature(scale * logits, labels)


def test_answers_without_information_have_no_temperature() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DatasetError, match="got the limit 20 for 2000"):
        fit_temperature(rng.normal(0, 4, (2_000, 5)), rng.integers(5, size=2_000))


def test_a_calibrated_package_has_the_same_answers_and_is_proven(run: Path, tmp_path: Path, capsys: Captured) -> None:
    for name, options in (("plain", []), ("calibrated", ["--fit-temperature", "--format", "all"])):
        assert main(["export", str(run), "--output", str(tmp_path / name), *options]) == 0
    assert "temperature" in capsys.readouterr().out.splitlines()[-2]
    test = load_dataset("digits", None).test
    images = test.images
    with Predictor(tmp_path / "plain") as plain, Predictor(tmp_path / "calibrated") as calibrated:
        before, after = plain.predict_proba(images), calibrated.predict_proba(images)
    package = ModelPackage.read(tmp_path / "calibrated")
    stated = package.card.metrics["calibration"]

    scaled = before.astype(np.float64) ** (1 / stated["temperature"])
    np.testing.assert_allclose(after, scaled / scaled.sum(axis=1, keepdims=True), atol=1e-4)
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert all(report.passed for report in verify_package(package))
    loss = -np.log(after[np.arange(len(after)), test.labels]).mean()
    assert package.card.metrics["test_loss"] == pytest.approx(loss, rel=1e-3)
    assert (stated["measured_on"], stated["images"]) == ("test images", len(images))
    for name, key in (("plain", "ece_before"), ("calibrated", "ece_after")):
        assert evaluate(tmp_path / name).calibration.error == pytest.approx(stated[key], abs=1e-3)
    assert stated["ece_after"] < stated["ece_before"]
    assert "not calibrated" not in (tmp_path / "calibrated" / "README.md").read_text()
    assert "not calibrated" in (tmp_path / "plain" / "README.md").read_text()


def test_a_calibrated_package_keeps_its_temperature_and_is_not_given_another(
    run: Path, tmp_path: Path, capsys: Captured
) -> None:
    calibrated, again = tmp_path / "calibrated", tmp_path / "again"
    export_package(run, calibrated, temperature=True)
    assert main(["export", str(calibrated), "--fit-temperature", "--output", str(again)]) == 2
    assert "calibrated already" in capsys.readouterr().err
    assert not again.exists()
    export_package(calibrated, again)
    first, second = (ModelPackage.read(folder).card.metrics for folder in (calibrated, again))
    assert second["calibration"] == first["calibration"]


def test_without_a_mistake_among_the_validation_images_there_is_no_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Predictor("digits-pde") as predictor:
        images = load_dataset("digits", None).train.images[:50]
        answers = predictor.predict_proba(images).argmax(axis=1)
    shutil.copyfile(zoo.load("digits-pde").path / KERAS_FILE, tmp_path / KERAS_FILE)
    monkeypatch.setattr(exporter, "load_validation_split", lambda *_: Split(images, answers))
    with pytest.raises(DatasetError, match="all of the 50 validation images"):
        export_package(tmp_path / KERAS_FILE, tmp_path / "package", temperature=True)
    assert not (tmp_path / "package").exists()


def test_a_network_without_a_record_cannot_be_calibrated(run: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copyfile(run / KERAS_FILE, tmp_path / KERAS_FILE)
    assert main(["export", str(tmp_path / KERAS_FILE), "--fit-temperature", "--output", str(tmp_path / "package")]) == 2
    assert "no record of its training" in capsys.readouterr().err
