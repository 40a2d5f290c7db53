"""The rules of the graph in a package's ONNX file.

What a graph costs is known without running it. It has only operators whose shapes `operators` can follow, and no
control flow. At most one function is called, `pdeinfer.GlobalLayer`, and it calls none. The fused operator may run in
place of a call, and must make a result of the same shape. Shapes depend on weights and, in proportion, on the batch
size; nothing else that the graph is given sets them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from pdeinfer.errors import ModelPackageError
from pdeinfer.graph.operators import OPERATORS
from pdeinfer.graph.values import Call, ShapeError, Value
from pdeinfer.graph.wire import MAX_FIELDS, MAX_NODES, Function, Graph, Node, read_graph

FUNCTION = ("pdeinfer", "GlobalLayer")
_NOT_FUSED = ("pdeinfer", 1)  # the version that the fused operator does not replace
_STANDARD = ("", "ai.onnx")

# Limits for one image: a fixed part, and a part per value of the image (or of all inputs, if there is none of this
# name). cifar10-global is given 3,072 values, has at most 80,000 at a time, and takes 1e8 operations.
_IMAGE = "image"
_VALUES, _VALUES_PER_INPUT = 2**20, 2**10
_OPERATIONS, _OPERATIONS_PER_INPUT = 2**35, 2**22
# What depends on weights alone is computed when the file is loaded, and kept.
_CONSTANTS, _CONSTANTS_PER_BYTE = 2**22, 4

_MAX_INPUTS, _MAX_USES = 256, 2000
_LANES, _VECTORS = 16, 9  # of the fused operator: channels in a vector, and vectors that it keeps for a point
_SLOWEST = 16  # operations that a value of an elementwise operator counts as: some are that slow


class _Fused(Node):
    """The fused operator in place of a call of the function: its inputs are the layer's input and result."""


def check_graph(model: bytes) -> None:
    """Check that an ONNX file is self-contained, and that its graph obeys the rules.

    Raises:
        ModelPackageError: it is not an ONNX file, or breaks a rule; the message says which.
    """
    graph = read_graph(model)
    try:
        _check_cost(graph, len(model))
    except ModelPackageError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # ShapeError among them
        raise ModelPackageError(f"the model's shapes are impossible, or not known before it runs: {error}") from error


def _check_cost(graph: Graph, file_size: int) -> None:
    values = {tensor.name: Value.of(tensor) for tensor in graph.initializers}
    constants = set(values)
    if len(constants) < len(graph.initializers):
        raise ModelPackageError("expected every initializer to have a name of its own")
    values |= {name: _given(name, shape) for name, shape in graph.inputs.items() if name not in constants}
    sizes = {name: values[name].count for name in values.keys() - constants}
    given = sizes.pop(_IMAGE, 0) or sum(sizes.values())
    nodes = list(_inlined(graph))
    _check_uses(graph, nodes)
    last_uses = {name: index for index, node in enumerate(nodes) for name in (*node.inputs, *node.outputs)}
    last_uses |= dict.fromkeys(graph.outputs, len(nodes))
    live: dict[str, int] = {}
    in_use = sum(sizes.values())
    folded = operations = 0
    for index, node in enumerate(nodes):
        missing = [name for name in node.inputs if name and name not in values]
        repeated = [name for name in node.outputs if name in values]
        if missing or repeated:
            name = (missing or repeated)[0]
            raise ShapeError(f"{name!r} of {node.operator} must be computed once, and before it is used")
        call = Call(node, [values[name] if name else None for name in node.inputs])
        result = _compute(call)
        operations += sum(value.count for value in call.given) + result.count * max(call.terms, _SLOWEST)
        for name in filter(None, node.outputs):
            values[name] = result
            if constants.issuperset(filter(None, node.inputs)):
                constants.add(name)
                folded += result.count
            else:
                live[name] = result.count
                in_use += result.count
        for what, amount, limit in (
            ("values that depend on weights alone", folded, _CONSTANTS + _CONSTANTS_PER_BYTE * file_size),
            ("values at a time for an image", in_use + call.scratch, _VALUES + _VALUES_PER_INPUT * given),
            ("operations for an image", operations, _OPERATIONS + _OPERATIONS_PER_INPUT * given),
        ):
            if amount > limit:
                raise ModelPackageError(f"the model takes {amount} {what}, more than {limit}: see its {node.operator}")
        in_use -= sum(live.pop(name, 0) for name in {*node.inputs, *node.outputs} if last_uses[name] == index)


