"""The tiny models that Triton's clients ask, and images for them."""

import numpy as np

from tests.conftest import GREY_PRESET, RGB_PRESET

PRESETS = {"tiny-grey": GREY_PRESET, "tiny-rgb": RGB_PRESET}


def images(model: str, count: int, seed: int = 0) -> np.ndarray:
    spec = PRESETS[model].input
    return np.random.default_rng(seed).integers(0, 256, (count, spec.height, spec.width, spec.channels), np.uint8)
