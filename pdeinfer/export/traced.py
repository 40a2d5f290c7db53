"""The function that is exported: raw pixels in, probabilities out."""

from typing import Any


def trace(classifier: Any) -> Any:
    """Return a `tf.function` of one argument, `image`, uint8 (batch, height, width, channels) with only batch free.

    It returns `{"probabilities": float32 (batch, classes)}`. The K steps of every PDE layer are unrolled by tracing.
    """
    import keras
    import tensorflow as tf

    spec = classifier.preset.input
    image = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.uint8, name="image")

    @tf.function(input_signature=[image])  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def classify(image: Any) -> dict[str, Any]:
        return {"probabilities": keras.ops.softmax(classifier(image, training=False))}

    return classify
