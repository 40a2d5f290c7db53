"""Chooses the device of a training before Keras's backend is imported."""

import os


def select_device(name: str | None) -> None:
    """Let the backend, when it is imported, see only the device `name`: "cpu", "gpu" or "gpu:N"; None: all."""
    if name is None:
        return
    kind, _, number = name.partition(":")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    elif number:
        os.environ["CUDA_VISIBLE_DEVICES"] = number
