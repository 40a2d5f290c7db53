"""Writes the networks that are compared, in the files that each route loads."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.backend import require_tensorflow
from pdeinfer.checks.parity import synthetic_images
from pdeinfer.spec.presets import PRESETS, Preset

RESNET = PRESETS["cifar10-resnet32"]
NO_PDE = PRESETS["cifar10-global-no-pde"]

FUSABLE_FILE = "model.onnx"  # as `pdeinfer export` writes it
INLINED_FILE = "inlined.onnx"  # as `pdeinfer export --inline` writes it
PLAIN_FILE = "plain.onnx"  # as tf2onnx alone converts the network
INT8_FILE = "int8.onnx"  # as `pdeinfer export --calibrate` writes it; see `write_int8`
KERAS_FILE = "model.keras"
WEIGHTS_FILE = "weights.npz"  # for PyTorch
IMAGES_FILE = "images.npy"  # uint8 (N, height, width, channels)


def pde_preset(num_steps: int) -> Preset:
    """Return `cifar10-global` with K = `num_steps`."""
    preset = PRESETS["cifar10-global"]
    network = preset.network
    return replace(
        preset, name=f"global-k{num_steps}", network=replace(network, pde=replace(network.pde, num_steps=num_steps))
    )


def with_side(preset: Preset, side: int) -> Preset:
    """Return the preset for square images of `side` pixels."""
    return replace(preset, name=f"{preset.name}-{side}px", input=replace(preset.input, height=side, width=side))


def write_networks(presets: Iterable[Preset], folder: Path, count: int = 64) -> dict[Preset, Path]:
    """Write each preset's network and images into a folder of its own; return the folders by preset.

    The weights are random, equal in every run and for every image size, and made realistic by `stabilize`.

    Args:
        count: images.
    """
    require_tensorflow()
    folders = {}
    for preset in presets:
        folders[preset] = folder / preset.name
        folders[preset].mkdir()
        _write_network(preset, folders[preset])
        spec = preset.input
        np.save(folders[preset] / IMAGES_FILE, smooth_images(spec.height, spec.width, spec.channels, count))
    return folders


def write_int8(folder: Path) -> None:
    """Add the int8 file to the folder of a network, calibrated on its images."""
    import onnx

    from pdeinfer.export.quantization import to_int8

    model = to_int8(onnx.load(folder / FUSABLE_FILE), np.load(folder / IMAGES_FILE))
    (folder / INT8_FILE).write_bytes(model.SerializeToString())


def smooth_images(height: int, width: int, channels: int, count: int) -> np.ndarray:
    """Return random smooth uint8 images (count, height, width, channels)."""
    coarse_shape = (count, -(-height // 4), -(-width // 4), channels)
    coarse = np.random.default_rng(0).integers(0, 256, coarse_shape, dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]


def stabilize(classifier: Any) -> None:
    """Give random weights the stability of trained ones.

    The batch normalisations get the statistics of 64 images: values neither vanish nor grow from layer to layer. The
    velocities are scaled down: otherwise values, and rounding errors with them, would grow from step to step. The
    logits are centred: otherwise every image would get the same label.
    """
    import keras

    for variable in classifier.trainable_variables:
        if variable.name == "gamma" and {"u", "v"} & set(variable.path.split("/")):
            variable.assign(0.1 * variable)
    for layer in classifier._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the next batch sets its statistics
    images = synthetic_images(*classifier.input_shape[1:])
    classifier(np.concatenate([batch[:16] for batch in images.values()]), training=True)
    logits = keras.ops.convert_to_numpy(classifier(smooth_images(*classifier.input_shape[1:], count=64)))
    classifier.trainable_variables[-1].assign(-logits.mean(axis=0))  # the bias of the logits, which was 0


def write_fusable(preset: Preset, folder: Path) -> None:
    """Write a network as `pdeinfer export` does, with the same weights as `write_networks`."""
    from pdeinfer.export.rewrite.graph import convert_classifier

    (folder / FUSABLE_FILE).write_bytes(convert_classifier(_draw(preset)).SerializeToString())


def _write_network(preset: Preset, folder: Path) -> None:
    import tf2onnx

    from pdeinfer.export.onnx_file import OPSET
    from pdeinfer.export.rewrite.graph import convert_classifier, without_functions
    from pdeinfer.export.rewrite.traced import trace

    classifier = _draw(preset)
    classifier.save(folder / KERAS_FILE)
    np.savez(folder / WEIGHTS_FILE, *classifier.get_weights())
    function = trace(classifier)
    plain, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    for name, model in (
        (PLAIN_FILE, plain),
        (FUSABLE_FILE, convert_classifier(classifier)),
        (INLINED_FILE, without_functions(convert_classifier(classifier, for_onnx_runtime=False))),
    ):
        (folder / name).write_bytes(model.SerializeToString())


def _draw(preset: Preset) -> Any:
    """Return a Keras network with random weights, the same for every image size."""
    import keras

    from pdeinfer.nn import Classifier

    keras.utils.set_random_seed(0)
    small = Classifier(with_side(preset, 32))
    stabilize(small)
    classifier = Classifier(preset)
    classifier.set_weights(small.get_weights())
    return classifier
