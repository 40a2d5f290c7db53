"""The function pdeinfer.GlobalLayer, run by ONNX Runtime, against the naive reference in float64."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from pdeinfer import PdeSpec
from pdeinfer.export.onnx_file import OPSET
from pdeinfer.export.rewrite.function import DOMAIN, NAME, VERSION, call_attributes, global_layer_function
from pdeinfer.export.rewrite.operands import OPERANDS, is_convolution
from tests.references import naive_solve

Array = np.ndarray[Any, Any]

# Where a field's operands come from: "depthwise": its kernels and biases; another name: maps.
SPECS = {
    "kernels": PdeSpec(),
    "maps": PdeSpec(velocity="pointwise", diffusivity="pointwise"),
    "maps-of-both-signs": PdeSpec(velocity="preactivation", diffusivity=1.0),
    "constant-diffusivity": PdeSpec(diffusivity=0.7),
    "no-advection": PdeSpec(velocity=None),
    "no-diffusion": PdeSpec(diffusivity=None),
    "only-a-source": PdeSpec(velocity=None, diffusivity=None),
    "only-constant-diffusion": PdeSpec(velocity=None, diffusivity=1.5, source=None),
    "no-source": PdeSpec(source=None),
    "learned-start": PdeSpec(start="residual"),
    "signed-kernels": PdeSpec(velocity_activation="linear"),
    "isotropic-kernels": PdeSpec(isotropic=True),
    "isotropic-maps": PdeSpec(diffusivity="pointwise", isotropic=True),
    "bounded-and-positive": PdeSpec(velocity_activation="tanh", diffusivity_activation="softplus"),
    "source-kernels": PdeSpec(source="depthwise"),
    "source-map": PdeSpec(source="pointwise", diffusivity=None),
    "all-kernels": PdeSpec(velocity_activation="linear", isotropic=True, source="depthwise"),
    "source-kernels-learned-start": PdeSpec(source="depthwise", start="residual"),
    "learned-start-no-source": PdeSpec(diffusivity=0.7, start="residual", source=None),
}
SHAPES = [(2, 4, 6, 3), (1, 5, 3, 16), (1, 1, 4, 3), (2, 3, 1, 1), (1, 2, 2, 3), (3, 1, 1, 1), (1, 2, 5, 8)]
SHAPES += [(1, 1, 4, 16), (2, 3, 1, 16), (1, 2, 2, 16), (1, 1, 1, 16)]  # whole blocks, for every CPU


def naive_depthwise(h: Array, kernel: Array, bias: Array) -> Array:
    """conv(h) + bias, zero 'same' padding, kernel (C, 1, 3, 3)."""
    _, height, width, _ = h.shape
    padded = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = np.zeros_like(h)
    for row, column in np.ndindex(3, 3):
        total += kernel[:, 0, row, column] * padded[:, row : row + height, column : column + width]
    return total + bias


def draw_operands(spec: PdeSpec, shape: tuple[int, ...], seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    operands = {"h": rng.normal(size=shape)}
    activations = {"courant": spec.velocity_activation, "diffusion": spec.diffusivity_activation}
    for name, field, size in (("courant", spec.velocity, 0.1), ("diffusion", spec.diffusivity, 0.3)):
        for axis in "xy":
            if name == "diffusion" and axis == "y" and spec.isotropic:
                operands |= {key.replace("_x", "_y"): operands[key] for key in operands if key.startswith(name)}
            elif is_convolution(field, activations[name]):
                operands[f"{name}_{axis}"] = size * rng.normal(size=(channels, 1, 3, 3))
                operands[f"{name}_{axis}_bias"] = size * rng.normal(size=channels)
            elif isinstance(field, str):
                map_ = size * rng.normal(size=shape)
                operands[f"{name}_{axis}"] = map_ if field == "preactivation" else np.abs(map_)
            elif field is not None:
                operands[f"{name}_{axis}"] = np.full((1, 1, 1, 1), field * spec.dt)
    if spec.source == "depthwise":
        operands["source"] = 0.3 * rng.normal(size=(channels, 1, 3, 3))
        operands["source_bias"] = rng.normal(size=channels)
    elif spec.source == "pointwise":
        operands["source"] = rng.normal(size=shape)
    operands["scale"], operands["shift"] = rng.normal(size=channels), rng.normal(size=channels)
    if spec.start != "input":
        operands["start"] = rng.normal(size=shape)
    return {name: array.astype(np.float32) for name, array in operands.items()}


def expected_result(spec: PdeSpec, operands: dict[str, Array]) -> Array:
    values = {name: array.astype(np.float64) for name, array in operands.items()}
    h = values["h"]
    fields = {}
    for symbol, name in {
        "u": "courant_x", "v": "courant_y", "diffusivity_x": "diffusion_x", "diffusivity_y": "diffusion_y"
    }.items():  # fmt: skip
        if name not in values:
            field = np.zeros(())
        elif f"{name}_bias" in values:
            field = naive_depthwise(h, values[name], values[f"{name}_bias"])
            if symbol not in "uv" or spec.velocity_activation == "relu":
                field = np.maximum(field, 0)
        else:
            field = values[name]
        fields[symbol] = np.broadcast_to(field, h.shape) / spec.dt
    start = values.get("start", h)
    source = values.get("source", h) if spec.source else np.zeros_like(h)
    if "source_bias" in values:
        source = np.maximum(naive_depthwise(h, source, values["source_bias"]), 0)
    result, _ = naive_solve(start, start, source, **fields, num_steps=spec.num_steps, dt=spec.dt)
    return np.maximum(values["scale"] * result + values["shift"], 0).transpose(0, 3, 1, 2)


def model_of_a_call(spec: PdeSpec, operands: dict[str, Array], blocked: bool) -> onnx.ModelProto:
    """A model of one layer: maps are its inputs, with any number of images, and weights its initializers."""
    _, height, width, channels = shape = operands["h"].shape
    inputs, initializers = [], []
    for name, array in operands.items():
        if array.shape == shape:
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape[1:]])
            inputs.append(info)
        else:
            initializers.append(onnx.numpy_helper.from_array(array, name))
    names = [name if name in operands else "" for name in OPERANDS]
    attributes = call_attributes(spec, height, width, channels)
    call = onnx.helper.make_node(NAME, names, ["result"], domain=DOMAIN, **attributes)
    output = onnx.helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, ["batch", channels, height, width])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([call], "layer", inputs, [output], initializers),
        functions=[global_layer_function(spec, OPSET, blocked=blocked)],
        opset_imports=[onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, operands: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # warnings
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: operands[value.name] for value in session.get_inputs()})[0]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8])
@pytest.mark.parametrize("blocked", [True, False], ids=["blocked", "sliced"])
def test_the_function_equals_the_naive_reference(name: str, num_steps: int, blocked: bool) -> None:
    values = {**SPECS[name].to_dict(), "num_steps": num_steps}
    spec = PdeSpec.from_dict(values)
    for seed, shape in enumerate(SHAPES if num_steps <= 2 else SHAPES[2:]):
        operands = draw_operands(spec, shape, seed)
        expected = expected_result(spec, operands)
        found = run(model_of_a_call(spec, operands, blocked), operands)
        assert found.dtype == np.float32
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=3e-6 * max(1, np.abs(expected).max()), err_msg=str(shape)
        )
