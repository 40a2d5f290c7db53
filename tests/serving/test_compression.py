"""Compressed bodies: inflated exactly, under a cap, or refused."""

import gzip
import tracemalloc
import zlib

import pytest

from serving.errors import ApiError
from serving.middleware.compression import accepted_encoding, compress, inflate

CONTENT = b"The quick brown fox" * 100
MAX_BYTES = len(CONTENT)


def refusal(body: bytes, encoding: str) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        inflate(body, encoding, MAX_BYTES)
    return caught.value.status, caught.value.message


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(CONTENT), "gzip"),
        (gzip.compress(CONTENT), " GZip "),
        (zlib.compress(CONTENT), "deflate"),
        (CONTENT, "identity"),
        (CONTENT, ""),
    ],
    ids=["gzip", "gzip in other case", "deflate", "identity", "none"],  # as gzip writes the time into its bytes
)
def test_a_body_of_the_largest_size_is_inflated(body: bytes, encoding: str) -> None:
    assert inflate(body, encoding, MAX_BYTES) == CONTENT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_of_one_byte_more_is_413(encoding: str) -> None:
    assert refusal(compress(CONTENT + b"0", encoding), encoding) == (
        413,
        "an inflated request body may have at most 1900 bytes",
    )


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_in_little_memory(encoding: str) -> None:
    bomb = compress(bytes(200_000_000), encoding)

    tracemalloc.start()
    try:
        status, _ = refusal(bomb, encoding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert status == 413
    assert peak < len(bomb) + 500_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda body: body[:0], "is cut off"),
        (lambda body: body[:-1], "is cut off"),
        (lambda body: body + b"0", "goes on after its end"),
        (lambda body: b"plain " + body, "is not"),
        (lambda body: body[:-3] + b"\x00\x00\x00", "is not"),
    ],
)
def test_damaged_data_is_400(encoding: str, damage: object, message: str) -> None:
    assert callable(damage)

    status, text = refusal(damage(compress(CONTENT, encoding)), encoding)

    assert status == 400
    assert message in text


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "x" * 1000, "gzip\n"[:4] + ";q=1"])
def test_another_encoding_is_415(encoding: str) -> None:
    status, message = refusal(b"", encoding)

    assert status == 415
    assert message.startswith("expected the content encoding gzip or deflate, got ")
    assert len(message) < 120


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, deflate, gzip;q=0.5", "gzip"),
        ("GZIP;q=1.0", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.000", None),
        ("", None),
        ("identity", None),
        ("*", None),
        ("gzipped", None),
    ],
)
def test_an_answer_is_compressed_as_the_client_accepts(header: str, encoding: str | None) -> None:
    assert accepted_encoding(header) == encoding


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answers_are_what_others_inflate(encoding: str) -> None:
    inflate_elsewhere = gzip.decompress if encoding == "gzip" else zlib.decompress

    assert inflate_elsewhere(compress(CONTENT, encoding)) == CONTENT
