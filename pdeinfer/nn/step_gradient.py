"""The steps of a PDE layer with their gradient written by hand, which TensorFlow trains faster on CPUs.

TensorFlow reads and writes a whole feature map for every sum and product of a step, and for each of its gradient. Here
XLA compiles a step into one loop, and its gradient into one for each map. XLA is slow at a periodic shift but quick at
a slice: every map is given a border of one pixel, which continues it periodically, and a neighbour is a slice of that.
Maps in bfloat16 are read and written as such, and computed with in float32.

The gradient. In the terms of `pdeinfer.pde`, with `H[k+1] = N / L`, the gradient g of H[k+1], `p = g / L` and `(x+1)`
for the neighbour:

    of H[k-1]      M p                      of f      2 dt p
    of H[k]        -2 dt (u_x + v_y) p + (right p)(x-1) + (left p)(x+1) + (below p)(y-1) + (above p)(y+1)
    of u           dt/dx (p (H[k](x-1) - H[k](x+1)) + (p H[k])(x+1) - (p H[k])(x-1))                    v likewise
    of Dx          2 dt/dx^2 p (H[k](x+1) + H[k](x-1) - H[k-1] - H[k+1])                               Dy likewise
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras

from pdeinfer import pde
from pdeinfer.pde import X, Y

Fields = tuple[Any, Any]  # one for x and one for y: tensors (N, H, W, C), or floats


def is_faster(h: Any) -> bool:
    """Return whether `solve` suits a layer's input: float32 or bfloat16, with TensorFlow on one CPU."""
    if keras.backend.backend() != "tensorflow" or isinstance(h, keras.KerasTensor):
        return False
    if h.dtype not in ("float32", "bfloat16"):
        return False
    import tensorflow as tf

    one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1 and not tf.config.list_physical_devices("GPU")
    return bool(one_device and tf.test.is_built_with_xla())


def solve(
    h: Any, source: Any, velocity: Fields | None, diffusivity: Fields | None, *, num_steps: int, dt: float
) -> Any:
    """Return `H[num_steps]` from `H[-1] = H[0] = h`, as `pdeinfer.pde.solve` does; pixels are 1 apart."""
    h_previous = h
    for _ in range(num_steps):
        h, h_previous = _step((h, h_previous, source, velocity, diffusivity), dt), h
    return h


def _step(inputs: tuple[Any, ...], dt: float) -> Any:
    import tensorflow as tf

    forward, backward = _kernels()
    leaves = tf.nest.flatten(inputs)
    tensors = list({id(leaf): leaf for leaf in leaves if tf.is_tensor(leaf)}.values())
    # Which of the tensors each leaf is, or None for a float: a tensor that occurs twice has one gradient.
    owners = [next((i for i, tensor in enumerate(tensors) if tensor is leaf), None) for leaf in leaves]

    def step(*tensors: Any) -> tuple[Any, Any]:
        bordered = [_with_border(tensor) for tensor in tensors]
        continued = [leaf if owner is None else bordered[owner] for leaf, owner in zip(leaves, owners, strict=True)]
        arguments = tf.nest.pack_sequence_as(inputs, continued)
        output = forward(arguments, dt)
        return output, lambda gradient: backward(_with_border(gradient), output, arguments, dt, owners)

    return tf.custom_gradient(step)(*tensors)


@cache
def _kernels() -> tuple[Any, Any]:
    import tensorflow as tf

    return tuple(tf.function(_widened(kernel), jit_compile=True, autograph=False) for kernel in (_forward, _backward))


def _widened(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return the kernel, which computes in float32 where its maps are bfloat16."""
    import tensorflow as tf

    def computed(*arguments: Any) -> Any:
        dtype = next(leaf.dtype for leaf in tf.nest.flatten(arguments) if tf.is_tensor(leaf))
        if dtype != tf.bfloat16:
            return kernel(*arguments)
        return _cast(kernel(*_cast(arguments, tf.float32)), dtype)

    return computed


def _cast(nested: Any, dtype: Any) -> Any:
    """Return a nested structure with its tensors in another precision."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda leaf: tf.cast(leaf, dtype) if tf.is_tensor(leaf) else leaf, nested)


def _forward(inputs: tuple[Any, ...], dt: float) -> Any:
    h, h_previous, source, velocity, diffusivity = inputs
    # With a border all but the divergence, which needs neighbours.
    factors = pde.coefficients(velocity, diffusivity, dt=dt, roll=_neighbour)
    inner = pde.Coefficients(*map(_inner, factors))._replace(divergence=factors.divergence)
    forcing = factors.source * _inner(source)
    return pde.step(_inner(h), _inner(h_previous), forcing, inner, roll=lambda _, *shift: _neighbour(h, *shift))


def _backward(gradient: Any, output: Any, inputs: tuple[Any, ...], dt: float, owners: list[int | None]) -> list[Any]:
    h, h_previous, _, velocity, diffusivity = inputs
    factors = pde.coefficients(velocity, diffusivity, dt=dt, roll=_neighbour)
    p = gradient * factors.inverse
    inner_p = _inner(p)
    of_h = _neighbour(factors.right * p, 1, X) + _neighbour(factors.left * p, -1, X)
    of_h += _neighbour(factors.below * p, 1, Y) + _neighbour(factors.above * p, -1, Y)
    if factors.divergence is not None:
        of_h += factors.divergence * inner_p
    gradients = [of_h, _inner(factors.previous) * inner_p, factors.source * inner_p]
    # None for fields that are None: for tf.nest they are one leaf, without an owner.
    gradients += [_of_velocity(p, h, axis) * dt for axis in (X, Y)] if velocity else [None]
    gradients += [_of_diffusivity(p, h, h_previous, output, axis) * dt for axis in (X, Y)] if diffusivity else [None]
    sums: dict[int, Any] = {}
    for owner, of_leaf in zip(owners, gradients, strict=True):
        if owner is not None:
            sums[owner] = sums[owner] + of_leaf if owner in sums else of_leaf
    return [sums[owner] for owner in sorted(sums)]


def _of_velocity(p: Any, h: Any, axis: int) -> Any:
    stretched = _neighbour(p * h, -1, axis) - _neighbour(p * h, 1, axis)
    return _inner(p) * (_neighbour(h, 1, axis) - _neighbour(h, -1, axis)) + stretched


def _of_diffusivity(p: Any, h: Any, h_previous: Any, output: Any, axis: int) -> Any:
    return 2 * _inner(p) * (_neighbour(h, -1, axis) + _neighbour(h, 1, axis) - _inner(h_previous) - output)


def _with_border(h: Any) -> Any:
    """Continue a map periodically by a pixel on each side: (N, H, W, C) -> (N, H + 2, W + 2, C)."""
    h = keras.ops.concatenate([h[:, :, -1:], h, h[:, :, :1]], axis=X)
    return keras.ops.concatenate([h[:, -1:], h, h[:, :1]], axis=Y)


def _neighbour(h: Any, shift: int, axis: int) -> Any:
    """Return the `pde.Roll` of a map, which has a border, without one: (N, H + 2, W + 2, C) -> (N, H, W, C)."""
    shifted = slice(1 - shift, -1 - shift or None)
    return h[:, 1:-1, shifted] if axis == X else h[:, shifted, 1:-1]


def _inner(h: Any) -> Any:
    """Return a map without its border; a float, or None, as it is."""
    return h if h is None or isinstance(h, float) else h[:, 1:-1, 1:-1]
