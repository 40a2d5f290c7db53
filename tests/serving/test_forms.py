"""Forms: which parts are images, what they are called, and which forms are rejected."""

import time

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.errors import RequestError
from serving.http.classify import PARAMETERS
from serving.http.forms import MAX_FIELDS, parse_form
from tests.images.image_makers import as_png

DISPOSITION = b'Content-Disposition: form-data; name="f"'
HEAD = DISPOSITION + b'; filename="a.png"\r\nContent-Type: image/png'
BINARY = b"\x89PNG\r\n\x1a\n\x00\xff"


def part(head: bytes, content: bytes) -> bytes:
    return b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


def parse(body: bytes, max_images: int = 4) -> list[tuple[str | None, bytes]]:
    return parse_form(body, b"b", max_images, PARAMETERS)


def rejection(body: bytes, boundary: bytes = b"b", max_images: int = 4) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_form(body, boundary, max_images, PARAMETERS)
    return caught.value


def test_images_keep_their_order_and_every_byte() -> None:
    contents = [bytes(range(256)), b"", b"\r\n\r\n-b", b"\r\n--\r\n--"]

    assert parse(form(*(part(HEAD, content) for content in contents))) == [("a.png", content) for content in contents]


@pytest.mark.parametrize(
    "head",
    [
        HEAD.lower(),
        HEAD.replace(b"\r\nContent-Type: image/png", b""),
        HEAD + b"\r\nX-Other: 1\r\nContent-Length: 3",
        b"Content-Type: image/png\r\n" + DISPOSITION + b'; filename="a.png"',
        b"Content-Disposition: form-data; filename=a.png; name=f",
        b"Content-Disposition:form-data;name=f;filename=a.png",
        b'Content-Disposition: attachment; filename="a.png"',
    ],
)
def test_headers_may_be_written_in_every_legal_way(head: bytes) -> None:
    assert parse(form(part(head, BINARY))) == [("a.png", BINARY)]


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        (b'; filename="a.png"', "a.png"),
        (b"; filename=a.png", "a.png"),
        (b'; filename="a b;c.png"', "a b;c.png"),
        (rb'; filename="a\"b.png"', 'a"b.png'),
        (rb'; filename="C:\pictures\a.png"', "a.png"),
        ('; filename="ä€.png"'.encode(), "ä€.png"),
        ('; filename="ä.png"'.encode("latin-1"), "ä.png"),
        (b"; filename*=UTF-8''%E2%82%AC.png", "€.png"),
        (b"; filename*=utf-8'en'%e2%82%ac.png", "€.png"),
        (b"; filename*=iso-8859-1''%E4.png", "ä.png"),
        (b"; filename=a.png; filename*=UTF-8''%E2%82%AC.png", "€.png"),
        (b"; filename*=UTF-8''%E2%82%AC.png; filename=a.png", "€.png"),
        (b"; filename=\"a.png\"; filename*=punycode''b.png", "a.png"),
        (b"; filename=\"; filename*=UTF-8''b.png\"", "; filename*=UTF-8''b.png"),
        (b"; filename*=UTF-8''" + b"%E2%82%AC" * 1024, "€" * 1024),
        (b'; filename=""', None),
        (b"", None),
    ],
)
def test_filename_is_decoded_and_its_extended_form_preferred(parameters: bytes, filename: str | None) -> None:
    head = DISPOSITION + parameters + b"\r\nContent-Type: image/png"

    assert parse(form(part(head, BINARY))) == [(filename, BINARY)]


