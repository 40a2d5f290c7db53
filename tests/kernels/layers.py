"""PDE layers for the tests: as an ONNX model that calls pdeinfer.GlobalLayer, and as a naive float64 reference."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pdeinfer import pde
from tests.references import naive_depthwise_convolution, naive_solve

Array = NDArray[np.float64]

NAMES = ("courant_x", "courant_y", "diffusion_x", "diffusion_y")
INPUTS = ["h", *(f"{name}{part}" for name in NAMES for part in ("", "_bias")), "scale", "shift", "start"]
INPUTS += ["source", "source_bias"]


@dataclass
class PdeLayer:
    """A layer and its input; `tensors` maps names of INPUTS to values and omits absent ones.

    With `isotropic`, the operands of diffusion along x serve y too.
    """

    num_steps: int
    source_factor: float
    tensors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    signed_velocity: bool = False
    isotropic: bool = False

    def model(self, constant: tuple[str, ...] | None = None) -> onnx.ModelProto:
        """Return the model `result = GlobalLayer(...)`; `constant` names the initializers, by default all weights."""
        if constant is None:
            constant = tuple(name for name in self.tensors if name.endswith("_bias") or self.tensors[name].ndim == 1)
            constant += tuple(name.removesuffix("_bias") for name in constant)
        present = [name if name in self.tensors else "" for name in INPUTS]
        if self.isotropic:
            present = [name or self._isotropic(place) for name, place in zip(present, INPUTS, strict=True)]
        while not present[-1]:
            present.pop()
        call = helper.make_node("GlobalLayer", present, ["result"], domain="pdeinfer", **self._attributes())
        graph = helper.make_graph(
            [call],
            "layer",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, self._shape(name))
                for name in self.tensors
                if name not in constant
            ],
            [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self.tensors.items() if name in constant],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("pdeinfer", 2)]
        return helper.make_model(graph, opset_imports=opsets, functions=[self._function()], ir_version=8)

    def feeds(self, model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
        return {value.name: self.tensors[value.name] for value in model.graph.input}

    def reference(self) -> NDArray[np.float64]:
        """Return the result (N, C, H, W) in float64; NaN spreads to every point that depends on it."""
        tensors = {name: value.astype(np.float64) for name, value in self.tensors.items()}
        h = tensors["h"]
        u, v, diffusivity_x, diffusivity_y = (
            self._coefficient(name, tensors, naive_depthwise_convolution) for name in NAMES
        )
        start = tensors.get("start", h)
        with np.errstate(all="ignore"):
            level, _ = naive_solve(
                start,
                start,
                self.source_factor / 2 * self._source(tensors, naive_depthwise_convolution),
                u=u,
                v=v,
                diffusivity_x=diffusivity_x,
                diffusivity_y=diffusivity_y,
                num_steps=self.num_steps,
                dt=1.0,
            )
            return np.maximum(tensors["scale"] * level + tensors["shift"], 0).transpose(0, 3, 1, 2)

    def scheme(self) -> NDArray[np.float64]:
        """Return the result (N, C, H, W) of pdeinfer.pde in float64: quicker than `reference` for large maps."""
        tensors = {name: value.astype(np.float64) for name, value in self.tensors.items()}
        h = tensors["h"]
        u, v, diffusivity_x, diffusivity_y = (self._coefficient(name, tensors, _convolution) for name in NAMES)
        factors = pde.coefficients((u, v), (diffusivity_x, diffusivity_y), dt=1.0, roll=np.roll)
        start = tensors.get("start", h)
        source = self.source_factor / 2 * self._source(tensors, _convolution)
        level, _ = pde.solve(start, start, source, factors, num_steps=self.num_steps, roll=np.roll)
        return np.maximum(tensors["scale"] * level + tensors["shift"], 0).transpose(0, 3, 1, 2)

    def _attributes(self) -> dict[str, float]:
        attributes = {"num_steps": self.num_steps, "source": self.source_factor}
        return attributes | {"signed_velocity": 1} if self.signed_velocity else attributes

    def _is_signed(self, name: str) -> bool:
        return self.signed_velocity and name.startswith("courant")

    def _isotropic(self, place: str) -> str:
        other = place.replace("diffusion_y", "diffusion_x")
        return other if other != place and other in self.tensors else ""

    def _shape(self, name: str) -> list[int | str]:
        shape = list(self.tensors[name].shape)
        is_map = len(shape) == 4 and name in ("h", "start", "source", *NAMES) and shape == list(self.tensors["h"].shape)
        return ["batch", *shape[1:]] if is_map else shape

    def _coefficient(self, name: str, tensors: dict[str, Array], convolution: Callable[[Array, Array], Array]) -> Array:
        h = tensors["h"]
        if self.isotropic and name == "diffusion_y":
            name = "diffusion_x"
        if f"{name}_bias" in tensors:
            kernel = tensors[name].transpose(2, 3, 0, 1)  # (3, 3, C, 1)
            with np.errstate(all="ignore"):
                number = convolution(h, kernel) + tensors[f"{name}_bias"]
                return number if self._is_signed(name) else np.maximum(number, 0)
        return np.broadcast_to(tensors.get(name, np.zeros(())), h.shape)

    def _source(self, tensors: dict[str, Array], convolution: Callable[[Array, Array], Array]) -> Array:
        return self._coefficient("source", tensors, convolution) if "source" in tensors else tensors["h"]

    def _function(self) -> onnx.FunctionProto:
        """Return the layer as an ONNX function of standard operators, with Slice and Concat for the neighbours."""
        body = _Body()
        coefficients = {}
        for name in (*NAMES, "source"):
            if f"{name}_bias" in self.tensors:
                channels = len(self.tensors["scale"])
                planes = body.add("Transpose", "h", perm=[0, 3, 1, 2])
                planes = body.add("Conv", planes, name, f"{name}_bias", group=channels, pads=[1, 1, 1, 1])
                number = body.add("Transpose", planes, perm=[0, 2, 3, 1])
                coefficients[name] = number if self._is_signed(name) else body.add("Relu", number)
            elif name in self.tensors:
                coefficients[name] = name
        if self.isotropic:
            coefficients["diffusion_y"] = coefficients["diffusion_x"]
        zero = body.add("Sub", "h", "h")
        ax, ay, bx, by = (body.add("Add", zero, coefficients[name]) if name in coefficients else zero for name in NAMES)
        one, two = body.constant(1.0), body.constant(2.0)
        spread = body.add("Mul", two, body.add("Add", bx, by))
        divergence = body.add("Add", body.difference(ax, 2), body.difference(ay, 1))
        source = body.add("Mul", body.constant(self.source_factor), coefficients.get("source", "h"))
        level = previous = "start" if "start" in self.tensors else "h"
        for _ in range(self.num_steps):
            total = body.add("Mul", body.add("Sub", one, spread), previous)
            total = body.add("Sub", body.add("Add", total, source), body.add("Mul", divergence, level))
            for courant, diffusion, axis in ((ax, bx, 2), (ay, by, 1)):
                total = body.add("Sub", total, body.add("Mul", courant, body.difference(level, axis)))
                neighbours = body.add("Add", body.roll(level, -1, axis), body.roll(level, 1, axis))
                total = body.add("Add", total, body.add("Mul", body.add("Mul", two, diffusion), neighbours))
            level, previous = body.add("Div", total, body.add("Add", one, spread)), level
        result = body.add("Relu", body.add("Add", body.add("Mul", "scale", level), "shift"))
        body.nodes.append(helper.make_node("Transpose", [result], ["result"], perm=[0, 3, 1, 2]))
        return helper.make_function(
            "pdeinfer",
            "GlobalLayer",
            INPUTS,
            ["result"],
            body.nodes,
            [helper.make_opsetid("", 18)],
            list(self._attributes()),
        )


def _convolution(h: Array, kernel: Array) -> Array:
    height, width = h.shape[1:3]
    padded = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(padded[:, i : i + height, j : j + width] * kernel[i, j, :, 0] for i, j in np.ndindex(3, 3))


class _Body:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: float) -> str:
        return self.add("Constant", value_float=value)

    def roll(self, value: str, shift: int, axis: int) -> str:
        """Add numpy.roll by 1 or -1."""
        first, cut, last = ([-(2**31)], [-shift], [2**31 - 1])
        bounds = [self.add("Constant", value_ints=ints) for ints in (first, cut, last, [axis])]
        head = self.add("Slice", value, bounds[0], bounds[1], bounds[3])
        tail = self.add("Slice", value, bounds[1], bounds[2], bounds[3])
        return self.add("Concat", tail, head, axis=axis)

    def difference(self, value: str, axis: int) -> str:
        """Add the next value along the axis minus the previous one."""
        return self.add("Sub", self.roll(value, -1, axis), self.roll(value, 1, axis))


STRUCTURES = (
    "convolutions",
    "signed velocity",
    "no advection",
    "no diffusion",
    "constant diffusion",
    "one velocity map",
    "maps",
    "mixed",
    "neither",
    "learned source",
    "isotropic map, source map",
)


def make_layer(
    structure: str,
    shape: tuple[int, int, int, int],
    num_steps: int = 1,
    *,
    source: float = 0.4,
    start: bool = False,
    seed: int = 0,
) -> PdeLayer:
    """Return a layer with random weights of realistic size and a random input of shape (N, H, W, C)."""
    rng = np.random.default_rng(seed)
    channels = shape[3]
    signed = structure in ("signed velocity", "learned source")
    isotropic = structure in ("learned source", "isotropic map, source map")
    layer = PdeLayer(num_steps, source, signed_velocity=signed, isotropic=isotropic)

    def put(name: str, value: NDArray[np.float64]) -> None:
        layer.tensors[name] = np.ascontiguousarray(value, np.float32)

    def put_convolution(name: str, mean: float = 0.1) -> None:
        put(name, rng.normal(0, 0.05, (channels, 1, 3, 3)))
        put(f"{name}_bias", rng.normal(mean, 0.1, channels))

    put("h", np.abs(rng.normal(0, 1, shape)))
    for name in NAMES:
        is_advection = name.startswith("courant")
        if structure in ("convolutions", "signed velocity", "no diffusion" if is_advection else "no advection"):
            put_convolution(name, mean=0.0 if layer.signed_velocity and is_advection else 0.1)
        elif structure == "constant diffusion":
            put_convolution(name) if is_advection else put(name, np.full((1, 1, 1, 1), 0.2))
        elif structure == "maps":
            put(name, rng.uniform(-0.2 if is_advection else 0, 0.2, shape))
    if structure == "one velocity map":
        put("courant_x", rng.uniform(-0.2, 0.2, shape))
        put("courant_y", layer.tensors["courant_x"])
        put("diffusion_x", np.full((1, 1, 1, 1), 0.2))
        put("diffusion_y", np.full((1, 1, 1, 1), 0.2))
    elif structure == "mixed":  # a velocity along y alone
        put_convolution("courant_y")
        put("diffusion_x", np.full((1, 1, 1, 1), 0.1))
        put("diffusion_y", rng.uniform(0, 0.2, shape))
    elif structure == "learned source":
        for name in ("courant_x", "courant_y", "diffusion_x", "source"):
            put_convolution(name, mean=0.0 if name.startswith("courant") else 0.1)
    elif structure == "isotropic map, source map":
        put("diffusion_x", rng.uniform(0, 0.2, shape))
        put("source", rng.normal(0, 1, shape))
    put("scale", rng.uniform(0.5, 1.5, channels))
    put("shift", rng.normal(0, 0.1, channels))
    if start:
        put("start", rng.normal(0, 1, shape))
    return layer
