"""The functions that are exported: raw pixels in, probabilities out."""

from typing import Any

from pdeinfer.export.fields import pde_layers
from pdeinfer.export.operands import traced_operands
from pdeinfer.export.tf_function import tf_function

NORMALIZED = "normalized"


def trace(classifier: Any) -> Any:
    """Return a `tf.function` of one argument, `image`, uint8 (batch, height, width, channels) with only batch free.

    It returns `{"probabilities": float32 (batch, classes)}`. The K steps of every PDE layer are unrolled by tracing.
    """
    import keras
    import tensorflow as tf

    spec = classifier.preset.input
    image = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.uint8, name="image")

    @tf_function([image])
    def classify(image: Any) -> dict[str, Any]:
        return {"probabilities": keras.ops.softmax(classifier(image, training=False))}

    return classify


def trace_around_layers(classifier: Any) -> Any:
    """Return a `tf.function` of the network with its normalisation and its PDE layers cut out.

    Cutting a functional Keras model needs no operator that TensorFlow and tf2onnx would have to leave alone: what a
    layer returns is an argument, "normalized", "layer1", "layer2", ..., and what a PDE layer takes is returned beside
    "probabilities": its `operands.traced_operands`, with the layer's name before theirs ("layer1/h").
    """
    import keras
    import tensorflow as tf

    layers = pde_layers(classifier)
    arguments = {
        NORMALIZED: classifier.get_layer("normalize").output,
        **{name: layer.output for name, layer in layers.items()},
    }
    results = {"logits": classifier.output, **{name: layer.input for name, layer in layers.items()}}
    around = keras.Model(list(arguments.values()), results, name=classifier.name)
    signature = [tf.TensorSpec(argument.shape, tf.float32, name=name) for name, argument in arguments.items()]

    @tf_function(signature)
    def classify(*arguments: Any) -> dict[str, Any]:
        results = around(list(arguments), training=False)
        operands = {
            f"{name}/{operand}": value
            for name, layer in layers.items()
            for operand, value in traced_operands(layer, results[name]).items()
        }
        return {"probabilities": keras.ops.softmax(results["logits"]), **operands}

    return classify