@pytest.mark.parametrize(
    "parameters",
    [
        b'; filename*=x; "' + b'\\"' * 8000,
        b'; filename*=x; "' + b"\\" * 16_000,
        b"; filename*" + b";filename*=utf-8'" * 900,
        b"; filename*;" + b" " * 16_000,
        b'; filename*="' + b";" * 16_000,
    ],
    ids=["escaped quotes", "backslashes", "filenames", "spaces", "semicolons"],
)
def test_a_filename_is_looked_for_in_linear_time(parameters: bytes) -> None:
    """A call of `re` holds up every thread: with an open quote of 16 KB, one took a second."""
    body = form(part(DISPOSITION + parameters, BINARY))
    start = time.thread_time()

    parse(body)

    assert time.thread_time() - start < 0.3


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "utf-7", "zlib", "nonsense"])
def test_charset_that_a_client_names_is_not_looked_at(client: TestClient, charset: str) -> None:
    body = form(part('Content-Disposition: form-data; name="f"; filename="ä"'.encode(), b"no image"))

    response = client.post(
        "/classify", content=body, headers={"Content-Type": f"multipart/form-data; charset={charset}; boundary=b"}
    )

    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("ä: ")


@pytest.mark.parametrize(
    ("head", "content"),
    [
        (DISPOSITION + b"\r\nContent-Type: image/png", b"text"),
        (DISPOSITION + b"\r\nContent-Type: application/octet-stream", b"text"),
        (DISPOSITION, BINARY),
        (DISPOSITION, b"P6 1 1 255\n\xff\xfe\xfd"),
        (DISPOSITION + b"\r\nContent-Type: text/plain; charset=utf-8", BINARY),
        (b"Content-Type: image/png", BINARY),
        (b"X-Other: 1", BINARY),
    ],
)
def test_part_without_filename_is_an_image_by_its_type_or_its_bytes(head: bytes, content: bytes) -> None:
    assert parse(form(part(HEAD, b"1"), part(head, content))) == [("a.png", b"1"), (None, content)]


@pytest.mark.parametrize(
    ("head", "content"),
    [
        (b'Content-Disposition: form-data; name="submit"', b"Classify"),
        (b'Content-Disposition: form-data; name="submit"', "Größe\r\n€".encode()),
        (b'Content-Disposition: form-data; name="submit"', b"long text" * 1000),
        (b'Content-Disposition: form-data; name="submit"', "a€".encode() * 10_000),
        (b'Content-Disposition: form-data; name="empty"', b""),
        (b'Content-Disposition: form-data; name="data"\r\nContent-Type: application/json', b'{"a": 1}'),
        (b'Content-Disposition: form-data; name="not chosen"; filename=""', b""),
        (
            b'Content-Disposition: form-data; name="not chosen"; filename=""\r\nContent-Type: application/octet-stream',
            b"",
        ),
    ],
)
def test_text_fields_and_empty_file_inputs_are_ignored(head: bytes, content: bytes) -> None:
    assert parse(form(part(head, content), part(HEAD, BINARY), part(head, content))) == [("a.png", BINARY)]
    assert rejection(form(part(head, content))).code == "no_images"


@pytest.mark.parametrize("name", ["model", "top_k", "Model", "TOP_K"])
def test_query_parameter_as_a_field_is_rejected_by_name(name: str) -> None:
    body = form(part(HEAD, BINARY), part(f'Content-Disposition: form-data; name="{name}"'.encode(), b"tiny-rgb"))

    error = rejection(body)

    assert error.code == "invalid_form"
    assert name in str(error)


@pytest.mark.parametrize("encoding", [b"binary", b"8BIT", b" 7bit"])
def test_a_transfer_encoding_that_changes_nothing_is_accepted(encoding: bytes) -> None:
    assert parse(form(part(HEAD + b"\r\nContent-Transfer-Encoding: " + encoding, BINARY))) == [("a.png", BINARY)]


