"""Files with damaged edges are decoded if all of their pixels are there, and refused if some are missing."""

import io
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest
from PIL import ExifTags, PngImagePlugin

from pdeinfer.errors import ImageError
from pdeinfer.images.convert import to_array
from tests.images.image_makers import encode, grey, png, png_chunks, random_pixels, rgb

HEIGHT, WIDTH = 33, 41
SPEC = rgb(HEIGHT, WIDTH)
PICTURE = PIL.Image.fromarray(random_pixels(HEIGHT, WIDTH, 3))


def one_scan_a_component() -> bytes:
    """Return a baseline JPEG whose components follow each other, each as a grey JPEG has its only one."""
    planes = [PIL.Image.fromarray(random_pixels(HEIGHT, WIDTH, seed=seed)) for seed in range(3)]
    files = [encode(plane, "JPEG")[:-2].split(b"\xff\xda") for plane in planes]
    scans = (b"\xff\xda" + scan[:3] + bytes([number]) + scan[4:] for number, (_, scan) in enumerate(files, 1))
    head = files[0][0]
    frame = head.index(b"\xff\xc0")  # followed by its length, bits, height, width, and 4 bytes of the component
    components = b"\x03" + b"".join(bytes([number, 0x11, 0]) for number in range(1, 4))
    size = head[frame + 4 : frame + 9]
    return b"".join([head[:frame], b"\xff\xc0\0\x11", size, components, head[frame + 13 :], *scans, b"\xff\xd9"])


JPEGS = {
    "baseline": encode(PICTURE, "JPEG"),
    "progressive": encode(PICTURE, "JPEG", progressive=True),
    "restarts": encode(PICTURE, "JPEG", restart_marker_rows=1),
    "progressive-restarts": encode(PICTURE, "JPEG", progressive=True, restart_marker_rows=1),
    "grey": encode(PICTURE.convert("L"), "JPEG", optimize=True),
    "cmyk": encode(PICTURE.convert("CMYK"), "JPEG"),
}
SEPARATE = one_scan_a_component()


