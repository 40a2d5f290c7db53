"""Multiply-adds, against counts made by hand from the networks' tables."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pdeinfer.nn import Classifier, count_macs, count_parameters
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.spec.presets import PRESETS


def global_layer(channels: int, side: int, fields: int, per_step: int, num_steps: int = 1) -> int:
    """`fields` depthwise 3x3 convolutions, the source's factor and the steps."""
    return side**2 * channels * (9 * fields + 1 + num_steps * per_step)


def basic_block(before: int, after: int, side: int) -> int:
    """Two 3x3 convolutions and, where the shape changes, a 1x1 convolution; `side` is of the output."""
    return side**2 * (9 * before * after + 9 * after**2 + (before * after if before != after else 0))


STEM = 32**2 * 9 * 3 * 16
BLOCKS = (
    STEM
    + basic_block(16, 16, 32)
    + basic_block(16, 32, 16)
    + basic_block(32, 64, 8)
    + (basic_block(64, 64, 4) + 4**2 * 64 * 64)  # strided: it has a shortcut convolution at equal width
    + 64 * 10
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist-cnn", 2 * 9 * 28**2 + 490),
        ("mnist-residual", 2 * 9 * 28**2 + 490),
        ("mnist-pde", 2 * 9 * 28**2 + 490 + (1 + 5 * 7) * 28**2),
        ("mnist-pde-k10", 2 * 9 * 28**2 + 490 + (1 + 10 * 7) * 28**2),
        ("cifar10-global", BLOCKS + sum(global_layer(c, s, 4, 7) for c, s in ((16, 32), (32, 16), (64, 8)))),
        ("cifar10-global-constant-d", BLOCKS + sum(global_layer(c, s, 2, 7) for c, s in ((16, 32), (32, 16), (64, 8)))),
        (
            "cifar10-global-no-advection",
            BLOCKS + sum(global_layer(c, s, 2, 6) for c, s in ((16, 32), (32, 16), (64, 8))),
        ),
        ("cifar10-global-no-pde", BLOCKS),
        ("cifar10-global-depthwise7", BLOCKS + sum(49 * c * s**2 for c, s in ((16, 32), (32, 16), (64, 8)))),
        ("cifar10-global-depthwise-sum", BLOCKS + sum(4 * 9 * c * s**2 for c, s in ((16, 32), (32, 16), (64, 8)))),
        (
            "cifar10-resnet32",
            STEM
            + 5 * basic_block(16, 16, 32)
            + (basic_block(16, 32, 16) + 4 * basic_block(32, 32, 16))
            + (basic_block(32, 64, 8) + 4 * basic_block(64, 64, 8))
            + 64 * 10,
        ),
    ],
)
def test_macs_equal_the_count_by_hand(name: str, expected: int) -> None:
    assert count_macs(Classifier(PRESETS[name])) == expected


def test_the_document_has_the_counts_of_every_preset() -> None:
    text = (Path(__file__).parents[2] / "docs/method.md").read_text()
    rows = re.findall(r"^\| (\S+) \| .+ \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    classifiers = {name: Classifier(preset) for name, preset in PRESETS.items()}
    assert {name: counts for name, *counts in rows} == {
        name: [f"{count_parameters(classifier):,}", f"{count_macs(classifier):,}"]
        for name, classifier in classifiers.items()
    }


def tiny_network(c1: int, c2: int, c3: int, c4: int) -> int:
    """Everything but the PDE layers of a network of four stages of a block each."""
    blocks = basic_block(c1, c1, 32) + basic_block(c1, c2, 16) + basic_block(c2, c3, 8) + basic_block(c3, c4, 4)
    strided_at_equal_width = (16**2 * c2 * c2 if c1 == c2 else 0) + (4**2 * c4 * c4 if c3 == c4 else 0)
    return 32**2 * 9 * 3 * c1 + blocks + strided_at_equal_width + c4 * 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10-global-k5", BLOCKS + sum(global_layer(c, s, 4, 7, 5) for c, s in ((16, 32), (32, 16), (64, 8)))),
        (
            "cifar10-global-m2",
            BLOCKS
            + sum(global_layer(c, s, 4, 7) for c, s in ((16, 32), (32, 16), (64, 8)))
            + sum(basic_block(c, c, s) for c, s in ((16, 32), (32, 16), (64, 8), (64, 4))),
        ),
        (
            "cifar10-global-tiny",
            tiny_network(9, 9, 16, 16) + sum(global_layer(c, s, 4, 7, 5) for c, s in ((9, 32), (9, 16), (16, 8))),
        ),
    ],
)
def test_macs_of_the_papers_other_networks_equal_the_count_by_hand(name: str, expected: int) -> None:
    assert count_macs(Classifier(PRESETS[name])) == expected


@pytest.mark.parametrize(
    ("pde", "per_pixel"),
    [
        (PdeSpec(num_steps=3), 4 * 9 * 8 + (1 + 3 * 7) * 8),
        (PdeSpec(velocity="pointwise"), 2 * 8 * 8 + 2 * 9 * 8 + 8 * 8),
        (PdeSpec(velocity="full", diffusivity=None), 2 * 9 * 8 * 8 + 8 * 8),
        (PdeSpec(velocity="residual", diffusivity=1.0), 2 * 2 * 9 * 8 * 8 + 8 * 8),
        (PdeSpec(velocity=None, diffusivity="residual"), 2 * 2 * 9 * 8 * 8 + 7 * 8),
        (PdeSpec(velocity="identity", diffusivity="identity"), 8 * 8),
        (PdeSpec(velocity=None, diffusivity=PeronaMalik(1.0)), 7 * 8),
        (PdeSpec(velocity=None, diffusivity=1.0, source=None), 6 * 8),
        (PdeSpec(velocity=None, diffusivity=None, start="residual"), 2 * 9 * 8 * 8 + 7 * 8),
    ],
    ids=str,
)
def test_macs_of_a_pde_layer_are_its_convolutions_and_its_steps(pde: PdeSpec, per_pixel: int) -> None:
    digits = PRESETS["digits-pde"]  # one PDE layer, on 8x8 pixels of 8 channels
    with_layer = Classifier(replace(digits, network=replace(digits.network, pde=pde)))
    without = Classifier(replace(digits, network=replace(digits.network, pde=None)))
    assert count_macs(with_layer) - count_macs(without) == 8 * 8 * per_pixel


def test_the_global_network_needs_a_quarter_of_the_multiply_adds_of_the_resnet() -> None:
    ratio = count_macs(Classifier(PRESETS["cifar10-resnet32"])) / count_macs(Classifier(PRESETS["cifar10-global"]))
    assert ratio == pytest.approx(4.6, abs=0.05)
