"""Every form of a PDE layer trains a step, exports, and equals its original."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdeinfer import ModelPackage
from pdeinfer.export import export_package
from tests.export.variants import VARIANTS, network


def weights_by_path(classifier: Any) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in classifier.trainable_variables}


@pytest.fixture(scope="module", params=VARIANTS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A network that trained for a step: its saved file, its loss, and its weights before and after."""
    import keras

    from pdeinfer.nn import Classifier

    keras.utils.set_random_seed(3)
    classifier = Classifier(network(request.param))
    images = np.random.default_rng(3).integers(0, 256, (32, *classifier.input_shape[1:]), dtype=np.uint8)
    before = weights_by_path(classifier)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)  # one step is cheaper run eagerly
    history = classifier.fit(images, np.arange(32) % 10, batch_size=32, epochs=1, verbose=0).history
    path = tmp_path_factory.mktemp(request.param) / "model.keras"
    classifier.save(path)
    return {
        "preset": classifier.preset,
        "path": path,
        "loss": history["loss"][0],
        "before": before,
        "after": weights_by_path(classifier),
    }


def test_a_training_step_has_a_finite_loss_and_moves_every_weight(trained: dict[str, Any]) -> None:
    assert 0 < trained["loss"] < 10
    still = [path for path, weight in trained["before"].items() if np.array_equal(weight, trained["after"][path])]
    assert still == []
    assert all(np.all(np.isfinite(weight)) for weight in trained["after"].values())


def test_the_trained_network_exports_and_equals_the_original(trained: dict[str, Any], tmp_path: Path) -> None:
    reports = export_package(trained["path"], tmp_path / "package")
    assert len(reports) >= 2  # with standard operators; with the fused one, where the machine has it; the fields
    assert all(report.passed for report in reports)
    assert ModelPackage.read(tmp_path / "package").card.preset == trained["preset"]
