"""Makes TensorFlow use oneDNN's CPU kernels; TensorFlow decides this once, while it is imported."""

import os
import sys


def prefer_onednn() -> None:
    """Let TensorFlow train with oneDNN's kernels, unless the environment variable TF_ENABLE_ONEDNN_OPTS says otherwise.

    By default TensorFlow uses them only on CPUs with AVX-512 VNNI. With AVX2 they are faster too: a training step takes
    about half the time (docs/lab/training-speed.md). Nothing is done if TensorFlow is already imported: it has made its
    choice, and the variable would only affect child processes.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
