"""Quantizes the convolutions of an exported network to 8-bit integers.

PDE layers stay in float32: their fused operator computes in float32, and rounding errors would add up over the steps.
(What computes maps for them, such as pointwise fields, are convolutions like all others.)
The network must still call its PDE layers as an ONNX function (see `pdeinfer.export.rewrite`); inline the result, not
the input.
"""

import tempfile
from pathlib import Path
from typing import Any

from pdeinfer.arrays import Array
from pdeinfer.datasets import sample_indices
from pdeinfer.errors import MissingDependencyError
from pdeinfer.package.package import INPUT_NAME

CALIBRATION_IMAGES = 512  # 256 and 1,024 images gave ranges of the same quality
_BATCH = 32


def to_int8(model: Any, images: Array) -> Any:
    """Quantize every convolution outside the PDE layers; return a new `onnx.ModelProto`.

    Activations become asymmetric uint8; a relu after a convolution becomes the lower limit of the range. Weights become
    symmetric 7-bit int8 with one scale per channel: CPUs without VNNI add pairs of products in 16 bits, which 8-bit
    weights would overflow (docs/decisions/0009).

    Args:
        model: the float32 `onnx.ModelProto`.
        images: calibration images, uint8 (N, height, width, channels); a random sample sets the activation ranges.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    import onnx

    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnxruntime", "cpu", "quantizing") from error
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    # Without this mark, quantize_static recommends its own preprocessing, which would inline the PDE layers' function
    # and fuse operators into ones that only ONNX Runtime has.
    add_pre_process_metadata(prepared)
    # From files: given a model in memory, quantize_static moves the weights to an external file.
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(prepared.SerializeToString())
        quantize_static(
            source,
            target,
            _reader(calibration_sample(images)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        quantized = onnx.load(target)
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    onnx.helper.set_model_props(quantized, {entry.key: entry.value for entry in model.metadata_props})
    return quantized


def calibration_sample(images: Array) -> Array:
    """Return a random sample of `CALIBRATION_IMAGES` images, always the same of the same images."""
    return images[sample_indices(len(images), CALIBRATION_IMAGES)]


def _reader(images: Array) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime is untyped
        def __init__(self) -> None:
            self._batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT_NAME: batch}

    return Reader()
