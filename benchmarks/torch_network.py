"""The residual networks of `pdeinfer.spec.presets` in PyTorch, with the same weights and results, for comparison."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pdeinfer import pde
from pdeinfer.spec.networks import ResidualNetwork, StridedPadding
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import Preset


class Network(nn.Module):
    """A preset's network, uint8 (N, H, W, C) -> float32 probabilities (N, classes), with (N, C, H, W) inside.

    Args:
        weights: those of the Keras network, in Keras's order, which is that of the modules here.
    """

    def __init__(self, preset: Preset, weights: Sequence[np.ndarray]) -> None:
        super().__init__()
        network, spec = preset.network, preset.input
        if not isinstance(network, ResidualNetwork):
            raise TypeError(f"expected a ResidualNetwork, got {network!r}")
        in_channels = network.widths[0]
        layers: list[nn.Module] = [_conv(spec.channels, in_channels), _norm(in_channels), nn.ReLU()]
        for stage, width in enumerate(network.widths):
            for block in range(network.blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_Block(in_channels, width, stride, network.strided_padding))
                in_channels = width
            if network.pde is not None and stage < len(network.widths) - 1:
                layers.append(_GlobalLayer(network.pde, width))
        self.features = nn.Sequential(*layers)
        self.logits = nn.Linear(in_channels, len(preset.labels))
        self._load(weights)
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (spec.mean, spec.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        h = image.permute(0, 3, 1, 2).float() * self.scale + self.offset
        return functional.softmax(self.logits(self.features(h).mean(dim=(2, 3))), dim=1)

    def _load(self, weights: Sequence[np.ndarray]) -> None:
        own = [value for name, value in self.state_dict().items() if not name.endswith("num_batches_tracked")]
        for value, array in zip(own, weights, strict=True):
            # Convolutions are (height, width, in, out) in Keras, or (height, width, channels, 1); dense (in, out).
            order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
            value.copy_(torch.from_numpy(array.transpose(order).copy()).reshape(value.shape))


class _Block(nn.Module):
    """A basic block, its shortcut a convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int, strided_padding: StridedPadding) -> None:
        super().__init__()
        # Keras's "same" pads a strided convolution of an even side after the last pixel alone.
        self.pads_after = stride == 2 and strided_padding == "same"
        self.conv1, self.norm1 = _conv(in_channels, channels, stride, 0 if self.pads_after else 1), _norm(channels)
        self.conv2 = _conv(channels, channels)
        is_identity = stride == 1 and in_channels == channels
        self.conv = nn.Identity() if is_identity else nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        self.norm2 = _norm(channels)
        self.norm = nn.Identity() if is_identity else _norm(channels)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(h, (0, 1, 0, 1)) if self.pads_after else h
        residual = functional.relu(self.norm1(self.conv1(padded)))
        return functional.relu(self.norm2(self.conv2(residual)) + self.norm(self.conv(h)))


class _GlobalLayer(nn.Module):
    """A PDE layer whose fields are depthwise convolutions, as in the paper."""

    def __init__(self, spec: PdeSpec, channels: int) -> None:
        super().__init__()
        if replace(spec, num_steps=1, dt=0.2, norm_epsilon=1e-5) != PdeSpec():
            raise TypeError(f"expected the paper's PDE layers, got {spec}")
        self.spec = spec
        self.norm = _norm(channels)
        epsilon = channels if spec.norm_epsilon == "channels" else spec.norm_epsilon
        self.fields = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.BatchNorm2d(channels, eps=epsilon),
                nn.ReLU(),
            )
            for _ in range(4)
        )

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        u, v, diffusivity_x, diffusivity_y = (field(h) for field in self.fields)
        factors = pde.coefficients((u, v), (diffusivity_x, diffusivity_y), dt=self.spec.dt, roll=_roll)
        result, _ = pde.solve(h, h, h, factors, num_steps=self.spec.num_steps, roll=_roll)
        return functional.relu(self.norm(result))


def _roll(array: Any, shift: int, axis: int) -> Any:
    return torch.roll(array, shift, axis + 1)  # `pde` counts the axes of (N, H, W, C)


def _conv(in_channels: int, channels: int, stride: int = 1, padding: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride, padding=padding, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5)
