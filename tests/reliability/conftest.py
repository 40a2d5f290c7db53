"""The length of the tests, their figures in docs/reliability.md, and a slow network."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from benchmarks.machine import describe
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.package.writing import new_package, write_card
from pdeinfer.spec.presets import Preset
from tests.conftest import GREY_PRESET, OPSET
from tests.documents import ROOT

NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
# "full" runs the tests at full length, "document" also writes their figures into docs/reliability.md.
LENGTH = os.environ.get("PDEINFER_RELIABILITY")
IS_FULL = LENGTH in ("full", "document")

Report: TypeAlias = Callable[[str, str], None]

_DOCUMENT = ROOT / "docs" / "reliability.md"
_START, _END = "<!-- figures of make reliability -->\n", "<!-- end of figures -->\n"
_FIGURES = pytest.StashKey[list[tuple[str, str]]]()

SLOW_PRESET = replace(GREY_PRESET, name="slow-grey")
SLOW_LAYERS, SLOW_CHANNELS = 96, 64


@pytest.fixture(scope="session")
def slow_package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of many convolutions on 8x8x1 images, which take some milliseconds of a core each."""
    return write_slow_package(tmp_path_factory.mktemp("packages") / SLOW_PRESET.name)


def write_slow_package(folder: Path) -> Path:
    """Write the package of a slow network under the folder's name, and return the folder."""
    preset = replace(SLOW_PRESET, name=folder.name)
    with new_package(folder) as new:
        (new / ONNX_FILE).write_bytes(_slow_model(preset))
        write_card(new, ModelCard(preset, parameters=1, macs=1, opset=OPSET, metrics={}))
    return folder


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Note what was done to a server, and what was measured: a row of the table in docs/reliability.md."""
    figures = request.config.stash.setdefault(_FIGURES, [])

    def note(what: str, measured: str) -> None:
        print(f"\n{what}: {measured}")  # noqa: T201
        figures.append((what, measured))

    return note


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the figures into docs/reliability.md if `make reliability` has run all tests and they have passed."""
    figures = session.config.stash.get(_FIGURES, [])
    if LENGTH != "document" or exitstatus != pytest.ExitCode.OK or not figures:
        return
    _, hardware, versions = describe()
    rows = "".join(f"| {what} | {measured} |\n" for what, measured in figures)
    text = f"```text\ndate      {date.today()}\n{hardware}\n{versions}\n```\n\n| | |\n|---|---|\n{rows}"
    before, start, rest = _DOCUMENT.read_text(encoding="utf-8").partition(_START)
    _, end, after = rest.partition(_END)
    assert start, f"{_DOCUMENT} has no {_START}"
    assert end, f"{_DOCUMENT} has no {_END}"
    _DOCUMENT.write_text(before + start + text + end + after, encoding="utf-8")


def random_pixels(count: int, seed: int = 0) -> np.ndarray:
    """Return images for the grey models: uint8 (count, 8, 8, 1)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)


def _slow_model(preset: Preset) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    from pdeinfer.export.rules import metadata

    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> TensorProto:
        # Keeps the variance of the activations.
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    spec = preset.input
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["hidden0"], perm=[0, 3, 1, 2]),
    ]
    initializers = []
    for layer in range(SLOW_LAYERS):
        inputs = SLOW_CHANNELS if layer else spec.channels
        initializers.append(weights(f"kernel{layer}", SLOW_CHANNELS, inputs, 3, 3))
        nodes.append(helper.make_node("Conv", [f"hidden{layer}", f"kernel{layer}"], [f"sum{layer}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"sum{layer}"], [f"hidden{layer + 1}"]))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"hidden{SLOW_LAYERS}"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "classes"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    labels = len(preset.labels)
    initializers.append(weights("classes", labels, SLOW_CHANNELS))
    graph = helper.make_graph(
        nodes,
        preset.name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", spec.height, spec.width, spec.channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", labels])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    helper.set_model_props(model, metadata(preset))
    checker.check_model(model)
    return model.SerializeToString()
