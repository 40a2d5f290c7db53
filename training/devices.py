"""The devices that a training runs on: one, or all of them with each batch divided among them."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from pdeinfer.errors import TrainingError


def list_devices() -> list[str]:
    """Return the devices of the kind that Keras trains on, GPUs before CPUs, as "gpu:0" and the like."""
    if keras.backend.backend() == "torch":
        import torch

        return [f"gpu:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices: list[str] = keras.distribution.list_devices()
    return devices


def device_name(devices: list[str]) -> str:
    """Return a short name of the devices that a training runs on: "cpu", "gpu:0", "2 x gpu"."""
    kind = devices[0].partition(":")[0]
    if len(devices) > 1:
        return f"{len(devices)} x {kind}"
    return kind if kind == "cpu" else devices[0]


def count_replicas() -> int:
    """Return among how many devices a batch is divided: 1 outside of `data_parallel`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return int(tf.distribute.get_strategy().num_replicas_in_sync)
    return 1 if keras.distribution.distribution() is None else len(list_devices())


@contextmanager
def data_parallel(batch_size: int) -> Iterator[None]:
    """Divide each batch of the trainings inside the block among all devices: networks are made and fitted in it.

    Keras does it, with `keras.distribution.DataParallel` on JAX and `tf.distribute.MirroredStrategy` on TensorFlow. The
    weights, equal on all devices, change as on one device with the whole batch, but for a `clip_norm` on TensorFlow:
    there each device limits the norm of its own part's gradient.

    Args:
        batch_size: images in a batch, over all devices.

    Raises:
        TrainingError: the batch cannot be divided, there is one device alone, or the backend is another.
    """
    backend, devices = keras.backend.backend(), list_devices()
    if backend not in ("tensorflow", "jax"):
        raise TrainingError(f"--data-parallel needs Keras's backend tensorflow or jax, not {backend}")
    if len(devices) < 2:
        raise TrainingError(f"--data-parallel needs several devices, and there is {devices}")
    if batch_size % len(devices):
        raise TrainingError(f"a batch of {batch_size} cannot be divided among {len(devices)} devices: --batch-size")
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(devices).scope():
            yield
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
