"""Rewrites a network for less precision: its convolutions in 8-bit integers, or all but its PDE layers in float16.

PDE layers stay in float32: their operator is, and their steps would add up rounding errors. So the networks that come
in here call them (see `graph.py`); where they shall be inlined, that is done with what comes out.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.checks.parity import Array
from pdeinfer.errors import MissingDependencyError
from pdeinfer.export.rewrite.function import NAME
from pdeinfer.export.rewrite.graph import sort_nodes

CALIBRATION_IMAGES = 512  # the ranges of 256 to 1,024 were as good
_BATCH = 32


def to_int8(model: Any, images: Array) -> Any:
    """Return a network, an `onnx.ModelProto`, whose convolutions outside of its PDE layers are of 8-bit integers.

    Activations are asymmetric uint8, a relu after a convolution becoming a limit of their range; weights are symmetric
    int8, a scale for each channel, and of 7 bits: CPUs without VNNI instructions add pairs of products in 16 bits,
    which 8 bits overflow (docs/decisions/0009).

    Args:
        images: uint8 (N, height, width, channels), of which some, chosen at random, give the activations' ranges.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    import onnx

    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnxruntime", "cpu", "quantizing") from error
    chosen = np.random.default_rng(0).permutation(len(images))[:CALIBRATION_IMAGES]
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    # Or it would advise its own preparation, which inlines the function of the PDE layers, and fuses operators to those
    # of ONNX Runtime alone.
    add_pre_process_metadata(prepared)
    with tempfile.TemporaryDirectory() as folder:  # of a model in memory it would move the weights to a file
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(prepared.SerializeToString())
        quantize_static(
            source,
            target,
            _reader(images[np.sort(chosen)]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        return _described(onnx.load(target), model)


def to_half(model: Any) -> Any:
    """Return a network, an `onnx.ModelProto`, in float16, but for its PDE layers and the softmax.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    import onnx

    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnxruntime", "cpu", "converting to float16") from error
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    # The softmax stands behind the cast of the converted graph's output, or its probabilities would add up to 1 less
    # exactly.
    (softmax,) = (node for node in graph.node if "probabilities" in node.output)
    graph.node.remove(softmax)
    graph.output[0].name = softmax.input[0]
    half = convert_float_to_float16(half, keep_io_types=True, op_block_list=[NAME])
    # A PDE layer that takes one map twice gets its cast twice. What is known of shapes is of the graph before.
    nodes = {node.output[0]: node for node in (*half.graph.node, softmax)}
    del half.graph.node[:], half.graph.value_info[:]
    half.graph.node.extend(nodes.values())
    half.graph.output[0].CopyFrom(model.graph.output[0])
    sort_nodes(half.graph)
    return _described(half, model)


def _described(changed: Any, model: Any) -> Any:
    """Return the changed model with the other's description."""
    import onnx

    changed.producer_name, changed.producer_version = model.producer_name, model.producer_version
    onnx.helper.set_model_props(changed, {entry.key: entry.value for entry in model.metadata_props})
    return changed


def _reader(images: Array) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime is untyped
        def __init__(self) -> None:
            self._batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    return Reader()
