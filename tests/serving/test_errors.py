"""The codes of errors are documented: programs rely on them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY_READS = {"client_disconnected"}


def test_every_code_stands_in_the_documentation_with_its_status() -> None:
    document = (ROOT / "docs" / "serving.md").read_text()
    table = {
        (int(status), code)
        for status, codes in re.findall(r"^\| (\d{3}) \| (.*) \|$", document, re.MULTILINE)
        for code in re.findall("`([a-z_]+)`", codes)
    }
    source = "".join(file.read_text() for file in (ROOT / "serving").rglob("*.py"))
    raised = re.findall(r"\b(\d{3})(?:,| [A-Z][A-Za-z ]+\",)\s+f?\"([a-z]+_?[a-z_]*)\"", source)

    assert len(raised) > 20
    assert {(int(status), code) for status, code in raised if code not in NOBODY_READS} <= table
