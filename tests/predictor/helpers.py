"""Images and packages for the tests of the Predictor."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from pdeinfer.package.card import CARD_FILE, ModelCard
from pdeinfer.package.package import ONNX_FILE, ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.spec.presets import Preset

Reference = Callable[[Preset, np.ndarray], np.ndarray]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

IMAGES = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)


def repackage(folder: Path, target: Path, *, keep_metadata: bool = False, **changes: object) -> Path:
    """Copy a package and change its card, whose checksums stay right: the card no longer describes the model."""
    shutil.copytree(folder, target)
    (target / CARD_FILE).unlink()
    if not keep_metadata:
        model = onnx.load(target / ONNX_FILE)
        del model.metadata_props[:]
        onnx.save(model, target / ONNX_FILE)
    card = ModelPackage.read(folder).card
    write_card(target, ModelCard(replace(card.preset, **changes), card.parameters, card.macs, card.opset))
    return target
