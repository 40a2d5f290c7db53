"""Graphs that would hang, recurse or take much memory are refused before ONNX Runtime sees them; others are not."""

import resource
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pdeinfer.errors import ModelPackageError
from pdeinfer.graph.operators import OPERATORS
from pdeinfer.graph.rules import check_graph
from pdeinfer.graph.values import Call, Value
from pdeinfer.graph.wire import MAX_NODES, Node
from pdeinfer.package import zoo
from pdeinfer.runtime.session import create_session

Nodes = Sequence[onnx.NodeProto]
node = helper.make_node


def model(nodes: Nodes, *, functions: Sequence[Any] = (), **weights: Any) -> bytes:
    """Return a file that makes "y" of "x", float32 (batch, 16), which is a part of the image (batch, 8, 8, 1)."""
    weights |= {"w": np.zeros((64, 16), np.float32)}
    head = [
        node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        node("Flatten", ["f"], ["flat"]),
        node("MatMul", ["flat", "w"], ["x"]),
    ]
    graph = helper.make_graph(
        [*head, *nodes],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pdeinfer", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8).SerializeToString()


def function(name: str, nodes: Nodes) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pdeinfer", 1)]
    return helper.make_function("pdeinfer", name, ["a"], ["b"], nodes, opsets)


def call(name: str, source: str, target: str) -> onnx.NodeProto:
    return node(name, [source], [target], domain="pdeinfer")


def subgraph(operator: str) -> bytes:
    body = helper.make_graph([node("Identity", ["x"], ["z"])], "b", [], [helper.make_empty_tensor_value_info("z")])
    names = ("then_branch", "else_branch") if operator == "If" else ("body",)
    return model([node(operator, ["x"], ["y"], **dict.fromkeys(names, body))])


def doubling(by: str) -> bytes:
    """Return a file in which each of 30 nodes makes twice as many values as the one before."""
    nodes = []
    for number in range(30):
        source, target = f"v{number}" if number else "x", f"v{number + 1}"
        if by == "Concat":
            nodes.append(node("Concat", [source, source], [target], axis=1))
        elif by == "Tile":
            nodes.append(node("Tile", [source, "two"], [target]))
        else:
            nodes.append(node("Pad", [source, "pads"], [target]))
    pads = np.array([0, 0, 0, 2**25])
    return model([*nodes, node("Identity", ["v30"], ["y"])], two=[1, 2], pads=pads)


def outer_product(times: int) -> bytes:
    """Return a file that adds a row and a column, and the result's row and column, and so on."""
    nodes, source = [], "x"
    for number in range(times):
        nodes += [
            node("Reshape", [source, "row"], [f"r{number}"]),
            node("Reshape", [source, "column"], [f"c{number}"]),
            node("Add", [f"r{number}", f"c{number}"], [f"a{number}"]),
        ]
        source = f"a{number}"
    return model([*nodes, node("Identity", [source], ["y"])], row=[0, 1, -1], column=[0, -1, 1])


def powers_of_the_batch() -> bytes:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "zero", "one"], ["n"]),
        node("Concat", ["n", "n"], ["nn"], axis=0),
        node("Expand", ["scalar", "nn"], ["y"]),
    ]
    return model(nodes, zero=[0], one=[1], scalar=np.float32(1))


