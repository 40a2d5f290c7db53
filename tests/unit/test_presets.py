"""The presets and the values they are made of."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdeinfer.errors import PdeinferError, PresetError
from pdeinfer.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.presets import PRESETS, InputSpec, Preset, ResidualNetwork, SingleChannelNetwork

DIGITS = PRESETS["digits-pde"]
RGB = {"height": 32, "width": 24, "channels": 3, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
NAN = float("nan")
INFINITY = float("inf")


def test_the_presets_are_the_documented_ones() -> None:
    assert set(PRESETS) == {
        "digits-pde",
        "mnist-cnn",
        "mnist-residual",
        "mnist-pde",
        "mnist-pde-k1",
        "mnist-pde-k2",
        "mnist-pde-k10",
        "cifar10-resnet32",
        "cifar10-global",
        "cifar10-global-constant-d",
        "cifar10-global-no-advection",
        "cifar10-global-no-diffusion",
        "cifar10-global-k5",
        "cifar10-global-m2",
        "cifar10-global-tiny",
    }


def test_each_preset_is_listed_under_its_own_name_with_ten_labels() -> None:
    assert all(name == preset.name for name, preset in PRESETS.items())
    assert {len(preset.labels) for preset in PRESETS.values()} == {10}


def test_a_whole_number_of_time_is_a_float() -> None:
    assert isinstance(PdeSpec(dt=1).dt, float)


@pytest.mark.parametrize(
    ("name", "velocity", "diffusivity"),
    [
        ("cifar10-global", "depthwise", "depthwise"),
        ("cifar10-global-constant-d", "depthwise", 1.0),
        ("cifar10-global-no-advection", None, "depthwise"),
        ("cifar10-global-no-diffusion", "depthwise", None),
    ],
)
def test_the_ablations_differ_from_cifar10_global_in_one_field_alone(
    name: str, velocity: str | None, diffusivity: str | float | None
) -> None:
    network = PRESETS[name].network
    assert isinstance(network, ResidualNetwork)
    assert network.pde == PdeSpec(num_steps=1, dt=0.2, velocity=velocity, diffusivity=diffusivity)
    complete = PRESETS["cifar10-global"]
    assert replace(PRESETS[name], name=complete.name, network=complete.network) == complete
    assert replace(network, pde=PdeSpec()) == complete.network


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cifar10-global-k5", {"pde": PdeSpec(num_steps=5)}),
        ("cifar10-global-m2", {"blocks_per_stage": 2}),
        ("cifar10-global-tiny", {"widths": (9, 9, 16, 16), "pde": PdeSpec(num_steps=5)}),
    ],
)
def test_the_papers_other_networks_are_cifar10_global_with_other_values(name: str, changes: dict[str, Any]) -> None:
    complete = PRESETS["cifar10-global"]
    assert PRESETS[name] == replace(complete, name=name, network=replace(complete.network, **changes))


@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_the_study_of_time_steps_changes_them_alone(num_steps: int) -> None:
    network = PRESETS["mnist-pde"].network
    assert isinstance(network, SingleChannelNetwork)
    assert isinstance(network.feature, PdeSpec)
    changed = replace(network, feature=replace(network.feature, num_steps=num_steps))
    name = f"mnist-pde-k{num_steps}"
    assert PRESETS[name] == replace(PRESETS["mnist-pde"], name=name, network=changed)


def test_presets_are_immutable_and_hashable() -> None:
    with pytest.raises(FrozenInstanceError):
        DIGITS.name = "another"
    assert len({hash(preset) for preset in PRESETS.values()}) == len(PRESETS)


# --- impossible values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, r"height must be a positive integer, not 0"),
        ({"width": -1}, r"width must be a positive integer, not -1"),
        ({"width": 8.0}, r"width must be a positive integer, not 8\.0"),
        ({"height": True}, r"height must be a positive integer, not True"),
        ({"channels": 2}, r"channels must be 1 or 3, not 2"),
        ({"channels": 3.0}, r"channels must be a positive integer, not 3\.0"),
        ({"mean": (0.5,)}, r"mean must hold one finite number per channel \(3\), not \(0\.5,\)"),
        ({"mean": (0.5, 0.5, "0.5")}, r"mean must hold one finite number per channel"),
        ({"mean": (0.5, 0.5, NAN)}, r"mean must hold one finite number per channel"),
        ({"mean": [0.5, 0.5, 0.5]}, r"mean must be a tuple, not \[0\.5, 0\.5, 0\.5\]"),
        ({"mean": 0.5}, r"mean must be a tuple, not 0\.5"),
        ({"std": (0.2, 0.2, 0.0)}, r"std must be positive, not \(0\.2, 0\.2, 0\.0\)"),
        ({"std": (0.2, 0.2, INFINITY)}, r"std must hold one finite number per channel"),
        ({"fit": "squash"}, r"fit must be one of \('crop', 'pad', 'stretch'\), not 'squash'"),
    ],
)
def test_an_impossible_input_is_rejected_by_name_and_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        InputSpec(**{**RGB, **changes})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_steps": 0}, r"num_steps must be a positive integer, not 0"),
        ({"num_steps": 1.5}, r"num_steps must be a positive integer, not 1\.5"),
        ({"dt": 0}, r"dt must be a positive, finite number, not 0"),
        ({"dt": -0.2}, r"dt must be a positive, finite number, not -0\.2"),
        ({"dt": NAN}, r"dt must be a positive, finite number, not nan"),
        ({"dt": INFINITY}, r"dt must be a positive, finite number, not inf"),
        ({"dt": 10**400}, r"dt must be a positive, finite number, not 10"),
        ({"dt": "0.2"}, r"dt must be a positive, finite number, not '0\.2'"),
        (
            {"velocity": "separable"},
            r"velocity must be one of \('depthwise', 'pointwise', 'full', 'residual', 'identity', 'preactivation'\) "
            r"or None, not 'separable'",
        ),
        ({"velocity": 1.0}, r"velocity must be one of .* or None, not 1\.0"),
        ({"velocity": PeronaMalik(1.0)}, r"velocity must be one of .* or None, not PeronaMalik\(contrast=1\.0\)"),
        (
            {"diffusivity": "preactivation"},
            r"diffusivity must be one of \('depthwise', .*, 'identity'\), a PeronaMalik, a number or None, "
            r"not 'preactivation'",
        ),
        ({"diffusivity": {"contrast": 1.0}}, r"a constant diffusivity must be a finite number >= 0, not \{"),
        ({"diffusivity": -1.0}, r"a constant diffusivity must be a finite number >= 0, not -1\.0"),
        ({"diffusivity": NAN}, r"a constant diffusivity must be a finite number >= 0, not nan"),
        ({"diffusivity": True}, r"a constant diffusivity must be a finite number >= 0, not True"),
        ({"diffusivity": [1.0]}, r"a constant diffusivity must be a finite number >= 0, not \[1\.0\]"),
        ({"source": "none"}, r"source must be 'input' or None, not 'none'"),
        ({"source": 0.0}, r"source must be 'input' or None, not 0\.0"),
        ({"start": None}, r"start must be one of \('input', 'residual'\), not None"),
    ],
)
def test_an_impossible_pde_is_rejected_by_name_and_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        PdeSpec(**values)


@pytest.mark.parametrize("contrast", [0, -1.0, NAN, INFINITY, True, "1", None])
def test_an_impossible_contrast_is_rejected_by_name_and_value(contrast: Any) -> None:
    with pytest.raises(PresetError, match=rf"contrast must be a positive, finite number, not {contrast!r}"):
        PeronaMalik(contrast)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SingleChannelNetwork("pde"), r"feature must be 'conv', 'residual' or a PdeSpec, not 'pde'"),
        (lambda: SingleChannelNetwork(None), r"feature must be 'conv', 'residual' or a PdeSpec, not None"),
        (lambda: SingleChannelNetwork("conv", pool_size=0), r"pool_size must be a positive integer, not 0"),
        (lambda: ResidualNetwork(()), r"widths must name the channels of at least one stage"),
        (lambda: ResidualNetwork((16, 0)), r"each of widths must be a positive integer, not 0"),
        (lambda: ResidualNetwork([16]), r"widths must be a tuple, not \[16\]"),
        (lambda: ResidualNetwork(16), r"widths must be a tuple, not 16"),
        (lambda: ResidualNetwork((16,), blocks_per_stage=0), r"blocks_per_stage must be a positive integer, not 0"),
        (lambda: ResidualNetwork((16,), pde="depthwise"), r"pde must be a PdeSpec or None, not 'depthwise'"),
        (lambda: replace(DIGITS, name=""), r"name must be letters, digits, '\.', '_' and '-', .* not ''"),
        (lambda: replace(DIGITS, name="../up"), r"name must be letters, .* not '\.\./up'"),
        (lambda: replace(DIGITS, name="a name"), r"name must be letters, .* not 'a name'"),
        (lambda: replace(DIGITS, name=b"digits"), r"name must be letters, .* not b'digits'"),
        (lambda: replace(DIGITS, labels=("one",)), r"labels must be at least two non-empty strings, not \('one',\)"),
        (lambda: replace(DIGITS, labels=("one", "")), r"labels must be at least two non-empty strings"),
        (lambda: replace(DIGITS, labels=("one", 2)), r"labels must be at least two non-empty strings"),
        (lambda: replace(DIGITS, labels=("one", "two\n")), r"labels must be of printable characters"),
        (lambda: replace(DIGITS, labels=("one", "\ud800")), r"labels must be of printable characters"),
        (lambda: replace(DIGITS, labels=("one", "one")), r"labels must differ from each other"),
        (lambda: replace(DIGITS, labels="0123456789"), r"labels must be a tuple, not '0123456789'"),
        (lambda: replace(DIGITS, input=RGB), r"input must be an InputSpec, not \{"),
        (lambda: replace(DIGITS, network="residual"), r"network must be a SingleChannelNetwork or a ResidualNetwork"),
        (
            lambda: replace(DIGITS, network=SingleChannelNetwork("conv", pool_size=9)),
            r"pool_size must fit the image \(8\), not 9",
        ),
    ],
)
def test_an_impossible_network_or_preset_is_rejected_by_name_and_value(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(PresetError, match=message):
        make()


def test_a_preset_error_is_a_value_error_of_this_package() -> None:
    assert issubclass(PresetError, ValueError)
    assert issubclass(PresetError, PdeinferError)


# --- as JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_survives_the_way_through_json(preset: Preset) -> None:
    assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    assert Preset.from_dict(preset.to_dict()) == preset


def test_a_variant_survives_the_way_through_json() -> None:
    variant = Preset(
        "photos-2.1_b",
        InputSpec(**RGB, fit="stretch"),
        ("cat", "dog"),
        ResidualNetwork((4, 8, 8), blocks_per_stage=2, pde=PdeSpec(3, 0.1, None, 0.25)),
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
def test_every_choice_of_a_pde_layer_survives_the_way_through_json(
    network: ResidualNetwork | SingleChannelNetwork, pde: PdeSpec
) -> None:
    place = {"pde": pde} if isinstance(network, ResidualNetwork) else {"feature": pde}
    preset = replace(PRESETS["mnist-pde"], network=replace(network, **place))
    assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    assert PdeSpec.from_dict(json.loads(json.dumps(pde.to_dict()))) == pde


def test_a_pde_layer_written_before_there_were_sources_and_starts_is_read_with_what_it_had() -> None:
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
    }


def without(*path: str) -> dict[str, Any]:
    """Return the digits preset as a dict that lacks what the path leads to."""
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
        (with_value(["residual"], "network", "kind"), r"not a preset: "),
        (with_value("residual", "network"), r"not a preset: "),
        (with_value(None, "input"), r"not a preset: "),
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
        (with_value({"kind": [], "contrast": 1}, "network", "pde", "diffusivity"), r"not a PDE layer: "),
        (
            with_value({"kind": "perona-malik", "contrast": 0}, "network", "pde", "diffusivity"),
            r"contrast must be a positive, finite number, not 0",
        ),
        (with_value(NAN, "network", "pde", "dt"), r"dt must be a positive, finite number, not nan"),
        (with_value("../../etc", "name"), r"name must be letters, .* not '\.\./\.\./etc'"),
    ],
)
def test_a_hostile_dict_is_rejected_with_what_is_wrong_in_it(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        Preset.from_dict(values)


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
def test_json_that_is_no_preset_at_all_gives_a_preset_error(value: Any) -> None:
    with pytest.raises(PresetError):
        Preset.from_dict(value)
