"""What `pdeinfer.images.convert` refuses, and hostile bytes."""

import errno
import gzip
import io
import os
import re
import resource
import struct
import warnings
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Thread

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdeinfer.errors import ImageError, ImageTooLargeError
from pdeinfer.images import convert, reading
from pdeinfer.images.convert import to_array
from pdeinfer.images.formats import FORMATS
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.images.limits import MAX_FILE_BYTES
from tests.images.image_makers import SEEDS, encode, grey, needs_proc, png, random_pixels, rgb, unreadable


def rle_bmp(width: int, height: int, data: bytes) -> bytes:
    palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + palette + data


def tiff(order: str, strips: int, kind: int = 4) -> bytes:
    """Return 8x8 grey pixels in strips of 4 rows; all but the first strip share the place of the second."""
    pixels = bytes(64)
    places = struct.pack(f"{order}{strips}L", 8, *[40] * (strips - 1))
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (277, 1), (278, 4)]
    entries = [struct.pack(f"{order}HHLL", tag, 4, 1, value) for tag, value in tags]
    entries.insert(5, struct.pack(f"{order}HHLL", 273, kind, strips, 8 + len(pixels)))
    start = 8 + len(pixels) + len(places)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    return head + pixels + places + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


class TestRefusals:
    """Every error names the input and what was expected."""

    SPEC = rgb(8, 8)

    @pytest.mark.parametrize(
        ("array", "problem"),
        [
            (np.zeros((8, 8), np.float32), "dtype uint8, 0 to 255, got float32"),
            (np.zeros((8, 8), np.int64), "dtype uint8, 0 to 255, got int64"),
            (np.zeros((8, 8), bool), "dtype uint8, 0 to 255, got bool"),
            (np.zeros((8, 8, 2), np.uint8), r"got \(8, 8, 2\)"),
            (np.zeros((3, 8, 8), np.uint8), r"\(N, H, W, C\), got \(3, 8, 8\)"),
            (np.zeros((2, 8, 8, 3), np.uint8), r"got \(2, 8, 8, 3\)"),
            (np.zeros(8, np.uint8), r"got \(8,\)"),
            (np.zeros((), np.uint8), r"got \(\)"),
            (np.zeros((0, 8, 3), np.uint8), r"got \(0, 8, 3\)"),
        ],
    )
    def test_arrays_of_another_dtype_or_shape_are_refused(self, array: np.ndarray, problem: str) -> None:
        with pytest.raises(ImageError, match=f"^image 3 of 10: expected .*{problem}$"):
            to_array(array, self.SPEC, "image 3 of 10")

    @pytest.mark.parametrize("value", [[1, 2], None, 3, 1.5, {"image": 1}, object()])
    def test_other_types_are_refused(self, value: object) -> None:
        with pytest.raises(ImageError, match=f"expected a path, bytes.*, got {type(value).__name__}$"):
            to_array(value, self.SPEC)

    @pytest.mark.parametrize("fill", [b"", b"\xff\xff", b"\xff\x01", b"\xff\xd0"])
    def test_a_jpeg_of_very_many_scans_is_refused(self, fill: bytes) -> None:
        content = encode(PIL.Image.fromarray(random_pixels(40, 40)), "JPEG", progressive=True)
        last = content.rindex(b"\xff\xda")
        few, many = (content[:last] + (fill + content[last:-2]) * count + b"\xff\xd9" for count in (2, 101))
        assert to_array(few, grey(40, 40)).shape == (40, 40, 1)
        with pytest.raises(ImageError, match=r"expected at most 100 scans in a JPEG, got 1\d\d"):
            to_array(many, grey(40, 40))

    def test_scans_behind_a_marker_that_the_decoder_skips_without_a_length_are_counted(self) -> None:
        image = PIL.Image.fromarray(random_pixels(40, 40))
        content = encode(image, "JPEG", progressive=True, restart_marker_rows=1)
        last = content.rindex(b"\xff\xda")
        hidden = content[last:-2] * 101
        skipped = b"\xff\x02" + min(len(hidden) + 2, 65_535).to_bytes(2, "big")
        with pytest.raises(ImageError, match=r"expected at most 100 scans in a JPEG, got 1\d\d"):
            to_array(content[:-2] + skipped + hidden + b"\xff\xd9", grey(40, 40))

    def test_exif_behind_a_jpeg_is_not_counted(self) -> None:
        pixels = random_pixels(8, 8)
        content = encode(PIL.Image.fromarray(pixels), "JPEG", quality=100)
        assert np.array_equal(to_array(content + b"Exif\0\0" * 200, grey(8, 8)), to_array(content, grey(8, 8)))

    def test_a_jpeg_of_very_many_exif_segments_is_refused_before_pillow_joins_them(self) -> None:
        plain = encode(PIL.Image.fromarray(random_pixels(8, 8)), "JPEG")
        segment = b"\xff\xe1\x00\x08Exif\0\0"
        assert to_array(plain[:2] + segment * 100 + plain[2:], grey(8, 8)).shape == (8, 8, 1)
        with pytest.raises(ImageError, match="expected at most 100 EXIF segments in a JPEG, got 101"):
            to_array(plain[:2] + segment * 101 + plain[2:], grey(8, 8))

    @pytest.mark.parametrize(
        ("header", "sample"), [(b"P2 500 600 255\n", b"1 "), (b"P5 500 600 254\n", b"\1"), (b"P6 300 300 254\n", b"\1")]
    )
    def test_a_file_that_pillow_decodes_in_python_may_have_256_kib(self, header: bytes, sample: bytes) -> None:
        problem = r"expected at most 262144 bytes of a PPM that Pillow decodes in Python, got \d{6}"
        with pytest.raises(ImageError, match=problem):
            to_array(header + sample * 300_000, self.SPEC)

    def test_an_image_that_pillow_decodes_in_python_may_have_a_million_pixels(self) -> None:
        assert to_array(rle_bmp(1000, 2, (b"\xfa\7" * 4 + b"\0\0") * 2 + b"\0\1"), grey(8, 8)).any()
        problem = "expected at most 1048576 pixels of a BMP that Pillow decodes in Python, got 1049600"
        with pytest.raises(ImageError, match=problem):
            to_array(rle_bmp(1024, 1025, b"\0\1"), self.SPEC)

    @pytest.mark.parametrize("filler", [b"#" + b"a" * 5000 + b"\n", b" " * 5000])
    def test_the_head_of_a_ppm_may_have_4_kib(self, filler: bytes) -> None:
        pixels = random_pixels(8, 8, 3)
        short = filler[:3000] + filler[-1:]
        assert np.array_equal(to_array(b"P6 " + short + b"8 8 255\n" + pixels.tobytes(), self.SPEC), pixels)
        with pytest.raises(ImageError, match="expected a BMP"):
            to_array(b"P6 " + filler + b"8 8 255\n" + bytes(192), self.SPEC)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_tiff_decodes_no_strip_twice(self, order: str) -> None:
        assert to_array(tiff(order, strips=2), grey(8, 8)).shape == (8, 8, 1)
        with pytest.raises(ImageError, match="expected at most 64 pixels in all strips together, got 96"):
            to_array(tiff(order, strips=3), self.SPEC)

    @pytest.mark.parametrize("kind", [1, 4])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_tag_of_a_tiff_may_have_200_000_values(self, order: str, kind: int) -> None:
        with pytest.raises(ImageError, match="expected at most 200000 values of a tag in a TIFF, got 200001"):
            to_array(tiff(order, strips=200_001, kind=kind), self.SPEC)

    def test_bytes_like_scans_inside_a_segment_or_behind_a_jpeg_are_not_counted(self) -> None:
        pixels = random_pixels(16, 16)
        plain = encode(PIL.Image.fromarray(pixels), "JPEG", quality=100)
        looks_alike = b"\xff\xda" * 500
        segment = b"\xff\xef" + (len(looks_alike) + 2).to_bytes(2, "big") + looks_alike
        content = plain[:2] + segment + plain[2:] + looks_alike
        assert np.array_equal(to_array(content, grey(16, 16)), to_array(plain, grey(16, 16)))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "none.png"
        with pytest.raises(ImageError, match=f"^{path}: expected .*: No such file or directory$"):
            to_array(path, self.SPEC)

    def test_a_path_in_a_list_is_named_with_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=rf"^image 3 of 10 \({tmp_path / 'none.png'}\): "):
            to_array(tmp_path / "none.png", self.SPEC, "image 3 of 10")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=f"^{tmp_path}: .*Is a directory$"):
            to_array(tmp_path, self.SPEC)

    def test_a_path_with_a_nul_is_refused(self) -> None:
        with pytest.raises(ImageError, match="null"):
            to_array("a\0b", self.SPEC)

    def test_a_text_file_object_is_refused(self) -> None:
        with pytest.raises(ImageError, match=r"^file object: expected a binary file object, got one that reads str$"):
            to_array(io.StringIO("text"), self.SPEC)

    def test_a_pipe_is_read_to_its_end(self) -> None:
        pixels = random_pixels(8, 8, 3)
        reader, writer = os.pipe()
        with os.fdopen(writer, "wb") as file:
            file.write(encode(PIL.Image.fromarray(pixels), "PNG"))
        with os.fdopen(reader, "rb", buffering=0) as file:
            assert np.array_equal(to_array(file, self.SPEC), pixels)

    def test_a_named_pipe_is_read_to_its_end(self, tmp_path: Path) -> None:
        pixels = random_pixels(8, 8, 3)
        path = tmp_path / "pipe"
        os.mkfifo(path)
        writer = Thread(target=path.write_bytes, args=[encode(PIL.Image.fromarray(pixels), "PNG")])
        writer.start()
        assert np.array_equal(to_array(path, self.SPEC), pixels)
        writer.join()

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    def test_a_file_above_the_limit_of_bytes_is_refused_before_it_is_read(
        self, tmp_path: Path, file_format: str
    ) -> None:
        path = tmp_path / "sparse"
        path.write_bytes(encode(PIL.Image.new("L", (8, 8)), file_format))
        os.truncate(path, MAX_FILE_BYTES + 1)
        with pytest.raises(ImageTooLargeError, match=f"^{path}: .*{MAX_FILE_BYTES + 1}$"):
            to_array(path, self.SPEC)

    def test_a_large_tiff_is_read_in_parts(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse"
        path.write_bytes(encode(PIL.Image.fromarray(pixels := random_pixels(8, 8, 3)), "TIFF"))
        os.truncate(path, 2**33)
        assert np.array_equal(to_array(path, self.SPEC), pixels)

    def test_a_stream_is_read_up_to_the_limit_of_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = encode(PIL.Image.fromarray(random_pixels(8, 8, 3)), "PNG")
        monkeypatch.setattr(reading, "MAX_FILE_BYTES", len(content))
        to_array(io.BytesIO(content), self.SPEC)
        os.mkfifo(path := tmp_path / "pipe")
        writer = Thread(target=path.write_bytes, args=[content + b"0"])
        writer.start()
        for source in (io.BytesIO(content + b"0"), path):
            with pytest.raises(ImageTooLargeError):
                to_array(source, self.SPEC)
        writer.join()

    def test_a_compressed_tiff_is_read_through_a_file_object_that_decompresses(self) -> None:
        pixels = random_pixels(8, 8, 3)  # its file descriptor has the compressed bytes
        with NamedTemporaryFile() as file:
            file.write(gzip.compress(encode(PIL.Image.fromarray(pixels), "TIFF", compression="tiff_lzw")))
            file.flush()
            with gzip.open(file.name) as decompressed:
                assert np.array_equal(to_array(decompressed, self.SPEC), pixels)

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_truncated_files_are_refused(self, file_format: str) -> None:
        content = encode(PIL.Image.fromarray(random_pixels(64, 64, 3)), file_format)
        for size in (len(content) // 2, len(content) * 3 // 4):
            with pytest.raises(ImageError, match=r"^bytes: expected"):
                to_array(content[:size], self.SPEC)

    def test_more_pixels_than_the_limit_are_refused_before_decoding(self) -> None:
        content = png(20_000, 20_000, 8, 2, b"")  # no pixel data at all: decoding it would fail otherwise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with pytest.raises(ImageTooLargeError, match=r"^x: expected at most 64000000 pixels"):
                to_array(content, self.SPEC, "x")
            with pytest.raises(ImageTooLargeError, match=r"^x: .* at most 64000000 pixels, got 10000 x 10000$"):
                to_array(png(10_000, 10_000, 8, 2, b""), self.SPEC, "x")

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF"])
    def test_a_pillow_image_that_was_closed_or_verified_is_named_as_such(self, file_format: str) -> None:
        content = encode(PIL.Image.new("L", (8, 8)), file_format)
        whole, loaded, verified, left = (PIL.Image.open(io.BytesIO(content)) for _ in range(4))
        whole.close()
        loaded.load()
        loaded.close()
        verified.verify()
        with left:
            pass
        for picture in (whole, loaded, verified, left):
            with pytest.raises(ImageError, match="closed or verified"):
                to_array(picture, self.SPEC)

    def test_a_damaged_pillow_image_is_not_called_closed(self) -> None:
        content = encode(PIL.Image.new("L", (8, 8)), "PNG")
        with PIL.Image.open(io.BytesIO(content[: content.find(b"IDAT") + 4])) as damaged:
            for _ in range(2):
                with pytest.raises(ImageError, match="damaged"):
                    to_array(damaged, self.SPEC)

    def test_a_picture_without_pixels_is_refused(self) -> None:
        with pytest.raises(ImageError, match="got 0 x 5"):
            to_array(PIL.Image.new("RGB", (0, 5)), self.SPEC)

    def test_a_jpeg_counts_at_the_size_it_is_decoded_at_and_at_most_2_28_pixels_at_full_size(self) -> None:
        content = encode(PIL.Image.new("L", (16_320, 12_240), 200), "JPEG")  # as large as phones take them
        assert (to_array(content, self.SPEC) == 200).all()
        head = content.index(b"\xff\xc0") + 5  # height and width
        larger = content[:head] + struct.pack(">HH", 16_392, 16_392) + content[head + 4 :]
        with pytest.raises(ImageTooLargeError) as caught:
            to_array(larger, self.SPEC)
        assert caught.value.pixels == 16_392**2

    def test_pillows_own_warning_of_a_bomb_is_too_large(self) -> None:
        with pytest.raises(ImageTooLargeError, match="expected at most 64000000 pixels"):
            to_array(png(10_000, 10_000, 8, 2, b""), self.SPEC)

    @pytest.mark.parametrize(
        "make", [lambda a: a, PIL.Image.fromarray, lambda a: encode(PIL.Image.fromarray(a), "PNG")]
    )
    def test_the_limit_of_the_caller_holds_for_every_kind_of_input(self, make: object) -> None:
        image = make(np.zeros((10, 11), np.uint8))
        assert to_array(image, self.SPEC, max_pixels=110).shape == (8, 8, 3)
        with pytest.raises(ImageTooLargeError, match=r"expected at most 109 pixels, got 11 x 10$"):
            to_array(image, self.SPEC, max_pixels=109)


class TestFailuresOfTheMachine:
    """Failures of the machine and bugs are not blamed on the image."""

    CONTENT = encode(PIL.Image.new("L", (8, 8)), "PNG")

    @pytest.mark.parametrize(
        "error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RecursionError()]
    )
    @pytest.mark.parametrize("place", ["PIL.Image.open", "PIL.ImageFile.ImageFile.load"])
    def test_a_failure_of_the_machine_passes_through(
        self, place: str, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(place, fail)
        with pytest.raises(type(error)) as caught:
            to_array(self.CONTENT, rgb(8, 8))
        assert caught.value is error

    def test_too_many_open_files_pass_through(self, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        path.write_bytes(self.CONTENT)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(OSError, match="Too many open files") as caught:
                to_array(path, rgb(8, 8))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE

    @needs_proc
    def test_a_file_that_cannot_be_read_is_an_image_error_that_names_it(self, tmp_path: Path) -> None:
        path = unreadable(tmp_path / "image.png")
        with IsolatedDecoders() as decoders:
            for decode in (to_array, decoders.to_array, decoders.to_array_where_needed):
                with pytest.raises(ImageError, match=f"^{re.escape(str(path))}: expected "):
                    decode(path, rgb(8, 8))

    @pytest.mark.parametrize("place", ["pdeinfer.images.convert.read_file", "PIL.ImageFile.ImageFile.load"])
    def test_an_error_while_a_file_is_read_names_it(
        self, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "image.png"
        path.write_bytes(self.CONTENT)
        for number, kind in ((errno.ESTALE, ImageError), (errno.ENOMEM, OSError)):

            def fail(*_: object, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(place, fail)
            with pytest.raises(kind, match=re.escape(str(path))):
                to_array(path, rgb(8, 8))

    def test_a_bug_in_the_conversion_passes_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise TypeError("a bug")

        monkeypatch.setattr(convert, "fit", broken)
        with pytest.raises(TypeError, match="a bug"):
            to_array(self.CONTENT, rgb(8, 8))

    def test_what_pillow_raises_for_damage_is_an_image_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise KeyError("tag")

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
        with pytest.raises(ImageError, match=r"^bytes: .* PNG \('tag'\)$"):
            to_array(self.CONTENT, rgb(8, 8))


class TestHostileBytes:
    """Any bytes give an array or an ImageError."""

    @staticmethod
    def check(content: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = to_array(content, rgb(8, 8), max_pixels=100_000)
            except ImageError:
                return
        assert (result.shape, result.dtype) == ((8, 8, 3), np.uint8)

    @given(st.binary(max_size=200))
    @settings(deadline=None)
    def test_random_bytes(self, content: bytes) -> None:
        self.check(content)

    @given(
        st.sampled_from([b"BM", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"P5 ", b"P2 ", b"II*\0", b"RIFF"]),
        st.binary(max_size=300),
    )
    @settings(deadline=None)
    def test_random_bytes_behind_a_magic_number(self, magic: bytes, content: bytes) -> None:
        self.check(magic + content)

    @given(st.sampled_from(SEEDS), st.data())
    @settings(deadline=None, max_examples=200)
    def test_damaged_images(self, content: bytes, data: st.DataObject) -> None:
        damaged = bytearray(content)
        for _ in range(data.draw(st.integers(1, 8))):
            damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        self.check(bytes(damaged[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else damaged))