class TestJpeg:
    """The end marker may be missing."""

    @pytest.mark.parametrize("kind", JPEGS)
    @pytest.mark.parametrize("missing", [1, 2])
    def test_a_jpeg_without_its_last_two_bytes_gives_the_same_pixels(self, kind: str, missing: int) -> None:
        content = JPEGS[kind]
        assert np.array_equal(to_array(content[:-missing], SPEC), to_array(content, SPEC))

    @pytest.mark.parametrize("kind", JPEGS)
    def test_no_cut_gives_other_pixels(self, kind: str) -> None:
        content = JPEGS[kind]
        expected = to_array(content, SPEC)
        refused = 0
        for missing in range(3, len(content) // 2):
            try:
                decoded = to_array(content[:-missing], SPEC)
            except ImageError:
                refused += 1
            else:
                assert np.array_equal(decoded, expected), missing
        assert refused > len(content) // 2 - 20

    def test_a_lossless_jpeg_is_decoded(self) -> None:
        """Its scan names a predictor where others name coefficients."""
        symbols = bytes([0, 0, 0, 9]) + bytes(12) + bytes(range(9))  # nine codes of four bits: differences by length
        parts = [(0xC3, b"\x08\0\x08\0\x08\x01\x01\x11\0"), (0xC4, b"\0" + symbols), (0xDA, b"\x01\x01\0\x01\0\0")]
        head = b"".join(bytes([0xFF, kind]) + (len(part) + 2).to_bytes(2, "big") + part for kind, part in parts)
        content = b"\xff\xd8" + head + bytes(32) + b"\xff\xd9"  # 64 differences of zero from the middle
        np.testing.assert_array_equal(to_array(content, grey(8, 8)), 128)

    def test_a_progressive_jpeg_cut_before_its_last_scan_is_refused(self) -> None:
        content = JPEGS["progressive"]
        with pytest.raises(ImageError, match="truncated"):
            to_array(content[: content.rindex(b"\xff\xda")], SPEC)

    @pytest.mark.parametrize("kind", ["baseline", "restarts", "grey", "cmyk"])
    @pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
    def test_an_end_marker_behind_a_cut_does_not_hide_it(self, kind: str, part: float) -> None:
        content = JPEGS[kind]
        start = content.rindex(b"\xff\xda")
        cut = content[: start + int(part * (len(content) - start))].rstrip(b"\xff")
        with pytest.raises(ImageError, match="truncated"):
            to_array(cut + b"\xff\xd9", SPEC)

    @pytest.mark.parametrize("kind", ["progressive", "progressive-restarts"])
    def test_an_end_marker_in_place_of_the_last_scan_is_refused(self, kind: str) -> None:
        content = JPEGS[kind]
        with pytest.raises(ImageError, match="truncated"):
            to_array(content[: content.rindex(b"\xff\xda")] + b"\xff\xd9", SPEC)

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    @pytest.mark.parametrize("size", [(8, 8), (33, 41), (128, 128)])
    @pytest.mark.parametrize("value", [0, 127, 128, 255])
    def test_a_jpeg_of_one_colour_is_decoded(self, mode: str, size: tuple[int, int], value: int) -> None:
        picture = PIL.Image.new("L", size, value).convert(mode)
        for options in ({}, {"restart_marker_blocks": 1}, {"progressive": True}):
            content = encode(picture, "JPEG", **options)
            expected = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB"))
            assert np.array_equal(to_array(content, rgb(*size[::-1])), expected)

    @pytest.mark.parametrize("missing", [0, 1, 2])
    def test_a_baseline_jpeg_with_a_scan_for_each_component_is_decoded(self, missing: int) -> None:
        expected = np.asarray(PIL.Image.open(io.BytesIO(SEPARATE)).convert("RGB"))
        assert np.array_equal(to_array(SEPARATE[: len(SEPARATE) - missing], SPEC), expected)

    def test_what_a_sequential_scan_says_of_its_coefficients_is_ignored_as_decoders_do(self) -> None:
        content = JPEGS["grey"]
        coefficients = content.rindex(b"\xff\xda") + 7
        assert content[coefficients : coefficients + 3] == b"\0\x3f\0"
        changed = content[:coefficients] + b"\0\0\0" + content[coefficients + 3 :]
        assert np.array_equal(to_array(changed, SPEC), to_array(content, SPEC))

    def test_what_follows_the_end_does_not_matter(self) -> None:
        content = JPEGS["baseline"]
        assert np.array_equal(to_array(content + content[:100], SPEC), to_array(content, SPEC))

    @pytest.mark.parametrize("kind", ["baseline", "progressive"])
    @pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
    def test_the_program_may_ask_for_truncated_files(
        self, kind: str, end: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        content = JPEGS[kind]
        assert to_array(content[: len(content) // 2] + end, SPEC).shape == (HEIGHT, WIDTH, 3)

    def test_a_large_jpeg_without_its_end_is_decoded_at_a_fraction(self) -> None:
        content = encode(PIL.Image.linear_gradient("L").resize((1024, 1024)), "JPEG")
        assert np.array_equal(to_array(content[:-2], grey(32, 32)), to_array(content, grey(32, 32)))


def with_chunk(content: bytes, kind: bytes, data: bytes, *, is_valid: bool = True) -> bytes:
    """Return a PNG with a chunk behind its header."""
    chunk = png_chunks(png(1, 1, 8, 0, b"\0\0", (kind, data)))[1][1]
    return content[:33] + (chunk if is_valid else chunk[:-1] + bytes([chunk[-1] ^ 1])) + content[33:]


def png_with(header: bytes, *pixels: bytes) -> bytes:
    """Return a PNG with a header and chunks of compressed pixels."""
    whole = png(1, 1, 8, 0, b"\0\0", (b"IHDR", header), *((b"IDAT", part) for part in pixels))
    chunks = png_chunks(whole)
    return whole[:8] + b"".join(content for _, content in [*chunks[1:-2], chunks[-1]])


class TestPng:
    """Chunks beside the pixels may be damaged, missing or large."""

    CONTENT = encode(PICTURE, "PNG")
    CHUNKS = (
        (b"tEXt", b"Comment\0text"),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", bytes(32)),
        (b"sRGB", b"\0"),
        (b"iCCP", b"profile\0\0" + bytes(10)),
        (b"pHYs", bytes(9)),
        (b"eXIf", b"II*\0" + bytes(4)),
        (b"vpAg", bytes(9)),
    )

    @pytest.mark.parametrize(("kind", "data"), CHUNKS)
    def test_a_wrong_checksum_beside_the_pixels_does_not_matter(self, kind: bytes, data: bytes) -> None:
        content = with_chunk(self.CONTENT, kind, data, is_valid=False)
        assert np.array_equal(to_array(content, SPEC), np.asarray(PICTURE))

    @pytest.mark.parametrize("kind", [b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"iCCP"])
    def test_a_chunk_that_is_too_short_does_not_matter(self, kind: bytes) -> None:
        assert np.array_equal(to_array(with_chunk(self.CONTENT, kind, b""), SPEC), np.asarray(PICTURE))

    def test_large_text_and_profiles_do_not_matter(self) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_text("workflow", "x" * 3_000_000, zip=True)
        profile = np.random.default_rng(0).bytes(2_000_000)
        content = encode(PICTURE, "PNG", pnginfo=text, icc_profile=profile)
        assert np.array_equal(to_array(content, SPEC), np.asarray(PICTURE))

    @pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
    def test_a_wrong_checksum_of_what_the_pixels_need_is_refused(self, kind: bytes) -> None:
        content = encode(PICTURE.convert("P"), "PNG")
        chunk = dict(png_chunks(content))[kind]
        damaged = content.replace(chunk, chunk[:-1] + bytes([chunk[-1] ^ 1]))
        with pytest.raises(ImageError, match="PNG"):
            to_array(damaged, SPEC)

    def test_a_wrong_checksum_of_the_transparency_ignores_it(self) -> None:
        content = png(2, 1, 8, 0, b"\0\7\x08", (b"tRNS", b"\0\7"))
        chunk = dict(png_chunks(content))[b"tRNS"]
        damaged = content.replace(chunk, chunk[:-1] + bytes([chunk[-1] ^ 1]))
        assert to_array(content, grey(1, 2)).ravel().tolist() == [255, 8]
        assert to_array(damaged, grey(1, 2)).ravel().tolist() == [7, 8]

    @pytest.mark.parametrize("missing", [1, 4, 12, 13, 16])
    def test_the_end_may_be_missing(self, missing: int) -> None:
        assert np.array_equal(to_array(self.CONTENT[:-missing], SPEC), np.asarray(PICTURE))

    def test_a_cut_into_the_pixels_is_refused(self) -> None:
        for missing in (30, 100, len(self.CONTENT) // 2):
            with pytest.raises(ImageError, match="PNG"):
                to_array(self.CONTENT[:-missing], SPEC)

    @pytest.mark.parametrize(("interlace", "rows"), [(0, 8), (1, 15)])  # 15: 1, 1, 1, 2, 2, 4 and 4 of the seven passes
    def test_compressed_pixels_that_end_early_are_refused(self, interlace: int, rows: int) -> None:
        lengths = [1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8] if interlace else [8] * 8
        lines = [b"\0" + bytes(length) for length in lengths]
        header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, interlace)
        for count in range(rows + 1):
            content = png_with(header, zlib.compress(b"".join(lines[:count])))
            if count == rows:
                assert not to_array(content, grey(8, 8)).any()
            else:
                with pytest.raises(ImageError, match="truncated"):
                    to_array(content, grey(8, 8))

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
    def test_pixels_in_chunks_of_any_size_are_decoded(self, size: int) -> None:
        data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(PICTURE)))
        header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
        content = png_with(header, *(data[start : start + size] for start in range(0, len(data), size)), b"")
        assert np.array_equal(to_array(content, SPEC), np.asarray(PICTURE))

    def test_wrong_pixels_are_refused(self) -> None:
        data = bytearray(zlib.compress(b"\0" + bytes(range(64)), 0))
        data[20] ^= 1
        header = struct.pack(">IIBBBBB", 64, 1, 8, 0, 0, 0, 0)
        damaged = bytearray(png_with(header, bytes(data)))
        damaged[damaged.index(b"IEND") - 5] ^= 1  # and of the chunk
        with pytest.raises(ImageError, match="PNG"):
            to_array(bytes(damaged), grey(1, 64))

    def test_the_orientation_in_text_is_kept(self) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
        content = encode(PICTURE, "PNG", pnginfo=text)
        assert np.array_equal(to_array(content, SPEC), np.asarray(PICTURE)[::-1, ::-1])


class TestWebp:
    """What follows the first image may be cut off."""

    EXIF = b"Exif\0\0II*\0\x08\0\0\0" + bytes(200)

    @pytest.mark.parametrize(
        ("options", "missing"),
        [
            ({"exif": EXIF}, (1, 50, 200)),
            ({"xmp": b"x" * 200}, (1, 50, 200)),
            ({"save_all": True, "append_images": [PICTURE.rotate(90)]}, (1, 100, 500)),
        ],
    )
    def test_metadata_and_later_frames_may_be_cut(self, options: dict[str, object], missing: tuple[int, ...]) -> None:
        content = encode(PICTURE, "WEBP", lossless=True, **options)
        for count in missing:
            assert np.array_equal(to_array(content[:-count], SPEC), np.asarray(PICTURE))

    def test_a_cut_into_the_pixels_is_refused(self) -> None:
        content = encode(PICTURE, "WEBP", lossless=True)
        for missing in (20, 100, len(content) // 2):
            with pytest.raises(ImageError, match="WEBP"):
                to_array(content[:-missing], SPEC)


class TestGif:
    """The trailer and later frames may be missing."""

    def test_the_trailer_may_be_missing(self) -> None:
        content = encode(PICTURE.convert("P"), "GIF")
        assert np.array_equal(to_array(content[:-1], SPEC), to_array(content, SPEC))
        with pytest.raises(ImageError, match="GIF"):
            to_array(content[:-50], SPEC)


@pytest.mark.parametrize("error", [TimeoutError, ConnectionResetError, InterruptedError])
@pytest.mark.parametrize("method", ["load", "getexif"])
def test_an_exception_of_a_signal_handler_or_of_the_network_is_no_damage(
    error: type[OSError], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: PIL.Image.Image) -> None:
        raise error

    monkeypatch.setattr(PIL.Image.Image, method, fail)
    with pytest.raises(error):
        to_array(PICTURE, SPEC)


class TestMetadata:
    """Pillow warns of damaged metadata, which may be an error."""

    @staticmethod
    def damaged(file_format: str) -> tuple[bytes, np.ndarray]:
        """Return a picture that is to be turned, whose EXIF ends early, and its pixels."""
        exif = PIL.Image.Exif()
        exif[ExifTags.Base.Orientation] = 3
        exif[ExifTags.Base.Software] = "a camera's software"
        content = encode(PICTURE, file_format, exif=exif.tobytes()[:-10], lossless=True)
        with PIL.Image.open(io.BytesIO(encode(PICTURE, file_format, lossless=True))) as whole:
            return content, np.asarray(whole.convert("RGB"))[::-1, ::-1]

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    def test_exif_that_ends_early_turns_the_picture_or_is_an_error_with_the_warning(self, file_format: str) -> None:
        content, pixels = self.damaged(file_format)
        with warnings.catch_warnings(action="ignore"):
            assert np.array_equal(to_array(content, SPEC), pixels)
        with (
            warnings.catch_warnings(action="error"),
            pytest.raises(ImageError, match="of which Pillow warns, while warnings are errors: "),
        ):
            to_array(content, SPEC)
