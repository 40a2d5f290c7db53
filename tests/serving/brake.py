"""A brake for the network of served models."""

import threading

import numpy as np
import pytest

from pdeinfer import Predictor
from serving.engine import served_model
from tests.waiting import PATIENCE


class Brake:
    """Blocks the network while it is on, and records the sizes of batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.free = 0
        self.released = threading.Event()
        self.released.set()
        predict_proba = Predictor.predict_proba

        def braked(predictor: Predictor, images: np.ndarray) -> np.ndarray:
            self.batches.append(len(images))
            assert len(self.batches) <= self.free or self.released.wait(PATIENCE)
            return predict_proba(predictor, images)

        monkeypatch.setattr(Predictor, "predict_proba", braked)
        monkeypatch.setattr(served_model, "MAX_INLINE_SECONDS", 0.0)  # a test in the event loop releases the brake

    def on(self, free: int = 0) -> None:
        """Block all batches except the first `free`."""
        self.free = free
        self.batches.clear()
        self.released.clear()
