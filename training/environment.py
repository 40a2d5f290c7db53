"""Sets what Keras's backend reads from the environment, once, while it is imported."""

import os
import sys

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


def prefer_onednn() -> None:
    """Let TensorFlow train with oneDNN's kernels, unless the environment variable TF_ENABLE_ONEDNN_OPTS says otherwise.

    By default TensorFlow uses them only on CPUs with AVX-512 VNNI. With AVX2 they are faster too: a training step takes
    about half the time (docs/lab/training-speed.md). Nothing is done if TensorFlow is already imported: it has made its
    choice, and the variable would only affect child processes.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
