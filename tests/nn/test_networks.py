"""The networks: their size, their shapes, their normalisation, and variants as other values."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from pdeinfer.errors import PresetError
from pdeinfer.nn import Classifier, GlobalLayer, count_macs
from pdeinfer.nn.blocks import basic_block
from pdeinfer.spec.networks import InputSpec, ResidualNetwork, SingleChannelNetwork
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.spec.presets import PRESETS

Randomize = Callable[[keras.Layer], None]
to_numpy = keras.ops.convert_to_numpy
DIGITS = PRESETS["digits-pde"]
PHOTO = InputSpec(20, 12, 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def count(weights: list[keras.Variable]) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


def random_pixels(spec: InputSpec, batch: int = 2) -> np.ndarray:
    shape = (batch, spec.height, spec.width, spec.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def all_layers(model: Classifier) -> Iterator[keras.Layer]:
    """Yield every layer of the model, those inside PDE layers included."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, GlobalLayer):
            yield layer.norm
            for inner in (*layer.velocity_fields, *layer.diffusivity_fields, *layer.start_layers):
                yield from inner.layers


@pytest.fixture(scope="module")
def models(randomize: Randomize) -> dict[str, Classifier]:
    models = {name: Classifier(preset) for name, preset in PRESETS.items()}
    for model in models.values():
        randomize(model)
    return models


# --- the presets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("digits-pde", 5_490),
        ("mnist-cnn", 522),
        ("mnist-residual", 524),
        ("mnist-pde", 524),
        ("mnist-pde-k10", 524),
        ("cifar10-resnet8", 78_042),
        ("cifar10-resnet14", 175_258),
        ("cifar10-resnet20", 272_474),
        ("cifar10-resnet32", 466_906),
        ("cifar10-global", 161_402),
        ("cifar10-global-no-pde", 156_250),
        ("cifar10-global-depthwise7", 161_962),
        ("cifar10-global-depthwise-sum", 161_402),
        ("cifar10-global-constant-d", 158_938),
        ("cifar10-global-no-advection", 158_938),
        ("cifar10-global-no-diffusion", 158_938),
        ("cifar10-global-k5", 161_402),
        ("cifar10-global-m2", 332_602),
        ("cifar10-global-tiny", 13_882),
    ],
)
def test_a_preset_has_the_documented_number_of_trainable_parameters(
    name: str, parameters: int, models: dict[str, Classifier]
) -> None:
    assert count(models[name].trainable_weights) == parameters


@pytest.mark.parametrize("name", PRESETS)
def test_raw_pixels_become_one_finite_float32_logit_per_label(name: str, models: dict[str, Classifier]) -> None:
    logits = to_numpy(models[name](random_pixels(PRESETS[name].input)))
    assert logits.shape == (2, 10)
    assert logits.dtype == np.float32
    assert np.all(np.isfinite(logits))
    assert np.any(logits[0] != logits[1])


@pytest.mark.parametrize("name", PRESETS)
def test_convolutions_have_no_bias_and_normalisations_the_documented_momentum(
    name: str, models: dict[str, Classifier]
) -> None:
    layers = list(all_layers(models[name]))
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)]
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert convolutions
    assert norms
    assert not any(layer.use_bias for layer in convolutions)
    assert {layer.momentum for layer in norms} == {0.9}
    fields = {
        id(norm): norm
        for layer in models[name].layers
        if isinstance(layer, GlobalLayer)
        for field in (*layer.velocity_fields, *layer.diffusivity_fields)
        for norm in field.layers
        if isinstance(norm, keras.layers.BatchNormalization)
    }
    assert {norm.epsilon for norm in norms if id(norm) not in fields} == {1e-5}
    is_papers = name.startswith("cifar10")
    assert all(norm.epsilon == (norm.gamma.shape[0] if is_papers else 1e-5) for norm in fields.values())


@pytest.mark.parametrize(
    ("name", "channels", "last_map"),
    [
        ("cifar10-resnet32", [], (8, 8, 64)),
        ("cifar10-global", [16, 32, 64], (4, 4, 64)),
        ("digits-pde", [8], (4, 4, 16)),
    ],
)
def test_a_pde_layer_follows_every_stage_but_the_last(
    name: str, channels: list[int], last_map: tuple[int, ...], models: dict[str, Classifier]
) -> None:
    pde_layers = [layer for layer in models[name].layers if isinstance(layer, GlobalLayer)]
    assert [layer.output.shape[-1] for layer in pde_layers] == channels
    assert models[name].layers[-2].input.shape[1:] == last_map


