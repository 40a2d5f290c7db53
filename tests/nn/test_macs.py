"""Multiply-adds, against counts made by hand from the networks' tables."""

import pytest

from pdeinfer.nn import Classifier, count_macs
from pdeinfer.presets import PRESETS


def global_layer(channels: int, side: int, fields: int, per_step: int) -> int:
    """`fields` depthwise 3x3 convolutions and one step."""
    return side**2 * channels * (9 * fields + per_step)


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
        ("mnist-pde", 2 * 9 * 28**2 + 490 + 5 * 8 * 28**2),
        ("cifar10-global", BLOCKS + sum(global_layer(c, s, 4, 8) for c, s in ((16, 32), (32, 16), (64, 8)))),
        ("cifar10-global-constant-d", BLOCKS + sum(global_layer(c, s, 2, 8) for c, s in ((16, 32), (32, 16), (64, 8)))),
        (
            "cifar10-global-no-advection",
            BLOCKS + sum(global_layer(c, s, 2, 7) for c, s in ((16, 32), (32, 16), (64, 8))),
        ),
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


def test_the_global_network_needs_a_quarter_of_the_multiply_adds_of_the_resnet() -> None:
    ratio = count_macs(Classifier(PRESETS["cifar10-resnet32"])) / count_macs(Classifier(PRESETS["cifar10-global"]))
    assert ratio == pytest.approx(4.6, abs=0.05)
