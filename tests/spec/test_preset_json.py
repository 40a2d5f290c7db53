"""Presets and PDE layers survive JSON; invalid ones are rejected."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdeinfer.errors import PresetError
from pdeinfer.spec.networks import InputSpec, ResidualNetwork, SingleChannelNetwork
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.spec.presets import PRESETS, Preset

DIGITS = PRESETS["digits-pde"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_survives_json(preset: Preset) -> None:
    assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    assert Preset.from_dict(preset.to_dict()) == preset


def test_a_variant_survives_json() -> None:
    variant = Preset(
        "photos-2.1_b",
        InputSpec(32, 24, 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), fit="stretch"),
        ("cat", "dog"),
        ResidualNetwork((4, 8, 8), blocks_per_stage=2, pde=PdeSpec(3, 0.1, None, 0.25), strided_padding="symmetric"),
    )
    assert Preset.from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


@pytest.mark.parametrize(
    "pde",
    [
        PdeSpec(velocity="residual", diffusivity="identity", start="residual"),
        PdeSpec(velocity="pointwise", diffusivity=PeronaMalik(0.5), source=None),
    ],
)
@pytest.mark.parametrize("network", [DIGITS.network, PRESETS["mnist-pde"].network], ids=["residual", "single-channel"])
def test_every_choice_of_a_pde_layer_survives_json(
    network: ResidualNetwork | SingleChannelNetwork, pde: PdeSpec
) -> None:
    place = {"pde": pde} if isinstance(network, ResidualNetwork) else {"feature": pde}
    preset = replace(PRESETS["mnist-pde"], network=replace(network, **place))
    assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    assert PdeSpec.from_dict(json.loads(json.dumps(pde.to_dict()))) == pde


def test_a_pde_layer_from_before_sources_and_starts_is_read_unchanged() -> None:
    values = {"num_steps": 5, "dt": 0.2, "velocity": "preactivation", "diffusivity": 1.0}
    assert PdeSpec.from_dict(values) == PdeSpec(5, 0.2, "preactivation", 1.0, source="input", start="input")


def test_a_pde_layer_is_described_by_its_values_and_the_kind_of_its_diffusivity() -> None:
    assert PdeSpec(diffusivity=PeronaMalik(0.5)).to_dict() == {
        "num_steps": 1,
        "dt": 0.2,
        "velocity": "depthwise",
        "diffusivity": {"kind": "perona-malik", "contrast": 0.5},
        "source": "input",
        "start": "input",
        "norm_epsilon": 1e-5,
        "velocity_activation": "relu",
        "diffusivity_activation": "relu",
        "isotropic": False,
    }


def without(*path: str) -> dict[str, Any]:
    """Return the digits preset as a dict without the entry at a path."""
    values = json.loads(json.dumps(DIGITS.to_dict()))
    parent = values
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    return values


def with_value(value: object, *path: str) -> dict[str, Any]:
    """Return the digits preset, its diffusivity of Perona and Malik, as a dict in which the path leads to the value."""
    preset = replace(DIGITS, network=replace(DIGITS.network, pde=PdeSpec(diffusivity=PeronaMalik(1.0))))
    values = json.loads(json.dumps(preset.to_dict()))
    parent = values
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (without("name"), r"not a preset: .*'name'"),
        (without("labels"), r"not a preset: .*'labels'"),
        (without("input"), r"a preset needs the key 'input'"),
        (without("network"), r"a preset needs the key 'network'"),
        (without("network", "kind"), r"a preset needs the key 'kind'"),
        (without("network", "widths"), r"not a preset: .*'widths'"),
        (without("input", "height"), r"not a preset: .*'height'"),
        (with_value(1, "colour"), r"not a preset: .*'colour'"),
        (with_value(1, "network", "depth"), r"not a preset: .*'depth'"),
        (with_value(1, "network", "pde", "sources"), r"not a preset: .*'sources'"),
        (with_value("transformer", "network", "kind"), r"network kind must be one of .*, not 'transformer'"),
        (with_value(["residual"], "network", "kind"), r"network kind must be one of .*, not \('residual',\)"),
        (with_value("residual", "network"), r"network must be an object, not 'residual'"),
        (with_value(None, "network"), r"network must be an object, not None"),
        (with_value([1], "network"), r"network must be an object, not \[1\]"),
        (with_value(None, "input"), r"input must be an object, not None"),
        (with_value({"kind": ["x"]}, "network", "control"), r"control kind must be one of .*, not \['x'\]"),
        (with_value("0123456789", "labels"), r"labels must be a tuple, not '0123456789'"),
        (with_value(10, "labels"), r"labels must be a tuple, not 10"),
        (with_value("16", "network", "widths"), r"widths must be a tuple, not '16'"),
        (with_value([[16]], "network", "widths"), r"each of widths must be a positive integer, not \[16\]"),
        (with_value(7, "network", "pde"), r"pde must be a PdeSpec or None, not 7"),
        (with_value({}, "network", "pde", "diffusivity"), r"a PDE layer needs the key 'kind'"),
        (
            with_value({"kind": "linear"}, "network", "pde", "diffusivity"),
            r"diffusivity kind must be one of \('perona-malik',\), not 'linear'",
        ),
        (with_value({"kind": "perona-malik"}, "network", "pde", "diffusivity"), r"not a PDE layer: .*'contrast'"),
        (
            with_value({"kind": [], "contrast": 1}, "network", "pde", "diffusivity"),
            r"diffusivity kind must be one of \('perona-malik',\), not \[\]",
        ),
        (
            with_value({"kind": "perona-malik", "contrast": 0}, "network", "pde", "diffusivity"),
            r"contrast must be a positive, finite number, not 0",
        ),
        (with_value(float("nan"), "network", "pde", "dt"), r"dt must be a positive, finite number, not nan"),
        (with_value("../../etc", "name"), r"name must be letters, .* not '\.\./\.\./etc'"),
    ],
)
def test_an_invalid_dict_is_rejected_with_the_reason(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        Preset.from_dict(values)


@pytest.mark.parametrize("values", ["ab", [1], 7, None])
def test_a_pde_layer_that_is_no_object_is_rejected(values: Any) -> None:
    with pytest.raises(PresetError, match="a PDE layer must be an object"):
        PdeSpec.from_dict(values)


def test_numbers_of_numpy_become_plain_and_survive_json() -> None:
    five, half = np.int64(5), np.float32(0.5)
    pde = PdeSpec(num_steps=five, dt=half, diffusivity=PeronaMalik(half), norm_epsilon=np.float64(half))
    preset = Preset(
        "mine",
        InputSpec(five, np.uint8(8), np.int32(3), mean=(half,) * 3, std=tuple(np.float32([0.5, 1, 2]))),
        ("a", "b"),
        ResidualNetwork(tuple(np.array([8, 16])), blocks_per_stage=np.int16(2), pde=pde),
    )
    assert preset.input == InputSpec(5, 8, 3, (0.5, 0.5, 0.5), (0.5, 1.0, 2.0))
    assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    assert {type(value) for value in (*preset.input.std, pde.dt, pde.norm_epsilon)} == {float}


@pytest.mark.parametrize("value", [np.float32("nan"), np.bool_(True), np.float64(-1), "0.2"])
def test_values_that_are_no_positive_numbers_are_rejected(value: Any) -> None:
    with pytest.raises(PresetError, match="dt must be a positive, finite number"):
        PdeSpec(dt=value)
    with pytest.raises(PresetError, match="num_steps must be a positive integer"):
        PdeSpec(num_steps=value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
paths = st.sampled_from(
    [
        ("name",),
        ("labels",),
        ("input",),
        ("input", "channels"),
        ("input", "std"),
        ("input", "fit"),
        ("network",),
        ("network", "kind"),
        ("network", "widths"),
        ("network", "blocks_per_stage"),
        ("network", "pde"),
        ("network", "pde", "num_steps"),
        ("network", "pde", "velocity"),
        ("network", "pde", "diffusivity"),
        ("network", "pde", "diffusivity", "kind"),
        ("network", "pde", "diffusivity", "contrast"),
        ("network", "pde", "source"),
        ("network", "pde", "start"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(json_values, paths)
def test_any_json_value_anywhere_gives_a_preset_or_a_preset_error(value: object, path: tuple[str, ...]) -> None:
    try:
        preset = Preset.from_dict(with_value(value, *path))
    except PresetError:
        return
    assert Preset.from_dict(preset.to_dict()) == preset


@given(json_values)
@settings(deadline=None)
def test_json_that_is_not_a_preset_raises_a_preset_error(value: Any) -> None:
    with pytest.raises(PresetError):
        Preset.from_dict(value)


@pytest.mark.parametrize("values", [None, [], "digits-pde"])
def test_a_preset_that_is_no_object_is_named(values: object) -> None:
    with pytest.raises(PresetError, match="a preset must be an object, not"):
        Preset.from_dict(values)
