"""Compressed bodies are inflated exactly, within a limit, or rejected."""

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from starlette.datastructures import Headers

from serving.errors import RequestError
from serving.http.compression import ANY_RATIO_BYTES, MAX_MEMBERS, MAX_RATIO, accepted_encoding, compress, inflate

CONTENT = b"The quick brown fox" * 100
MAX_BYTES = len(CONTENT)


def refusal(body: bytes, encoding: str) -> str:
    """Return the code of the error."""
    with pytest.raises(RequestError) as caught:
        inflate(body, [encoding], MAX_BYTES)
    return caught.value.code


@pytest.mark.parametrize(
    ("body", "encodings"),
    [
        (gzip.compress(CONTENT), ["gzip"]),
        (gzip.compress(CONTENT), ["x-gzip"]),
        (gzip.compress(CONTENT), ["identity", "gzip", "identity"]),
        (zlib.compress(CONTENT), ["deflate"]),
        (CONTENT, ["identity"]),
        (CONTENT, []),
    ],
    ids=["gzip", "x-gzip", "gzip and identity", "deflate", "identity", "none"],  # gzip writes the time into its bytes
)
def test_body_of_the_largest_size_is_inflated(body: bytes, encodings: list[str]) -> None:
    assert inflate(body, encodings, MAX_BYTES) == CONTENT


def test_members_of_gzip_data_are_joined_within_the_limits() -> None:
    """As `cat a.gz b.gz` and bgzip write them; empty ones take time."""
    empty = gzip.compress(b"")
    members = gzip.compress(CONTENT[:100]) + empty * (MAX_MEMBERS - 2) + gzip.compress(CONTENT[100:])

    assert inflate(members, ["gzip"], MAX_BYTES) == CONTENT
    assert refusal(members + empty, "gzip") == "invalid_compression"
    assert refusal(gzip.compress(CONTENT) + gzip.compress(b"0"), "gzip") == "body_too_large"
    assert refusal(gzip.compress(CONTENT) + empty[:-1], "gzip") == "invalid_compression"


def test_many_members_are_rejected_within_a_second() -> None:
    body = gzip.compress(b"") * 1_500_000
    started = time.thread_time()

    assert refusal(body, "gzip") == "invalid_compression"
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_body_of_one_byte_more_is_rejected(encoding: str) -> None:
    assert refusal(compress(CONTENT + b"0", encoding), encoding) == "body_too_large"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bomb_is_rejected_in_little_memory(encoding: str) -> None:
    bomb = compress(bytes(200_000_000), encoding)

    tracemalloc.start()
    try:
        code = refusal(bomb, encoding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert code == "body_too_large"
    assert peak < len(bomb) + 500_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body[:0],
        lambda body: body[:-1],
        lambda body: body + b"0",
        lambda body: b"plain " + body,
        lambda body: body[:-3] + b"\x00\x00\x00",
    ],
    ids=["empty", "cut off", "trailing byte", "leading bytes", "wrong checksum"],
)
def test_damaged_data_is_rejected(encoding: str, damage: Callable[[bytes], bytes]) -> None:
    assert refusal(damage(compress(CONTENT, encoding)), encoding) == "invalid_compression"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "x" * 1000, "gzip\n"[:4] + ";q=1"])
def test_other_encodings_are_rejected(encoding: str) -> None:
    assert refusal(b"", encoding) == "unsupported_content_encoding"


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
def test_response_encoding_follows_accept_encoding(header: str, encoding: str | None) -> None:
    assert accepted_encoding(Headers({"Accept-Encoding": header})) == encoding


def test_response_encoding_may_be_on_a_second_line() -> None:
    assert accepted_encoding(Headers(raw=[(b"accept-encoding", b"br"), (b"accept-encoding", b"gzip")])) == "gzip"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_other_programs_can_inflate_responses(encoding: str) -> None:
    inflate_elsewhere = gzip.decompress if encoding == "gzip" else zlib.decompress

    assert inflate_elsewhere(compress(CONTENT, encoding)) == CONTENT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_body_that_inflates_too_much_is_rejected_beyond_the_first_megabytes(encoding: str) -> None:
    blank = compress(bytes(ANY_RATIO_BYTES), encoding)
    bomb = compress(bytes(ANY_RATIO_BYTES + 1), encoding)
    noise = np.random.default_rng(0).bytes(ANY_RATIO_BYTES // 50)

    assert len(inflate(blank, [encoding], 2**30)) == ANY_RATIO_BYTES > MAX_RATIO * len(blank)
    assert len(inflate(compress(noise + bytes(ANY_RATIO_BYTES), encoding), [encoding], 2**30)) > ANY_RATIO_BYTES
    with pytest.raises(RequestError) as caught:
        inflate(bomb, [encoding], 2**30)
    assert caught.value.code == "body_too_large"
