"""Describes a model package as Hugging Face's tools expect: a header of its README, and two JSON files."""

import json
from pathlib import Path
from typing import Any

import PIL.Image

from pdeinfer.errors import MissingDependencyError
from pdeinfer.package.card import ModelCard
from pdeinfer.spec.networks import InputSpec
from pdeinfer.spec.presets import Preset
from pdeinfer.spec.training_record import DatasetName

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"

# Name and the Hub's identifier; scikit-learn's digits are not on the Hub.
_DATASETS: dict[DatasetName, tuple[str, str]] = {
    "digits": ("scikit-learn's handwritten digits", "digits"),
    "mnist": ("MNIST", "ylecun/mnist"),
    "cifar10": ("CIFAR-10", "uoft-cs/cifar10"),
    "folder": ("a private folder of images", "imagefolder"),
}


def write_configs(preset: Preset, folder: Path) -> None:
    """Write `config.json` and, if its format can describe the input, `preprocessor_config.json`."""
    for name, values in ((CONFIG_FILE, config(preset)), (PREPROCESSOR_FILE, preprocessor(preset.input))):
        if values is not None:
            (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def config(preset: Preset) -> dict[str, Any]:
    """Return the content of `config.json`: the kind of network, its input and its labels."""
    spec = preset.input
    return {
        "model_type": "pdeinfer",
        "architectures": [type(preset.network).__name__],
        "image_size": spec.height if spec.height == spec.width else [spec.height, spec.width],
        "num_channels": spec.channels,
        "num_labels": len(preset.labels),
        "id2label": {str(index): label for index, label in enumerate(preset.labels)},
        "label2id": {label: index for index, label in enumerate(preset.labels)},
    }


def preprocessor(spec: InputSpec) -> dict[str, Any] | None:
    """Return the content of `preprocessor_config.json`: how an image becomes the input of `model.onnx`.

    None for the fit "crop" to an input that is not square. The format resizes the shorter side of every image to one
    length, but which side limits the crop depends on the image.

    The network takes pixels of 0 to 255 and scales and normalises them itself. So `do_rescale` and `do_normalize` are
    false, and the values beside them are those that the network applies. The image is padded on both sides.
    """
    if spec.fit == "crop" and spec.height != spec.width:
        return None
    size = {"height": spec.height, "width": spec.width}
    fitted: dict[str, dict[str, Any]] = {
        "stretch": {"size": size},
        "pad": {"size": {"max_height": spec.height, "max_width": spec.width}, "do_pad": True, "pad_size": size},
        "crop": {"size": {"shortest_edge": spec.height}, "do_center_crop": True, "crop_size": size},
    }
    return {
        "do_convert_rgb": spec.channels == 3,
        "do_grayscale": spec.channels == 1,
        "do_resize": True,
        "resample": int(PIL.Image.Resampling.BILINEAR),
        **fitted[spec.fit],
        "do_rescale": False,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "data_format": "channels_last",
    }


def readme_header(card: ModelCard, licence: str) -> str:
    """Return the YAML header of a package's README.

    Args:
        licence: of the weights, as the Hub names it.

    Raises:
        MissingDependencyError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError("pyyaml", "train", "writing a package's README") from error
    values: dict[str, Any] = {
        "license": licence,
        "library_name": "pdeinfer",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "keras"],
    }
    record, accuracy = card.training_record, card.test_accuracy()
    if record is not None:
        name, identifier = _DATASETS[record.dataset]
        if "/" in identifier:
            values["datasets"] = [identifier]
        if accuracy is not None:
            task = {"type": "image-classification", "name": "Image classification"}
            dataset = {"name": name, "type": identifier, "split": "test"}
            metric = {"type": "accuracy", "name": "Test accuracy", "value": accuracy}
            values["metrics"] = ["accuracy"]
            values["model-index"] = [
                {"name": card.preset.name, "results": [{"task": task, "dataset": dataset, "metrics": [metric]}]}
            ]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"
