"""Describes a whole classifier as a frozen value, and names the presets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pdeinfer.errors import PresetError
from pdeinfer.spec.networks import (
    DepthwiseConvolution,
    DepthwiseSum,
    InputSpec,
    Network,
    ResidualNetwork,
    SingleChannelNetwork,
)
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.values import check_tuple, from_tagged_dict, to_dict


def is_model_name(text: str) -> bool:
    """Return whether text can name a model: ASCII letters, digits, '.', '_' and '-', a letter or digit first."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


@dataclass(frozen=True, slots=True)
class Preset:
    """A complete classifier.

    Derive presets with other image sizes, channels or classes by `dataclasses.replace(PRESETS[...], labels=...)`.

    Attributes:
        name: as `is_model_name` says: files are named after presets.
        input: the images that it takes.
        labels: of the classes, in the order of their indices.
        network: its layers.
    """

    name: str
    input: InputSpec
    labels: tuple[str, ...]
    network: Network

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not is_model_name(self.name):
            raise PresetError(
                f"name must be letters, digits, '.', '_' and '-', a letter or digit first, not {self.name!r}"
            )
        if not isinstance(self.input, InputSpec):
            raise PresetError(f"input must be an InputSpec, not {self.input!r}")
        check_tuple("labels", self.labels)
        if len(self.labels) < 2 or not all(isinstance(label, str) and label for label in self.labels):
            raise PresetError(f"labels must be at least two non-empty strings, not {self.labels!r}")
        if not all(label.isprintable() for label in self.labels):
            raise PresetError(f"labels must be of printable characters, not {self.labels!r}")
        if len(set(self.labels)) != len(self.labels):
            raise PresetError(f"labels must differ from each other: {self.labels!r}")
        if not isinstance(self.network, Network):
            raise PresetError(f"network must be a SingleChannelNetwork or a ResidualNetwork, not {self.network!r}")
        if isinstance(self.network, SingleChannelNetwork):
            smallest_side = min(self.input.height, self.input.width)
            if self.network.pool_size > smallest_side:
                raise PresetError(f"pool_size must fit the image ({smallest_side}), not {self.network.pool_size!r}")

    @property
    def pde(self) -> PdeSpec | None:
        """The PDE layers of the network, which share one description; None if it has none."""
        network = self.network
        layer = network.feature if isinstance(network, SingleChannelNetwork) else network.pde
        return layer if isinstance(layer, PdeSpec) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the preset as JSON values, the inverse of `from_dict`."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preset":
        """Make a preset from the JSON values that `to_dict` returns.

        Raises:
            PresetError: a value is missing, unknown or impossible.
        """
        if not isinstance(values, Mapping):
            raise PresetError(f"a preset must be an object, not {values!r}")
        try:
            for name in ("input", "network"):
                if not isinstance(values[name], Mapping):
                    raise PresetError(f"{name} must be an object, not {values[name]!r}")
            network = _with_tuples(values["network"])
            for name in ("pde", "feature"):
                if isinstance(network.get(name), Mapping):
                    network[name] = PdeSpec.from_dict(network[name])
            if isinstance(network.get("control"), Mapping):
                network["control"] = from_tagged_dict("control", network["control"], DepthwiseConvolution, DepthwiseSum)
            parts = {
                "input": InputSpec(**_with_tuples(values["input"])),
                "network": from_tagged_dict("network", network, SingleChannelNetwork, ResidualNetwork),
            }
            return cls(**{**_with_tuples(values), **parts})
        except KeyError as error:
            raise PresetError(f"a preset needs the key {error}") from error
        except (TypeError, ValueError) as error:
            raise PresetError(f"not a preset: {error}") from error


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with lists as tuples, which JSON turns into lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in dict(values).items()}


_DIGIT_LABELS = tuple("0123456789")
_CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Mean and standard deviation of the pixels of scikit-learn's digits (0..16) scaled to 0..1.
_DIGITS = InputSpec(8, 8, 1, mean=(0.3053,), std=(0.3760,), fit="pad")
_MNIST = InputSpec(28, 28, 1, mean=(0.1307,), std=(0.3081,), fit="pad")
_CIFAR10 = InputSpec(32, 32, 3, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))

_MNIST_CNN = Preset("mnist-cnn", _MNIST, _DIGIT_LABELS, SingleChannelNetwork("conv"))


def _mnist_pde(name: str, num_steps: int) -> Preset:
    pde = PdeSpec(num_steps, velocity="preactivation", diffusivity=1.0)
    return replace(_MNIST_CNN, name=name, network=SingleChannelNetwork(pde))


# The paper's network for CIFAR-10.
_PDE = PdeSpec(norm_epsilon="channels")
_GLOBAL_NETWORK = ResidualNetwork(widths=(16, 32, 64, 64), pde=_PDE, strided_padding="symmetric")
_GLOBAL = Preset("cifar10-global", _CIFAR10, _CIFAR10_LABELS, _GLOBAL_NETWORK)


def _pde_variant(name: str, **changes: Any) -> Preset:
    return _global_variant(name, pde=replace(_PDE, **changes))


def _global_variant(name: str, **changes: Any) -> Preset:
    return replace(_GLOBAL, name=name, network=replace(_GLOBAL_NETWORK, **changes))


def _cifar10_resnet(depth: int) -> Preset:
    """Return the ResNet with 6 n + 2 layers: three stages of n blocks."""
    network = ResidualNetwork((16, 32, 64), blocks_per_stage=(depth - 2) // 6, strided_padding="symmetric")
    return replace(_GLOBAL, name=f"cifar10-resnet{depth}", network=network)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("digits-pde", _DIGITS, _DIGIT_LABELS, ResidualNetwork(widths=(8, 16), pde=PdeSpec(num_steps=5))),
        _MNIST_CNN,
        replace(_MNIST_CNN, name="mnist-residual", network=SingleChannelNetwork("residual")),
        _mnist_pde("mnist-pde", num_steps=5),
        *(_mnist_pde(f"mnist-pde-k{num_steps}", num_steps) for num_steps in (1, 2, 10)),
        *(_cifar10_resnet(depth) for depth in (8, 14, 20, 32)),
        _GLOBAL,
        _pde_variant("cifar10-global-constant-d", diffusivity=1.0),
        _pde_variant("cifar10-global-no-advection", velocity=None),
        _pde_variant("cifar10-global-no-diffusion", diffusivity=None),
        _pde_variant("cifar10-global-signed", velocity_activation="linear"),
        _pde_variant("cifar10-global-source", velocity_activation="linear", isotropic=True, source="depthwise"),
        _global_variant("cifar10-global-no-pde", pde=None),
        _global_variant("cifar10-global-depthwise7", pde=None, control=DepthwiseConvolution(7)),
        _global_variant("cifar10-global-depthwise-sum", pde=None, control=DepthwiseSum(3, num_terms=4)),
        _pde_variant("cifar10-global-k5", num_steps=5),
        _global_variant("cifar10-global-m2", blocks_per_stage=2),
        _global_variant("cifar10-global-tiny", widths=(9, 9, 16, 16), pde=replace(_PDE, num_steps=5)),
    )
}