@pytest.mark.parametrize(
    ("name", "millions"), [("cifar10-resnet32", 69.1), ("cifar10-global", 14.8)], ids=["resnet32", "global"]
)
def test_the_convolutions_take_the_documented_number_of_multiplications(
    name: str, millions: float, models: dict[str, Classifier]
) -> None:
    total = 0
    for layer in models[name].layers:
        height, width = layer.output.shape[1:3] if len(layer.output.shape) == 4 else (1, 1)
        kernels = [weight for weight in layer.weights if weight.name == "kernel"]
        total += height * width * count(kernels)
    assert total / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_the_network_normalises_raw_pixels_of_any_dtype(dtype: str) -> None:
    model = Classifier(replace(DIGITS, input=PHOTO))
    pixels = random_pixels(PHOTO)
    normalised = to_numpy(keras.Model(model.input, model.get_layer("normalize").output)(pixels.astype(dtype)))
    np.testing.assert_allclose(normalised, (pixels / 255 - PHOTO.mean) / PHOTO.std, atol=1e-5)


def fields_of_a_new_network(pde: PdeSpec) -> list[np.ndarray]:
    """Return u, v, Dx and Dy of every PDE layer of an untrained cifar10-global, normalised by the batch."""
    keras.utils.set_random_seed(0)
    network = PRESETS["cifar10-global"].network
    model = Classifier(replace(PRESETS["cifar10-global"], network=replace(network, pde=pde)))
    layers = [layer for layer in model.layers if isinstance(layer, GlobalLayer)]
    inputs = keras.Model(model.input, [layer.input for layer in layers])
    flower = load_sample_image("flower.jpg")
    crops = np.stack([flower[y : y + 32, x : x + 32] for y in range(0, 384, 64) for x in range(0, 640, 64)])
    return [
        to_numpy(field)
        for layer, h in zip(layers, inputs(crops, training=True), strict=True)
        for field in (*layer.compute_velocity(h, training=True), *layer.compute_diffusivity(h, training=True))
    ]


def test_the_fields_of_a_new_network_are_alive_and_small() -> None:
    fields = fields_of_a_new_network(PRESETS["cifar10-global"].network.pde)
    assert len(fields) == 3 * 4
    for field in fields:
        assert (field > 0).any(axis=(0, 1, 2)).mean() > 0.9  # of the channels
        assert 0 < field.mean() < 0.06
    usual = fields_of_a_new_network(PdeSpec())
    assert min(field.mean() for field in usual) > 0.2


@pytest.mark.parametrize("side", [8, 9])
def test_residual_and_shortcut_of_a_strided_block_sample_the_same_pixel(side: int) -> None:
    h = keras.Input((side, side, 1))
    block = keras.Model(h, basic_block(h, 1, strides=2, strided_padding="symmetric"))
    strided = [layer for layer in block.layers if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2)]
    assert {layer.kernel_size for layer in strided} == {(3, 3), (1, 1)}
    for layer in strided:
        centre = np.zeros(layer.kernel.shape)
        centre[layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1  # the identity
        layer.set_weights([centre])
    pixels = np.random.default_rng(0).normal(size=(1, side, side, 1)).astype(np.float32)
    for output in keras.Model(h, [layer.output for layer in strided])(pixels):
        np.testing.assert_array_equal(to_numpy(output), pixels[:, ::2, ::2])


# --- other values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits-pde", "mnist-cnn", "mnist-residual", "mnist-pde", "cifar10-global"])
def test_other_image_sizes_channels_and_labels_are_other_values(name: str) -> None:
    preset = replace(PRESETS[name], name="photos", input=PHOTO, labels=("cat", "dog", "owl"))
    model = Classifier(preset)
    assert model.name == "photos"
    assert model.preset == preset
    assert to_numpy(model(random_pixels(PHOTO))).shape == (2, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (7, 3)])
def test_maps_that_shrink_to_one_pixel_still_classify(height: int, width: int) -> None:
    spec = replace(DIGITS.input, height=height, width=width)
    model = Classifier(replace(DIGITS, input=spec, network=ResidualNetwork((4, 4, 4, 4), pde=PdeSpec(num_steps=5))))
    assert np.all(np.isfinite(to_numpy(model(random_pixels(spec)))))


def test_wider_networks_have_more_parameters_in_the_documented_places() -> None:
    """A network of two widths and two blocks a stage, counted by hand."""
    model = Classifier(replace(DIGITS, network=ResidualNetwork((4, 8), blocks_per_stage=2, pde=PdeSpec())))

    def conv(size: int, channels_in: int, channels_out: int) -> int:
        return size * size * channels_in * channels_out

    def norm(channels: int) -> int:
        return 2 * channels

    first = conv(3, 1, 4) + norm(4)
    stage_1 = 4 * (conv(3, 4, 4) + norm(4))
    global_layer = 4 * (conv(3, 4, 1) + norm(4)) + norm(4)
    stage_2 = conv(3, 4, 8) + 3 * conv(3, 8, 8) + 4 * norm(8) + conv(1, 4, 8) + norm(8)
    assert count(model.trainable_weights) == first + stage_1 + global_layer + stage_2 + 8 * 10 + 10


