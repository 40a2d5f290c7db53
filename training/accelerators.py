"""Chooses the device of a training before Keras's backend is imported."""

import os

from pdeinfer.errors import TrainingError


def select_device(name: str | None) -> None:
    """Let the backend, when it is imported, see only the device `name`: "cpu", "gpu" or "gpu:N"; None: all.

    N counts the GPUs that `CUDA_VISIBLE_DEVICES` lists, if it is set.

    Raises:
        TrainingError: it lists no such GPU.
    """
    if name is None:
        return
    kind, _, number = name.partition(":")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    elif number:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            listed = visible.split(",")
            if int(number) >= len(listed):
                raise TrainingError(f"--device {name}: there is no such GPU in CUDA_VISIBLE_DEVICES={visible}")
            number = listed[int(number)]
        os.environ["CUDA_VISIBLE_DEVICES"] = number
