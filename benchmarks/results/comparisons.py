"""Compares networks that have PDE layers with those that a sceptic would use instead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmarks.results.runs import Group
from benchmarks.results.times import BATCH_SIZES, Times
from pdeinfer.spec.networks import ResidualNetwork


@dataclass(frozen=True)
class Difference:
    """How many points of accuracy a network is above another.

    Attributes:
        points: the difference of the means over seeds.
        error: its standard error over seeds; None where one of the two has a single run.
    """

    other: Group
    points: float
    error: float | None


@dataclass(frozen=True)
class Comparison:
    """A network with PDE layers beside networks trained alike; None where there is none.

    Attributes:
        without_pde: the same network without its PDE layers.
        best_control: the most accurate of the networks with other layers in place of the PDE layers.
        plain: points above the front of plain ResNets at the network's own time, by batch size; without the sizes at
            which it was not timed, or is faster or slower than all of the front.
    """

    group: Group
    without_pde: Difference | None
    best_control: Difference | None
    plain: dict[int, float]


def compare(groups: Sequence[Group], times: Times) -> list[Comparison]:
    """Compare every network that has PDE layers with the others that were trained by the same recipe and teacher."""
    found = []
    for group in groups:
        network = group.preset.network
        if not isinstance(network, ResidualNetwork) or network.pde is None:
            continue
        alike = [other for other in groups if other.conditions == group.conditions]
        bare = replace(network, pde=None)
        without_pde = [other for other in alike if other.preset.network == bare]
        controls = [other for other in alike if _is_control(other, bare)]
        best = max(controls, key=lambda control: control.accuracy, default=None)
        found.append(
            Comparison(
                group,
                difference(group, without_pde[0]) if without_pde else None,
                difference(group, best) if best else None,
                {
                    size: points
                    for size in BATCH_SIZES
                    if (points := _above_front(group, alike, times, size)) is not None
                },
            )
        )
    return [one for one in found if one.without_pde or one.best_control or one.plain]


def difference(group: Group, other: Group) -> Difference:
    """Return how far the mean accuracy of one group is above that of another."""
    error = None
    if group.deviation is not None and other.deviation is not None:
        error = math.hypot(group.deviation / math.sqrt(len(group.runs)), other.deviation / math.sqrt(len(other.runs)))
    return Difference(other, group.accuracy - other.accuracy, error)


def is_plain(group: Group) -> bool:
    """Return whether the network is one of the ResNets that others use for CIFAR-10."""
    return group.name.startswith("cifar10-resnet")


def plain_front(groups: Sequence[Group], times: Times, size: int) -> list[tuple[float, float]]:
    """Return (seconds per batch, accuracy) of the plain networks that no other one beats in both, the fastest first."""
    timed = [(by_size, group) for group in groups if is_plain(group) and (by_size := times.of(group.preset))]
    points = [(by_size[size].median, group.accuracy) for by_size, group in timed]
    points.sort(key=lambda point: (point[0], -point[1]))
    return [point for index, point in enumerate(points) if all(point[1] > faster[1] for faster in points[:index])]


def _above_front(group: Group, alike: Sequence[Group], times: Times, size: int) -> float | None:
    """Return the points above the straight line, over the logarithm of time, between neighbours on the front."""
    by_size, front = times.of(group.preset), plain_front(alike, times, size)
    if by_size is None:
        return None
    seconds = by_size[size].median
    for (fast, low), (slow, high) in pairwise(front):
        if fast <= seconds <= slow:
            return group.accuracy - (low + (high - low) * math.log(seconds / fast) / math.log(slow / fast))
    return None


def _is_control(group: Group, bare: ResidualNetwork) -> bool:
    network = group.preset.network
    return (
        isinstance(network, ResidualNetwork) and network.control is not None and replace(network, control=None) == bare
    )
