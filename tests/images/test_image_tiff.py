"""TIFF files in many layouts: decoded to the right pixels, or refused by name."""

import io
import pickle
import struct
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest

from pdeinfer.errors import ImageError
from pdeinfer.images.convert import to_array
from tests.images.image_makers import TiffLayout, encode, grey, random_pixels, rgb, tiff

HEIGHT, WIDTH = 5, 7
LAYOUTS = [
    TiffLayout(order=order, compression=compression, is_big=is_big, **blocks)
    for order, is_big in (("<", False), (">", False), ("<", True))
    for compression in (1, 8)
    for blocks in ({}, {"rows_per_strip": 2}, {"tile": (16, 16)})
]


def random_samples(bits: int, count: int) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, count))


def decode_grey(samples: np.ndarray, layout: TiffLayout) -> np.ndarray:
    return to_array(tiff(samples, layout), grey(HEIGHT, WIDTH)).astype(float)


class TestGrey:
    """Grey of every depth, with black or white as zero."""

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
    @pytest.mark.parametrize("photometric", [0, 1])
    def test_every_layout_gives_the_scaled_values(self, bits: int, photometric: int) -> None:
        samples = random_samples(bits, 1)
        expected = samples * (255 / (2**bits - 1))
        if photometric == 0:
            expected = 255 - expected
        decoded = 0
        for base in LAYOUTS:
            layout = replace(base, bits=bits, photometric=photometric)
            if bits == 12 and (photometric == 0 or layout.order == ">"):
                continue
            if bits == 16 and photometric == 0 and layout.order == ">":
                continue
            assert np.abs(decode_grey(samples, layout) - expected).max() <= 0.51, layout
            decoded += 1
        assert decoded > 0 or (bits, photometric) == (12, 0)

    @pytest.mark.parametrize(
        "layout",
        [
            TiffLayout(bits=12, photometric=0),
            TiffLayout(bits=12, order=">"),
            TiffLayout(bits=16, photometric=0, order=">"),
            TiffLayout(bits=16, fill_order=2),
            TiffLayout(bits=8, sample_format=2),
            TiffLayout(bits=16, sample_format=2),
            TiffLayout(bits=16, sample_format=3),
        ],
    )
    def test_layouts_that_pillow_does_not_decode_exactly_are_refused(self, layout: TiffLayout) -> None:
        with pytest.raises(ImageError, match="TIFF"):
            decode_grey(random_samples(layout.bits, 1), layout)

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_reversed_bits_are_decoded(self, bits: int) -> None:
        samples = random_samples(bits, 1)
        expected = samples * (255 / (2**bits - 1))
        assert np.abs(decode_grey(samples, TiffLayout(bits=bits, fill_order=2)) - expected).max() <= 0.51

    def test_a_pillow_image_opened_from_16_bit_white_is_zero_is_not_inverted(self) -> None:
        samples = random_samples(16, 1)
        with PIL.Image.open(io.BytesIO(tiff(samples, TiffLayout(bits=16, photometric=0)))) as picture:
            decoded = to_array(picture, grey(HEIGHT, WIDTH))
        assert np.abs(decoded - (255 - samples / 257)).max() <= 0.51


