"""Recognises supported image formats by their first bytes, and names others for errors."""

from importlib.util import find_spec

from PIL import features

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Pillow decodes AVIF from version 11.3 on; the extra [heic] decodes HEIC. Their headers do not bound the memory that
# this takes, so they are decoded only in processes with limits (see `pdeinfer.images.isolation`).
HAS_AVIF = "avif" in features.modules and features.check_module("avif")  # get_supported_modules would import Tk
HAS_HEIF = find_spec("pillow_heif") is not None
SUFFIXES = (
    *((".avif",) if HAS_AVIF else ()),
    *(".bmp", ".gif"),
    *((".heic", ".heif") if HAS_HEIF else ()),
    *(".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
ISOLATED = ("AVIF", "HEIF")  # as `recognise` names those that only processes with limits decode
EXPECTED = f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
HEAD_BYTES = 512  # enough for the functions below

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    *((start, "TIFF") for start in (b"II*\0", b"II\0*", b"II+\0", b"MM\0*", b"MM*\0", b"MM\0+")),
    *((b"P" + kind, "PPM") for kind in (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"F", b"f", b"y")),
)
# No text file begins like one of these, and no raw camera file, as some do like a TIFF.
_DISTINCT = ("GIF", "JPEG", "PNG", "WEBP")

_CONVERT = "convert it to JPEG or PNG"
_NAME_IT = "`pdeinfer classify` takes it if it is named, itself or by a pattern such as 'FOLDER/{}'"
_INSTALL_HEIF = f"pip install 'pdeinfer[heic]', or {_CONVERT}"
_RAW = ("a raw camera file", "develop it to JPEG or PNG")
_VIDEO = ("a video", "extract a frame as JPEG or PNG")
_PAGE = ("an HTML page", "download the image itself")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_HEIF_BRANDS = (b"mif1", b"msf1")  # whatever the codec
# An ISO base media file (`ftyp` at byte 4) is named by its brand.
_BRANDS = {
    **dict.fromkeys(_HEIC_BRANDS, ("a HEIC image", _INSTALL_HEIF)),
    **dict.fromkeys(_HEIF_BRANDS, ("a HEIF image of another codec than HEVC and AV1", _CONVERT)),
    **dict.fromkeys(_AVIF_BRANDS, ("an AVIF image", _CONVERT)),
    b"crx ": _RAW,
    b"jp2 ": ("a JPEG 2000 image", _CONVERT),
    b"jxl ": ("a JPEG XL image", _CONVERT),
}
# Signature, place, what it is, what to do.
_FOREIGN: tuple[tuple[bytes, int, str, str], ...] = (
    (b"%PDF-", 0, "a PDF document", "render a page to JPEG or PNG"),
    (b"%!PS", 0, "an EPS or PostScript document", "render it to JPEG or PNG"),
    (b"\xc5\xd0\xd3\xc6", 0, "an EPS document", "render it to JPEG or PNG"),
    (b"8BPS", 0, "a Photoshop document (PSD)", "export it as JPEG or PNG"),
    (b"\xff\x0a", 0, "a JPEG XL image", _CONVERT),
    (b"\0\0\0\x0cJXL ", 0, "a JPEG XL image", _CONVERT),
    (b"\0\0\0\x0cjP  ", 0, "a JPEG 2000 image", _CONVERT),
    (b"\xff\x4f\xff\x51", 0, "a JPEG 2000 image", _CONVERT),
    (b"II\xbc\x01", 0, "a JPEG XR image", _CONVERT),
    (b"\0\0\1\0", 0, "an icon (ICO)", _CONVERT),
    (b"icns", 0, "an icon (ICNS)", _CONVERT),
    (b"gimp xcf", 0, "a GIMP document (XCF)", "export it as JPEG or PNG"),
    (b"v/1\x01", 0, "an OpenEXR image", _CONVERT),
    (b"#?RADIANCE", 0, "a Radiance HDR image", _CONVERT),
    (b"DDS ", 0, "a DDS texture", _CONVERT),
    (b"qoif", 0, "a QOI image", _CONVERT),
    (b"P7\n", 0, "a PAM image", _CONVERT),
    (b"FUJIFILMCCD-RAW", 0, *_RAW),
    (b"IIRO", 0, *_RAW),
    (b"IIRS", 0, *_RAW),
    (b"IIU\0", 0, *_RAW),
    (b"FOVb", 0, *_RAW),
    (b"\x1aE\xdf\xa3", 0, *_VIDEO),
    (b"\x93NUMPY", 0, "a NumPy array file", "load it and pass the array"),
    (b"PK\x03\x04", 0, "a ZIP archive", "extract the images"),
    (b"\x1f\x8b", 0, "a gzip file", "decompress it"),
    (b"version https://git-lfs", 0, "a Git LFS pointer", "fetch the file with `git lfs pull`"),
    (b"AVI ", 8, *_VIDEO),
    (b"DICM", 128, "a DICOM image", _CONVERT),
    (b"ustar", 257, "a tar file", _NAME_IT.format("*.tar")),
    (b"PAR1", 0, "a Parquet file", _NAME_IT.format("*.parquet")),
)


def recognise(head: bytes) -> str | None:
    """Return which of `FORMATS` a file may have, by its first bytes; "AVIF" or "HEIF" (a HEIC) if it can be decoded."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return None if name == "TIFF" and _is_canon_raw(head) else name
    if head[4:8] == b"ftyp":
        brand = _brand(head)
        if HAS_AVIF and brand in _AVIF_BRANDS:
            return "AVIF"
        return "HEIF" if HAS_HEIF and brand in _HEIC_BRANDS else None
    return "WEBP" if head.startswith(b"RIFF") and head.startswith(b"WEBP", 8) else None


def is_surely_image(head: bytes) -> bool:
    """Return whether the first bytes alone identify a supported image, without regard to the name of the file."""
    return recognise(head) in _DISTINCT


def describe_foreign(head: bytes) -> str:
    """Describe a file that `recognise` does not know, and say what to do about it.

    Args:
        head: its first `HEAD_BYTES`.
    """
    if not head:
        return "an empty file"
    foreign = _foreign(head)
    return f"{foreign[0]}: {foreign[1]}" if foreign else "a file of no known image format"


def _is_canon_raw(head: bytes) -> bool:
    return head[:4] == b"II*\0" and head[8:10] == b"CR"


def _brand(head: bytes) -> bytes:
    """Return the brand that tells what an ISO base media file holds: the major one, unless another one says more."""
    major = head[8:12]
    if major not in _HEIF_BRANDS:
        return major
    end = min(len(head), int.from_bytes(head[:4], "big"))
    compatible = (head[place : place + 4] for place in range(16, end, 4))
    return next((brand for brand in compatible if brand in (*_AVIF_BRANDS, *_HEIC_BRANDS)), major)


def _foreign(head: bytes) -> tuple[str, str] | None:
    if head[4:8] == b"ftyp":
        return _BRANDS.get(_brand(head), _VIDEO)
    if _is_canon_raw(head):
        return _RAW
    for signature, place, what, advice in _FOREIGN:
        if head.startswith(signature, place):
            return what, advice
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text and text.startswith(b"<"):
        return "an SVG drawing", "render it to PNG"
    return _PAGE if text.startswith((b"<!doctype html", b"<html")) else None
