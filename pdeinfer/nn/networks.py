"""The networks that presets describe, built from Keras layers."""

from typing import Any

import keras

from pdeinfer.nn.blocks import basic_block, batch_norm, conv, depthwise_convolution, depthwise_sum
from pdeinfer.nn.global_layer import GlobalLayer
from pdeinfer.spec.networks import DepthwiseConvolution, DepthwiseSum, ResidualNetwork, SingleChannelNetwork
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import Preset


@keras.saving.register_keras_serializable("pdeinfer")
class Classifier(keras.Model):  # type: ignore[misc]  # Keras is untyped
    """The network of a preset: raw pixels in, logits out.

    A saved `.keras` file holds the preset, from which the layers are built again, and the weights; so a file of this
    class can name no other layer than the ones here.

    Args:
        preset: a `Preset`, or its `to_dict()`, as saved files hold it.

    Input: (N, height, width, channels), pixel values 0..255 of any real dtype; normalisation is part of the network.
    Output: (N, number of labels), float32 logits.

    Raises:
        PresetError: the preset has an impossible value.
    """

    def __init__(self, preset: Preset | dict[str, Any], **kwargs: Any) -> None:
        if not isinstance(preset, Preset):
            preset = Preset.from_dict(preset)
        spec = preset.input
        image = keras.Input((spec.height, spec.width, spec.channels), name="image")
        # (pixel / 255 - mean) / std, in float32 also in reduced precision: bfloat16 would merge and shift pixel values.
        scale = [1 / (255 * std) for std in spec.std]
        offset = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
        h = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalize")(image)
        if isinstance(preset.network, SingleChannelNetwork):
            h = _single_channel_features(h, preset.network)
        else:
            h = _residual_features(h, preset.network)
        logits = keras.layers.Dense(len(preset.labels), dtype="float32", name="logits")(h)
        super().__init__(image, logits, **{"name": preset.name, **kwargs})
        self.preset = preset

    def pde_layers(self) -> dict[str, GlobalLayer]:
        """Return the PDE layers by name, "layer1", "layer2", ..., in the order of the network."""
        layers = [layer for layer in self.layers if isinstance(layer, GlobalLayer)]
        return {f"layer{number}": layer for number, layer in enumerate(layers, 1)}

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "preset": self.preset.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: object = None) -> "Classifier":
        del custom_objects  # the layers are built from the preset: none is looked up by name
        return cls(**config)


def _preactivated_conv(h: keras.KerasTensor) -> keras.KerasTensor:
    return conv(h.shape[-1])(keras.layers.ReLU()(batch_norm()(h)))


def _single_channel_features(h: keras.KerasTensor, network: SingleChannelNetwork) -> keras.KerasTensor:
    f = _preactivated_conv(h)
    if isinstance(network.feature, PdeSpec):
        h = GlobalLayer(network.feature)(f)
    elif network.feature == "residual":
        h = batch_norm()(keras.layers.Add()([f, _preactivated_conv(f)]))
    else:
        h = _preactivated_conv(f)
    h = keras.layers.AveragePooling2D(network.pool_size)(keras.layers.ReLU()(h))
    return keras.layers.Flatten()(h)


def _residual_features(h: keras.KerasTensor, network: ResidualNetwork) -> keras.KerasTensor:
    h = keras.layers.ReLU()(batch_norm()(conv(network.widths[0])(h)))
    for stage, width in enumerate(network.widths):
        for block in range(network.blocks_per_stage):
            strides = 2 if stage > 0 and block == 0 else 1
            h = basic_block(h, width, strides, network.strided_padding)
        if stage == len(network.widths) - 1:
            break
        if network.pde is not None:
            h = GlobalLayer(network.pde)(h)
        elif isinstance(network.control, DepthwiseConvolution):
            h = depthwise_convolution(h, network.control.kernel_size)
        elif isinstance(network.control, DepthwiseSum):
            h = depthwise_sum(h, network.control.kernel_size, network.control.num_terms)
    return keras.layers.GlobalAveragePooling2D()(h)
