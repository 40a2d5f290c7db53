"""The functions that are exported: raw pixels in, probabilities or fields out."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pdeinfer.export.fields import needed_fields, pde_layers
from pdeinfer.export.rewrite.operands import operand_name, traced_operands

NORMALIZED = "normalized"


class Cut(NamedTuple):
    """A `tf.function` of a network without its normalisation and some PDE layers, and these layers by name."""

    function: Any
    layers: Mapping[str, Any]


def trace(classifier: Any) -> Any:
    """Return a `tf.function` of one argument, `image`, uint8 (batch, height, width, channels) with only batch free.

    It returns `{"probabilities": float32 (batch, classes)}`. The K steps of every PDE layer are unrolled by tracing.
    """
    import keras
    import tensorflow as tf

    spec = classifier.preset.input
    image = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.uint8, name="image")

    def classify(image: Any) -> dict[str, Any]:
        return {"probabilities": keras.ops.softmax(classifier(image, training=False))}

    return tf.function(classify, input_signature=[image], autograph=False)


def trace_around_layers(classifier: Any) -> Cut:
    """Return what `trace` does with the normalisation and the PDE layers cut out (see `_trace_around`)."""
    import keras

    def outputs(values: Mapping[str, Any]) -> dict[str, Any]:
        return {"probabilities": keras.ops.softmax(values["logits"])}

    return _trace_around(classifier, pde_layers(classifier), {"logits": classifier.output}, outputs)


def trace_fields_around_layers(classifier: Any) -> Cut:
    """Return a `tf.function` of the fields of the PDE layers, named as in `fields.py`, cut likewise.

    No field depends on what the last layer returns: that layer is neither an argument, nor has it operands.
    """
    layers = pde_layers(classifier)
    *first, last = layers

    def outputs(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            f"{name}/{symbol}": field
            for name, layer in layers.items()
            for symbol, field in needed_fields(layer, values[name]).items()
        }

    return _trace_around(classifier, {name: layers[name] for name in first}, {last: layers[last].input}, outputs)


def _trace_around(
    classifier: Any,
    layers: Mapping[str, Any],
    results: Mapping[str, Any],
    outputs: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Cut:
    """Return a `tf.function` of a network with its normalisation and PDE layers cut out.

    Cutting a functional Keras model needs no operator that TensorFlow and tf2onnx would have to leave alone: what a
    layer returns is an argument, "normalized", "layer1", "layer2", ..., and what a PDE layer takes, its
    `operands.traced_operands`, is returned beside the outputs, under its `operands.operand_name`.

    Args:
        layers: the PDE layers that are cut out, by name.
        results: further tensors of the network, by name.
        outputs: makes the outputs of the values of `results`, and of the inputs of the layers, by their names.
    """
    import keras
    import tensorflow as tf

    arguments = {
        NORMALIZED: classifier.get_layer("normalize").output,
        **{name: layer.output for name, layer in layers.items()},
    }
    inputs = {name: layer.input for name, layer in layers.items()}
    around = keras.Model(list(arguments.values()), {**inputs, **results}, name=classifier.name)
    signature = [tf.TensorSpec(argument.shape, tf.float32, name=name) for name, argument in arguments.items()]

    def function(*arguments: Any) -> dict[str, Any]:
        values = around(list(arguments), training=False)
        operands = {
            operand_name(name, operand): value
            for name, layer in layers.items()
            for operand, value in traced_operands(layer, values[name]).items()
        }
        return {**outputs(values), **operands}

    return Cut(tf.function(function, input_signature=signature, autograph=False), layers)
