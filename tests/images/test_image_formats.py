"""Files of other formats are refused by name, with what to do."""

import pytest

from pdeinfer.errors import ImageError
from pdeinfer.images import formats
from pdeinfer.images.convert import to_array
from pdeinfer.images.formats import describe_foreign, is_surely_image, recognise
from tests.images.image_makers import SEEDS, grey

PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html>"


@pytest.mark.parametrize(
    ("head", "name", "advice"),
    [
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "HEIF image of another codec", "convert"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "video", "frame"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "raw camera", "develop"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw camera", "develop"),
        (b"FUJIFILMCCD-RAW 0201", "raw camera", "develop"),
        (b"%PDF-1.7\n", "PDF", "render"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS", "render"),
        (b"8BPS\0\1", "Photoshop", "export"),
        (b"\xff\x0a\0\0", "JPEG XL", "convert"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "convert"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "convert"),
        (b"\0\0\1\0\1\0", "ICO", "convert"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'>", "SVG", "render"),
        (PAGE, "HTML", "download"),
        (b"RIFF\0\0\0\0AVI LIST", "video", "frame"),
        (bytes(128) + b"DICM", "DICOM", "convert"),
        (b"PK\3\4", "ZIP", "extract"),
        (bytes(257) + b"ustar\x0000", "tar file", r"'FOLDER/\*.tar'"),
        (b"PAR1", "Parquet", r"'FOLDER/\*.parquet'"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS", "fetch"),
    ],
)
def test_other_formats_are_refused_by_name_with_what_to_do(head: bytes, name: str, advice: str) -> None:
    with pytest.raises(ImageError, match=rf"^upload: expected a BMP, .* or WEBP image, got .*{name}.*: .*{advice}"):
        to_array(head, grey(8, 8), "upload")


def test_an_avif_is_refused_with_what_to_do() -> None:
    with pytest.raises(ImageError, match=r"^upload: .*AVIF.*convert it"):
        to_array(b"\0\0\0\x1cftypavif\0\0\0\0", grey(8, 8), "upload")


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1", b"mif1\0\0\0\0miafheic"])
def test_without_its_extra_a_heic_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, brands: bytes
) -> None:
    monkeypatch.setattr(formats, "HAS_HEIF", False)
    content = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands
    with pytest.raises(ImageError, match=r"^upload: .*HEIC image: pip install 'pdeinfer\[heic\]'"):
        to_array(content, grey(8, 8), "upload")


def test_an_empty_and_an_unknown_file_are_refused_as_such() -> None:
    assert describe_foreign(b"") == "an empty file"
    assert describe_foreign(b"hello") == "a file of no known image format"


@pytest.mark.parametrize("content", [b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"P6 "])
def test_a_file_that_ends_after_its_signature_is_damaged(content: bytes) -> None:
    with pytest.raises(ImageError, match=r"got a (damaged|truncated)"):
        to_array(content, grey(8, 8))


def test_every_format_that_is_read_is_recognised() -> None:
    assert [recognise(content) for content in SEEDS[:7]] == ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]
    assert [is_surely_image(content) for content in SEEDS[:7]] == [False, True, True, True, False, False, True]
