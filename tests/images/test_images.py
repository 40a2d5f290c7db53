"""The documented rule of `pdeinfer.images.convert`, pixel by pixel."""

import copy
import io
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.JpegImagePlugin import JpegImageFile

from pdeinfer.errors import ImageError, ImageTooLargeError
from pdeinfer.images.convert import ImageLike, open_image, to_array
from pdeinfer.spec.networks import Fit, InputSpec
from tests.images.image_makers import SEEDS, encode, grey, png, random_pixels, rgb

ORIENTATION = 0x0112


class TestKindsOfInput:
    """Step 1: every kind of input."""

    PIXELS = random_pixels(5, 7, 3)

    def test_every_kind_of_input_gives_the_same_pixels(self, tmp_path: Path) -> None:
        content = encode(PIL.Image.fromarray(self.PIXELS), "PNG")
        path = tmp_path / "image.png"
        path.write_bytes(content)
        image = PIL.Image.open(path)
        with image, path.open("rb") as file:
            gaps = memoryview(bytes(byte for byte in content for _ in range(2)))[::2]
            files = (file, io.BytesIO(content))
            for source in (path, str(path), content, bytearray(content), gaps, *files, image, self.PIXELS):
                assert np.array_equal(to_array(source, rgb(5, 7)), self.PIXELS)

    def test_a_file_object_is_read_from_its_start_and_left_open(self) -> None:
        file = io.BytesIO(encode(PIL.Image.fromarray(self.PIXELS), "PNG"))
        file.seek(9)
        assert np.array_equal(to_array(file, rgb(5, 7)), self.PIXELS)
        assert not file.closed

    def test_a_pillow_image_is_neither_changed_nor_closed(self) -> None:
        image = PIL.Image.fromarray(self.PIXELS)
        to_array(image, grey(3, 3))
        assert np.array_equal(np.asarray(image), self.PIXELS)

    def test_the_result_is_a_new_writable_array(self) -> None:
        pixels = self.PIXELS.copy()
        result = to_array(pixels, rgb(5, 7))
        result[:] = 0
        assert np.array_equal(pixels, self.PIXELS)

    @pytest.mark.parametrize("file_format", ["BMP", "GIF", "PNG", "PPM", "TIFF", "WEBP"])
    def test_every_lossless_format_gives_exact_pixels(self, file_format: str) -> None:
        pixels = np.repeat(random_pixels(6, 4, 1), 3, axis=2)  # grey: a GIF's palette of 256 colours holds it
        options = {"lossless": True} if file_format == "WEBP" else {}
        content = encode(PIL.Image.fromarray(pixels), file_format, **options)
        assert np.array_equal(to_array(content, rgb(6, 4)), pixels)
        assert np.array_equal(to_array(content, grey(6, 4)), pixels[..., :1])

    def test_a_jpeg_gives_what_its_decoder_gives(self) -> None:
        content = encode(PIL.Image.fromarray(random_pixels(16, 16, 3)), "JPEG", quality=90)
        assert np.array_equal(to_array(content, rgb(16, 16)), np.asarray(PIL.Image.open(io.BytesIO(content))))

    def test_a_phone_jpeg_with_two_pictures_gives_the_first(self) -> None:
        first, second = (PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
        content = encode(first, "MPO", save_all=True, append_images=[second], quality=100)
        assert np.abs(to_array(content, rgb(8, 8)).astype(int) - [255, 0, 0]).max() <= 2

    @pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
    def test_an_animation_gives_its_first_frame(self, file_format: str) -> None:
        frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
        options = {"lossless": True} if file_format == "WEBP" else {}
        content = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(to_array(content, rgb(4, 4)), np.full((4, 4, 3), [255, 0, 0]))

    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
    def test_a_grey_array_is_grey_in_every_channel(self, shape: tuple[int, ...]) -> None:
        pixels = random_pixels(*shape)
        assert np.array_equal(to_array(pixels, grey(5, 7)), pixels.reshape(5, 7, 1))
        assert np.array_equal(to_array(pixels, rgb(5, 7)), np.repeat(pixels.reshape(5, 7, 1), 3, axis=2))

    def test_an_array_that_is_not_contiguous_is_read_in_its_own_order(self) -> None:
        pixels = random_pixels(10, 14, 3)[::2, ::-2]
        assert np.array_equal(to_array(pixels, rgb(5, 7)), pixels)


TURNED = random_pixels(4, 6)
UPRIGHT = {
    1: TURNED,
    2: TURNED[:, ::-1],
    3: TURNED[::-1, ::-1],
    4: TURNED[::-1],
    5: TURNED.T,
    6: np.rot90(TURNED, -1),
    7: TURNED[::-1, ::-1].T,
    8: np.rot90(TURNED),
}


class TestOrientation:
    """Step 2: EXIF."""

    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
    def test_the_image_is_turned_upright_once(self, file_format: str, orientation: int) -> None:
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = orientation
        options = {"lossless": True} if file_format == "WEBP" else {}
        content = encode(PIL.Image.fromarray(TURNED), file_format, exif=exif, **options)
        expected = UPRIGHT[orientation]
        assert np.array_equal(to_array(content, grey(*expected.shape))[..., 0], expected)

    def test_a_16_bit_png_is_turned_upright(self) -> None:
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = 6
        content = encode(PIL.Image.fromarray(TURNED.astype(np.uint16) * 257), "PNG", exif=exif)
        assert np.array_equal(to_array(content, grey(6, 4))[..., 0], UPRIGHT[6])

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
    @pytest.mark.parametrize("exif", [b"Exif\0\0damaged", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 40])
    def test_damaged_exif_leaves_the_image_as_it_is(self, exif: bytes) -> None:
        content = encode(PIL.Image.fromarray(TURNED), "PNG", exif=exif)
        assert np.array_equal(to_array(content, grey(4, 6))[..., 0], TURNED)


class TestDepth:
    """Step 3: more or fewer than 8 bits."""

    VALUES = np.array([[0, 128, 129, 257, 385, 386], [1000, 32767, 32768, 65406, 65407, 65535]], np.uint16)
    ROUNDED = np.array([[0, 0, 1, 1, 1, 2], [4, 127, 128, 254, 255, 255]], np.uint8)  # value / 257

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
    def test_16_bit_grey_is_scaled_and_rounded(self, file_format: str) -> None:
        content = encode(PIL.Image.fromarray(self.VALUES), file_format)
        assert np.array_equal(to_array(content, grey(2, 6))[..., 0], self.ROUNDED)

    def test_a_big_endian_16_bit_image_is_scaled_and_rounded(self) -> None:
        image = PIL.Image.frombytes("I;16B", (6, 2), self.VALUES.astype(">u2").tobytes())
        assert np.array_equal(to_array(image, grey(2, 6))[..., 0], self.ROUNDED)

    def test_the_transparent_value_of_a_16_bit_png_is_white(self) -> None:
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in self.VALUES)
        content = png(6, 2, 16, 0, rows, (b"tRNS", struct.pack(">H", 1000)))
        expected = self.ROUNDED.copy()
        expected[1, 0] = 255
        assert np.array_equal(to_array(content, grey(2, 6))[..., 0], expected)

    def test_a_pgm_with_an_odd_maximum_is_scaled_to_8_bits(self) -> None:
        content = b"P5 3 1 1000\n" + struct.pack(">3H", 0, 500, 1000)
        assert to_array(content, grey(1, 3)).ravel().tolist() == [0, 128, 255]

    def test_16_bit_colour_is_read_as_its_high_bytes(self) -> None:
        rows = b"\0" + struct.pack(">6H", 0, 255, 256, 32767, 65279, 65535)
        assert to_array(png(2, 1, 16, 2, rows), rgb(1, 2)).tolist() == [[[0, 0, 1], [127, 254, 255]]]

    @pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
    def test_one_bit_is_black_and_white(self, file_format: str) -> None:
        pixels = random_pixels(5, 9) > 127
        content = encode(PIL.Image.fromarray(pixels), file_format)
        assert np.array_equal(to_array(content, grey(5, 9))[..., 0], pixels * 255)

    def test_4_bit_grey_is_scaled_to_8(self) -> None:
        assert to_array(png(2, 1, 4, 0, b"\0\x3f"), grey(1, 2)).ravel().tolist() == [3 * 17, 255]

    @pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "integers"), (np.float32, "floats")])
    def test_32_bit_images_are_refused_by_name(self, dtype: type, kind: str) -> None:
        image = PIL.Image.fromarray(np.zeros((4, 4), dtype))
        for source in (image, encode(image, "TIFF")):
            with pytest.raises(ImageError, match=f"^x: expected 8 or 16 bits per channel, got 32-bit {kind}$"):
                to_array(source, grey(4, 4), "x")

    def test_a_pfm_file_is_refused_as_floats(self) -> None:
        with pytest.raises(ImageError, match="got 32-bit floats"):
            to_array(b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5), grey(1, 1))


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[..., None] / 255
    return np.rint(colour * opacity + 255 * (1 - opacity))


