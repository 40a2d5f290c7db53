"""The exported graph calls one function for its PDE layers, or none if there are none."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from pdeinfer import PRESETS, ModelPackage, PdeSpec, PeronaMalik, Preset
from pdeinfer.checks.parity import TOLERANCE
from pdeinfer.cli.main import main
from pdeinfer.export.onnx_file import convert
from pdeinfer.export.rewrite.graph import convert_classifier, convert_stages
from pdeinfer.export.rewrite.operands import OPERANDS, operand_name
from pdeinfer.export.rewrite.traced import trace
from pdeinfer.nn.loading import load_classifier
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.runtime.session import create_session

WEIGHTS = OPERANDS[1:11]
VELOCITY, DIFFUSIVITY = WEIGHTS[:4], WEIGHTS[4:8]


def digits_with(pde: PdeSpec) -> Preset:
    preset = PRESETS["digits-pde"]
    return replace(preset, network=replace(preset.network, pde=pde))


def initial_network(preset: Preset) -> Any:
    """A network with the weights that a training begins with."""
    from pdeinfer.nn import Classifier

    return Classifier(preset)


@cache
def converted(preset: Preset) -> onnx.ModelProto:
    """What export makes of it, which tests must not change."""
    return convert_classifier(initial_network(preset))


def calls(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "pdeinfer"]


def given_operands(call: onnx.NodeProto) -> list[str]:
    """The operands that a call gives, and whether as the tensor of that name: "diffusion_x for diffusion_y"."""
    return [
        operand if name == operand_name(call.name, operand) else f"{name.rpartition('/')[2]} for {operand}"
        for operand, name in zip(OPERANDS, call.input, strict=False)
        if name
    ]


FOR_CONSTANTS = {"Constant", "Expand", "Reshape", "Shape", "Sub"}
ONE_DIFFUSION_CONVOLUTION = [
    *("diffusion_x", "diffusion_x_bias"),
    *("diffusion_x for diffusion_y", "diffusion_x_bias for diffusion_y_bias"),
]
ONE_DIFFUSION = ["diffusion_x", "diffusion_x for diffusion_y", "scale", "shift"]


@pytest.mark.parametrize(
    ("preset", "operands", "num_calls"),
    [
        (PRESETS["cifar10-global"], ["h", *WEIGHTS], 3),
        (PRESETS["cifar10-global-no-advection"], ["h", *DIFFUSIVITY, "scale", "shift"], 3),
        (PRESETS["cifar10-global-no-diffusion"], ["h", *VELOCITY, "scale", "shift"], 3),
        (PRESETS["cifar10-global-constant-d"], ["h", *VELOCITY, *ONE_DIFFUSION], 3),
        (
            PRESETS["cifar10-global-source"],
            ["h", *VELOCITY, *ONE_DIFFUSION_CONVOLUTION, "scale", "shift", "source", "source_bias"],
            3,
        ),
        (PRESETS["mnist-pde"], ["h", "courant_x", "courant_x for courant_y", *ONE_DIFFUSION], 1),
        (
            digits_with(PdeSpec(num_steps=2, velocity="pointwise", diffusivity=PeronaMalik(0.5), start="residual")),
            ["h", "courant_x", "courant_y", *ONE_DIFFUSION, "start"],
            1,
        ),
    ],
    ids=[
        "depthwise",
        "no-advection",
        "no-diffusion",
        "constant",
        "learned-source",
        "one-velocity-for-both",
        "maps-and-a-start",
    ],
)
def test_each_pde_layer_is_a_call_of_the_one_function(preset: Preset, operands: list[str], num_calls: int) -> None:
    model = converted(preset)
    assert [(function.domain, function.name) for function in model.functions] == [("pdeinfer", "GlobalLayer")]
    assert [call.name for call in calls(model)] == [f"layer{number}" for number in range(1, num_calls + 1)]
    pde = preset.network.feature if preset.name == "mnist-pde" else preset.network.pde
    for call in calls(model):
        assert given_operands(call) == operands
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in call.attribute}
        assert attributes["num_steps"] == pde.num_steps
        assert attributes["source"] == pytest.approx(2 * pde.dt)
        assert attributes.get("signed_velocity", 0) == (pde.velocity_activation == "linear")
    spec = preset.input
    (image,) = model.graph.input
    sizes = [dimension.dim_param or dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    assert sizes == ["batch", spec.height, spec.width, spec.channels]
    assert [output.name for output in model.graph.output] == ["probabilities", "features"]


def test_the_stages_take_the_last_levels_and_have_no_function() -> None:
    model = convert_stages(initial_network(PRESETS["cifar10-global-tiny"]))
    layers = ("layer1", "layer2", "layer3")
    symbols = ("Dx", "Dy", "start", "u", "v")
    assert [value.name for value in model.graph.input] == ["image", *(f"{name}/last" for name in layers)]
    fields = {f"{name}/{symbol}" for name in layers for symbol in symbols}
    assert {value.name for value in model.graph.output} == {"probabilities", *fields}
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}


def test_a_network_without_pde_layers_has_no_function() -> None:
    model = converted(PRESETS["mnist-residual"])
    assert not model.functions
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


@pytest.mark.parametrize(
    ("name", "slices"),
    [("cifar10-global", set()), ("digits-pde", set()), ("mnist-pde", {"Slice", "Concat"})],
)
def test_the_function_slices_only_if_channels_do_not_fill_blocks(name: str, slices: set[str]) -> None:
    (function,) = converted(PRESETS[name]).functions
    used = {node.op_type for node in function.node} - FOR_CONSTANTS
    assert used - {"Conv", "Mul", "Add", "Relu", "Div", "Reciprocal", "Transpose"} == slices
    made = Counter(name for node in function.node for name in node.input)
    unused = [name for node in function.node for name in node.output if not made[name]]
    assert unused == list(function.output)


def test_onnx_runtime_inlines_the_function_and_transposes_only_the_image(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # no warning that the file fits this machine alone
    model = converted(PRESETS["cifar10-global"])
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    used = Counter(node.op_type for node in optimized.graph.node)
    assert used["GlobalLayer"] == 0
    assert used["Transpose"] == 1
    assert used["GlobalAveragePool"] == 1
    assert used["ReduceMean"] == 0
    assert used["Div"] == 3
    assert not FOR_CONSTANTS & used.keys()  # they were computed when it was loaded


def test_the_graph_equals_tf2onnx_s_of_the_whole_network(saved_network: Callable[..., Path]) -> None:
    digits = PRESETS["digits-pde"]
    pde = replace(digits.network.pde, num_steps=2)
    preset = replace(digits, network=replace(digits.network, widths=(9, 16, 8), pde=pde))
    classifier = load_classifier(saved_network(preset))
    plain = convert(trace(classifier), classifier.preset)
    assert {"Slice", "Mod"} <= {node.op_type for node in plain.graph.node}
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    expected, found = (
        create_session(model.SerializeToString(), "cpu").run("probabilities", {"image": images})
        for model in (plain, convert_classifier(classifier))
    )
    assert np.abs(found - expected).max() <= TOLERANCE


def test_inline_writes_a_file_without_functions_and_proves_it(
    saved_network: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved_network(PRESETS["digits-pde"])
    assert main(["export", str(source), "--inline", "--output", str(tmp_path / "package")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("model.onnx on ONNX Runtime")
    assert "NOT EQUAL" not in printed
    content = ModelPackage.read(tmp_path / "package").read_file(ONNX_FILE)
    model = onnx.load_model_from_string(content)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    dilated = [entry for node in model.graph.node for entry in node.attribute if entry.name == "dilations"]
    assert all(set(entry.ints) == {1} for entry in dilated)  # such convolutions suit ONNX Runtime alone
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert create_session(content, "cpu").pde_layers == "standard"
    assert main(["verify", str(tmp_path / "package")]) == 0
