"""How many time steps fit into the graph of a model package, which holds them one after another."""

from dataclasses import replace

from pdeinfer.export.rewrite.body import BlockedBody
from pdeinfer.export.rewrite.function import count_nodes
from pdeinfer.graph.wire import MAX_NODES
from pdeinfer.spec.networks import ResidualNetwork
from pdeinfer.spec.presets import Preset

# A basic block has at most 15 nodes, in int8. The fields, the source and the start of a PDE layer may be six blocks.
_NODES_PER_BLOCK, _BLOCKS_PER_PDE_LAYER, _OTHER_NODES = 16, 6, 64


def most_steps(preset: Preset) -> int | None:
    """Return the largest number of time steps with which a network can be exported; None if it has no PDE layers.

    A few more may fit: the nodes of the other layers are estimated.
    """
    pde, network = preset.pde, preset.network
    widths: tuple[int, ...] = (1,)  # of the PDE layers
    blocks = 1
    if isinstance(network, ResidualNetwork):
        widths, blocks = network.widths[:-1], len(network.widths) * network.blocks_per_stage
    if pde is None or not widths:
        return None
    others = _NODES_PER_BLOCK * (blocks + _BLOCKS_PER_PDE_LAYER * len(widths)) + _OTHER_NODES
    blocked = all(width % BlockedBody.BLOCK == 0 for width in widths)
    # From the fourth on, each step adds as many nodes.
    few, more = (count_nodes(replace(pde, num_steps=steps), blocked=blocked) for steps in (4, 14))
    return max(0, 4 + int(((MAX_NODES - others) / len(widths) - few) // ((more - few) / 10)))
