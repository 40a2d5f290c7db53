"""Finds the devices that Keras, once imported, trains on, and divides each batch among them."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from pdeinfer.errors import TrainingError


def list_devices() -> list[str]:
    """Return the devices that Keras trains on, e.g. "gpu:0": GPUs if there are any, else CPUs."""
    if keras.backend.backend() == "torch":
        import torch

        return [f"gpu:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices: list[str] = keras.distribution.list_devices()
    return devices


def check_device(name: str | None) -> None:
    """Raise TrainingError if a GPU is asked for and there is none; see `training.environment`."""
    if (name or "").startswith("gpu") and not list_devices()[0].startswith("gpu"):
        raise TrainingError(f"--device {name}: {keras.backend.backend()} finds no such GPU")


def device_name(devices: list[str]) -> str:
    """Return a short name of the devices: "cpu", "gpu:0", "2 x gpu"."""
    kind = devices[0].partition(":")[0]
    if len(devices) > 1:
        return f"{len(devices)} x {kind}"
    return kind if kind == "cpu" else devices[0]


def count_replicas() -> int:
    """Return the number of devices that share a batch: 1 outside `data_parallel`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return int(tf.distribute.get_strategy().num_replicas_in_sync)
    return 1 if keras.distribution.distribution() is None else len(list_devices())


@contextmanager
def data_parallel(batch_size: int) -> Iterator[None]:
    """Divide each batch among all devices, for networks that are made and fitted inside the block.

    Uses `keras.distribution.DataParallel` on JAX and `tf.distribute.MirroredStrategy` on TensorFlow. The weights, equal
    on all devices, change as they would on one device with the whole batch. The exception is `clip_norm` on TensorFlow,
    where each device clips the gradient of its own part.

    Args:
        batch_size: images in a batch, over all devices.

    Raises:
        TrainingError: the batch cannot be divided evenly, there is only one device, or the backend is not supported.
    """
    backend, devices = keras.backend.backend(), list_devices()
    if backend not in ("tensorflow", "jax"):
        raise TrainingError(f"--data-parallel: expected Keras's backend tensorflow or jax, got {backend}")
    if len(devices) < 2:
        raise TrainingError(f"--data-parallel: expected several devices, got {devices}")
    if batch_size % len(devices):
        raise TrainingError(
            f"a batch of {batch_size} cannot be divided among {len(devices)} devices: change --batch-size"
        )
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
