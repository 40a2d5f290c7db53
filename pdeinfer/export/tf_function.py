"""Makes TensorFlow functions of Python functions."""

from collections.abc import Callable, Sequence
from typing import Any


def tf_function(signature: Sequence[Any]) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator `tf.function` for arguments of these `tf.TensorSpec`s.

    AutoGraph is off: it rewrites Python's control flow on tensors, of which there is none here, and takes its time.
    """
    import tensorflow as tf

    decorator: Callable[[Callable[..., Any]], Any] = tf.function(input_signature=signature, autograph=False)
    return decorator
