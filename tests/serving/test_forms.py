"""Forms as clients write them are split at their boundary; all others are left to the parser."""

from collections.abc import Callable

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.http import uploads
from serving.http.forms import split_form

Png = Callable[[np.ndarray], bytes]

TYPE = "multipart/form-data; boundary=b"
HEAD = b'Content-Disposition: form-data; name="f"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def test_the_files_of_a_form_keep_their_order_and_every_byte() -> None:
    contents = [bytes(range(256)), b"", b"\r\n\r\n-b", b"\r\n--\r\n"]
    heads = [HEAD, HEAD.replace(b"Content-D", b"content-d"), HEAD.replace(b"\r\nContent-Type: image/png", b""), HEAD]

    found = split_form(TYPE, form(*(head + content for head, content in zip(heads, contents, strict=True))), 4)

    assert found == [("a.png", content) for content in contents]


def test_the_forms_of_client_libraries_are_plain() -> None:
    request = httpx2.Request("POST", "http://x", files=[("file", ("a b.png", b"1", "image/png")), ("file", b"2")])

    found = split_form(request.headers["content-type"], request.read(), 2)

    assert found == [("a b.png", b"1"), ("upload", b"2")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", form(HEAD + b"1")),
        ("multipart/form-data; boundary=c", form(HEAD + b"1")),
        (TYPE + "; charset=utf-8", form(HEAD + b"1")),
        (TYPE, form(HEAD + b"1")[:-6]),
        (TYPE, form(HEAD + b"1") + b"epilogue"),
        (TYPE, b"preamble\r\n" + form(HEAD + b"1")),
        (TYPE, form(HEAD + b"1\r\n--bc")),
        (TYPE, form(HEAD.replace(b'; filename="a.png"', b"") + b"1")),
        (TYPE, form(HEAD.replace(b"a.png", b"") + b"1")),
        (TYPE, form(HEAD.replace(b"a.png", b'a\\".png') + b"1")),
        (TYPE, form(HEAD.replace(b"a.png", b"%22.png") + b"1")),
        (TYPE, form(HEAD.replace(b"a.png", "ä.png".encode()) + b"1")),
        (TYPE, form(HEAD.replace(b"Content-Type", b"X-Other") + b"1")),
        (TYPE, form(b"1")),
        (TYPE, form()),
        (TYPE, b""),
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(content_type: str, body: bytes) -> None:
    assert not split_form(content_type, body, 4)


@pytest.mark.parametrize("count", [3, 4, 5, 1000])
def test_of_too_many_files_only_one_more_than_allowed_is_returned(count: int) -> None:
    body = form(*(HEAD + b"%d" % number for number in range(count)))
    assert split_form(TYPE, body, 3) == [("a.png", b"%d" % number) for number in range(min(count, 4))]
    assert split_form(TYPE, body[:-6], count) is None


@pytest.mark.parametrize("count", [1, 3, 5])
def test_both_ways_give_one_answer(
    client: TestClient, pixels: np.ndarray, png: Png, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [("file", (f"{number}.png", png(pixels[number % 4]), "image/png")) for number in range(count)]

    split = client.post("/classify", files=files)
    monkeypatch.setattr(uploads, "split_form", lambda *_: None)
    parsed = client.post("/classify", files=files)

    assert (split.status_code, split.content) == (parsed.status_code, parsed.content)
    assert split.status_code == (200 if count <= 4 else 413)
