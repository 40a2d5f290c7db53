"""Error codes: programs rely on them, so each is documented with its status."""

import re
from pathlib import Path

from serving.errors import ChangeRefusedError, ServingError
from serving.http.errors import STATUSES, ApiError

ROOT = Path(__file__).parents[2]
NEVER_SEEN = {"client_disconnected"}  # the client has gone
OF_THE_ROUTING = {"not_found": 404, "method_not_allowed": 405}
OF_THE_PROTOCOL = {"malformed_request": 400, "headers_too_large": 431}


def test_documentation_lists_every_error_code_with_its_status() -> None:
    document = (ROOT / "docs" / "serving.md").read_text()
    listed = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d{3}) \| (.*) \|$", document, re.MULTILINE)
        for code in re.findall("`([a-z_]+)`", codes)
    }

    expected = {code: status for code, status in STATUSES.items() if code not in NEVER_SEEN}
    assert listed == {**expected, **OF_THE_ROUTING, **OF_THE_PROTOCOL}


def test_every_error_of_serving_has_a_status() -> None:
    codes = {error.code for error in ServingError.__subclasses__() if error not in (ApiError, ChangeRefusedError)}
    source = "".join(file.read_text() for file in (ROOT / "serving").rglob("*.py"))
    raised = set(re.findall(r'\b(?:ApiError|error_response)\(\s*(?:scope, )?"([a-z_]+)"', source))

    assert len(codes) == 7
    assert len(raised) > 10
    assert codes | raised <= STATUSES.keys()
