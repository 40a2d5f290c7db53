"""Writes and runs the network as a file for LiteRT (TensorFlow Lite).

TensorFlow converts the function of the SavedModel, with one change: LiteRT has no operator for a periodic shift, so PDE
layers shift by slices there.
"""

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

from pdeinfer.arrays import Array
from pdeinfer.checks.parity import Classify
from pdeinfer.errors import ExportError, MissingDependencyError, ModelPackageError
from pdeinfer.export.quantization import calibration_sample
from pdeinfer.export.rewrite.traced import trace
from pdeinfer.export.saved_model import as_module
from pdeinfer.package.package import INPUT_NAME, OUTPUT_NAME
from pdeinfer.runtime.cpus import available_cpus


def convert(classifier: Any, calibration: Array | None = None) -> bytes:
    """Return the content of a `.tflite` file, from uint8 `image` to float32 `probabilities`, for any batch size.

    Args:
        classifier: a `pdeinfer.nn.Classifier`.
        calibration: uint8 images (N, height, width, channels): every operator outside the PDE layers becomes an 8-bit
            one, with ranges from a sample of them. None: all is float32.

    Raises:
        ExportError: TensorFlow cannot convert the network.
    """
    import tensorflow as tf

    with _shifts_by_slices(classifier):
        function = trace(classifier).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], as_module(classifier))
    try:
        if calibration is not None:
            return _to_int8(converter, calibration, [layer.name for layer in classifier.pde_layers().values()])
        content: bytes = converter.convert()
    except Exception as error:  # the converter's errors have no common base class
        raise ExportError(f"{classifier.preset.name}: TensorFlow cannot convert it for LiteRT: {error}") from error
    return content


def _to_int8(converter: Any, calibration: Array, pde_layers: Collection[str]) -> bytes:
    """Convert to 8-bit integers, but let PDE layers compute in float32, as `pdeinfer.export.quantization` does.

    TensorFlow still rounds some of their fields to 8 bits before they are used.

    Args:
        converter: a `tf.lite.TFLiteConverter`.
        calibration: uint8 images (N, height, width, channels).
        pde_layers: the layers' names.
    """
    import tensorflow as tf

    sample = calibration_sample(calibration)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in sample)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        # TensorFlow's way of choosing what is quantized. Tensors are named after the layers that compute them.
        debugger = tf.lite.experimental.QuantizationDebugger(converter=converter)
        tensors = tf.lite.Interpreter(model_content=debugger.calibrated_model).get_tensor_details()
        in_float = [each["name"] for each in tensors if any(f"/{layer}" in each["name"] for layer in pde_layers)]
        debugger.options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=in_float)
        content: bytes = debugger.get_nondebug_quantized_model()
    return content


def open_litert(file: str, content: bytes) -> tuple[str, Classify]:
    """Return a name for reports, and the function, uint8 (N, H, W, C) -> float32 (N, classes), of a `.tflite` file.

    Args:
        file: the file's name.
        content: the file's content.

    Raises:
        MissingDependencyError: LiteRT is not installed.
        ModelPackageError: from the function: LiteRT cannot run the file.
    """
    interpreter_class = require_litert(f"running {file}")

    @cache  # an interpreter for each batch size: resized repeatedly, int8 networks fail in XNNPACK
    def runner(_: int) -> Any:
        interpreter = interpreter_class(model_content=content, num_threads=available_cpus())
        return interpreter.get_signature_runner("serving_default")

    def classify(images: Array) -> Array:
        try:
            probabilities: Array = runner(len(images))(**{INPUT_NAME: images})[OUTPUT_NAME]
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelPackageError(f"{file}: LiteRT cannot run it: {error}") from error
        return probabilities

    return f"{file} on LiteRT {version('ai-edge-litert')}", classify


def require_litert(purpose: str) -> Any:
    """Return LiteRT's interpreter class.

    Raises:
        MissingDependencyError: LiteRT is not installed; the message says that `purpose` needs it.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependencyError("ai-edge-litert", "litert", purpose) from error
    return Interpreter


@contextmanager
def _shifts_by_slices(classifier: Any) -> Iterator[None]:
    layers = classifier.pde_layers().values()
    for layer in layers:
        layer.roll = _roll
    try:
        yield
    finally:
        for layer in layers:
            del layer.roll


def _roll(array: Any, shift: int, axis: int) -> Any:
    """Shift as `numpy.roll` does."""
    import tensorflow as tf

    before = (slice(None),) * (axis % len(array.shape))
    cut = -shift % array.shape[axis]
    return tf.concat([array[*before, cut:], array[*before, :cut]], axis)