class TestTransparency:
    """Step 4: composited on white."""

    def test_rgba_is_composited_on_white(self) -> None:
        pixels = random_pixels(32, 32, 4)
        expected = on_white(pixels[..., :3].astype(float), pixels[..., 3])
        for source in (pixels, PIL.Image.fromarray(pixels), encode(PIL.Image.fromarray(pixels), "PNG")):
            assert np.abs(to_array(source, rgb(32, 32)) - expected).max() <= 1  # Pillow's integer arithmetic

    def test_opaque_and_transparent_pixels_are_exact(self) -> None:
        pixels = random_pixels(8, 8, 4)
        pixels[..., 3] = np.where(pixels[..., 3] > 127, 255, 0)
        expected = np.where(pixels[..., 3:] == 255, pixels[..., :3], 255)
        assert np.array_equal(to_array(pixels, rgb(8, 8)), expected)

    def test_grey_with_alpha_is_composited_on_white(self) -> None:
        image = PIL.Image.frombytes("LA", (3, 1), bytes([0, 0, 40, 255, 100, 51]))
        assert to_array(image, grey(1, 3)).ravel().tolist() == [255, 40, 224]

    def test_premultiplied_alpha_is_composited_on_white(self) -> None:
        image = PIL.Image.frombytes("RGBA", (2, 1), bytes([200, 100, 0, 255, 9, 9, 9, 0])).convert("RGBa")
        assert to_array(image, rgb(1, 2)).tolist() == [[[200, 100, 0], [255, 255, 255]]]

    @pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
    def test_the_transparent_colour_of_a_palette_is_white(self, transparency: int | bytes) -> None:
        image = PIL.Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        content = encode(image, "PNG", transparency=transparency)
        assert to_array(content, rgb(1, 3)).tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]

    @pytest.mark.parametrize(
        ("image", "transparency", "expected"),
        [
            (PIL.Image.frombytes("L", (2, 1), bytes([7, 8])), 7, [255, 8]),
            (PIL.Image.fromarray(np.array([[True, False]])), 0, [255, 255]),
        ],
    )
    def test_the_transparent_value_of_a_grey_png_is_white(
        self, image: PIL.Image.Image, transparency: int, expected: list[int]
    ) -> None:
        assert to_array(encode(image, "PNG", transparency=transparency), grey(1, 2)).ravel().tolist() == expected

    @pytest.mark.parametrize(("depth", "row"), [(1, 0b01000000), (2, 0b00011011), (4, 0x3F)])
    def test_the_transparent_value_of_a_png_of_few_bits_is_in_its_own_range(self, depth: int, row: int) -> None:
        levels = [row >> (8 - depth * (place + 1)) & (2**depth - 1) for place in range(2)]
        for transparent in range(2**depth):
            content = png(2, 1, depth, 0, bytes([0, row]), (b"tRNS", struct.pack(">H", transparent)))
            expected = [255 if level == transparent else round(level * 255 / (2**depth - 1)) for level in levels]
            assert to_array(content, grey(1, 2)).ravel().tolist() == expected
            with PIL.Image.open(io.BytesIO(content)) as picture:
                for _ in range(2):
                    assert to_array(picture, grey(1, 2)).ravel().tolist() == expected

    def test_a_transparent_colour_of_16_bits_is_refused(self) -> None:
        rows = b"\0" + struct.pack(">6H", 0, 255, 256, 32767, 65279, 65535)
        with pytest.raises(ImageError, match="expected 8 bits per channel beside a transparent colour"):
            to_array(png(2, 1, 16, 2, rows, (b"tRNS", bytes(6))), rgb(1, 2))

    def test_the_transparent_colour_of_an_rgb_png_is_white(self) -> None:
        image = PIL.Image.frombytes("RGB", (2, 1), bytes([1, 2, 3, 4, 5, 6]))
        content = encode(image, "PNG", transparency=(1, 2, 3))
        assert to_array(content, rgb(1, 2)).tolist() == [[[255, 255, 255], [4, 5, 6]]]

    def test_a_transparent_gif_is_composited_on_white(self) -> None:
        image = PIL.Image.frombytes("P", (2, 1), bytes([0, 1]))
        image.putpalette([10, 20, 30, 40, 50, 60])
        content = encode(image, "GIF", transparency=0)
        assert to_array(content, rgb(1, 2)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


class TestColour:
    """Step 5: to RGB, and to grey."""

    def test_rgb_becomes_grey_by_the_weights_of_bt_601(self) -> None:
        pixels = random_pixels(16, 16, 3)
        expected = pixels @ np.array([0.299, 0.587, 0.114])
        assert np.abs(to_array(pixels, grey(16, 16))[..., 0] - expected).max() <= 0.51

    def test_grey_rgb_keeps_its_value(self) -> None:
        pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
        assert np.array_equal(to_array(pixels, grey(16, 16)), pixels[..., :1])

    def test_a_palette_is_expanded(self) -> None:
        image = PIL.Image.frombytes("P", (2, 2), bytes([1, 0, 0, 1]))
        image.putpalette([10, 20, 30, 200, 100, 50])
        expected = [[[200, 100, 50], [10, 20, 30]], [[10, 20, 30], [200, 100, 50]]]
        for source in (image, encode(image, "PNG"), encode(image, "GIF"), encode(image, "BMP")):
            assert to_array(source, rgb(2, 2)).tolist() == expected

    def test_cmyk_becomes_rgb(self) -> None:
        cmyk = [(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0)]
        image = PIL.Image.new("CMYK", (5, 1))
        image.putdata(cmyk)
        expected = [[255, 255, 255], [0, 0, 0], [0, 255, 255], [255, 0, 255], [255, 255, 0]]
        for source in (image, encode(image, "TIFF")):
            assert to_array(source, rgb(1, 5)).tolist() == [expected]
        jpeg = to_array(encode(PIL.Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100), rgb(16, 16))
        assert np.abs(jpeg.astype(int) - [0, 255, 255]).max() <= 3

    @pytest.mark.parametrize(
        ("mode", "pixel", "expected"),
        [
            ("YCbCr", (76, 85, 255), (254, 0, 0)),
            ("HSV", (0, 255, 255), (255, 0, 0)),
            ("HSV", (170, 255, 255), (0, 0, 255)),
            ("LAB", (255, 128, 128), (255, 255, 255)),
            ("LAB", (0, 128, 128), (0, 0, 0)),
            ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ],
    )
    def test_other_colour_spaces_become_rgb_and_grey(
        self, mode: str, pixel: tuple[int, ...], expected: tuple[int, int, int]
    ) -> None:
        image = PIL.Image.new(mode, (1, 1), pixel)
        result = to_array(image, rgb(1, 1)).ravel().astype(int)
        assert np.abs(result - expected).max() <= 1
        luminance = np.array([0.299, 0.587, 0.114]) @ result
        assert to_array(image, grey(1, 1)).item() == pytest.approx(luminance, abs=0.51)

    @pytest.mark.parametrize("mode", [mode for mode in PIL.Image.MODES if mode not in ("I", "F")])
    @pytest.mark.parametrize("spec", [grey(4, 4), rgb(4, 4), grey(2, 3), rgb(2, 3)])
    def test_every_mode_of_pillow_is_converted(self, mode: str, spec: InputSpec) -> None:
        result = to_array(PIL.Image.new(mode, (4, 4)), spec)
        assert (result.shape, result.dtype) == ((spec.height, spec.width, spec.channels), np.uint8)

    @pytest.mark.parametrize(
        ("mode", "transparency"),
        [
            *((mode, value) for mode in ("1", "L", "I;16", "CMYK", "LA") for value in ((1, 2, 3), b"\0\xff", None)),
            *((mode, value) for mode in ("1", "L", "I;16", "CMYK", "LA", "P") for value in (2**31, 2**40, -(2**40))),
            *(("P", value) for value in ((1, 2, 3), 300, -1, bytes(300), None)),
            *(("RGB", value) for value in (b"\0\xff", (1, 2), (1.5, 2.5, 3.5), (2**31, 2, 3), (1, 2, -(2**40)), None)),
        ],
    )
    def test_a_transparency_that_was_left_over_from_another_mode_is_ignored(
        self, mode: str, transparency: object
    ) -> None:
        picture = PIL.Image.fromarray(random_pixels(4, 4)).convert(mode)
        expected = to_array(picture, rgb(4, 4))
        picture.info["transparency"] = transparency
        assert np.array_equal(to_array(picture, rgb(4, 4)), expected)
        assert picture.info == {"transparency": transparency}

    def test_parts_and_palettes_of_a_picture_with_a_transparent_colour_are_converted(self) -> None:
        pixels = random_pixels(4, 4, 3)
        picture = PIL.Image.fromarray(pixels)
        picture.info["transparency"] = tuple(pixels[0, 0].tolist())
        assert np.array_equal(to_array(picture.split()[1], grey(4, 4))[..., 0], pixels[..., 1])
        assert to_array(picture.quantize(4), rgb(4, 4)).shape == (4, 4, 3)


class TestFit:
    """Step 6: the size."""

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    def test_an_image_of_the_right_size_keeps_its_pixels(self, fit: Fit) -> None:
        pixels = random_pixels(9, 5, 3)
        assert np.array_equal(to_array(pixels, rgb(9, 5, fit)), pixels)

    @pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
    def test_crop_keeps_the_middle(self, shape: tuple[int, int]) -> None:
        pixels = random_pixels(*shape)
        middle = pixels[:, 8:16] if shape == (8, 24) else pixels[8:16]
        assert np.array_equal(to_array(pixels, grey(8, 8))[..., 0], middle)

    @pytest.mark.parametrize("shape", [(3, 8), (8, 3)])
    def test_pad_puts_black_on_both_sides(self, shape: tuple[int, int]) -> None:
        pixels = random_pixels(*shape)
        expected = np.zeros((8, 8), np.uint8)
        expected[2:5] = pixels if shape == (3, 8) else 0
        if shape == (8, 3):
            expected[:, 2:5] = pixels
        assert np.array_equal(to_array(pixels, grey(8, 8, "pad"))[..., 0], expected)

    def test_stretch_ignores_the_aspect_ratio(self) -> None:
        pixels = np.repeat(random_pixels(8, 1), 16, axis=1)
        assert np.array_equal(to_array(pixels, grey(8, 4, "stretch"))[..., 0], pixels[:, :4])

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    def test_reducing_averages_all_the_pixels(self, fit: Fit) -> None:
        stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))  # a pixel wide: without antialiasing 0 or 255
        result = to_array(stripes, grey(8, 8, fit)).astype(int)
        assert np.abs(result - 127.5).max() <= 8

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    def test_an_image_of_one_colour_keeps_it(self, fit: Fit) -> None:
        result = to_array(np.full((37, 37, 3), 77, np.uint8), rgb(8, 8, fit))
        assert np.array_equal(result, np.full((8, 8, 3), 77))

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (1, 3), (3, 1)])
    def test_extreme_shapes_fit(self, shape: tuple[int, int], fit: Fit) -> None:
        assert to_array(np.full(shape, 255, np.uint8), rgb(8, 8, fit)).shape == (8, 8, 3)

    @given(
        height=st.integers(1, 70), width=st.integers(1, 70), target=st.tuples(st.integers(1, 40), st.integers(1, 40))
    )
    @settings(deadline=None)
    def test_any_size_fits_any_size_and_only_pad_adds_black(
        self, height: int, width: int, target: tuple[int, int]
    ) -> None:
        white = np.full((height, width), 255, np.uint8)
        assert to_array(white, grey(*target, "crop")).min() == 255
        assert to_array(white, grey(*target, "stretch")).min() == 255
        padded = to_array(white, grey(*target, "pad"))[..., 0]
        assert set(np.unique(padded)) <= {0, 255}
        assert padded.max() == 255


