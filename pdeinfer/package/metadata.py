"""The metadata of a package's ONNX files, which repeats the labels and the preset of its card."""

import json

from pdeinfer.spec.presets import Preset


def metadata(preset: Preset) -> dict[str, str]:
    """Return the metadata of a preset's ONNX files: JSON by key."""
    return {"labels": json.dumps(preset.labels), "preset": json.dumps(preset.to_dict())}


def describes(key: str, text: str, preset: Preset) -> bool:
    """Return whether the metadata under a key describes a preset, in the form of this version or of an older one."""
    try:
        value = json.loads(text)
        return bool(Preset.from_dict(value) == preset if key == "preset" else value == list(preset.labels))
    except (ValueError, RecursionError, AttributeError):
        return False
