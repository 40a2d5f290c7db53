"""Adds the calls of the PDE layers, and the normalisation, to the graph that tf2onnx makes of the other layers."""

from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from pdeinfer.export.onnx_file import OPSET, convert
from pdeinfer.export.rewrite.body import BlockedBody
from pdeinfer.export.rewrite.function import DOMAIN, NAME, VERSION, call_attributes, global_layer_function
from pdeinfer.export.rewrite.operands import OPERANDS, folded_operands, operand_name
from pdeinfer.export.rewrite.traced import NORMALIZED, Cut, trace_around_layers, trace_stages
from pdeinfer.package.package import FEATURES_NAME, INPUT_NAME


def convert_classifier(classifier: Any, *, for_onnx_runtime: bool = True) -> Any:
    """Convert a network to an `onnx.ModelProto`, from raw pixels to probabilities and features.

    Args:
        for_onnx_runtime: build the PDE layers from the operators that ONNX Runtime runs fastest; other runtimes run
            them more slowly than those that False gives.

    Raises:
        ExportError: tf2onnx cannot convert the network.
        MissingDependencyError: tf2onnx is not installed.
    """
    return _convert(classifier, trace_around_layers(classifier), for_onnx_runtime=for_onnx_runtime)


def convert_stages(classifier: Any) -> Any:
    """Convert a network, cut at its PDE layers (see `rewrite.fields`), to an `onnx.ModelProto`.

    Errors are those of `convert_classifier`.
    """
    return _convert(classifier, trace_stages(classifier))


def without_functions(model: Any) -> Any:
    """Inline the calls of the PDE layers: return a model with their operators in the graph itself."""
    import onnx.inliner

    model = onnx.inliner.inline_local_functions(model)
    for entry in [entry for entry in model.opset_import if entry.domain == DOMAIN]:
        model.opset_import.remove(entry)
    return model


def _sort_nodes(graph: Any) -> None:
    """Sort the nodes of a graph topologically, as ONNX requires."""
    nodes = list(graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    needed = {index: [makers[name] for name in node.input if name in makers] for index, node in enumerate(nodes)}
    del graph.node[:]
    graph.node.extend(nodes[index] for index in TopologicalSorter(needed).static_order())


def _convert(classifier: Any, cut: Cut, *, for_onnx_runtime: bool = True) -> Any:
    """Convert a cut network, then add the parts that were cut out between its loose inputs and outputs."""
    import onnx

    function, layers = cut
    model = convert(function, classifier.preset, [NORMALIZED, *layers])
    graph, image_spec = model.graph, classifier.preset.input
    shape = ["batch", image_spec.height, image_spec.width, image_spec.channels]
    image = onnx.helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8, shape)
    operands = {operand_name(name, key) for name in layers for key in OPERANDS}
    traced = operands & {value.name for value in graph.output}
    outputs = sorted(
        (value for value in graph.output if value.name not in traced), key=lambda value: value.name == FEATURES_NAME
    )
    inputs = [image, *(value for value in graph.input if value.name not in {NORMALIZED, *layers})]
    for values, kept in ((graph.input, inputs), (graph.output, outputs)):
        del values[:]
        values.extend(kept)
    _normalize(graph, classifier.get_layer("normalize"))
    for name, layer in layers.items():
        _call(graph, name, layer, traced)
    if layers:
        has_blocks = all(layer.output.shape[-1] % BlockedBody.BLOCK == 0 for layer in layers.values())
        blocked = for_onnx_runtime and has_blocks
        model.functions.append(global_layer_function(classifier.preset.pde, OPSET, blocked=blocked))
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    _pool_globally(graph)
    _sort_nodes(graph)
    return model


def _normalize(graph: Any, rescaling: Any) -> None:
    """Add `image * scale + offset`, (N, H, W, C) -> (N, C, H, W).

    The transposition comes first: ONNX Runtime takes five times as long to apply one factor per channel along a last
    axis of length three.
    """
    import onnx

    for name, values in (("scale", rescaling.scale), ("offset", rescaling.offset)):
        array = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
        graph.initializer.append(onnx.numpy_helper.from_array(array, f"image/{name}"))
    node = onnx.helper.make_node
    graph.node.extend(
        [
            node("Transpose", [INPUT_NAME], ["image/transposed"], perm=[0, 3, 1, 2]),
            node("Cast", ["image/transposed"], ["image/float"], to=onnx.TensorProto.FLOAT),
            node("Mul", ["image/float", "image/scale"], ["image/scaled"]),
            node("Add", ["image/scaled", "image/offset"], [NORMALIZED]),
        ]
    )


def _pool_globally(graph: Any) -> None:
    """Replace the mean over all pixels by a GlobalAveragePool, which ONNX Runtime runs in its blocked layout."""
    import onnx

    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for mean in [node for node in graph.node if node.op_type == "ReduceMean"]:
        features, axes = makers.get(mean.input[0]), constants.get(mean.input[-1])
        if features is None or axes is None or sum(mean.input[0] in node.input for node in graph.node) > 1:
            continue
        if features.op_type == "Transpose" and list(onnx.numpy_helper.to_array(axes)) == [1, 2]:
            pooled = f"{mean.output[0]}/pooled"
            graph.node.append(onnx.helper.make_node("GlobalAveragePool", [features.input[0]], [pooled]))
            graph.node.append(onnx.helper.make_node("Flatten", [pooled], [mean.output[0]]))
            graph.node.remove(mean)
            graph.node.remove(features)
            graph.initializer.remove(axes)


def _call(graph: Any, name: str, layer: Any, traced: set[str]) -> None:
    """Add the call of a PDE layer with its weights; its output has the layer's name."""
    import onnx

    folded = folded_operands(layer)
    names = {key: operand_name(name, key) for key in OPERANDS}
    graph.initializer.extend(onnx.numpy_helper.from_array(array, names[key]) for key, array in folded.items())
    operands = {key: value for key, value in names.items() if key in folded or value in traced}
    for number in ("courant", "diffusion"):
        if f"{number}_y" not in operands:  # one operand may serve both directions
            same = {part: operands.get(f"{number}_x{part}") for part in ("", "_bias")}
            operands |= {f"{number}_y{part}": name for part, name in same.items() if name}
    inputs = [operands.get(key, "") for key in OPERANDS]
    while not inputs[-1]:
        inputs.pop()
    _, height, width, channels = layer.output.shape
    attributes = call_attributes(layer.spec, height, width, channels)
    graph.node.append(onnx.helper.make_node(NAME, inputs, [name], name=name, domain=DOMAIN, **attributes))