def _check_uses(graph: Graph, nodes: Sequence[Node]) -> None:
    """Raise ModelPackageError if nodes have very many inputs, or many share one: ONNX Runtime's time is quadratic."""
    uses = Counter(name for node in nodes for name in node.inputs)
    unlimited = {"", *(tensor.name for tensor in graph.initializers)}
    unlimited |= {name for node in nodes if node.operator == "Constant" for name in node.outputs}
    crowded = [name for name, count in uses.items() if count > _MAX_USES and name not in unlimited]
    crowded += [node.operator for node in nodes if len(node.inputs) > _MAX_INPUTS]
    if crowded:
        raise ModelPackageError(
            f"expected at most {_MAX_INPUTS} inputs of a node and {_MAX_USES} uses of a value, got more: {crowded[0]!r}"
        )


def _given(name: str, shape: tuple[int | None, ...]) -> Value:
    """Return an input of the graph; its first size may be free, and is the batch's."""
    if None in shape[1:]:
        raise ShapeError(f"the input {name} has the shape {shape}, of which only the first size may be free")
    return Value(tuple(-1 if size is None else size for size in shape))


def _inlined(graph: Graph) -> Iterator[Node]:
    """Yield the nodes of a graph, and the nodes of a function in place of each call."""
    functions = {(function.domain, function.name): function for function in graph.functions}
    may_be_fused = any(domain == FUNCTION[0] for domain, _ in graph.versions - {_NOT_FUSED})
    if functions.keys() - {FUNCTION} or len(functions) < len(graph.functions):
        found = ", ".join(".".join(name) for name in [*functions][:3])
        raise ModelPackageError(
            f"the model defines {len(graph.functions)} functions ({found}, ...), expected {'.'.join(FUNCTION)} at most"
        )
    lengths = {name: len(function.nodes) for name, function in functions.items()}
    count = sum(lengths.get((node.domain, node.operator), 1) for node in graph.nodes)
    if count > MAX_NODES:
        raise ModelPackageError(f"the model has {count} nodes with those of its functions, more than {MAX_NODES}")
    sizes = {name: _size(function) for name, function in functions.items()}
    size = sum(sizes.get((node.domain, node.operator), 0) for node in graph.nodes)
    if size > MAX_FIELDS:
        raise ModelPackageError(f"the calls of functions have {size} names and attributes, more than {MAX_FIELDS}")
    for index, node in enumerate(graph.nodes):
        if node.references:
            raise ModelPackageError(f"an attribute of {node.operator} refers to one of a function, and is in none")
        function = functions.get((node.domain, node.operator))
        if function is None:
            yield node
        else:
            yield from _body(function, node, prefix=f"{index}\n")
            if may_be_fused:
                operands = (*node.inputs[:1], *node.outputs)
                yield _Fused(node.domain, node.operator, operands, (), node.attributes)


def _size(function: Function) -> int:
    """Return the number of names and attributes that a call of the function adds."""
    own = (function.inputs, function.outputs, function.defaults)
    of_nodes = ((node.inputs, node.outputs, node.attributes, node.references) for node in function.nodes)
    return sum(map(len, chain(own, *of_nodes)))


def _body(function: Function, call: Node, prefix: str) -> Iterator[Node]:
    """Yield the nodes of a function that is called, with the names and attributes of the call."""
    if len({*function.inputs, *function.outputs}) < len(function.inputs) + len(function.outputs):
        raise ShapeError(f"{function.name} names an input or output twice")
    names = dict.fromkeys(("", *function.inputs), "")
    names |= dict(zip(function.inputs, call.inputs, strict=False))
    names |= dict(zip(function.outputs, call.outputs, strict=True))
    attributes = function.defaults | call.attributes
    for node in function.nodes:
        # A name of the function's own becomes a short one, whatever its length: there is one for every call.
        inputs, outputs = (
            tuple(names.setdefault(name, f"{prefix}{len(names)}") for name in own)
            for own in (node.inputs, node.outputs)
        )
        taken = {name: attributes[value] for name, value in node.references.items() if value in attributes}
        yield replace(
            node,
            inputs=inputs,
            outputs=outputs,
            attributes=node.attributes | taken,
            references={},
        )


def _fused(call: Call) -> Value:
    images, height, width, channels = call.shape(0)
    if call.shape(1) != (images, channels, height, width):
        raise ShapeError(
            f"a {'.'.join(FUNCTION)} makes {call.shape(1)} of {call.shape(0)}, and must only move channels"
        )
    call.terms = _SLOWEST * call.integer("num_steps", 1)
    images, height, width, channels = map(abs, call.shape(0))
    padded = -(-channels // _LANES) * _LANES
    call.scratch = images * padded * _VECTORS * (height + 1) * (width + 2)  # at most: size_of in kernels/solver.cc
    return call.value(1)


def _compute(call: Call) -> Value:
    node = call.node
    if isinstance(node, _Fused):
        return _fused(call)
    rule = OPERATORS.get(node.operator) if node.domain in _STANDARD else None
    if rule is None:
        name = f"{node.domain}.{node.operator}".removeprefix(".")
        raise ModelPackageError(f"the model uses the operator {name}, which the rules of a model package do not allow")
    return rule(call)
