"""The number of time steps that fit into a package's graph."""

from dataclasses import replace
from typing import Any

import pytest

from pdeinfer.export.rewrite.function import count_nodes, global_layer_function
from pdeinfer.export.steps import most_steps
from pdeinfer.graph.wire import MAX_NODES, read_graph
from pdeinfer.package import zoo
from pdeinfer.spec.networks import ResidualNetwork
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import PRESETS, Preset


def with_network(**changes: Any) -> Preset:
    return replace(PRESETS["digits-pde"], network=ResidualNetwork(**changes))


@pytest.mark.parametrize("blocked", [True, False])
def test_the_nodes_of_a_function_are_counted(blocked: bool) -> None:
    spec = PdeSpec(num_steps=3)
    assert count_nodes(spec, blocked=blocked) == len(global_layer_function(spec, 18, blocked=blocked).node)


@pytest.mark.parametrize("name", [name for name in zoo.names() if name != "cifar10-resnet32"])
def test_the_steps_of_a_bundled_network_would_nearly_fill_the_graph(name: str) -> None:
    package = zoo.load(name)
    preset, graph = package.card.preset, read_graph(package.read_model(package.precisions[-1]))
    steps = most_steps(preset)
    assert preset.pde is not None
    assert steps is not None
    layers = sum(node.domain == "pdeinfer" for node in graph.nodes)
    blocked = name != "mnist-pde"
    nodes = layers * count_nodes(replace(preset.pde, num_steps=steps), blocked=blocked) + len(graph.nodes) - layers
    assert 0.97 * MAX_NODES < nodes <= MAX_NODES


def test_fewer_steps_fit_with_more_layers_and_with_channels_that_do_not_fill_blocks() -> None:
    one, three, odd = (most_steps(with_network(widths=widths, pde=PdeSpec())) for widths in ((8, 8), (8,) * 4, (9, 9)))
    assert one is not None
    assert three is not None
    assert odd is not None
    assert one / 4 < three < one / 2
    assert odd < one


def test_a_network_without_pde_layers_has_no_limit_and_very_many_blocks_leave_no_room() -> None:
    assert most_steps(with_network(widths=(8, 8))) is None
    assert most_steps(with_network(widths=(8,), pde=PdeSpec())) is None
    assert most_steps(with_network(widths=(8, 8), pde=PdeSpec(), blocks_per_stage=2000)) == 0
