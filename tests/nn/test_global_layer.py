"""The Global layer: against the naive reference, its sign convention and its fields."""

from collections.abc import Callable

import keras
import numpy as np
import pytest

from pdeinfer import PdeSpec, PeronaMalik
from pdeinfer.nn import GlobalLayer
from tests.references import (
    Field,
    naive_batch_norm,
    naive_convolution,
    naive_depthwise_convolution,
    naive_perona_malik,
    naive_relu,
    naive_solve,
)

Randomize = Callable[[keras.Layer], None]
to_numpy = keras.ops.convert_to_numpy
VARIANTS = [
    {"velocity": "depthwise", "diffusivity": "depthwise"},
    {"velocity": "depthwise", "diffusivity": 1.0},
    {"velocity": "depthwise", "diffusivity": None},
    {"velocity": None, "diffusivity": "depthwise"},
    {"velocity": None, "diffusivity": None},
    {"velocity": "preactivation", "diffusivity": 1.0},
    {"velocity": "preactivation", "diffusivity": "depthwise"},
    {"velocity": "pointwise", "diffusivity": "full"},
    {"velocity": "full", "diffusivity": "pointwise"},
    {"velocity": "residual", "diffusivity": "identity"},
    {"velocity": "identity", "diffusivity": "residual"},
    {"velocity": "depthwise", "diffusivity": PeronaMalik(0.5)},
    {"source": None},
    {"velocity": None, "diffusivity": None, "source": None},
    {"start": "residual"},
    {"start": "residual", "source": None, "diffusivity": PeronaMalik(2.0)},
    {"velocity_activation": "linear"},
    {"velocity_activation": "tanh", "diffusivity_activation": "softplus"},
    {"source": "depthwise", "isotropic": True},
    {"source": "pointwise", "start": "residual"},
]


NAIVE_ACTIVATIONS: dict[str, Callable[[Field], Field]] = {
    "relu": naive_relu,
    "linear": lambda z: z,
    "tanh": lambda z: 2.5 * np.tanh(z / 2.5),  # dt = 0.2
    "softplus": lambda z: np.log(1 + np.exp(z)),
}


def variant_id(variant: dict[str, object]) -> str:
    return "-".join(str(value) for value in variant.values())


def images(shape: tuple[int, ...]) -> Field:
    return np.random.default_rng(1).standard_normal(shape)


def norm_weights(norm: keras.Layer) -> list[Field]:
    return [to_numpy(weight) for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)]


def naive_layers(model: keras.Model, h: Field) -> Field:
    """Return what the layers of a field or a start make of h, in their order, from their weights alone."""
    model_input = h
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            h = naive_depthwise_convolution(h, to_numpy(layer.kernel))
        elif isinstance(layer, keras.layers.Conv2D):
            h = naive_convolution(h, to_numpy(layer.kernel))
        elif isinstance(layer, keras.layers.BatchNormalization):
            h = naive_batch_norm(h, *norm_weights(layer))
        elif isinstance(layer, keras.layers.Add):
            h = h + model_input  # the shortcut of a basic block
        elif not isinstance(layer, keras.layers.InputLayer):
            h = NAIVE_ACTIVATIONS[layer.name if isinstance(layer, keras.layers.Activation) else "relu"](h)
    return h


def naive_diffusivity(layer: GlobalLayer, h: Field) -> list[Field]:
    """Return Dx and Dy, or the one map that is both."""
    match layer.spec.diffusivity:
        case None:
            return [np.zeros_like(h)]
        case PeronaMalik(contrast):
            return [naive_perona_malik(h, contrast)]
        case str():
            return [naive_layers(field, h) for field in layer.diffusivity_fields]
        case constant:
            return [np.full_like(h, constant)]


