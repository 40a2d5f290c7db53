"""Distillation: the loss against its formula, and the teachers that a student can have."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pdeinfer.errors import ExportError, ModelNotFoundError, TrainingError
from pdeinfer.nn import Classifier
from pdeinfer.package import zoo
from pdeinfer.predictor import Predictor
from pdeinfer.spec.presets import PRESETS
from pdeinfer.spec.training_record import ModelReference
from training.distillation import DistillationLoss, accuracy, load_teacher

DIGITS = PRESETS["digits-pde"]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return -(targets * np.log(softmax(logits))).sum(axis=1)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one-hot labels, the student's and the teacher's logits, each (6, 4)."""
    rng = np.random.default_rng(0)
    return np.eye(4)[rng.integers(4, size=6)], rng.normal(size=(6, 4)), 3 * rng.normal(size=(6, 4))


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.0, 0.0)])
def test_the_loss_is_the_published_formula(batch: tuple[np.ndarray, ...], temperature: float, weight: float) -> None:
    labels, student, teacher = batch
    targets = np.concatenate([labels, teacher], axis=1).astype(np.float32)
    distilled = cross_entropy(softmax(teacher / temperature), student / temperature)
    expected = (1 - weight) * cross_entropy(labels, student) + weight * temperature**2 * distilled
    loss = DistillationLoss(temperature, weight)(targets, student.astype(np.float32))
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-5)


def test_the_loss_of_labels_alone_is_their_cross_entropy(batch: tuple[np.ndarray, ...]) -> None:
    labels, student, _ = batch
    loss = DistillationLoss(4.0, 0.9)(labels.astype(np.float32), student.astype(np.float32))
    assert float(loss) == pytest.approx(cross_entropy(labels, student).mean(), rel=1e-5)


def test_the_gradient_vanishes_if_the_student_equals_the_teacher(batch: tuple[np.ndarray, ...]) -> None:
    labels, _, teacher = batch
    targets = np.concatenate([labels, teacher], axis=1).astype(np.float32)
    loss = DistillationLoss(4.0, 1.0)
    least = float(loss(targets, teacher.astype(np.float32)))
    for index in np.ndindex(teacher.shape):
        other = teacher.astype(np.float32)
        other[index] += 1
        assert float(loss(targets, other)) > least


def test_the_accuracy_ignores_the_teacher(batch: tuple[np.ndarray, ...]) -> None:
    labels, student, teacher = batch
    targets = np.concatenate([labels, teacher], axis=1)
    expected = labels.argmax(axis=1) == student.argmax(axis=1)
    assert np.array_equal(keras.ops.convert_to_numpy(accuracy(targets, student)), expected)


def test_the_loss_survives_saving() -> None:
    loss = keras.losses.deserialize(keras.losses.serialize(DistillationLoss(3.0, 0.7)))
    assert (loss.temperature, loss.weight) == (3.0, 0.7)


def test_a_package_and_its_keras_file_are_the_same_teacher() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    from_package, record = load_teacher("digits-pde", DIGITS)
    from_file, _ = load_teacher(str(zoo.load("digits-pde").path / "model.keras"), DIGITS)
    assert record.model == "digits-pde"
    np.testing.assert_allclose(softmax(from_package(images)), softmax(from_file(images)), atol=1e-5)


def test_a_student_in_lower_precision_has_the_int8_teacher_if_there_is_one() -> None:
    student, package = PRESETS["cifar10-global"], zoo.load("cifar10-resnet32")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    for policy, file in (("float32", "model.onnx"), ("mixed_bfloat16", "model.int8.onnx")):
        teacher, record = load_teacher("cifar10-resnet32", student, policy=policy)
        assert record.sha256 == package.card.files[file].sha256
        expected = Predictor(package, device="cpu", precision="int8" if "int8" in file else "float32")
        np.testing.assert_allclose(softmax(teacher(images)), expected.predict_proba(images), atol=1e-6)
        # A training that was started with it goes on with it.
        assert load_teacher("cifar10-resnet32", student, recorded=record)[1] == record
    _, record = load_teacher("digits-pde", DIGITS, policy="mixed_bfloat16")
    assert record.sha256 == zoo.load("digits-pde").card.files["model.onnx"].sha256


def test_a_teacher_of_other_labels_or_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="labels"):
        load_teacher("digits-pde", replace(DIGITS, labels=("one", "two")))
    with pytest.raises(TrainingError, match="shape"):
        load_teacher("digits-pde", replace(DIGITS, input=replace(DIGITS.input, height=9)))
    larger = replace(DIGITS, input=replace(DIGITS.input, width=16))
    Classifier(larger).save(tmp_path / "larger.keras")
    with pytest.raises(TrainingError, match="shape"):
        load_teacher(str(tmp_path / "larger.keras"), DIGITS)


def test_another_teacher_than_the_recorded_one_is_refused() -> None:
    with pytest.raises(TrainingError, match="is not the teacher that the training was started with"):
        load_teacher("digits-pde", DIGITS, recorded=ModelReference("digits-pde", "0" * 64))


def test_a_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no-such-teacher"):
        load_teacher("no-such-teacher", DIGITS)
    with pytest.raises(ExportError, match=r"missing\.keras: cannot be read: No such file"):
        load_teacher(str(tmp_path / "missing.keras"), DIGITS)


def test_a_training_as_teacher_names_the_export(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(TrainingError, match=f"pdeinfer export {tmp_path}"):
        load_teacher(str(tmp_path), DIGITS)
