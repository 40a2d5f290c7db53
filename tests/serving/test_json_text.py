"""Long JSON is parsed in pieces: the same result as in one call, and no call with much to do."""

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdeinfer import ImageError, InputSpec
from serving.errors import RequestError
from serving.http import json_images, json_text
from serving.http.classify import PARAMETERS
from serving.http.json_images import parse_json_images
from serving.http.json_text import LONG_BYTES, PARSED_WHOLE, PIECE_BYTES, cut
from serving.http.v2 import request as v2_request
from serving.http.v2.request import parse_request

IMAGES = 4
LONGEST = 32 * 2**20
SPEC = InputSpec(height=4, width=3, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
PIXELS = np.random.default_rng(5).integers(0, 256, (2, 4, 3, 3), np.uint8)


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat short JSON as long JSON is treated."""
    for module in (json_text, json_images, v2_request):
        monkeypatch.setattr(module, "PARSED_WHOLE", 270)
    for module in (json_text, v2_request):
        monkeypatch.setattr(module, "PIECE_BYTES", 40)
    monkeypatch.setattr(json_text, "LONG_BYTES", 64)


def outcome(parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except RequestError as error:
        return error.code


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: text.rstrip("="),
        lambda text: text.replace("/", r"\/"),
        lambda text: text.replace("+", r"\u002b").replace("/", r"\u002F"),
        lambda text: "".join(rf"\u00{ord(letter):02x}" for letter in text),
        lambda text: r"\r\n".join(text[i : i + 19] for i in range(0, len(text), 19)) + r"\n",
        lambda text: "data:image/png;base64," + text,
        lambda text: r"data:image\/png;base64," + text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
        lambda text: text + "====",
    ],
    ids=[
        *("plain", "no padding", "PHP", ".NET", "all escaped", "lines", "data URL", "percent signs", "much padding"),
    ],
)
@pytest.mark.parametrize("size", range(200, 240, 7))
@pytest.mark.usefixtures("short_pieces")
def test_long_base64_is_decoded_however_it_is_written(write: Callable[[str], str], size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    text = write(base64.b64encode(content).decode())
    body = f'{{"images": [{{"content": "{text}", "filename": "a"}}, "{text}", ""]}}'.encode()

    assert parse_json_images(body, IMAGES, PARAMETERS) == [("a", content), (None, content), (None, b"")]


@pytest.mark.parametrize("wrong", ["=A", "é", "\\u20ac", "\t", "\\", "\\x", "%41", "!", "\\\\", "AAAAA="])
@pytest.mark.usefixtures("short_pieces")
def test_long_text_that_is_not_base64_is_an_error_of_its_image(wrong: str) -> None:
    good = "A" * 160
    body = f'{{"images": ["{good}", "{good}{wrong}{good}"]}}'.encode()
    if wrong == "\\":  # escapes nothing
        body = body.replace(b"\\A", b"\\ A")

    (_, first), (_, second) = parse_json_images(body, IMAGES, PARAMETERS)

    assert first == bytes(120)
    assert isinstance(second, ImageError)


@pytest.mark.usefixtures("short_pieces")
def test_a_long_file_name_is_not_taken_for_what_was_cut_out() -> None:
    body = json.dumps({"images": [{"content": "", "filename": "a" * 5000, "x": "b" * 100}]}).encode()

    with pytest.raises(RequestError) as caught:
        parse_json_images(body, IMAGES, PARAMETERS)

    assert caught.value.code == "invalid_json"


def v2_body(data: object, **fields: object) -> bytes:
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(PIXELS.shape), "data": data, **fields}
    return json.dumps({"inputs": [tensor], "id": 'a "quoted" name \\'}).encode()


@pytest.mark.parametrize("data", [PIXELS.tolist(), PIXELS.ravel().tolist()], ids=["nested", "flat"])
@pytest.mark.parametrize("space", [b"", b"\r\n\t   "])
@pytest.mark.usefixtures("short_pieces")
def test_long_lists_of_pixels_are_read(data: list[Any], space: bytes) -> None:
    body = v2_body(data).replace(b", ", b"," + space).replace(b"[", b"[" + space)

    parsed = parse_request(body, None, SPEC, IMAGES)

    assert parsed.id == 'a "quoted" name \\'
    np.testing.assert_array_equal(parsed.images, PIXELS)


FLAT = ",".join(map(str, PIXELS.ravel()))
NESTED = json.dumps(PIXELS.tolist(), separators=(",", ":"))[1:-1]


@pytest.mark.parametrize(
    "data",
    [
        FLAT + ",1",
        FLAT[: FLAT.rindex(",")],
        FLAT + ",",
        "," + FLAT,
        FLAT.replace(",", ",,", 1),
        FLAT.replace(",", " ", 1),
        FLAT.replace(",", ".5,", 1),
        "256" + FLAT[FLAT.index(",") :],
        "-1" + FLAT[FLAT.index(",") :],
        "1e1" + FLAT[FLAT.index(",") :],
        "00" + FLAT[FLAT.index(",") :],
        "true" + FLAT[FLAT.index(",") :],
        "null" + FLAT[FLAT.index(",") :],
        "{}" + FLAT[FLAT.index(",") :],
        "[]" + FLAT[FLAT.index(",") :],
        f"[{FLAT}]",
        NESTED + ",[]",
        NESTED[:-1],
        NESTED + "]",
        NESTED.replace("],[", "][", 1),
        NESTED.replace("],[", ",", 1),
        NESTED.replace(",", "],[", 1),
        re.sub(r"(\d+)\],\[", r"]\1,[", NESTED, count=1),
        f"[{NESTED}]",
        "[" * 500 + "]" * 500,
        " " * 500,
        "1" + " " * 38 + FLAT,  # the white space ends with a piece
    ],
)
@pytest.mark.usefixtures("short_pieces")
def test_long_lists_that_are_no_pixels_of_the_shape_are_rejected(data: str) -> None:
    body = v2_body([]).replace(b'"data": []', b'"data": [' + data.encode() + b"]")

    with pytest.raises(RequestError) as caught:
        parse_request(body, None, SPEC, IMAGES)

    assert caught.value.code in ("invalid_request", "invalid_json", "json_too_large")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=40), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_what_was_cut_out_fits_back_into_its_place(value: object) -> None:
    body = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "LONG_BYTES", 12)
        found = cut(body, 10**6)
    text = found.text
    for name, part in found.parts.items():
        original = bytes(part) if part[:1] == b"[" and f'"{name}"'.encode() in text else b""
        as_string = f'"{bytes(part).decode()}"'.encode()
        replacement = original if original and original in body and as_string not in body else as_string
        text = text.replace(f'"{name}"'.encode(), replacement)

    assert text == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"images": ["' + b"A" * (LONGEST - 15) + b'"]}',
        b'{"images": ["' + b"\\/" * (LONGEST // 2 - 15) + b'"]}',
        b'{"images": ["data:;base64,' + b"%2b" * (LONGEST // 3 - 15) + b'"]}',
        b'{"images": ["' + b"\\n" * (LONGEST // 2 - 15) + b'"]}',
        b'{"images": ["' + b'\\"' * (LONGEST // 2 - 15) + b'"]}',
        b'{"images": ["' + b"\\" * LONGEST + b'"]}',
        b"[" * LONGEST,
        b" " * LONGEST,
        b"1" * LONGEST,
        b'{"a":' * (LONGEST // 5),
        b'{"images": [' + b'"",' * (LONGEST // 3),
        b'{"inputs": [{"data": [' + b"0," * (LONGEST // 2),
        b'{"inputs": [{"data": [' + b"[]," * (LONGEST // 3) + b"0]}]}",
        b'{"inputs": [{"data": [' + b" " * LONGEST + b"]}]}",
        b'{"inputs": ["a"' + b",{}" * (LONGEST // 3) + b",[1]]}",
        b'{"inputs":' + b" " * LONGEST + b"[1]}",
    ],
    ids=[
        *("base64", "slashes", "percent signs", "lines", "quotes", "backslashes", "brackets", "spaces", "digits"),
        *("objects", "strings", "numbers", "lists", "space in a list"),
        *("objects before a list", "space before a list"),
    ],
)
def test_no_call_of_a_parser_has_much_to_do(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """Calls into C keep the event loop waiting."""
    sizes = [0]

    def measured(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(text: Any, *args: Any, **kwargs: Any) -> Any:
            sizes.append(len(text))
            return function(text, *args, **kwargs)

        return call

    monkeypatch.setattr(json, "loads", measured(json.loads))
    monkeypatch.setattr(base64, "b64decode", measured(base64.b64decode))
    validate = json_images.ImagesBody.model_validate_json
    monkeypatch.setattr(json_images.ImagesBody, "model_validate_json", measured(validate))
    large = InputSpec(height=224, width=224, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)

    outcome(lambda: parse_json_images(body, 64, PARAMETERS))
    outcome(lambda: parse_request(body, None, large, 64))

    assert max(sizes) <= max(PARSED_WHOLE + 2 * 64 * LONG_BYTES, PIECE_BYTES + 8)
