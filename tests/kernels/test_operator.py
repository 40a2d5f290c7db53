"""The fused operator, compared with a naive float64 reference and with its ONNX function in standard operators."""

import resource
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pdeinfer.runtime import kernel
from pdeinfer.runtime.session import create_session
from tests.kernels.layers import STRUCTURES, PdeLayer, make_layer
from tests.kernels.operators import error, run

# The largest error, relative to the largest value. Measured at these shapes: 3.4e-7.
TOLERANCE = 1e-6

# Sides of 1 and 2, where a point is its own neighbour; channel counts of 1 and around the solvers' 4, 8 and 16 lanes.
SHAPES = [
    (1, 1, 1, 1),
    (2, 1, 5, 3),
    (1, 5, 1, 4),
    (1, 2, 2, 17),
    (3, 3, 2, 5),
    (1, 7, 6, 9),
    (2, 4, 5, 16),
    (1, 3, 8, 33),
]

# Larger than the cache: several bands, one band, fewer rows than stages, slightly more rows than stages.
LARGE_SHAPES = [(1, 400, 25, 17), (2, 50, 170, 4), (1, 3, 3000, 5), (1, 9, 1000, 3), (1, 9000, 1, 4)]


def run_function(layer: PdeLayer, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    with monkeypatch.context() as patch:
        patch.setenv("PDEINFER_KERNEL", "0")
        model = layer.model()
        session = create_session(model.SerializeToString(), "cpu", 1)
        assert session.pde_layers == "standard"
        return session.run("result", layer.feeds(model))


@cache
def reference(*layer: Any, **options: Any) -> NDArray[np.float64]:
    """Return the reference of `make_layer` with these arguments, cached because it is slow."""
    return make_layer(*layer, **options).reference()


@pytest.mark.usefixtures("level")
class TestEverySolver:
    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("num_steps", [1, 4])
    def test_every_structure_equals_the_reference_at_unusual_shapes(self, structure: str, num_steps: int) -> None:
        for shape in SHAPES:
            result = run(make_layer(structure, shape, num_steps))
            assert error(result, reference(structure, shape, num_steps)) < TOLERANCE, shape

    @pytest.mark.parametrize("num_steps", range(1, 9))
    def test_every_number_of_steps_equals_the_reference(self, num_steps: int) -> None:
        for start in (False, True):
            layer = ("convolutions", (1, 4, 5, 17), num_steps)
            assert error(run(make_layer(*layer, start=start)), reference(*layer, start=start)) < TOLERANCE

    @pytest.mark.parametrize("num_steps", [1, 3])
    def test_a_layer_without_source_equals_the_reference(self, num_steps: int) -> None:
        layer = ("convolutions", (1, 4, 4, 8), num_steps)
        assert error(run(make_layer(*layer, source=0.0)), reference(*layer, source=0.0)) < TOLERANCE

    @pytest.mark.parametrize("num_steps", [1, 5])
    @pytest.mark.parametrize(("courant", "tolerance"), [(7.5, TOLERANCE), (50, 5e-6)])  # as docs/operator.md says
    def test_large_courant_numbers_amplify_rounding_within_limits(
        self, courant: float, tolerance: float, num_steps: int
    ) -> None:
        shape = (1, 16, 16, 8)
        layer = make_layer("maps", shape, num_steps)
        rng = np.random.default_rng(0)
        # Nothing varies along y: that advection cancels, and the result stays small beside its terms.
        across = {"courant_y": rng.uniform(0, courant, (1, 1, 16, 8)), "h": rng.uniform(0, 2, (1, 1, 16, 8))}
        across |= {"courant_x": np.zeros(()), "diffusion_x": np.full((), 0.1), "diffusion_y": np.full((), 0.1)}
        for name, values in across.items():
            layer.tensors[name] = np.broadcast_to(values, shape).astype(np.float32)
        assert error(run(layer), layer.scheme()) < tolerance

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_the_operator_equals_its_function(self, structure: str, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = make_layer(structure, (2, 5, 4, 24), 5)
        function = run_function(layer, monkeypatch)
        assert error(function, reference(structure, (2, 5, 4, 24), 5)) < TOLERANCE
        assert error(run(layer), function.astype(np.float64)) < 2 * TOLERANCE

    @pytest.mark.parametrize("structure", ["convolutions", "mixed", "learned source", "isotropic map, source map"])
    @pytest.mark.parametrize("num_steps", [1, 2, 5])
    def test_large_images_equal_the_function(
        self, structure: str, num_steps: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for shape in LARGE_SHAPES:
            layer = make_layer(structure, shape, num_steps, start=num_steps == 2)
            assert error(run(layer), run_function(layer, monkeypatch).astype(np.float64)) < 2 * TOLERANCE, shape

    def test_results_do_not_depend_on_the_number_of_threads(self) -> None:
        for shape in ((1, 16, 16, 40), (12, 8, 8, 9), LARGE_SHAPES[0]):
            layer = make_layer("convolutions", shape, 3)
            assert np.array_equal(run(layer, 1), run(layer, 2))

    @pytest.mark.parametrize("channels", [1, 3, 16])
    def test_results_do_not_depend_on_the_batch(self, channels: int) -> None:
        layer = make_layer("convolutions", (7, 8, 8, channels), 2)
        batch = run(layer)
        for index in range(7):
            alone = PdeLayer(2, layer.source_factor, {**layer.tensors, "h": layer.tensors["h"][index : index + 1]})
            assert np.array_equal(run(alone)[0], batch[index])

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_images_with_few_channels_equal_the_reference(self, structure: str) -> None:
        for shape in [(19, 3, 4, 1), (9, 4, 3, 2), (6, 3, 5, 3)]:
            for start in (False, True):
                layer = make_layer(structure, shape, 2, start=start)
                assert error(run(layer), reference(structure, shape, 2, start=start)) < TOLERANCE, shape

    def test_no_images_give_no_results(self) -> None:
        layer = make_layer("convolutions", (0, 4, 4, 3))
        assert run(layer).shape == (0, 3, 4, 4)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("num_steps", [1, 2])
    def test_non_finite_values_spread_as_in_the_reference(self, value: float, num_steps: int) -> None:
        layer = make_layer("convolutions", (1, 9, 10, 5), num_steps)
        layer.tensors["h"][0, 3, 4, 2] = value
        result, expected = run(layer), layer.reference()
        assert np.array_equal(np.isfinite(result), np.isfinite(expected))
        assert 5 <= np.sum(~np.isfinite(result)) <= 49
        finite = np.isfinite(expected)
        assert error(result[finite], expected[finite]) < TOLERANCE

    @pytest.mark.parametrize("num_steps", [1, 3])
    def test_denormal_numbers_are_not_flushed_to_zero(self, num_steps: int) -> None:
        layer = make_layer("constant diffusion", (1, 6, 5, 9), num_steps)
        for name in ("h", "shift"):
            layer.tensors[name] *= np.float32(1e-40)
        result, expected = run(layer), layer.reference()
        smallest = np.finfo(np.float32).smallest_subnormal
        assert 0 < expected.max() < np.finfo(np.float32).smallest_normal
        assert np.abs(result - expected).max() <= 8 * num_steps * smallest

    @pytest.mark.parametrize("structure", ["convolutions", "learned source"])
    def test_weights_need_not_be_constant(self, structure: str) -> None:
        layer = make_layer(structure, (2, 5, 4, 11), 2)
        assert np.array_equal(run(layer, model=layer.model(constant=())), run(layer))


def test_the_optimized_graph_has_the_operator_and_no_transpose(tmp_path: Path) -> None:
    layer = make_layer("convolutions", (1, 8, 8, 16))
    layer.tensors.pop("h")
    model = PdeLayer(1, 0.4, {"h": np.zeros((1, 8, 8, 16), np.float32), **layer.tensors}).model()
    graph = model.graph
    weights = np.full((16, 16, 3, 3), 0.01, np.float32)
    graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    (call,) = graph.node
    call.output[0] = "solved"  # (N, C, H, W)
    del graph.node[:], graph.input[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 16, 8, 8]))
    graph.node.extend(
        [
            helper.make_node("Conv", ["image", "weights"], ["features"], pads=[1, 1, 1, 1]),
            helper.make_node("Transpose", ["features"], ["h"], perm=[0, 2, 3, 1]),
            call,
            helper.make_node("Conv", ["solved", "weights"], ["result"], pads=[1, 1, 1, 1]),
        ]
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    assert kernel.register_kernel(options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operators.count("GlobalLayer") == 1
    assert not {"Transpose", "Reshape"} & set(operators)
    assert session.get_outputs()[0].shape == ["batch", 16, 8, 8]  # inferred by the operator


def test_scratch_memory_is_reused_between_runs() -> None:
    layer = make_layer("convolutions", (1, 32, 32, 16), 5)
    model = layer.model()
    session = create_session(model.SerializeToString(), "cpu", 1)
    feeds = layer.feeds(model)
    for _ in range(5):
        session.run("result", feeds)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        session.run("result", feeds)

    scratch = 8 * 34 * 34 * 16 * 4
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    assert faults < 20 * scratch / resource.getpagesize() / 2


@pytest.mark.parametrize("channels", [1, 24])
def test_a_layer_that_would_leave_half_a_vector_of_avx512_empty_runs_with_avx2(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its scratch memory is in proportion to the vectors, and too large to be kept: each run touches new pages.
    layer = make_layer("neither", (1, 1, 120_000, channels))
    model = layer.model()
    faults = []
    for level in ("avx2", ""):
        monkeypatch.setenv("PDEINFER_KERNEL", level)
        session = create_session(model.SerializeToString(), "cpu", 1)
        if session.pde_layers != "fused":
            pytest.skip("this CPU has no AVX2")
        session.run("result", layer.feeds(model))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        session.run("result", layer.feeds(model))
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[1] < 1.1 * faults[0]


def test_zeros_stay_zero_over_many_steps() -> None:
    layer = make_layer("convolutions", (1, 90, 100, 17), 200)
    layer.tensors["h"] *= 0
    expected = np.maximum(layer.tensors["shift"], 0).reshape(1, 17, 1, 1)
    assert np.array_equal(run(layer), np.broadcast_to(expected, (1, 17, 90, 100)))


def test_an_instruction_set_that_becomes_unknown_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    assert kernel.register_kernel(options)
    monkeypatch.setenv("PDEINFER_KERNEL", "0")
    model = make_layer("convolutions", (1, 4, 5, 6)).model().SerializeToString()
    with pytest.raises(Exception, match="names no kernel of this CPU"):  # ONNX Runtime's own classes
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


@pytest.mark.parametrize("structure", ["convolutions", "learned source"])
def test_constant_weights_are_read_when_the_session_is_created(structure: str) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    assert kernel.register_kernel(options)
    layer = make_layer(structure, (1, 4, 5, 6))
    layer.tensors["courant_y_bias"] = np.ones(1, np.float32)
    with pytest.raises(Exception, match="courant_y_bias must be"):  # ONNX Runtime's own classes
        onnxruntime.InferenceSession(
            layer.model().SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )


@pytest.mark.usefixtures("operator")
class TestMalformed:
    """Malformed nodes raise errors that name the input."""

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((4, 5, 6), r"h must be of rank 4, \(N, H, W, C\), not 3"),
            ((1, 2, 4, 5, 6), "h must be of rank 4 at most"),
            ((1, 4, 5, 7), r"scale must be \(7\), not \(6\)"),
        ],
    )
    def test_an_input_with_a_wrong_shape_is_an_error(self, shape: tuple[int, ...], message: str) -> None:
        layer = make_layer("convolutions", (1, 4, 5, 6))
        layer.tensors["h"] = np.ones(shape, np.float32)
        expect_error(layer, message)

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("courant_x", (6, 1, 5, 5), r"courant_x must be \(6, 1, 3, 3\), not \(6, 1, 5, 5\)"),
            ("courant_y_bias", (1,), r"courant_y_bias must be \(6\), not \(1\)"),
            ("diffusion_x", (5, 1, 3, 3), r"diffusion_x must be \(6, 1, 3, 3\), not \(5, 1, 3, 3\)"),
            ("diffusion_y_bias", (), r"diffusion_y_bias must be \(6\), not \(\)"),
            ("shift", (1, 6), r"shift must be \(6\), not \(1, 6\)"),
            ("start", (1, 4, 6, 5), r"start must be \(1, 4, 5, 6\), not \(1, 4, 6, 5\)"),
        ],
    )
    @pytest.mark.parametrize("constant", [None, ()])
    def test_a_weight_with_a_wrong_shape_is_an_error(
        self, name: str, shape: tuple[int, ...], message: str, constant: tuple[str, ...] | None
    ) -> None:
        layer = make_layer("convolutions", (1, 4, 5, 6), start=True)
        layer.tensors[name] = np.ones(shape, np.float32)
        expect_error(layer, message, constant)

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("source", (6, 1, 5, 5), r"source must be \(6, 1, 3, 3\), not \(6, 1, 5, 5\)"),
            ("source_bias", (5,), r"source_bias must be \(6\), not \(5\)"),
        ],
    )
    @pytest.mark.parametrize("constant", [None, ()])
    def test_a_source_with_a_wrong_shape_is_an_error(
        self, name: str, shape: tuple[int, ...], message: str, constant: tuple[str, ...] | None
    ) -> None:
        layer = make_layer("learned source", (1, 4, 5, 6))
        layer.tensors[name] = np.ones(shape, np.float32)
        expect_error(layer, message, constant)

    @pytest.mark.parametrize("shape", [(2, 4, 5, 6), (1, 4, 5, 1), (1,)])
    def test_a_map_with_another_shape_than_the_input_is_an_error(self, shape: tuple[int, ...]) -> None:
        layer = make_layer("maps", (1, 4, 5, 6))
        layer.tensors["diffusion_y"] = np.ones(shape, np.float32)
        expect_error(layer, r"diffusion_y must be \(1, 4, 5, 6\), not ")

    def test_a_bias_without_a_kernel_is_an_error(self) -> None:
        layer = make_layer("convolutions", (1, 4, 5, 6))
        model = layer.model()
        model.graph.node[0].input[1] = ""
        expect_error(layer, r"courant_x must be \(6, 1, 3, 3\), not absent", model=model)

    @pytest.mark.parametrize("num_steps", [0, -1, 1001, 2**62])
    def test_a_number_of_steps_outside_1_to_1000_is_an_error(self, num_steps: int) -> None:
        layer = make_layer("convolutions", (1, 4, 5, 6))
        model = layer.model()
        model.graph.node[0].attribute[0].i = num_steps
        expect_error(layer, f"num_steps must be 1 to 1000, not {num_steps}", model=model)

    def test_a_missing_attribute_is_an_error(self) -> None:
        layer = make_layer("convolutions", (1, 4, 5, 6))
        model = layer.model()
        del model.graph.node[0].attribute[1]
        expect_error(layer, "source", model=model)

    def test_unknown_attributes_are_ignored(self) -> None:
        layer = make_layer("convolutions", (1, 4, 5, 6))
        model = layer.model()
        model.graph.node[0].attribute.extend(
            [helper.make_attribute("channels", 6), helper.make_attribute("wrap_x", [0.0, 2.0, 0.0])]
        )
        assert np.array_equal(run(layer, model=model), run(layer))


def expect_error(
    layer: PdeLayer, message: str, constant: tuple[str, ...] | None = None, model: onnx.ModelProto | None = None
) -> None:
    model = model or layer.model(constant)
    for value in model.graph.input:  # or ONNX Runtime compares shapes itself
        value.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    assert kernel.register_kernel(options)
    with pytest.raises(Exception, match=message):  # ONNX Runtime's own classes
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        ).run(None, layer.feeds(model))
