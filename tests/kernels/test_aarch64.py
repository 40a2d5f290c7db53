"""The fused operator's solver as it is compiled for aarch64, run by QEMU, compared with the float64 reference."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import hatch_build
from pdeinfer.runtime import kernel
from tests.kernels.layers import NAMES, STRUCTURES, PdeLayer, make_layer

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
TOLERANCE = 1e-6  # relative to the largest value, as for the other solvers
SHAPES = [(1, 1, 1, 1), (2, 1, 5, 3), (1, 2, 2, 17), (3, 3, 2, 5), (1, 7, 6, 9), (2, 16, 16, 33), (1, 400, 25, 5)]
ABSENT, CONSTANT, MAP, SAME, CONVOLUTION, SIGNED = range(6)  # solver.h

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f"there is no {COMPILER} or no {EMULATOR} here"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The solver with the flags of the wheel for aarch64, and a program around it."""
    sources, program = kernel.LIBRARY.parent, tmp_path_factory.mktemp("aarch64") / "solve_layer"
    ((solver, level, lanes, flags),) = hatch_build.BASELINE
    definitions = [f"-DSOLVER={solver}", f'-DNAME="{level}"', f"-DLANES={lanes}", f"-I{sources}"]
    files = [sources / "solver.cc", Path(__file__).with_name("solve_layer.cc")]
    command = [COMPILER, *hatch_build.FLAGS, *flags, *definitions, *files, "-static", "-o", program]
    subprocess.run(command, check=True)
    return program


def encode(layer: PdeLayer) -> bytes:
    """Return a layer as solve_layer.cc reads it."""
    tensors = layer.tensors
    parts = [struct.pack("<6qf", *tensors["h"].shape, layer.num_steps, "start" in tensors, layer.source_factor)]
    parts += [tensors[name].tobytes() for name in ("h", "start") if name in tensors]
    for name in (*NAMES, "source"):
        kind, values = ABSENT, b""
        if layer.isotropic and name == "diffusion_y":
            kind = SAME
        elif f"{name}_bias" in tensors:
            kind = SIGNED if layer.signed_velocity and name.startswith("courant") else CONVOLUTION
            values = tensors[name].tobytes() + tensors[f"{name}_bias"].tobytes()
        elif name in tensors:
            kind, values = (CONSTANT if tensors[name].size == 1 else MAP), tensors[name].tobytes()
        parts.append(struct.pack("<q", kind) + values)
    return b"".join((*parts, tensors["scale"].tobytes(), tensors["shift"].tobytes()))


def solve(program: Path, layer: PdeLayer) -> NDArray[np.float32]:
    answer = subprocess.run([EMULATOR, program], input=encode(layer), capture_output=True, check=True)
    images, height, width, channels = layer.tensors["h"].shape
    return np.frombuffer(answer.stdout, np.float32).reshape(images, channels, height, width)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_every_structure_equals_the_reference(program: Path, structure: str, num_steps: int) -> None:
    for shape in SHAPES:
        layer = make_layer(structure, shape, num_steps, start=num_steps == 2)
        expected = layer.scheme()
        error = np.abs(solve(program, layer) - expected).max() / max(np.abs(expected).max(), 1e-3)
        assert error < TOLERANCE, shape
