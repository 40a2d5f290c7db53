"""Saved networks: the same in a fresh process, and the same on every backend of Keras."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pdeinfer.errors import PresetError
from pdeinfer.nn import Classifier
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.spec.presets import PRESETS, Preset
from tests.nn import evaluate

Results = dict[str, dict[str, np.ndarray]]
Evaluate = Callable[[str], Results]


def variant(name: str, pde: PdeSpec) -> Preset:
    digits = PRESETS["digits-pde"]
    return replace(digits, name=name, network=replace(digits.network, pde=pde))


# The further presets differ from these by values.
NAMES = (
    "digits-pde",
    "mnist-cnn",
    "mnist-residual",
    "mnist-pde",
    "cifar10-resnet32",
    "cifar10-global",
    "cifar10-global-tiny",
)
NETWORKS = {
    preset.name: preset
    for preset in (
        *(PRESETS[name] for name in NAMES),
        variant("no-advection", PdeSpec(velocity=None)),
        variant("no-diffusion", PdeSpec(diffusivity=None)),
        variant("constant", PdeSpec(diffusivity=1.0)),
        variant("convolutions", PdeSpec(2, velocity="pointwise", diffusivity="full")),
        variant("perona-malik", PdeSpec(2, velocity="identity", diffusivity=PeronaMalik(0.5), source=None)),
        variant("learned-source", PdeSpec(2, source="depthwise", isotropic=True, velocity_activation="linear")),
        variant("bounded-fields", PdeSpec(2, velocity_activation="tanh", diffusivity_activation="softplus")),
        variant("residual-blocks", PdeSpec(2, velocity="residual", diffusivity="residual", start="residual")),
    )
}


@pytest.fixture(scope="session")
def saved_networks(tmp_path_factory: pytest.TempPathFactory, randomize: Callable[[keras.Layer], None]) -> Path:
    """A folder with each network, NAME.keras, and its images, labels and logits here, NAME.npz."""
    folder = tmp_path_factory.mktemp("saved")
    rng = np.random.default_rng(2)
    for name, preset in NETWORKS.items():
        model = Classifier(preset)
        randomize(model)
        model.save(folder / f"{name}.keras")
        images = rng.integers(0, 256, (4, *model.input_shape[1:]), dtype=np.uint8)
        images[2:] //= 4  # dark ones: pixels at random alone hardly tell images apart
        logits = keras.ops.convert_to_numpy(model(images))
        assert np.max(np.ptp(logits, axis=0)) > 0.1  # alive: the images are told apart
        np.savez(folder / f"{name}.npz", images=images, labels=rng.integers(0, 10, 4), logits=logits)
    return folder


@pytest.fixture(scope="session")
def evaluate_on(saved_networks: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """A function that evaluates the saved networks in a fresh process on the CPU with a backend, once for each."""
    results: dict[str, Results] = {}

    def evaluate_on_backend(backend: str) -> Results:
        if backend not in results:
            folder = tmp_path_factory.mktemp(backend)
            environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            subprocess.run(
                [sys.executable, evaluate.__file__, saved_networks, folder],
                env={**os.environ, **environment},
                check=True,
                timeout=300,
            )
            results[backend] = {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}
        return results[backend]

    return evaluate_on_backend


def largest_gap(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected value where that is above one."""
    assert actual.shape == expected.shape
    return float(np.max(np.abs(actual - expected)) / max(1.0, np.max(np.abs(expected))))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_gives_the_same_logits_in_a_fresh_process_in_safe_mode(
    name: str, saved_networks: Path, evaluate_on: Evaluate
) -> None:
    with np.load(saved_networks / f"{name}.npz") as here:
        assert largest_gap(evaluate_on(keras.backend.backend())[name]["logits"], here["logits"]) <= 1e-6


@pytest.mark.parametrize("backend", ["jax", "torch"])
class TestBackend:
    """Against TensorFlow, all on the CPU."""

    @pytest.fixture(autouse=True)
    def _require(self, backend: str) -> None:
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"the {backend} backend is not installed: pip install {backend}")

    @pytest.mark.parametrize("name", NETWORKS)
    def test_logits_equal_those_on_tensorflow(self, name: str, backend: str, evaluate_on: Evaluate) -> None:
        gap = largest_gap(evaluate_on(backend)[name]["logits"], evaluate_on("tensorflow")[name]["logits"])
        assert gap <= 1e-5  # measured: 1.6e-7 to 4.6e-7

    @pytest.mark.parametrize("name", evaluate.TRAINED)
    def test_weights_after_one_training_step_equal_those_on_tensorflow(
        self, name: str, backend: str, saved_networks: Path, evaluate_on: Evaluate
    ) -> None:
        actual, expected = evaluate_on(backend)[name], evaluate_on("tensorflow")[name]
        assert actual.keys() == expected.keys()
        # Measured: 2.7e-7 to 6.1e-7.
        assert all(largest_gap(actual[key], expected[key]) <= 1e-5 for key in expected)
        before = keras.saving.load_model(saved_networks / f"{name}.keras").weights
        assert all(np.any(actual[f"weight{i}"] != weight.numpy()) for i, weight in enumerate(before))


def test_a_file_whose_preset_was_tampered_with_is_rejected_as_no_preset(saved_networks: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved_networks / "digits-pde.keras") as original:
        members = {name: original.read(name) for name in original.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["preset"]["network"]["kind"] = "anything"
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "tampered.keras", "w") as tampered:
        for name, content in members.items():
            tampered.writestr(name, content)
    with pytest.raises(PresetError, match=r"network kind must be one of .* not 'anything'"):
        keras.saving.load_model(tmp_path / "tampered.keras")