def naive_global_layer(layer: GlobalLayer, h: Field) -> Field:
    """Return the output of the layer for h, from its weights alone."""
    velocity = [naive_layers(field, h) for field in layer.velocity_fields] or [np.zeros_like(h)]
    diffusivity = naive_diffusivity(layer, h)
    start = naive_layers(layer.start_layers[0], h) if layer.spec.start == "residual" else h
    source = np.zeros_like(h) if layer.spec.source is None else h
    for field in layer.source_layers:
        source = naive_layers(field, h)
    result, _ = naive_solve(
        start,
        start,
        source,
        u=velocity[0],
        v=velocity[-1],
        diffusivity_x=diffusivity[0],
        diffusivity_y=diffusivity[-1],
        num_steps=layer.spec.num_steps,
        dt=layer.spec.dt,
    )
    return naive_relu(naive_batch_norm(result, *norm_weights(layer.norm)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_the_layer_computes_what_its_weights_mean_in_the_naive_reference(
    variant: dict[str, object], dtype: str, tolerance: float, randomize: Randomize
) -> None:
    layer = GlobalLayer(PdeSpec(num_steps=3, **variant), dtype=dtype)
    h = images((2, 5, 7, 3)).astype(dtype)
    layer.build(h.shape)
    randomize(layer)
    expected = naive_global_layer(layer, h.astype(np.float64))
    actual = to_numpy(layer(h))
    assert actual.dtype == dtype
    # Measured on TensorFlow, relative to the largest output: 3e-7 in float32, 4e-16 in float64.
    assert np.max(np.abs(actual - expected)) <= tolerance * max(1.0, np.max(np.abs(expected)))


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_the_levels_lead_from_the_start_to_the_output(variant: dict[str, object], randomize: Randomize) -> None:
    layer = GlobalLayer(PdeSpec(num_steps=3, **variant), dtype="float64")
    h = images((2, 5, 7, 3))
    layer.build(h.shape)
    randomize(layer)
    levels = layer.compute_levels(h)
    assert len(levels) == 4
    start = h if layer.spec.start == "input" else to_numpy(layer.compute_start(h))
    np.testing.assert_array_equal(to_numpy(levels[0]), start)
    output = naive_relu(naive_batch_norm(to_numpy(levels[-1]), *norm_weights(layer.norm)))
    np.testing.assert_allclose(to_numpy(layer(h)), output, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 6, 2), (1, 6, 2, 1), (3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("num_steps", [1, 5])
def test_maps_of_one_and_two_pixels_are_periodic_as_in_the_naive_reference(
    shape: tuple[int, ...], num_steps: int, randomize: Randomize
) -> None:
    layer = GlobalLayer(PdeSpec(num_steps=num_steps), dtype="float64")
    layer.build(shape)
    randomize(layer)
    np.testing.assert_allclose(to_numpy(layer(images(shape))), naive_global_layer(layer, images(shape)), atol=1e-12)


# --- the sign convention --------------------------------------------------------------------------------------------


def with_constant_velocity(u: float, v: float) -> GlobalLayer:
    """Return a layer whose velocity is (u, v) everywhere, whatever its input."""
    layer = GlobalLayer(PdeSpec(num_steps=5, diffusivity=None))
    layer.build((None, 15, 15, 1))
    for field, speed in zip(layer.velocity_fields, (u, v), strict=True):
        conv, norm, _ = field.layers
        conv.kernel.assign(np.zeros(conv.kernel.shape))
        norm.beta.assign([speed])
    return layer


def centre(h: Field) -> Field:
    """Return the mean position (x, y) of the values of a map (1, H, W, 1)."""
    rows, columns = np.indices(h.shape[1:3])
    weights = h[0, :, :, 0] / h.sum()
    return np.array([np.sum(columns * weights), np.sum(rows * weights)])


@pytest.mark.parametrize(
    ("velocity", "direction"),
    [((0.0, 0.0), (0, 0)), ((0.5, 0.0), (1, 0)), ((0.0, 0.5), (0, 1)), ((0.5, 0.5), (1, 1))],
    ids=["at-rest", "+x-to-the-right", "+y-downwards", "both"],
)
def test_a_bump_moves_along_the_velocity(velocity: tuple[float, float], direction: tuple[int, int]) -> None:
    rows, columns = np.indices((15, 15))
    bump = np.exp(-((columns - 7) ** 2 + (rows - 7) ** 2) / 6)[None, :, :, None]
    moved = centre(to_numpy(with_constant_velocity(*velocity)(bump))) - centre(bump)
    np.testing.assert_array_equal(moved > 0.1, np.array(direction) > 0)
    np.testing.assert_allclose(moved[np.array(direction) == 0], 0, atol=1e-5)


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["depthwise", "pointwise", "full", "residual", "identity"])
def test_learned_fields_differ_from_each_other_and_are_never_negative(kind: str, randomize: Randomize) -> None:
    layer = GlobalLayer(PdeSpec(velocity=kind, diffusivity=kind))
    layer.build((None, 6, 6, 4))
    randomize(layer)
    h = images((2, 6, 6, 4))
    fields = [to_numpy(field) for field in (*layer.compute_velocity(h), *layer.compute_diffusivity(h))]
    assert all(field.shape == (2, 6, 6, 4) and field.min() >= 0 and field.max() > 0 for field in fields)
    assert all(not np.array_equal(fields[i], fields[j]) for i in range(4) for j in range(i))


def test_a_preactivation_velocity_is_one_field_of_either_sign_for_both_directions(randomize: Randomize) -> None:
    layer = GlobalLayer(PdeSpec(velocity="preactivation"))
    layer.build((None, 6, 6, 4))
    randomize(layer)
    u, v = (to_numpy(field) for field in layer.compute_velocity(images((2, 6, 6, 4))))
    np.testing.assert_array_equal(u, v)
    assert u.min() < 0 < u.max()


def test_a_linear_velocity_has_either_sign(randomize: Randomize) -> None:
    layer = GlobalLayer(PdeSpec(velocity_activation="linear"))
    layer.build((None, 6, 6, 4))
    randomize(layer)
    h = images((2, 6, 6, 4))
    assert all(to_numpy(field).min() < 0 < to_numpy(field).max() for field in layer.compute_velocity(h))
    assert all(to_numpy(field).min() == 0 for field in layer.compute_diffusivity(h))


@pytest.mark.parametrize("dt", [0.2, 0.05])
def test_the_courant_numbers_of_a_tanh_velocity_are_below_a_half_however_large_the_input(
    dt: float, randomize: Randomize
) -> None:
    layer = GlobalLayer(PdeSpec(dt=dt, velocity_activation="tanh"))
    layer.build((None, 6, 6, 4))
    randomize(layer)
    u, v = (to_numpy(field) * dt for field in layer.compute_velocity(100 * images((2, 6, 6, 4))))
    assert 0.49 < max(np.abs(u).max(), np.abs(v).max()) <= 0.5
    assert u.min() < 0 < u.max()


def test_a_softplus_diffusivity_starts_small_and_is_positive_everywhere(randomize: Randomize) -> None:
    layer = GlobalLayer(PdeSpec(diffusivity_activation="softplus", norm_epsilon="channels"))
    layer.build((None, 6, 6, 4))
    fields = [to_numpy(field) for field in layer.compute_diffusivity(images((2, 6, 6, 4)))]
    assert all(0.02 < field.mean() < 0.2 for field in fields)
    randomize(layer)
    assert all(to_numpy(field).min() > 0 for field in layer.compute_diffusivity(images((2, 6, 6, 4))))


@pytest.mark.parametrize(("diffusivity", "expected"), [(0.25, (0.25, 0.25)), (0, (0, 0)), (None, None)])
def test_a_field_that_is_not_learned_has_no_weights(
    diffusivity: float | None, expected: tuple[float, float] | None
) -> None:
    layer = GlobalLayer(PdeSpec(velocity=None, diffusivity=diffusivity))
    layer.build((None, 6, 6, 4))
    assert layer.compute_velocity(images((1, 6, 6, 4))) is None
    assert layer.compute_diffusivity(images((1, 6, 6, 4))) == expected
    assert {weight.path for weight in layer.weights} == {weight.path for weight in layer.norm.weights}


@pytest.mark.parametrize(
    ("kind", "kernels"),
    [
        ("depthwise", 9 * 4),
        ("pointwise", 4 * 4),
        ("full", 9 * 4 * 4),
        ("residual", 2 * (9 * 4 * 4 + 2 * 4)),  # two normalisations of its own
        ("identity", 0),
    ],
)
def test_each_learned_field_has_the_weights_of_its_kind_and_of_its_normalisation(kind: str, kernels: int) -> None:
    def parameters(layer: GlobalLayer) -> int:
        layer.build((None, 6, 6, 4))
        return sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)

    field = kernels + 2 * 4
    assert parameters(GlobalLayer(PdeSpec(velocity=kind, diffusivity=None))) == 2 * field + 2 * 4
    assert parameters(GlobalLayer(PdeSpec(velocity=None, diffusivity=kind))) == 2 * field + 2 * 4
    assert parameters(GlobalLayer(PdeSpec(velocity=kind, diffusivity=kind))) == 4 * field + 2 * 4


def test_the_perona_malik_diffusivity_is_one_where_the_map_is_flat_and_a_half_where_the_gradient_is_the_contrast() -> (
    None
):
    layer = GlobalLayer(PdeSpec(velocity=None, diffusivity=PeronaMalik(3.0)))
    h = np.zeros((1, 5, 8, 2))
    h[0, :, :, 0] = 3.0 * np.minimum(np.arange(8), 8 - np.arange(8))  # a roof: 3 up per column, then 3 down
    layer.build(h.shape)
    diffusivity_x, diffusivity_y = layer.compute_diffusivity(h)
    assert diffusivity_x is diffusivity_y
    diffusivity = to_numpy(diffusivity_x)
    np.testing.assert_allclose(diffusivity[0, :, [1, 2, 3, 5, 6, 7], 0], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(diffusivity[0, :, [0, 4], 0], 1.0)  # its valley and its ridge
    np.testing.assert_array_equal(diffusivity[..., 1], 1.0)  # the gradient is each channel's own
    assert {weight.path for weight in layer.weights} == {weight.path for weight in layer.norm.weights}


def test_a_learned_start_changes_where_the_steps_begin_and_leaves_fields_and_source(randomize: Randomize) -> None:
    layer = GlobalLayer(PdeSpec(start="residual"))
    layer.build((None, 6, 6, 4))
    randomize(layer)
    h = images((2, 6, 6, 4)).astype(np.float32)
    block = to_numpy(layer.compute_start(h))
    np.testing.assert_array_equal(to_numpy(layer.compute_levels(h)[0]), block)
    assert block.min() == 0
    assert np.max(np.abs(block - h)) > 0.1
    np.testing.assert_array_equal(
        to_numpy(layer.compute_velocity(h)[0]), to_numpy(layer.velocity_fields[0](h, training=False))
    )


def test_training_normalises_with_the_batch_and_moves_every_statistic_that_inference_uses(
    randomize: Randomize,
) -> None:
    layer = GlobalLayer(PdeSpec())
    h = images((4, 6, 6, 2)).astype(np.float32) + 1
    layer.build(h.shape)
    randomize(layer)
    statistics = [weight for weight in layer.non_trainable_weights if weight.name.startswith("moving")]
    assert len(statistics) == 10  # a mean and a variance of u, v, Dx, Dy and the output
    before = [to_numpy(weight) for weight in statistics]
    in_inference = to_numpy(layer(h))
    for weight, old in zip(statistics, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)
    in_training = to_numpy(layer(h, training=True))
    assert np.max(np.abs(in_training - in_inference)) > 0.1
    for weight, old in zip(statistics, before, strict=True):
        assert np.all(to_numpy(weight) != old)


# --- as a Keras layer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_a_layer_made_from_its_config_is_the_same(variant: dict[str, object]) -> None:
    layer = GlobalLayer(PdeSpec(num_steps=2, dt=0.1, **variant), name="flow", dtype="float64")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.spec == layer.spec
    assert (copy.name, copy.dtype_policy.name) == ("flow", "float64")


def test_the_output_has_the_shape_of_the_input_also_where_that_is_not_known_yet() -> None:
    assert GlobalLayer(PdeSpec())(keras.Input((None, None, 3))).shape == (None, None, None, 3)
    assert GlobalLayer(PdeSpec()).compute_output_shape((None, 6, 5, 2)) == (None, 6, 5, 2)


def test_the_layer_computes_in_its_own_dtype_with_weights_of_single_precision() -> None:
    layer = GlobalLayer(PdeSpec(), dtype="mixed_float16")
    assert keras.backend.standardize_dtype(layer(images((1, 4, 4, 2))).dtype) == "float16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}