class TestColour:
    """Colours, planes and transparency."""

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("planar", [1, 2])
    def test_rgb_is_exact_in_every_layout(self, layout: TiffLayout, planar: int) -> None:
        samples = random_samples(8, 3)
        content = tiff(samples, replace(layout, photometric=2, planar=planar))
        assert np.array_equal(to_array(content, rgb(HEIGHT, WIDTH)), samples)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_16_bit_rgb_becomes_its_high_bytes(self, layout: TiffLayout) -> None:
        samples = random_samples(16, 3)
        content = tiff(samples, replace(layout, photometric=2, bits=16))
        assert np.array_equal(to_array(content, rgb(HEIGHT, WIDTH)), samples >> 8)

    @pytest.mark.parametrize("compression", [1, 8])
    def test_an_unspecified_extra_sample_is_ignored(self, compression: int) -> None:
        samples = random_samples(8, 4)
        content = tiff(samples, TiffLayout(8, 2, compression=compression, extra_samples=(0,)))
        assert np.array_equal(to_array(content, rgb(HEIGHT, WIDTH)), samples[..., :3])

    def test_alpha_is_composited_on_white(self) -> None:
        samples = random_samples(8, 4)
        alpha = samples[..., 3:] / 255
        expected = samples[..., :3] * alpha + 255 * (1 - alpha)
        content = tiff(samples, TiffLayout(photometric=2, extra_samples=(2,)))
        assert np.abs(to_array(content, rgb(HEIGHT, WIDTH)) - expected).max() <= 1

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    @pytest.mark.parametrize("scale", [257, 1])
    def test_a_palette_of_16_or_8_bits_is_expanded(self, bits: int, scale: int) -> None:
        samples = random_samples(bits, 1)
        colours = random_pixels(2**bits, 3, seed=1)
        colours[0] = 255
        colour_map = tuple(int(value) * scale for value in colours.T.ravel())
        content = tiff(samples, TiffLayout(bits=bits, photometric=3, colour_map=colour_map))
        assert np.array_equal(to_array(content, rgb(HEIGHT, WIDTH)), colours[samples[..., 0]])

    @pytest.mark.parametrize(
        ("count", "layout"),
        [
            (3, TiffLayout(bits=16, photometric=2, planar=2)),
            (4, TiffLayout(photometric=2, planar=2, extra_samples=(1,))),
            (2, TiffLayout(photometric=1, planar=2, extra_samples=(2,))),
            (3, TiffLayout(photometric=2, planar=2, fill_order=2)),
            (4, TiffLayout(photometric=5, more_tags=((332, (2,)),))),
            (3, TiffLayout(photometric=6)),
            (3, TiffLayout(photometric=6, more_tags=((530, (2, 1)),))),
            (3, TiffLayout(photometric=8, planar=2)),
        ],
        ids=["16-bit", "premultiplied", "grey-alpha", "reversed", "inks", "ycbcr", "ycbcr-2x1", "lab"],
    )
    def test_layouts_that_pillow_would_decode_to_other_pixels_are_refused(self, count: int, layout: TiffLayout) -> None:
        with pytest.raises(ImageError, match=r"^bytes: expected a TIFF layout that decodes exactly, got"):
            to_array(tiff(random_samples(layout.bits, count), layout), rgb(HEIGHT, WIDTH))

    @pytest.mark.parametrize(
        ("count", "layout"),
        [
            (1, TiffLayout(sample_format=2)),
            (3, TiffLayout(bits=16, photometric=2, planar=2)),
            (3, TiffLayout(photometric=6)),
        ],
        ids=["signed", "planes", "ycbcr"],
    )
    def test_a_pillow_image_that_is_opened_from_such_a_file_is_refused(self, count: int, layout: TiffLayout) -> None:
        content = tiff(random_samples(layout.bits, count), layout)
        for is_loaded in (False, True):
            with PIL.Image.open(io.BytesIO(content)) as picture:
                if is_loaded:
                    picture.load()
                with pytest.raises(ImageError, match=r"^Pillow image: expected a TIFF layout that decodes exactly"):
                    to_array(picture, rgb(HEIGHT, WIDTH))

    def test_a_raw_camera_file_is_not_taken_for_its_thumbnail(self) -> None:
        for tags in (((254, (1,)), (330, (8,))), ((50706, (1, 4, 0, 0)),)):
            content = tiff(random_samples(8, 3), TiffLayout(photometric=2, more_tags=tags))
            with pytest.raises(ImageError, match=r"got a raw camera file: develop it to JPEG or PNG$"):
                to_array(content, rgb(HEIGHT, WIDTH))