class TestReducedJpeg:
    """A JPEG that is much larger than the network's input is decoded at a fraction of its size."""

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    @pytest.mark.parametrize("orientation", [1, 6])
    def test_it_gives_nearly_the_same_pixels_as_in_full(self, fit: Fit, orientation: int) -> None:
        photo = PIL.Image.fromarray(random_pixels(12, 16, 3)).resize((800, 600), PIL.Image.Resampling.BICUBIC)
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = orientation
        content = encode(photo, "JPEG", quality=95, exif=exif)
        with PIL.Image.open(io.BytesIO(content)) as whole:  # a Pillow image is taken at its own size
            expected = to_array(whole, rgb(32, 32, fit))
            assert whole.size == (800, 600)
        difference = to_array(content, rgb(32, 32, fit)).astype(int) - expected
        assert np.abs(difference).max() <= 3  # 1 with Pillow 13

    @pytest.mark.parametrize(
        ("size", "decoded"),
        [
            ((1024, 2048), (128, 256)),
            ((1024, 1028), (256, 257)),
            ((256, 256), (128, 128)),
            ((254, 256), (254, 256)),
            ((4095, 4095), (4095, 4095)),
        ],
    )
    def test_it_keeps_four_times_the_input_and_whole_pixels(
        self, size: tuple[int, int], decoded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []
        load = JpegImageFile.load
        monkeypatch.setattr(JpegImageFile, "load", lambda image: (load(image), sizes.append(image.size))[0])

        to_array(encode(PIL.Image.new("L", size), "JPEG"), grey(32, 32))

        assert sizes[0] == decoded


class TestLimit:
    """What the limit counts: the pixels that decoding holds in memory."""

    PHOTO = PIL.Image.new("RGB", (1024, 2048))

    @pytest.mark.parametrize(
        ("image", "pixels"),
        [
            (encode(PHOTO, "JPEG"), 128 * 256),
            (encode(PHOTO, "JPEG", progressive=True), 1024 * 2048),  # holds every coefficient until the last scan
            (encode(PHOTO, "PNG"), 1024 * 2048),
            (PHOTO, 1024 * 2048),
            (np.zeros((5, 7), np.uint8), 35),
        ],
    )
    def test_it_counts_what_the_decoder_holds(self, image: ImageLike, pixels: int) -> None:
        assert to_array(image, grey(32, 32), max_pixels=pixels).shape == (32, 32, 1)
        with pytest.raises(ImageTooLargeError) as caught:
            to_array(image, grey(32, 32), max_pixels=pixels - 1)
        assert caught.value.pixels == pixels

    def test_a_48_megapixel_phone_photo_is_decoded(self) -> None:
        photo = encode(PIL.Image.new("L", (8064, 6048), 77), "JPEG")
        assert np.abs(to_array(photo, grey(32, 32)).astype(int) - 77).max() <= 1

    def test_only_the_head_is_read_to_open_an_image(self) -> None:
        content = encode(self.PHOTO, "PNG")
        with open_image(content[: len(content) // 2], grey(32, 32)) as opened:
            assert opened.picture.size == (1024, 2048)
            with pytest.raises(ImageError):
                opened.to_array()


def test_many_threads_get_the_same_pixels_as_one() -> None:
    expected = [to_array(content, rgb(8, 8)) for content in SEEDS]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda content: to_array(content, rgb(8, 8)), SEEDS * 20))
    assert all(np.array_equal(result, expected[i % len(SEEDS)]) for i, result in enumerate(results))


class TestSharedPillowImage:
    """Threads may share a Pillow image that is not decoded yet."""

    @pytest.mark.parametrize("method", ["load", "getexif"])
    def test_one_thread_at_a_time_decodes_it_and_reads_its_exif(
        self, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        picture = PIL.Image.open(io.BytesIO(encode(PIL.Image.fromarray(random_pixels(8, 8, 3)), "PNG")))
        original, inside, at_a_time = getattr(picture, method), [], []

        def slow() -> object:
            inside.append(threading.get_ident())
            time.sleep(0.01)
            at_a_time.append(len(set(inside)))
            inside.remove(threading.get_ident())
            return original()

        monkeypatch.setattr(picture, method, slow)
        start = threading.Barrier(4)

        def decode(_: int) -> bytes:
            start.wait()
            return to_array(picture, rgb(8, 8)).tobytes()

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(decode, range(4)))) == 1
        assert set(at_a_time) == {1}

    def test_threads_decode_different_images_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        content = encode(PIL.Image.fromarray(random_pixels(8, 8, 3)), "PNG")
        pictures = [PIL.Image.open(io.BytesIO(content)) for _ in range(2)]
        together = threading.Barrier(2, timeout=10)

        def load(picture: PIL.Image.Image, original: Callable[[], object]) -> object:
            monkeypatch.setattr(picture, "load", original)
            together.wait()
            return original()

        for picture in pictures:
            monkeypatch.setattr(picture, "load", partial(load, picture, picture.load))
        with ThreadPoolExecutor(2) as pool:
            arrays = list(pool.map(lambda picture: to_array(picture, rgb(8, 8)), pictures))
        assert np.array_equal(*arrays)

    def test_it_can_be_copied_afterwards(self) -> None:
        picture = PIL.Image.open(io.BytesIO(encode(PIL.Image.fromarray(random_pixels(8, 8, 3)), "PNG")))
        expected = to_array(picture, rgb(8, 8))
        for other in (copy.copy(picture), copy.deepcopy(picture), picture.copy()):
            assert np.array_equal(to_array(other, rgb(8, 8)), expected)
