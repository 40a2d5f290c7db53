"""Writes packages and damages their cards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdeinfer.package.card import CARD_FILE, ModelCard
from pdeinfer.package.package import DIGEST_FILE, ONNX_FILE
from pdeinfer.package.writing import write_card
from pdeinfer.spec.presets import PRESETS

CARD = ModelCard(
    PRESETS["mnist-pde"],
    parameters=524,
    macs=45_962,
    opset=18,
    training={"epochs": 3, "note": "π"},
    metrics={"test_accuracy": 0.97},
    parity={"passed": True},
    variants={"int8": {"test_accuracy": 0.96}},
)


def fill(folder: Path, card: ModelCard = CARD) -> ModelCard:
    (folder / ONNX_FILE).write_bytes(b"network")
    (folder / "saved_model" / "variables").mkdir(parents=True)
    (folder / "saved_model" / "variables" / "variables.data-00000-of-00001").write_bytes(b"")
    return write_card(folder, card)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def change_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a card, and write it without a digest as earlier versions did."""
    values = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    change(values)
    write_text(folder, json.dumps(values))


def write_text(folder: Path, card: str | bytes) -> None:
    """Replace a card, and remove its digest."""
    (folder / CARD_FILE).write_bytes(card if isinstance(card, bytes) else card.encode())
    (folder / DIGEST_FILE).unlink(missing_ok=True)
