"""The model that every peer serves: pdeinfer's Predictor on encoded images, configured by environment variables.

So the peers decode and compute by the same code as pdeinfer's own server, and what is compared is the serving.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdeinfer import Predictor
from pdeinfer.images.convert import to_array

MODEL = os.environ["BENCHMARK_MODEL"]
PORT = int(os.environ["BENCHMARK_PORT"])
CPUS = int(os.environ["BENCHMARK_CPUS"])
MAX_BATCH_SIZE = int(os.environ["BENCHMARK_MAX_BATCH_SIZE"])


class Classifier:
    """The model of the benchmark, on a number of threads of ONNX Runtime."""

    def __init__(self, threads: int) -> None:
        self._predictor = Predictor(MODEL, device="cpu", threads=threads, batch_size=MAX_BATCH_SIZE)
        info = self._predictor.info()
        self._input, self._labels = info.input, info.labels
        for images in (1, MAX_BATCH_SIZE):
            self.probabilities(
                np.zeros((images, self._input.height, self._input.width, self._input.channels), np.uint8)
            )

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 (N, classes) for uint8 (N, H, W, C)."""
        return self._predictor.predict_proba(pixels)

    def pixels(self, files: Sequence[bytes]) -> np.ndarray:
        """Return uint8 (N, H, W, C) for the bytes of N images."""
        return np.stack([to_array(content, self._input) for content in files])

    def classify(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return the label and the probabilities of each image."""
        rows = self.probabilities(self.pixels(files))
        return [
            {"label": self._labels[best], "probabilities": row}
            for best, row in zip(rows.argmax(axis=1).tolist(), rows.tolist(), strict=True)
        ]