@pytest.mark.parametrize(
    ("changes", "parameters", "macs"),
    [
        ({"pde": PdeSpec(velocity="pointwise")}, 170_138, 16_065_152),
        ({"pde": PdeSpec(velocity="full")}, 256_154, 28_648_064),
        ({"pde": PdeSpec(velocity="residual")}, 353_818, 42_803_840),
        ({"pde": PdeSpec(velocity="identity")}, 159_386, 14_492_288),
        ({"pde": PdeSpec(diffusivity="pointwise")}, 170_138, 16_065_152),
        ({"pde": PdeSpec(diffusivity="full")}, 256_154, 28_648_064),
        ({"pde": PdeSpec(diffusivity="residual")}, 353_818, 42_803_840),
        ({"pde": PdeSpec(diffusivity="identity")}, 159_386, 14_492_288),
        ({"pde": PdeSpec(diffusivity=PeronaMalik(1.0))}, 158_938, 14_492_288),
        ({"pde": PdeSpec(start="residual")}, 258_618, 29_164_160),
        ({"pde": PdeSpec(source=None)}, 161_402, 14_979_712),
        ({"pde": PdeSpec(source="depthwise")}, 162_634, 15_266_432),
        ({"pde": PdeSpec(isotropic=True)}, 160_170, 14_750_336),
        ({"pde": PdeSpec(velocity_activation="linear")}, 161_402, 15_008_384),
        ({"pde": PdeSpec(velocity_activation="tanh")}, 161_402, 15_008_384),
        ({"pde": PdeSpec(diffusivity_activation="softplus")}, 161_402, 15_008_384),
        ({"widths": (10, 9, 16, 16)}, 14_393, 3_451_296),
        ({"widths": (9, 10, 18, 24), "pde": PdeSpec(num_steps=5)}, 20_039, 3_587_568),
    ],
    ids=str,
)
def test_a_variant_of_cifar10_global_has_the_documented_parameters_and_multiply_adds(
    changes: dict[str, object], parameters: int, macs: int
) -> None:
    preset = PRESETS["cifar10-global"]
    model = Classifier(replace(preset, network=replace(preset.network, **changes)))
    assert count(model.trainable_weights) == parameters
    assert count_macs(model) == macs
    layers = list(all_layers(model))
    assert not any(layer.use_bias for layer in layers if "Conv" in type(layer).__name__)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.9}


@pytest.mark.parametrize("num_steps", [1, 10])
def test_the_number_of_steps_changes_the_logits_but_no_weight(num_steps: int, randomize: Randomize) -> None:
    logits = []
    for steps in (num_steps, 5):
        model = Classifier(replace(DIGITS, network=replace(DIGITS.network, pde=PdeSpec(num_steps=steps))))
        randomize(model)
        assert count(model.trainable_weights) == 5_490
        logits.append(to_numpy(model(random_pixels(DIGITS.input))))
    assert np.max(np.abs(logits[0] - logits[1])) > 1e-3


@pytest.mark.parametrize("pool_size", [1, 2, 7])
def test_the_pool_of_a_single_channel_network_decides_the_size_of_its_head(pool_size: int) -> None:
    preset = PRESETS["mnist-pde"]
    network = replace(preset.network, pool_size=pool_size)
    assert isinstance(network, SingleChannelNetwork)
    model = Classifier(replace(preset, network=network))
    assert model.get_layer("logits").kernel.shape == ((28 // pool_size) ** 2, 10)


def test_pixels_and_logits_are_float32_in_mixed_precision() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = Classifier(DIGITS)
        logits = model(random_pixels(DIGITS.input))
    finally:
        keras.config.set_dtype_policy(policy)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert {layer.compute_dtype for layer in model.layers if isinstance(layer, GlobalLayer)} == {"float16"}
    assert model.get_layer("normalize").compute_dtype == "float32"


# --- as a config ----------------------------------------------------------------------------------------------------


def test_a_network_can_be_made_from_a_presets_dict() -> None:
    assert Classifier(DIGITS.to_dict()).preset == DIGITS


@pytest.mark.parametrize("name", ["digits-pde", "mnist-pde"])
def test_a_network_made_from_its_config_has_the_same_name_preset_and_shapes(name: str) -> None:
    model = Classifier(PRESETS[name], name="renamed")
    copy = Classifier.from_config(model.get_config())
    assert (copy.name, copy.preset) == ("renamed", PRESETS[name])
    assert [weight.shape for weight in copy.weights] == [weight.shape for weight in model.weights]


@pytest.mark.parametrize("preset", [{}, {"name": "x"}, None, "digits-pde"], ids=str)
def test_a_network_of_what_is_no_preset_is_rejected(preset: object) -> None:
    with pytest.raises(PresetError):
        Classifier(preset)