def computed_batch() -> bytes:
    """Return a file with (batch - 1) * 2**40 values: none for one image."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "zero", "one"], ["n"]),
        node("Sub", ["n", "one"], ["m"]),
        node("Mul", ["m", "size"], ["o"]),
        node("ConstantOfShape", ["o"], ["y"]),
    ]
    return model(nodes, zero=[0], one=[1], size=[2**40])


def chain(operator: str, count: int) -> bytes:
    names = ["x", *(f"v{number}" for number in range(count - 1)), "y"]
    return model([node(operator, [a], [b]) for a, b in pairwise(names)])


def calls(count: int, *body: onnx.NodeProto) -> bytes:
    """Return a file that calls a function again and again."""
    names = ["x", *map(str, range(count - 1)), "y"]
    return model(
        [call("GlobalLayer", *pair) for pair in pairwise(names)], functions=[function("GlobalLayer", list(body))]
    )


def layer_of_another_shape() -> bytes:
    """Return a file whose function makes a number, and the fused operator in its place rows and columns of 2^15."""
    body = [node("ReduceSum", ["a"], ["t"]), node("Reshape", ["t", "k"], ["b"])]
    return fused_model(
        [call("GlobalLayer", "h1", "c1"), call("GlobalLayer", "h2", "c2"), node("Add", ["c1", "c2"], ["y"])],
        [node("Constant", [], ["k"], value_ints=[1]), *body],
        h1=np.zeros((1, 2**15, 1, 1), np.float32),
        h2=np.zeros((1, 1, 2**15, 1), np.float32),
    )


def layer_of_many_steps(steps: int) -> bytes:
    """Return a file whose function only moves channels, and the fused operator in its place makes steps."""
    layer = node("GlobalLayer", ["f"], ["y"], domain="pdeinfer", num_steps=steps)
    return fused_model([layer], [node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2])])


def fused_model(nodes: Nodes, body: Nodes, **weights: Any) -> bytes:
    """Return a file of the version whose calls of the function the fused operator replaces."""
    file = onnx.load_model_from_string(model(nodes, functions=[function("GlobalLayer", body)], **weights))
    for opsets in (file.opset_import, file.functions[0].opset_import):
        next(entry for entry in opsets if entry.domain == "pdeinfer").version = 2
    return file.SerializeToString()


def hidden_padding(in_function: bool) -> bytes:
    """Return a file with a convolution whose padding is beside a reference to an attribute that nobody gives."""
    convolution = node("Conv", ["a" if in_function else "f", "k"], ["b" if in_function else "y"], pads=[5000] * 4)
    convolution.attribute[0].ref_attr_name = "pads"
    if not in_function:
        return model([convolution], k=np.zeros((1, 8, 1, 1), np.float32))
    kernel = node("Constant", [], ["k"], value=numpy_helper.from_array(np.zeros((1, 8, 1, 1), np.float32)))
    return model([call("GlobalLayer", "f", "y")], functions=[function("GlobalLayer", [kernel, convolution])])


def reference_outside_functions() -> bytes:
    convolution = node("Conv", ["f", "k"], ["y"], pads=[1] * 4)
    convolution.attribute[0].ClearField("ints")
    convolution.attribute[0].ref_attr_name = "pads"
    return model([convolution], k=np.zeros((1, 8, 1, 1), np.float32))


def two_initializers_of_one_name() -> bytes:
    file = onnx.load_model_from_string(model([node("Expand", ["x", "n"], ["y"])], n=[2**18, 1, 16]))
    file.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 16]), "n"))
    return file.SerializeToString()


def attribute_given_twice() -> bytes:
    convolution = node("Conv", ["f", "k"], ["y"], pads=[5000] * 4)
    convolution.attribute.append(helper.make_attribute("pads", [1] * 4))
    return model([convolution], k=np.zeros((1, 8, 1, 1), np.float32))


def function_defined_twice() -> bytes:
    bodies = [[node("ConstantOfShape", ["a"], ["b"])], [node("Identity", ["a"], ["b"])]]
    return model([call("GlobalLayer", "x", "y")], functions=[function("GlobalLayer", body) for body in bodies])


HOSTILE: dict[str, Callable[[], bytes]] = {
    **{operator: lambda operator=operator: subgraph(operator) for operator in ("If", "Loop", "Scan", "SequenceMap")},
    "recursion": lambda: model(
        [call("GlobalLayer", "x", "y")], functions=[function("GlobalLayer", [call("GlobalLayer", "a", "b")])]
    ),
    "functions that call each other": lambda: model(
        [call("F", "x", "y")], functions=[function("F", [call("G", "a", "b")]), function("G", [call("F", "a", "b")])]
    ),
    "doubling functions": lambda: model(
        [call("F25", "x", "y")],
        functions=[
            function("F0", [node("Identity", ["a"], ["b"])]),
            *(function(f"F{n}", [call(f"F{n - 1}", "a", "t"), call(f"F{n - 1}", "t", "b")]) for n in range(1, 26)),
        ],
    ),
    "many calls of a long function": lambda: calls(
        401, *(node("Sin", [f"t{n}" if n else "a"], [f"t{n + 1}" if n < 99 else "b"]) for n in range(100))
    ),
    "many calls of a function with a long name": lambda: calls(9000, node("Dropout", ["a"], ["b", "m" * 10**5])),
    "many calls of a function with longish names": lambda: calls(
        9000, node("Concat", ["a", *(f"{n}" * 200 for n in range(200, 255))], ["b"], axis=1)
    ),
    "many calls of a function with many inputs": lambda: calls(9000, node("Concat", ["a"] * 10**5, ["b"], axis=1)),
    "many calls of a function with many attributes": lambda: calls(
        9000, node("Relu", ["a"], ["b"], **{f"a{n}": 1 for n in range(10_000)})
    ),
    "a name of megabytes": lambda: model([node("Relu", ["z" * 3_000_000], ["y"])]),
    "an operator of megabytes": lambda: model([node("z" * 3_000_000, ["x"], ["y"])]),
    "a value with many uses": lambda: model(
        [*(node("Relu", ["x"], [f"v{n}"]) for n in range(3000)), node("Relu", ["x"], ["y"])]
    ),
    "a node with many inputs": lambda: model([node("Concat", ["w"] * 3000, ["y"], axis=0)]),
    "text": lambda: model([node("Cast", ["x"], ["y"], to=TensorProto.STRING)]),
    "a long chain": lambda: chain("Sin", 100_000),
    "ConstantOfShape": lambda: model(
        [node("ConstantOfShape", ["n"], ["z"]), node("Add", ["x", "z"], ["y"])], n=[2**36]
    ),
    "Expand": lambda: model([node("Expand", ["x", "n"], ["y"])], n=[2**18, 1, 16]),
    "Range": lambda: model([node("Range", ["a", "b", "c"], ["y"])], a=0, b=2**40, c=1),
    "Resize": lambda: model([node("Resize", ["f", "", "s"], ["y"])], s=np.array([1, 4096, 4096, 1], np.float32)),
    **{f"doubling by {name}": lambda name=name: doubling(name) for name in ("Concat", "Tile", "Pad")},
    "outer products": lambda: outer_product(5),
    "a square of the batch": powers_of_the_batch,
    "a size that is 0 for one image": computed_batch,
    "padding": lambda: model([node("Conv", ["f", "k"], ["y"], pads=[2**20] * 4)], k=np.zeros((1, 8, 1, 1), np.float32)),
    "a size that the pixels set": lambda: model(
        [node("Cast", ["x"], ["n"], to=TensorProto.INT64), node("Expand", ["x", "n"], ["y"])]
    ),
    "many large products": lambda: model(
        [
            node("Expand", ["one", "n"], ["m0"]),
            *(node("MatMul", [f"m{number}", f"m{number}"], [f"m{number + 1}"]) for number in range(100)),
            node("ReduceSum", ["m100"], ["s"], keepdims=0),
            node("Add", ["x", "s"], ["y"]),
        ],
        one=np.float32(1),
        n=[1000, 1000],
    ),
    "an operator of ONNX Runtime's own": lambda: model([node("Gelu", ["x"], ["y"], domain="com.microsoft")]),
    "an operator without its function": lambda: model([call("GlobalLayer", "x", "y")]),
    "an output of nothing": lambda: model([node("Relu", ["x"], ["z"])]),
    "an input of nothing": lambda: model([node("Relu", ["z"], ["y"])]),
    "a layer that the fused operator makes larger": layer_of_another_shape,
    "a layer of very many steps": lambda: layer_of_many_steps(2**40),
    "padding beside a reference": lambda: hidden_padding(in_function=False),
    "padding beside a reference in a function": lambda: hidden_padding(in_function=True),
    "a reference outside functions": reference_outside_functions,
    "two initializers of one name": two_initializers_of_one_name,
    "a name computed twice": lambda: model([node("Relu", ["x"], ["y"]), node("Relu", ["x"], ["y"])]),
}


def test_an_input_beside_the_image_that_is_much_larger_is_refused() -> None:
    file = onnx.load_model_from_string(model([node("Relu", ["x"], ["y"])]))
    file.graph.input.append(helper.make_tensor_value_info("layer1/last", TensorProto.FLOAT, ["batch", 2**15, 2**15, 1]))
    with pytest.raises(ModelPackageError, match="at a time"):
        check_graph(file.SerializeToString())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused_soon_with_little_memory(name: str) -> None:
    content = HOSTILE[name]()
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(ModelPackageError) as caught:
        create_session(content, "cpu", 1)
    assert len(str(caught.value)) < 5000
    assert time.thread_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 * 1024


@pytest.mark.parametrize(("make", "name"), [(attribute_given_twice, "pads"), (function_defined_twice, "GlobalLayer")])
def test_what_is_given_twice_is_refused_as_onnx_runtime_may_take_the_other_one(
    make: Callable[[], bytes], name: str
) -> None:
    with pytest.raises(ModelPackageError, match=name):
        check_graph(make())


def test_steps_of_the_fused_operator_count_as_operations() -> None:
    check_graph(layer_of_many_steps(1000))
    with pytest.raises(ModelPackageError, match="operations"):
        check_graph(layer_of_many_steps(2**30))


def test_scratch_memory_of_the_fused_operator_counts_as_values_at_a_time() -> None:
    nodes = [node("Tile", ["f", "times"], ["h"]), call("GlobalLayer", "h", "y")]
    body = [node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2])]
    # Maps of 8 x 512 and 8 x 1024 points. The operator keeps 9 vectors of 16 values for each, the function two values.
    check_graph(fused_model(nodes, body, times=[1, 1, 64, 1]))
    with pytest.raises(ModelPackageError, match=r"at a time.*GlobalLayer"):
        check_graph(fused_model(nodes, body, times=[1, 1, 128, 1]))
    check_graph(model(nodes, functions=[function("GlobalLayer", body)], times=[1, 1, 128, 1]))


def test_names_of_a_function_do_not_meet_those_of_the_graph_or_of_other_calls() -> None:
    nodes = [call("GlobalLayer", "x", "t"), call("GlobalLayer", "t", "u"), node("Add", ["t", "u"], ["y"])]
    body = [node("Sin", ["a"], ["t"]), node("Sin", ["t"], ["m" * 1000]), node("Add", ["t", "m" * 1000], ["b"])]
    check_graph(model(nodes, functions=[function("GlobalLayer", body)]))


def test_a_chain_up_to_the_limit_is_taken() -> None:
    check_graph(chain("Relu", MAX_NODES - 3))


@pytest.mark.parametrize("name", zoo.names())
def test_bundled_models_are_checked_in_milliseconds(name: str) -> None:
    package = zoo.load(name)
    for file in package.card.files:
        if file.endswith(".onnx"):
            content = package.read_network(file)
            started = time.thread_time()
            check_graph(content)
            assert time.thread_time() - started < 0.3  # measured: 0.001 to 0.02


# Nodes that ONNX's own shape inference knows, with weights.
SHAPES: list[tuple[Nodes, dict[str, Any]]] = [
    (
        [node("Conv", ["t", "k"], ["y"], pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])],
        {"k": np.zeros((5, 1, 3, 2), np.float32)},
    ),
    (
        [node("Conv", ["t", "k"], ["y"], auto_pad="SAME_UPPER", strides=[2, 3])],
        {"k": np.zeros((5, 1, 3, 2), np.float32)},
    ),
    ([node("MaxPool", ["t"], ["y"], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)], {}),
    ([node("AveragePool", ["t"], ["y"], kernel_shape=[2, 2], pads=[1, 1, 0, 0])], {}),
    ([node("GlobalAveragePool", ["t"], ["y"])], {}),
    ([node("Gemm", ["x", "m"], ["y"], transB=1)], {"m": np.zeros((3, 16), np.float32)}),
    ([node("MatMul", ["t", "m"], ["y"])], {"m": np.zeros((8, 3), np.float32)}),
    ([node("MatMul", ["x", "m"], ["y"])], {"m": np.zeros(16, np.float32)}),
    ([node("Transpose", ["t"], ["y"], perm=[2, 0, 3, 1])], {}),
    ([node("Reshape", ["x", "s"], ["y"])], {"s": [0, 4, -1]}),
    ([node("Reshape", ["x", "s"], ["y"])], {"s": [-1, 2, 8]}),
    (
        [node("Slice", ["t", "a", "b", "axes", "steps"], ["y"])],
        {"a": [-1, 1], "b": [-100, 2**62], "axes": [2, 3], "steps": [-2, 3]},
    ),
    ([node("Concat", ["t", "t"], ["y"], axis=-1)], {}),
    ([node("Pad", ["t", "p"], ["y"])], {"p": [0, 0, 1, 2, 0, 0, 3, 4]}),
    ([node("ReduceMean", ["t", "axes"], ["y"], keepdims=0)], {"axes": [-1, 2]}),
    ([node("Gather", ["t", "i"], ["y"], axis=2)], {"i": [[1, 2, 3]]}),
    ([node("Unsqueeze", ["x", "axes"], ["y"])], {"axes": [0, -1]}),
    ([node("Squeeze", ["t", "axes"], ["y"])], {"axes": [1]}),
    ([node("Flatten", ["t"], ["y"], axis=2)], {}),
    ([node("Tile", ["t", "r"], ["y"])], {"r": [1, 2, 3, 1]}),
    ([node("Expand", ["x", "s"], ["y"])], {"s": [3, 1, 16]}),
    ([node("Mul", ["t", "m"], ["y"])], {"m": np.zeros((3, 1, 1), np.float32)}),
    (
        [node("Shape", ["t"], ["s"], start=2), node("Mul", ["s", "n"], ["u"]), node("ConstantOfShape", ["u"], ["y"])],
        {"n": [2, 3]},
    ),
    (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "i"], ["b"]),
            node("Concat", ["b", "r"], ["u"], axis=0),
            node("Reshape", ["x", "u"], ["y"]),
        ],
        {"i": [0], "r": [2, 8]},
    ),
]


@pytest.mark.parametrize(("nodes", "weights"), SHAPES, ids=[nodes[-1].op_type for nodes, _ in SHAPES])
def test_shapes_are_those_that_onnx_runtime_computes(nodes: Nodes, weights: dict[str, Any]) -> None:
    weights = {name: np.asarray(value) for name, value in weights.items()}
    values = {
        name: Value(value.shape, value.astype(object) if value.dtype == np.int64 else None)
        for name, value in weights.items()
    }
    values |= {"x": Value((-1, 16)), "t": Value((-1, 1, 8, 8))}
    for entry in nodes:
        attributes = {each.name: helper.get_attribute_value(each) for each in entry.attribute}
        attributes = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
        operator = Node("", entry.op_type, tuple(entry.input), tuple(entry.output), attributes)
        values[entry.output[0]] = OPERATORS[entry.op_type](Call(operator, [values[name] for name in entry.input]))
    content = model([node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]), *nodes], **weights)
    found = create_session(content, "cpu", 1).run("y", {"image": np.zeros((7, 8, 8, 1), np.uint8)})
    assert tuple(-7 * size if size < 0 else size for size in values["y"].shape) == found.shape
