"""Reads a preset from a JSON file."""

import json
from pathlib import Path

from pdeinfer.errors import PresetError
from pdeinfer.spec.presets import Preset


def read_preset(path: Path) -> Preset:
    """Return the preset in a JSON file, as `json.dumps(preset.to_dict())` writes it.

    Raises:
        PresetError: the file is no JSON object, or a value is missing, unknown or impossible.
        OSError: the file cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise PresetError(f"expected a JSON object, got {type(values).__name__}")
        return Preset.from_dict(values)
    except ValueError as error:  # no UTF-8, no JSON, or a PresetError
        raise PresetError(f"{path}: {error}") from error
    except RecursionError as error:
        raise PresetError(f"{path}: expected the JSON of a preset, got values nested too deeply") from error
