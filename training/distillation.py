"""Knowledge distillation: a student network learns from a teacher's logits in addition to the labels."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from pdeinfer.errors import TrainingError
from pdeinfer.nn.loading import load_classifier
from pdeinfer.package.package import MODEL_FILES, Precision
from pdeinfer.predictor import Predictor
from pdeinfer.spec.presets import Preset
from pdeinfer.spec.training_record import ModelReference
from training.packages import load_package

Teacher: TypeAlias = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) -> float32 logits (N, classes)

_SMALLEST = np.finfo(np.float32).tiny


def load_teacher(
    source: str,
    student: Preset,
    *,
    policy: str = "float32",
    recorded: ModelReference | None = None,
    threads: int | None = None,
) -> tuple[Teacher, ModelReference]:
    """Load the teacher of a student network.

    Args:
        source: a bundled model's name, a package's folder or a `.keras` file.
        student: must have the teacher's labels and image size.
        policy: the Keras dtype policy of the student. Where it is not "float32", a package that has an int8 file
            computes with it. A `.keras` file computes in float32.
        recorded: the teacher that the training was started with.
        threads: of ONNX Runtime, where the teacher is a package; by default, those of `Predictor`.

    Returns:
        The teacher's logits as a function of images, up to a constant for each image, and the record of the teacher.

    Raises:
        TrainingError: the teacher has other labels or another image size, is not the recorded one, or is the folder of
            a training.
        ModelNotFoundError, ModelPackageError, ExportError: the teacher cannot be loaded.
    """
    if source.endswith(".keras"):
        classifier = load_classifier(Path(source))
        preset, teacher = classifier.preset, _keras_logits(classifier)
        sha256 = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    else:
        package = load_package(source)
        checksums = {precision: package.card.files[MODEL_FILES[precision]].sha256 for precision in package.precisions}
        precision: Precision = "int8" if policy != "float32" and "int8" in checksums else "float32"
        if recorded is not None:
            precision = next((one for one, checksum in checksums.items() if checksum == recorded.sha256), precision)
        preset, sha256 = package.card.preset, checksums[precision]
        teacher = _package_logits(Predictor(package, device="cpu", precision=precision, threads=threads))
    reference = ModelReference(preset.name, sha256)
    if recorded not in (None, reference):
        raise TrainingError(f"{source} is not the teacher that the training was started with")
    if preset.labels != student.labels:
        raise TrainingError(f"{source}: expected a teacher with the labels {student.labels}, got {preset.labels}")
    expected, found = ((spec.height, spec.width, spec.channels) for spec in (student.input, preset.input))
    if found != expected:
        raise TrainingError(f"{source}: expected a teacher for images of shape {expected}, got {found}")
    return teacher, reference


def _keras_logits(classifier: Any) -> Teacher:
    # Not predict_on_batch, which has every device of a tf.distribute strategy classify the whole batch.
    return lambda images: np.asarray(keras.ops.convert_to_numpy(classifier(images, training=False)), np.float32)


def _package_logits(predictor: Predictor) -> Teacher:
    """Return the logarithms of a package's probabilities: its logits up to a constant, which softmax cancels."""
    return lambda images: np.log(np.maximum(predictor.predict_proba(images), _SMALLEST))


@keras.saving.register_keras_serializable("pdeinfer")
class DistillationLoss(keras.losses.Loss):  # type: ignore[misc]  # Keras is untyped
    """`(1 - w) CE(y, softmax(z)) + w T^2 CE(softmax(t / T), softmax(z / T))`, for student logits z, teacher logits t.

    T^2 keeps the gradients of both terms of one size. Where the targets hold only labels, as those of validation do,
    the loss is `CE(y, softmax(z))`.

    Args:
        temperature: T. weight: w, from 0 to 1.

    Targets: float32 (N, classes), labels y; or (N, 2 * classes), labels y followed by teacher logits t.

    Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015.
    """

    def __init__(self, temperature: float, weight: float, name: str = "distillation", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.temperature = temperature
        self.weight = weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = y_pred.shape[-1]
        loss = keras.ops.categorical_crossentropy(y_true[:, :classes], y_pred, from_logits=True)
        if y_true.shape[-1] == classes:
            return loss
        soft = keras.ops.softmax(y_true[:, classes:] / self.temperature)
        distilled = keras.ops.categorical_crossentropy(soft, y_pred / self.temperature, from_logits=True)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * distilled

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature, "weight": self.weight}


@keras.saving.register_keras_serializable("pdeinfer")  # type: ignore[untyped-decorator]
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Return whether the largest logit is that of the label: (N,), for the targets of `DistillationLoss`."""
    return keras.metrics.categorical_accuracy(y_true[:, : y_pred.shape[-1]], y_pred)
