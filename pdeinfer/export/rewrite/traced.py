"""Traces a network as a `tf.function`: whole, or with its normalisation and PDE layers cut out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pdeinfer.export.rewrite.fields import last_level, needed_fields
from pdeinfer.export.rewrite.operands import operand_name, traced_operands
from pdeinfer.package.package import FEATURES_NAME, INPUT_NAME, OUTPUT_NAME

NORMALIZED = "normalized"


class Cut(NamedTuple):
    """A `tf.function` of a network with its normalisation and PDE layers cut out, and these layers by name."""

    function: Any
    layers: Mapping[str, Any]


def trace(classifier: Any) -> Any:
    """Return a `tf.function` of the whole network.

    Its argument is `image`, uint8 (batch, height, width, channels), with only the batch size free; its result is
    `{"probabilities": float32 (batch, classes)}`. Tracing unrolls the K steps of every PDE layer.
    """
    import keras
    import tensorflow as tf

    spec = classifier.preset.input
    image = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.uint8, name=INPUT_NAME)

    def classify(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: keras.ops.softmax(classifier(image, training=False))}

    return tf.function(classify, input_signature=[image], autograph=False)


def trace_around_layers(classifier: Any) -> Cut:
    """Return a `tf.function` of a network with its normalisation and PDE layers cut out.

    The output of each of these layers becomes an argument: "normalized", "layer1", "layer2", ... The
    `operands.traced_operands` of each PDE layer become results, named by `operands.operand_name`, beside
    `probabilities` and `features`, float32 (batch, features): what the last layer takes. A functional Keras model can
    be cut this way without a placeholder operator that TensorFlow and tf2onnx would have to preserve.
    """
    import keras
    import tensorflow as tf

    layers = classifier.pde_layers()
    arguments = {
        NORMALIZED: classifier.get_layer("normalize").output,
        **{name: layer.output for name, layer in layers.items()},
    }
    inputs = {name: layer.input for name, layer in layers.items()}
    results = {"logits": classifier.output, FEATURES_NAME: classifier.get_layer("logits").input}
    around = keras.Model(list(arguments.values()), {**inputs, **results}, name=classifier.name)
    signature = [tf.TensorSpec(argument.shape, tf.float32, name=name) for name, argument in arguments.items()]

    def function(*arguments: Any) -> dict[str, Any]:
        values = around(list(arguments), training=False)
        operands = {
            operand_name(name, operand): value
            for name, layer in layers.items()
            for operand, value in traced_operands(layer, values[name]).items()
        }
        probabilities = keras.ops.softmax(values["logits"])
        return {OUTPUT_NAME: probabilities, FEATURES_NAME: values[FEATURES_NAME], **operands}

    return Cut(tf.function(function, input_signature=signature, autograph=False), layers)


def trace_stages(classifier: Any) -> Cut:
    """Return a `tf.function` of the network cut at its PDE layers, with the arguments and results of `rewrite.fields`.

    The normalisation is cut out in the same way; the steps of the PDE layers are not part of the function.
    """
    import keras
    import tensorflow as tf

    layers = classifier.pde_layers()
    normalized = classifier.get_layer("normalize").output
    around = keras.Model(
        [normalized, *(layer.output for layer in layers.values())],
        {**{name: layer.input for name, layer in layers.items()}, OUTPUT_NAME: classifier.output},
    )
    signature = [tf.TensorSpec(normalized.shape, tf.float32, name=NORMALIZED)]
    signature += [
        tf.TensorSpec(layer.output.shape, tf.float32, name=last_level(name)) for name, layer in layers.items()
    ]

    def function(normalized: Any, *levels: Any) -> dict[str, Any]:
        results = [
            keras.ops.relu(layer.norm(level, training=False))
            for layer, level in zip(layers.values(), levels, strict=True)
        ]
        values = around([normalized, *results], training=False)
        fields = {
            f"{name}/{symbol}": field
            for name, layer in layers.items()
            for symbol, field in needed_fields(layer, values[name]).items()
        }
        return {**fields, OUTPUT_NAME: keras.ops.softmax(values[OUTPUT_NAME])}

    return Cut(tf.function(function, input_signature=signature, autograph=False), {})
