"""Writes ONNX files of nested functions, which are small until they are inlined."""

from itertools import pairwise
from pathlib import Path

import onnx


def write_nested_functions(path: Path, depth: int = 8, calls: int = 16) -> None:
    """Add a function to an ONNX file that stands for `calls` to the power of `depth` nodes, and a call of it."""
    model = onnx.load(path)
    if all(entry.domain != "pdeinfer" for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("pdeinfer", 2))
    for level in range(depth):
        domain, operator = ("pdeinfer", f"F{level - 1}") if level else ("", "Identity")
        names = ["x", *(f"t{number}" for number in range(calls - 1)), "y"]
        nodes = [onnx.helper.make_node(operator, [given], [result], domain=domain) for given, result in pairwise(names)]
        model.functions.append(
            onnx.helper.make_function("pdeinfer", f"F{level}", ["x"], ["y"], nodes, list(model.opset_import))
        )
    model.graph.node.append(onnx.helper.make_node(f"F{depth - 1}", ["image"], ["unused"], domain="pdeinfer"))
    path.write_bytes(model.SerializeToString())
