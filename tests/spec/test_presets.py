"""The presets and their values."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from pdeinfer.errors import PdeinferError, PresetError
from pdeinfer.spec.networks import DepthwiseConvolution, DepthwiseSum, InputSpec, ResidualNetwork, SingleChannelNetwork
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.spec.presets import PRESETS

DIGITS = PRESETS["digits-pde"]
RGB = {"height": 32, "width": 24, "channels": 3, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
PAPERS_PDE = PdeSpec(num_steps=1, dt=0.2, norm_epsilon="channels")
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
        "cifar10-resnet8",
        "cifar10-resnet14",
        "cifar10-resnet20",
        "cifar10-resnet32",
        "cifar10-global",
        "cifar10-global-constant-d",
        "cifar10-global-no-advection",
        "cifar10-global-no-diffusion",
        "cifar10-global-signed",
        "cifar10-global-source",
        "cifar10-global-no-pde",
        "cifar10-global-depthwise7",
        "cifar10-global-depthwise-sum",
        "cifar10-global-k5",
        "cifar10-global-m2",
        "cifar10-global-tiny",
    }


def test_each_preset_is_listed_under_its_own_name_with_ten_labels() -> None:
    assert all(name == preset.name for name, preset in PRESETS.items())
    assert {len(preset.labels) for preset in PRESETS.values()} == {10}


def test_an_integer_dt_becomes_a_float() -> None:
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
def test_each_ablation_differs_from_cifar10_global_in_one_field(
    name: str, velocity: str | None, diffusivity: str | float | None
) -> None:
    network = PRESETS[name].network
    assert isinstance(network, ResidualNetwork)
    complete = PRESETS["cifar10-global"]
    assert network.pde == replace(PAPERS_PDE, velocity=velocity, diffusivity=diffusivity)
    assert replace(PRESETS[name], name=complete.name, network=complete.network) == complete
    assert replace(network, pde=PAPERS_PDE) == complete.network


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cifar10-global-k5", {"pde": replace(PAPERS_PDE, num_steps=5)}),
        ("cifar10-global-m2", {"blocks_per_stage": 2}),
        ("cifar10-global-tiny", {"widths": (9, 9, 16, 16), "pde": replace(PAPERS_PDE, num_steps=5)}),
        ("cifar10-global-signed", {"pde": replace(PAPERS_PDE, velocity_activation="linear")}),
        (
            "cifar10-global-source",
            {"pde": replace(PAPERS_PDE, velocity_activation="linear", isotropic=True, source="depthwise")},
        ),
        ("cifar10-global-no-pde", {"pde": None}),
        ("cifar10-global-depthwise7", {"pde": None, "control": DepthwiseConvolution(7)}),
        ("cifar10-global-depthwise-sum", {"pde": None, "control": DepthwiseSum(3, num_terms=4)}),
    ],
)
def test_other_networks_are_cifar10_global_with_other_values(name: str, changes: dict[str, Any]) -> None:
    complete = PRESETS["cifar10-global"]
    assert PRESETS[name] == replace(complete, name=name, network=replace(complete.network, **changes))


@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_the_study_of_time_steps_changes_nothing_else(num_steps: int) -> None:
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
        ({"height": 2**16, "width": 65}, r"at most 4194304 pixels"),
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
        ({"num_steps": 1001}, r"num_steps must be at most 1000, not 1001"),
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
        ({"source": "none"}, r"source must be 'input', one of .* or None, not 'none'"),
        ({"source": 0.0}, r"source must be 'input', one of .* or None, not 0\.0"),
        (
            {"velocity": "preactivation", "velocity_activation": "tanh"},
            r"a preactivation velocity has no activation, not 'tanh'",
        ),
        ({"start": None}, r"start must be one of \('input', 'residual'\), not None"),
        ({"velocity_activation": "gelu"}, r"velocity_activation must be one of .* not 'gelu'"),
        ({"diffusivity_activation": "linear"}, r"diffusivity_activation must be one of .* not 'linear'"),
        ({"isotropic": 1}, r"isotropic must be true or false, not 1"),
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
