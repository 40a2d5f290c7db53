"""Splits the runs by recipe: networks are compared where they were trained alike, apart from distillation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.results.runs import Group, recipe_label

DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "digits": "scikit-learn's digits"}  # titles, in this order
_DISTILLATION = {"teacher", "distillation_weight", "temperature"}


@dataclass(frozen=True)
class Series:
    """Networks trained on one data set by one recipe, with and without a teacher.

    Attributes:
        title: the recipe, different from that of any other series of the data set: "40 epochs".
        groups: the networks in the order of the presets.
    """

    title: str
    groups: tuple[Group, ...]

    @property
    def slug(self) -> str:
        """The title as a part of file names."""
        return "-".join(self.title.replace(",", "").split())


def split_by_recipe(groups: Sequence[Group]) -> list[Series]:
    """Return the series of one data set, those with fewer epochs first."""
    by_recipe: dict[str, list[Group]] = {}
    for group in groups:
        by_recipe.setdefault(json.dumps(_shared(group.recipe), sort_keys=True), []).append(group)
    recipes = [_shared(alike[0].recipe) for alike in by_recipe.values()]
    found = [Series(_title(_shared(alike[0].recipe), recipes), tuple(alike)) for alike in by_recipe.values()]
    return sorted(found, key=lambda series: (series.groups[0].epochs, series.title))


def _shared(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name not in _DISTILLATION}


def _title(recipe: Mapping[str, Any], recipes: Sequence[Mapping[str, Any]]) -> str:
    """Return the recipe's label and, where another has the same, the values in which they differ."""
    label = recipe_label(recipe)
    alike = [other for other in recipes if recipe_label(other) == label]
    names = sorted({name for other in alike for name in other})
    differing = [name for name in names if len({json.dumps(other.get(name)) for other in alike}) > 1]
    return ", ".join([label, *(f"{name.replace('_', ' ')} {recipe.get(name, 'none')}" for name in differing)])
