"""Pictures of PDE layers: size, content and colours."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pdeinfer import LayerFields, PdeSpec, inspect
from pdeinfer.inspection.drawing import DIVERGING, NOT_FINITE, SEQUENTIAL, colours, draw_layer

IMAGE = np.random.default_rng(1).integers(0, 256, (8, 8, 1), dtype=np.uint8)


def layer(shape: tuple[int, int, int] = (8, 8, 8), spec: PdeSpec | None = None, **changes: object) -> LayerFields:
    rng = np.random.default_rng(2)
    spec = spec or PdeSpec(num_steps=2)
    u, v, dx, dy = rng.uniform(0, 1, (4, *shape)).astype(np.float32)
    levels = rng.standard_normal((spec.num_steps + 1, *shape)).astype(np.float32)
    return replace(LayerFields("layer1", spec, (u, v), (dx, dy), levels[0], levels), **changes)


def lightness(colour: tuple[int, int, int]) -> float:
    """CIE L*, 0 for black to 100 for white."""
    channels = np.array(colour) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(luminance) - 16


def occurs(part: np.ndarray, picture: np.ndarray) -> bool:
    """Whether the pixels of `part` (h, w, 3) are somewhere in `picture`."""
    height, width, _ = part.shape
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width), axis=(0, 1))
    candidates = np.argwhere((windows[..., 0, 0] == part[0, 0]).all(axis=-1))
    return any(np.array_equal(picture[y : y + height, x : x + width], part) for y, x in candidates)


class TestColours:
    """The two scales."""

    def test_zero_is_the_same_light_grey_on_both(self) -> None:
        assert colours(np.array([0.0]), 0, 2).tolist() == [[246, 246, 246]]
        assert colours(np.array([0.0]), -2, 2).tolist() == [[246, 246, 246]]

    def test_the_ends_are_the_last_colours(self) -> None:
        assert colours(np.array([3.0]), 0, 3).tolist() == [list(SEQUENTIAL[-1])]
        assert colours(np.array([-3.0, 3.0]), -3, 3).tolist() == [list(DIVERGING[0]), list(DIVERGING[-1])]

    @pytest.mark.parametrize("scale", [SEQUENTIAL, DIVERGING[3:], DIVERGING[3::-1]], ids=["up", "above-0", "below-0"])
    def test_lightness_falls_evenly_with_the_distance_from_zero(self, scale: tuple[tuple[int, int, int], ...]) -> None:
        steps = [lightness(first) - lightness(second) for first, second in pairwise(scale)]
        assert min(steps) > 0
        assert max(steps) < 1.5 * min(steps)

    def test_a_field_of_zeros_is_the_colour_of_zero(self) -> None:
        assert np.all(colours(np.zeros((2, 2)), 0, 0) == 246)

    @pytest.mark.parametrize("low", [0, -3])
    def test_nan_and_infinity_have_a_colour_of_their_own(self, low: int) -> None:
        values = np.array([np.nan, np.inf, -np.inf])
        assert colours(values, low, 3).tolist() == [list(NOT_FINITE)] * 3
        assert NOT_FINITE not in {tuple(colour) for colour in colours(np.linspace(low, 3, 10_000), low, 3).tolist()}


class TestPicture:
    """draw_layer."""

    def test_it_holds_every_map_of_a_bundled_model(self) -> None:
        (inspected,) = inspect(IMAGE)
        picture = np.asarray(draw_layer(inspected, IMAGE, "digits-pde"))
        u, v_y = inspected.velocity[0], inspected.velocity_gradients[1]
        for values, low in ((u, 0.0), (v_y, -np.abs(v_y).max())):
            for channel in (0, 7):
                expected = (
                    colours(values[..., channel], low, np.abs(values).max()).repeat(10, axis=0).repeat(10, axis=1)
                )
                assert occurs(expected, picture)
        assert occurs(IMAGE.repeat(20, axis=0).repeat(20, axis=1).repeat(3, axis=2), picture)

    def test_its_height_fits_its_rows(self) -> None:
        two_columns = draw_layer(layer(), IMAGE, "model")
        one_row_less = draw_layer(layer(velocity=None), IMAGE, "model")
        assert two_columns.mode == "RGB"
        # Dx Dy / u v / u_x v_y / H[0] H[1] / H[2], of 80 pixels, a line of text and a space each
        assert two_columns.size == (2 * (8 * 84 + 70) + 20 + 56, 56 + 160 + 5 * (20 + 25 + 80) + 19)
        assert one_row_less.height == two_columns.height - 2 * 125

    def test_absent_and_constant_fields_have_no_maps(self) -> None:
        ones = np.ones((8, 8, 8), np.float32)
        constant = layer(spec=PdeSpec(num_steps=2, diffusivity=1.0), diffusivity=(ones, ones))
        assert draw_layer(constant, IMAGE, "model").height == draw_layer(layer(), IMAGE, "model").height - 125

    def test_a_shared_field_is_drawn_once(self) -> None:
        (u, _), wide = layer().velocity, (32, 32, 16)
        both = layer(velocity=(u, u))
        assert draw_layer(both, IMAGE, "model").size == draw_layer(layer(), IMAGE, "model").size  # a gap beside it
        u = layer(wide).velocity[0]
        shorter = draw_layer(layer(wide, velocity=(u, u)), IMAGE, "model")
        assert draw_layer(layer(wide), IMAGE, "model").height - shorter.height == 20 + 25 + 96

    def test_with_a_learned_start_the_source_is_drawn(self) -> None:
        with_source = layer(spec=PdeSpec(num_steps=2, start="residual"))
        without = replace(with_source, source=None)
        plain = draw_layer(layer(), IMAGE, "model")
        assert draw_layer(with_source, IMAGE, "model").height == plain.height + 125
        # no row for it, but a line that says so
        assert plain.height < draw_layer(without, IMAGE, "model").height < plain.height + 125

    @pytest.mark.parametrize("channels", [16, 17, 64])
    def test_at_most_sixteen_channels_are_drawn(self, channels: int) -> None:
        picture = draw_layer(layer((8, 8, channels)), IMAGE, "model")
        assert picture.width == 16 * 84 + 70 + 56

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (28, 28, 1), (200, 300, 2), (40, 8, 64)], ids=str)
    def test_any_size_of_maps_and_channels_can_be_drawn(self, shape: tuple[int, int, int]) -> None:
        picture = draw_layer(layer(shape), np.zeros((*shape[:2], 3), np.uint8), "model")
        assert max(picture.size) < 4000
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10

    @pytest.mark.parametrize(("shape", "width"), [((12, 32, 1), 192), ((48, 64, 3), 192), ((224, 224, 3), 160)])
    def test_the_summary_is_not_cut_beside_a_low_or_reduced_image(
        self, shape: tuple[int, int, int], width: int
    ) -> None:
        zeros = np.zeros((8, 8, 8), np.float32)
        inspected = layer(velocity=(zeros, zeros.copy()))  # one more line
        height, longest = 182, 600  # of the text

        def summary(image: np.ndarray, image_width: int) -> np.ndarray:
            left = 28 + image_width + 20
            return np.asarray(draw_layer(inspected, image, "model"))[28 : 28 + height, left : left + longest]

        beside_a_square = summary(IMAGE, 8 * 23)
        assert (beside_a_square[-22:] < 128).any()  # the last line
        assert np.array_equal(summary(np.zeros(shape, np.uint8), width), beside_a_square)

    def test_the_values_beside_a_symbol_end_before_the_next_panel(self) -> None:
        rng = np.random.default_rng(2)
        field = rng.uniform(0.00123, 0.998, (8, 8, 1)).astype(np.float32)
        inspected = layer((8, 8, 1), PdeSpec(num_steps=1, start="residual"), diffusivity=(field, field), velocity=None)
        picture = np.asarray(draw_layer(inspected, IMAGE, "model"))
        top = 28 + 160 + 20  # of the row with Dx = Dy and f
        (inked,) = np.nonzero((picture[top : top + 21] < 255).any(axis=(0, 2)))
        assert np.diff(inked).max() > 20

    def test_a_dead_layer_can_be_drawn(self) -> None:
        zeros = np.zeros((8, 8, 8), np.float32)
        dead = layer(velocity=(zeros, zeros.copy()), diffusivity=(zeros, zeros.copy()), levels=np.stack([zeros] * 3))
        assert draw_layer(dead, IMAGE, "model").width == draw_layer(layer(), IMAGE, "model").width

    def test_a_layer_without_bounds_can_be_drawn_on_the_scale_of_its_finite_values(self) -> None:
        """NumPy warns when NaN becomes an integer, and warnings are errors in tests."""
        levels = layer().levels.copy()
        levels[1, 0, 0], levels[1, 0, 1], levels[2] = np.nan, np.inf, np.nan
        picture = np.asarray(draw_layer(layer(levels=levels), IMAGE, "model"))
        high = np.abs(levels[1][np.isfinite(levels[1])]).max()
        expected = colours(levels[1, ..., 0], -high, high).repeat(10, axis=0).repeat(10, axis=1)
        assert occurs(expected, picture)