@pytest.mark.parametrize(
    ("head", "content", "header"),
    [
        (HEAD + b"\r\nContent-Transfer-Encoding: base64", b"iVBO", "Content-Transfer-Encoding: base64"),
        (HEAD + b"\r\ncontent-transfer-encoding:Quoted-Printable", b"=89PNG", "quoted-printable"),
        (
            DISPOSITION + b"\r\nContent-Type: multipart/mixed; boundary=c",  # of curl -F file=@a.png,b.png
            b'--c\r\nContent-Disposition: attachment; filename="a.png"\r\n\r\n' + BINARY + b"\r\n--c--",
            "Content-Type: multipart/mixed",
        ),
    ],
    ids=["base64", "quoted-printable", "several files in a field"],
)
def test_a_file_that_is_encoded_or_nested_is_rejected_by_its_header(head: bytes, content: bytes, header: str) -> None:
    error = rejection(form(part(HEAD, BINARY), part(head, content)))

    assert error.code == "invalid_form"
    assert header in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"preamble\r\n" + form(part(HEAD, b"1")),
        form(part(HEAD, b"1"))[:-6],
        form(part(HEAD, b"1"))[:-4],
        b"--b\r\n" + HEAD,
        part(HEAD, b"1"),
        form(b"--b\r\nno colon\r\n\r\n1\r\n"),
        form(part(HEAD + b"\r\nX: y" * 100, b"1")),
        form(part(DISPOSITION + b'; filename="' + b"a" * 20_000 + b'"', b"1")),
        form(part(DISPOSITION + b'; filename="' + b"a" * 1025 + b'"', b"1")),
    ],
    ids=[
        *("empty", "garbage", "preamble", "no closing boundary", "half a closing boundary", "cut in the headers"),
        *("cut off", "no colon", "many headers", "large header", "long file name"),
    ],
)
def test_malformed_form_is_rejected(body: bytes) -> None:
    assert rejection(body).code == "invalid_form"


@pytest.mark.parametrize("boundary", [b"", b"c", b"b" * 5000, b"\xff"])
def test_wrong_boundary_is_rejected(boundary: bytes) -> None:
    assert rejection(form(part(HEAD, b"1")), boundary).code == "invalid_form"


@pytest.mark.parametrize("count", [4, 5, 4 + MAX_FIELDS, 1000])
def test_more_images_than_the_limit_are_rejected(count: int) -> None:
    body = form(*(part(HEAD, b"1") for _ in range(count)))

    if count <= 4:
        assert len(parse(body)) == count
    else:
        assert rejection(body).code == "too_many_images"


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" + HEAD + b"\r\n\r\n" + b"\r\n--bx" * 5_000_000,
        b"--b\r\n" + HEAD + b"\r\n\r\n1\r\n--b" + b" " * 30_000_000,
        b"\r\n" * 15_000_000,
        b"\r\n-" * 10_000_000,
        b"--b\r\n" + b" " * 30_000_000,
        b"--b\r\n" + b"a" * 30_000_000,
        b"--b\r\nX:" + b" " * 30_000_000,
        b"--b\r\n" + b"X: y\r\n" * 5_000_000,
    ],
    ids=["false boundaries", "padding", "lines", "dashes", "spaces", "header name", "header value", "headers"],
)
def test_hostile_form_of_30_megabytes_is_rejected_within_a_second(body: bytes) -> None:
    started = time.thread_time()

    assert rejection(body, max_images=64).code in ("invalid_form", "too_many_images")
    assert time.thread_time() - started < 1


def test_forms_of_client_libraries_are_parsed() -> None:
    request = httpx2.Request("POST", "http://x", files=[("file", ("a b.png", b"1", "image/png")), ("file", b"2")])
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()

    assert parse_form(request.read(), boundary, 2, PARAMETERS) == [("a b.png", b"1"), ("upload", b"2")]


def test_large_form_gets_the_same_answer_as_a_small_one(client: TestClient, pixels: np.ndarray) -> None:
    """Large forms are parsed in a thread."""
    small = [("file", ("a.png", as_png(pixels[0])))]
    large = [*small, ("file", ("b.png", b"\0" * 100_000))]

    result = client.post("/classify", files=small).json()["results"][0]

    assert client.post("/classify", files=large).json()["results"][0] == result


def test_part_without_filename_is_named_by_its_number(client: TestClient, pixels: np.ndarray) -> None:
    body = form(part(HEAD, as_png(pixels[0])), part(DISPOSITION, as_png(pixels[1])), part(DISPOSITION, b"\0"))

    response = client.post("/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})

    results = response.json()["results"]
    assert [result["filename"] for result in results] == ["a.png", None, None]
    assert "label" in results[1]
    assert results[2]["error"]["message"].startswith("image 3: ")
