"""Provide small, real model packages, made without TensorFlow, and the folder of the real data sets."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pdeinfer.package.card import ModelCard
from pdeinfer.package.metadata import metadata
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.package.writing import new_package, write_card
from pdeinfer.spec.presets import PRESETS, Preset

# A shell's background jobs ignore Ctrl-C, and what nohup starts ignores SIGHUP; servers under test would inherit both.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# The servers under test are asked directly, whatever proxy this machine has.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# Settings of a developer's own server are none of the tests'.
TEST_VARIABLES = {"PDEINFER_DATA_DIR", "PDEINFER_FUZZ_SECONDS", "PDEINFER_KERNEL", "PDEINFER_RELIABILITY"}
for name in [name for name in os.environ if name.upper().startswith("PDEINFER_")]:
    if name not in TEST_VARIABLES:
        del os.environ[name]

if "PYTEST_XDIST_WORKER" in os.environ:  # otherwise each worker's TensorFlow starts a thread per CPU
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")

OPSET = 17
GREY_PRESET = replace(PRESETS["digits-pde"], name="tiny-grey")
RGB_PRESET = replace(PRESETS["cifar10-global"], name="tiny-rgb")

Probabilities = Callable[[Preset, np.ndarray], np.ndarray]  # of `tiny_probabilities`


@pytest.fixture(scope="session")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package "tiny-grey" for 8x8x1 images with the labels "0" to "9". Tests must not change it."""
    return write_tiny_package(tmp_path_factory.mktemp("packages") / "tiny-grey", GREY_PRESET)


@pytest.fixture
def package(package_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of "tiny-grey" that a test may change."""
    return Path(shutil.copytree(package_folder, tmp_path / "package"))


@pytest.fixture(scope="session")
def rgb_package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package "tiny-rgb" for 32x32x3 images with CIFAR-10's labels. Tests must not change it."""
    return write_tiny_package(tmp_path_factory.mktemp("packages") / "tiny-rgb", RGB_PRESET)


@pytest.fixture(scope="session")
def tiny_probabilities() -> Probabilities:
    """Return a function of images (N, H, W, C) that computes a tiny package's probabilities (N, classes) in float64."""

    def probabilities(preset: Preset, images: np.ndarray) -> np.ndarray:
        logits = images.reshape(len(images), len(_weights(preset))).astype(np.float64) @ _weights(preset)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    return probabilities


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of MNIST and CIFAR-10, for tests marked "data"."""
    folder = os.environ.get("PDEINFER_DATA_DIR")
    if not folder:
        pytest.skip("set PDEINFER_DATA_DIR to the folder of MNIST and CIFAR-10")
    return Path(folder)


def write_tiny_package(folder: Path, preset: Preset, *, has_features: bool = False) -> Path:
    """Write the package of a linear classifier, softmax(pixels @ weights), with fixed random weights.

    Its features are the pixels; packages of earlier versions have none.
    """
    with new_package(folder) as new:
        (new / ONNX_FILE).write_bytes(_tiny_model(preset, has_features))
        write_card(
            new,
            ModelCard(
                preset,
                parameters=_weights(preset).size,
                macs=_weights(preset).size,
                opset=OPSET,
                metrics={"test_accuracy": 0.5},
            ),
        )
    return folder


def _weights(preset: Preset) -> np.ndarray:
    spec = preset.input
    pixels = spec.height * spec.width * spec.channels
    # Random images give logits near 1, where softmax does not saturate.
    return np.random.default_rng(0).normal(0, 1 / (128 * np.sqrt(pixels)), (pixels, len(preset.labels)))


def _tiny_model(preset: Preset, has_features: bool) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    spec, weights = preset.input, _weights(preset).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["pixels", "shape"], ["features"]),
            helper.make_node("MatMul", ["features", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        preset.name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", spec.height, spec.width, spec.channels])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(preset.labels)]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(weights)]),
        ][: 1 + has_features],
        [
            numpy_helper.from_array(np.array([-1, len(weights)], np.int64), "shape"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    helper.set_model_props(model, metadata(preset))
    checker.check_model(model)
    return model.SerializeToString()
