"""Error codes: programs rely on them, so each is documented with its status."""

import re
from pathlib import Path

from serving.errors import ChangeRefusedError, RequestError, ServingError
from serving.http.errors import too_many_images
from serving.interface.statuses import STATUSES

ROOT = Path(__file__).parents[2]

# Errors of requests that no operation sees. The others are generated from STATUSES.
OUTSIDE_OPERATIONS = {
    "malformed_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "headers_too_large": 431,
}


def test_documentation_lists_every_error_code() -> None:
    document = " ".join((ROOT / "docs" / "reference" / "errors.md").read_text().split())

    assert "<!-- generated: error-codes -->" in document
    for code, status in OUTSIDE_OPERATIONS.items():
        assert f"{status} `{code}`" in document


def test_every_error_of_serving_has_a_status() -> None:
    codes = {error.code for error in ServingError.__subclasses__() if error not in (RequestError, ChangeRefusedError)}
    source = "".join(file.read_text() for file in (ROOT / "serving").rglob("*.py"))
    raised = set(re.findall(r'\bRequestError\(\s*"([a-z_]+)"', source))

    assert len(codes) == 10
    assert len(raised) > 10
    assert codes | raised <= STATUSES.keys()


def test_limits_on_images_are_in_the_singular_or_plural() -> None:
    assert str(too_many_images(1)).endswith(" 1 image")
    assert str(too_many_images(2)).endswith(" 2 images")
