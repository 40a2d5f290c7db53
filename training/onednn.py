"""TensorFlow's choice of CPU kernels, which it makes once, while it is imported."""

import os
import sys


def prefer_onednn() -> None:
    """Let TensorFlow train with oneDNN's kernels, unless the environment variable TF_ENABLE_ONEDNN_OPTS says otherwise.

    By default it uses them on CPUs with AVX-512 VNNI alone. They are the quicker ones with AVX2 too: a training step
    takes about half the time (docs/lab/training-speed.md). Nothing is done where TensorFlow is imported already: it has
    chosen, and the variable would only pass on to other processes.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