class TestMissingPixels:
    """Strips and tiles that the file lacks are not shown black, or as other bytes of the file."""

    @pytest.mark.parametrize("is_tiled", [False, True])
    @pytest.mark.parametrize("compression", [1, 8])
    @pytest.mark.parametrize("planar", [1, 2])
    @pytest.mark.parametrize("tag", ["offsets", "both", "overlap", "rows"])
    def test_they_are_refused(self, is_tiled: bool, compression: int, planar: int, tag: str) -> None:
        samples = random_pixels(40, 16, 3)
        blocks = {"tile": (16, 16)} if is_tiled else {"rows_per_strip": 16}
        content = tiff(samples, TiffLayout(photometric=2, planar=planar, compression=compression, **blocks))
        assert np.array_equal(to_array(content, rgb(40, 16)), samples)
        offsets, counts = (324, 325) if is_tiled else (273, 279)
        if tag == "rows":
            content = change_tag(content, 257, lambda _: 1000)
        if tag in ("offsets", "both"):
            content = change_tag(content, offsets, lambda _: 0, index=1)
        if tag == "both":
            content = change_tag(content, counts, lambda _: 0, index=1)
        if tag == "overlap":
            content = change_tag(content, offsets, lambda value: value - 10, index=1)
        with pytest.raises(ImageError, match="TIFF"):
            to_array(content, rgb(40, 16))

    @pytest.mark.parametrize("rows_per_strip", [None, 2])
    def test_strips_that_are_nowhere_are_not_taken_from_the_start_of_the_file(self, rows_per_strip: int | None) -> None:
        content = tiff(random_samples(8, 1), TiffLayout(rows_per_strip=rows_per_strip))
        for index in range(-(-HEIGHT // (rows_per_strip or HEIGHT))):
            content = change_tag(content, 273, lambda _: 0, index=index)
        with pytest.raises(ImageError, match="TIFF"):
            to_array(content, grey(HEIGHT, WIDTH))

    @pytest.mark.parametrize("change", [lambda _: 0, lambda value: value // 2, lambda value: value * 2])
    @pytest.mark.parametrize("rows_per_strip", [None, 2])
    def test_wrong_counts_of_bytes_do_not_matter(
        self, change: Callable[[int], int], rows_per_strip: int | None
    ) -> None:
        samples = random_samples(8, 1)
        content = change_tag(tiff(samples, TiffLayout(rows_per_strip=rows_per_strip)), 279, change)
        assert np.array_equal(to_array(content, grey(HEIGHT, WIDTH)), samples)

    def test_the_switch_for_truncated_images_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        content = change_tag(tiff(random_samples(8, 1), TiffLayout(rows_per_strip=2)), 273, lambda _: 0, index=1)
        monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert to_array(content, grey(HEIGHT, WIDTH)).shape == (HEIGHT, WIDTH, 1)


def test_a_pickled_copy_is_converted() -> None:
    """It has lost its tags."""
    samples = random_samples(8, 1)
    with PIL.Image.open(io.BytesIO(tiff(samples, TiffLayout()))) as image:
        copy = pickle.loads(pickle.dumps(image))  # noqa: S301
    assert np.array_equal(to_array(copy, grey(HEIGHT, WIDTH)), samples)


def change_tag(content: bytes, number: int, change: Callable[[int], int], index: int = 0) -> bytes:
    """Return a little-endian TIFF with another value of a tag of 32-bit integers."""
    changed = bytearray(content)
    (directory,) = struct.unpack_from("<L", content, 4)
    for entry in range(directory + 2, len(content), 12):
        tag, kind, count, value = struct.unpack_from("<HHLL", content, entry)
        if tag == number:
            assert kind == 4
            place = entry + 8 if count == 1 else value + 4 * index
            struct.pack_into("<L", changed, place, change(*struct.unpack_from("<L", content, place)))
            return bytes(changed)
    raise AssertionError(f"no tag {number}")


class TestLargeFiles:
    """The guards refuse no valid file."""

    def test_a_big_endian_bigtiff_is_refused_by_name(self) -> None:
        with pytest.raises(ImageError, match="got a big-endian BigTIFF"):
            to_array(tiff(random_samples(8, 1), TiffLayout(order=">", is_big=True)), grey(HEIGHT, WIDTH))

    @pytest.mark.parametrize("is_big", [False, True])
    def test_a_private_tag_may_have_any_number_of_values(self, is_big: bool) -> None:
        samples = random_samples(8, 1)
        layout = TiffLayout(is_big=is_big, more_tags=((50_000, (7,) * 300_000),))
        assert np.array_equal(decode_grey(samples, layout), samples[..., :1])

    def test_an_image_of_very_many_strips_is_decoded(self) -> None:
        samples = np.random.default_rng(0).integers(0, 256, (34_000, 2, 3))
        content = tiff(samples, TiffLayout(photometric=2, planar=2, rows_per_strip=1))
        assert np.array_equal(to_array(content, rgb(34_000, 2)), samples)

    def test_exif_with_very_many_values_is_refused(self) -> None:
        samples = random_samples(8, 1)
        plain = tiff(samples, TiffLayout(more_tags=((34_665, (0,)),)))
        exif = struct.pack("<HHHLLL", 1, 33_434, 3, 200_001, len(plain) + 18, 0) + bytes(400_002)
        pointer = plain.index(struct.pack("<HHL", 34_665, 3, 1))
        content = plain[:pointer] + struct.pack("<HHLL", 34_665, 4, 1, len(plain)) + plain[pointer + 12 :] + exif
        with pytest.raises(ImageError, match="expected at most 200000 values of a tag in a TIFF, got 200001"):
            to_array(content, grey(HEIGHT, WIDTH))

    def test_very_many_pointers_to_many_tags_are_refused_soon(self) -> None:
        entries = b"".join(struct.pack("<HHLL", 34_665, 4, 1, 8) for _ in range(65_535))
        started = time.process_time()
        with pytest.raises(ImageError, match="TIFF"):
            to_array(b"II*\0" + struct.pack("<LH", 8, 65_535) + entries, grey(HEIGHT, WIDTH))
        assert time.process_time() - started < 5

    @pytest.mark.parametrize("kind", [1, 2, 5, 7, 11, 12])
    @pytest.mark.parametrize("tag", [254, 256, 257, 258, 259, 262, 266, 277, 284, 320, 322, 323, 332, 339, 530])
    def test_a_number_of_another_type_is_refused(self, tag: int, kind: int) -> None:
        layout = TiffLayout(tile=(16, 16), colour_map=(0, 1), more_tags=((254, (0,)), (332, (1,)), (530, (1, 1))))
        content = bytearray(tiff(random_samples(8, 1), layout))
        directory = int.from_bytes(content[4:8], "little")
        (entry,) = (
            place
            for place in range(directory + 2, len(content) - 12, 12)
            if content[place : place + 4] in (struct.pack("<HH", tag, 3), struct.pack("<HH", tag, 4))
        )
        to_array(bytes(content), grey(HEIGHT, WIDTH))
        content[entry + 2] = kind
        message = (
            "expected" if tag in (256, 257) else f"expected integers as tag {tag} of a TIFF, got values of type {kind}$"
        )
        with pytest.raises(ImageError, match=message):
            to_array(bytes(content), grey(HEIGHT, WIDTH))

    def test_tags_that_share_their_values_are_refused(self) -> None:
        content = bytearray(
            tiff(random_samples(8, 1), TiffLayout(more_tags=((50_000, (7,) * 5000), (50_001, (7,) * 5000))))
        )
        first, second = (content.index(tag.to_bytes(2, "little") + b"\3\0\x88\x13") for tag in (50_000, 50_001))
        content[second + 8 : second + 12] = content[first + 8 : first + 12]
        with pytest.raises(ImageError, match="expected the tags of a TIFF to fit into its"):
            to_array(bytes(content[:-10_000]), grey(HEIGHT, WIDTH))

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "lzma"])
    def test_every_compression_is_decoded(self, compression: str) -> None:
        pixels = np.repeat(random_pixels(4, 4, 3), 8, axis=0).repeat(8, axis=1)
        content = encode(PIL.Image.fromarray(pixels), "TIFF", compression=compression)
        difference = to_array(content, rgb(32, 32)).astype(int) - pixels
        assert np.abs(difference).mean() <= (30 if compression == "jpeg" else 0)

    @pytest.mark.parametrize("compression", ["group3", "group4"])
    def test_a_fax_is_decoded(self, compression: str) -> None:
        pixels = random_pixels(16, 16) > 127
        content = encode(PIL.Image.fromarray(pixels), "TIFF", compression=compression)
        assert np.array_equal(to_array(content, grey(16, 16))[..., 0], pixels * 255)
