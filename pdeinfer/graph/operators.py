"""The ONNX operators that a package's network may use, with the rule for the shape of each one's result."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from pdeinfer.graph.onnx_fields import DataType
from pdeinfer.graph.values import MAX_KNOWN, Batch, Call, Shape, ShapeError, Value, objects
from pdeinfer.graph.wire import MAX_RANK, Tensor

Rule: TypeAlias = Callable[[Call], Value]

_TO_THE_END = 2**31 - 1  # and above: the end of a slice that takes all


def _same(call: Call) -> Value:
    return Value(call.shape())


def _identity(call: Call) -> Value:
    return call.value()


def _cast(call: Call) -> Value:
    value, kind = call.value(), call.integer("to", 0)
    if kind == DataType.STRING:
        raise ShapeError("text has no size")
    if value.known is None or kind not in (DataType.INT32, DataType.INT64):
        return Value(value.shape)
    fits = kind == DataType.INT64 or all(isinstance(entry, Batch) or abs(entry) < 2**31 for entry in value.known.flat)
    return value if fits else Value(value.shape)


def _broadcast(call: Call) -> Value:
    return Value(_broadcast_shapes([value.shape for value in call.given]))


def _arithmetic(compute: Callable[[int, int], int]) -> Rule:
    """Return the rule of an operator on two values that may compute sizes."""

    def rule(call: Call) -> Value:
        result = _broadcast(call)
        known = [value.known for value in call.given if value.known is not None and _is_small(value)]
        if len(known) < 2 or result.count > MAX_KNOWN or call.integer("fmod", 0):
            return result
        pairs = zip(*(np.broadcast_to(array, result.shape).flat for array in known), strict=True)
        value = Value(result.shape, objects([compute(*pair) for pair in pairs]).reshape(result.shape))
        return value if _is_small(value) else result

    return rule


def _constant(call: Call) -> Value:
    (value,) = call.node.attributes.values() or (None,)
    if isinstance(value, Tensor):
        return Value.of(value)
    if isinstance(value, int):
        return Value((), objects([value]).reshape(()))
    if isinstance(value, float):
        return Value(())
    if not isinstance(value, tuple):
        raise ShapeError("expected a number, numbers or a tensor")
    integers = [entry for entry in value if isinstance(entry, int)]
    is_known = len(value) == len(integers) <= MAX_KNOWN
    return Value((len(value),), objects(integers) if is_known else None)


def _shape(call: Call) -> Value:
    sizes = call.shape()[call.integer("start", 0) : call.integer("end", MAX_RANK)]
    return Value((len(sizes),), objects([Batch(-size) if size < 0 else size for size in sizes]))


def _gather(call: Call) -> Value:
    data, indices = call.value(0), call.value(1)
    axis = _axis(call.integer("axis", 0), len(data.shape))
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    if data.known is None or indices.known is None:
        return Value(shape)
    known = np.empty(shape, object)
    known[...] = data.known.take(indices.known.astype(np.int64), axis)
    return Value(shape, known)


def _concat(call: Call) -> Value:
    first = call.shape()
    axis = _axis(call.integer("axis", 1), len(first))
    parts = [value.shape[axis] for value in call.given if _with(value.shape, axis, first[axis]) == first]
    if len(parts) < len(call.given) or min(parts) < 0 < max(parts):
        raise ShapeError(f"sizes that do not fit: {[value.shape for value in call.given]}")
    known = [value.known for value in call.given if value.known is not None]
    return Value(_with(first, axis, sum(parts)), np.concatenate(known, axis) if len(known) == len(parts) else None)


def _slice(call: Call) -> Value:
    shape, known = call.value().shape, call.value().known
    starts, ends = call.integers("starts", 1) or [], call.integers("ends", 2) or []
    axes = call.integers("axes", 3)
    axes = list(range(len(starts))) if axes is None else axes
    steps = call.integers("steps", 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, (_axis(axis, len(shape)) for axis in axes), steps, strict=True):
        if shape[axis] >= 0:
            taken = slice(start, end, step)
            shape = _with(shape, axis, len(range(*taken.indices(shape[axis]))))
            known = None if known is None else known[(*[slice(None)] * axis, taken)]
        elif (start, step) != (0, 1) or end < _TO_THE_END:
            raise ShapeError("a part of the batch")
    return Value(shape, known)


def _reshape(call: Call) -> Value:
    value = call.value()
    sizes: list[int | None] = []  # None: to be inferred
    for index, size in enumerate(call.known(1)):
        copies = size == 0 and not call.integer("allowzero", 0)
        sizes.append(value.shape[index] if copies else None if size == -1 else _size(size))
    total, rest = math.prod(value.shape), math.prod(size for size in sizes if size is not None)
    shape = tuple(total // (rest or 1) if size is None else size for size in sizes)
    if math.prod(shape) != total or sizes.count(None) > 1:
        raise ShapeError(f"{value.shape} cannot become {call.known(1)}")
    return Value(shape, None if value.known is None else value.known.reshape(shape))


def _flatten(call: Call) -> Value:
    shape = call.shape()
    axis = call.integer("axis", 1) % (len(shape) + 1)
    return Value((math.prod(shape[:axis]), math.prod(shape[axis:])))


def _transpose(call: Call) -> Value:
    shape = call.shape()
    order = call.integers("perm")
    order = list(reversed(range(len(shape)))) if order is None else order
    if sorted(order) != list(range(len(shape))):
        raise ShapeError(f"{order} is no order of {len(shape)} axes")
    return Value(tuple(shape[axis] for axis in order))


def _squeeze(call: Call) -> Value:
    value = call.value()
    axes = call.integers("axes", 1)
    if axes is None:
        axes = [axis for axis, size in enumerate(value.shape) if size == 1]
    removed = {_axis(axis, len(value.shape)) for axis in axes}
    if any(value.shape[axis] != 1 for axis in removed):
        raise ShapeError(f"the axes {axes} of {value.shape} have more than one value")
    shape = tuple(size for axis, size in enumerate(value.shape) if axis not in removed)
    return Value(shape, None if value.known is None else value.known.reshape(shape))


def _unsqueeze(call: Call) -> Value:
    value, axes = call.value(), call.integers("axes", 1) or []
    rank = len(value.shape) + len(axes)
    added, sizes = {_axis(axis, rank) for axis in axes}, iter(value.shape)
    if len(added) < len(axes):
        raise ShapeError(f"the axes {axes} name one twice")
    shape = tuple(1 if axis in added else next(sizes) for axis in range(rank))
    return Value(shape, None if value.known is None else value.known.reshape(shape))


def _expand(call: Call) -> Value:
    return Value(_broadcast_shapes([call.shape(), tuple(map(_size, call.known(1)))]))


def _constant_of_shape(call: Call) -> Value:
    return Value(tuple(map(_size, call.known(0))))


def _tile(call: Call) -> Value:
    return Value(tuple(size * _size(times) for size, times in zip(call.shape(), call.known(1), strict=True)))


def _pad(call: Call) -> Value:
    shape, pads = call.shape(), call.integers("pads", 1) or []
    axes = call.integers("axes", 3)
    axes = list(range(len(shape))) if axes is None else [_axis(axis, len(shape)) for axis in axes]
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if before or after:
            shape = _with(shape, axis, _size(_size(shape[axis]) + before + after))
    return Value(shape)


def _reduce(call: Call) -> Value:
    shape, axes = call.shape(), call.integers("axes", 1)
    if not axes:
        axes = [] if call.integer("noop_with_empty_axes", 0) else list(range(len(shape)))
    reduced = {_axis(axis, len(shape)) for axis in axes}
    if call.integer("keepdims", 1):
        return Value(tuple(1 if axis in reduced else size for axis, size in enumerate(shape)))
    return Value(tuple(size for axis, size in enumerate(shape) if axis not in reduced))


def _matmul(call: Call) -> Value:
    left, right = call.shape(0), call.shape(1)
    if not left or not right:
        raise ShapeError("a matrix without axes")
    call.terms = _equal(left[-1], right[-2] if len(right) > 1 else right[-1])
    columns = right[-1:] if len(right) > 1 else ()
    return Value((*_broadcast_shapes([left[:-2], right[:-2]]), *left[-2:-1], *columns))


def _gemm(call: Call) -> Value:
    (rows, left), (right, columns) = call.shape(0), call.shape(1)
    if call.integer("transA", 0):
        rows, left = left, rows
    if call.integer("transB", 0):
        right, columns = columns, right
    call.terms = _equal(left, right)
    return Value((rows, columns))


def _convolution(call: Call) -> Value:
    (images, channels, *_), (results, group, *kernel) = call.shape(0), call.shape(1)
    _equal(channels, group * call.integer("group", 1))
    call.terms = group * math.prod(kernel)
    return Value((images, results, *_windows(call, kernel)))


def _pool(call: Call) -> Value:
    kernel = call.integers("kernel_shape") or []
    call.terms = math.prod(kernel)
    return Value((*call.shape()[:2], *_windows(call, kernel)))


def _global_pool(call: Call) -> Value:
    shape = call.shape()
    return Value((*shape[:2], *(1 for _ in shape[2:])))


def _windows(call: Call, kernel: Sequence[int]) -> list[int]:
    """Return how many windows of a convolution or a pool fit along each axis of the images."""
    image = call.shape()[2:]
    ones = [1] * len(image)
    strides, dilations = call.integers("strides") or ones, call.integers("dilations") or ones
    pads = call.integers("pads") or [0, 0] * len(image)
    if len(image) != 2 or len(pads) != 4 or min(*image, *kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise ShapeError(f"expected images (N, C, H, W), got {call.shape()}; or kernel, strides or pads do not fit")
    is_same = call.node.attributes.get("auto_pad") in (b"SAME_UPPER", b"SAME_LOWER")
    sizes = []
    for size, width, stride, dilation, padding in zip(
        image, kernel, strides, dilations, (pads[0] + pads[2], pads[1] + pads[3]), strict=True
    ):
        room = size - 1 if is_same else size + padding - dilation * (width - 1) - 1
        room += stride - 1 if call.integer("ceil_mode", 0) else 0
        sizes.append(_size(room // stride + 1))
    return sizes


def _broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    rank = max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        larger = {*sizes} - {1}
        if len(larger) > 1:
            raise ShapeError(f"sizes that do not fit: {list(shapes)}")
        result.append(larger.pop() if larger else 1)
    return tuple(result)


def _is_small(value: Value) -> bool:
    """Return whether the integers of a value are known and fit into 32 bits, whatever their type."""
    return value.known is not None and all(isinstance(n, int) and abs(n) < 2**31 for n in value.known.flat)


def _size(size: int | Batch) -> int:
    """Return a known integer as a size in a shape."""
    if isinstance(size, Batch):
        return -size.multiple
    if size < 0:
        raise ShapeError(f"expected a size, got {size}")
    return size


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ShapeError(f"there is no axis {axis} of {rank}")
    return axis % rank


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _equal(one: int, other: int) -> int:
    if one != other or one < 0:
        raise ShapeError(f"sizes that do not fit: {one} and {other}")
    return one


def _quotient(a: int, b: int) -> int:
    return a // b if (a < 0) == (b < 0) else -(-a // b)


def _named(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


OPERATORS: Mapping[str, Rule] = {
    # One value in, one out
    **_named(_same, *("Abs", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid")),
    **_named(_same, *("HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu")),
    **_named(_same, *("Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu")),
    **_named(_same, "DequantizeLinear", "QuantizeLinear", "Dropout", "LogSoftmax", "Softmax"),
    **_named(_same, "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"),
    # Values of one shape, or broadcast to one
    **_named(_broadcast, "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Where"),
    **_named(_broadcast, "Max", "Mean", "Min", "PRelu", "Pow", "Sum"),
    "Add": _arithmetic(int.__add__),
    "Sub": _arithmetic(int.__sub__),
    "Mul": _arithmetic(int.__mul__),
    "Div": _arithmetic(_quotient),
    "Mod": _arithmetic(int.__mod__),
    # Sums over many values
    **_named(_pool, "AveragePool", "MaxPool"),
    **_named(_global_pool, "GlobalAveragePool", "GlobalMaxPool"),
    **_named(_reduce, "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    **_named(_reduce, "ReduceProd", "ReduceSum", "ReduceSumSquare"),
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    # Other shapes
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
