"""The page at /docs classifies an image in a real browser, without errors or violations of its security policy."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.devtools import Page, open_page
from tests.servers import ROOT, Server, running_server

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# In CI a missing browser is a failure.
IS_SKIPPED = BROWSER is None and "CI" not in os.environ
pytestmark = [pytest.mark.slow, pytest.mark.skipif(IS_SKIPPED, reason="Chromium is not installed")]

CLASSIFY = "#operations-images-classify_classify_post"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "log", "digits-pde") as server:
        yield server


@pytest.fixture
def page(server: Server, tmp_path: Path) -> Iterator[Page]:
    """The loaded page, which records violations of its content security policy."""
    with open_page(str(BROWSER), tmp_path / "profile") as page:
        page.send(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.violations = []; document.addEventListener('securitypolicyviolation', "
            "event => violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`))",
        )
        page.send("Page.navigate", url=f"http://127.0.0.1:{server.port}/docs")
        page.wait_for("document.querySelectorAll('.opblock').length > 10")
        yield page
        assert page.evaluate("violations") == []
        assert page.complaints == []


def test_the_page_classifies_an_image(page: Page) -> None:
    page.click(f"{CLASSIFY} .opblock-summary-control")
    page.choose_file(f"{CLASSIFY} input[type=file]", ROOT / "examples" / "seven.png")
    page.click(f"{CLASSIFY} .execute")
    status = page.wait_for(
        f"document.querySelector('{CLASSIFY} .live-responses-table tbody .response-col_status')?.innerText"
    )
    body = page.wait_for(
        f"document.querySelector('{CLASSIFY} .live-responses-table .response-col_description pre')?.innerText"
    )

    assert status.split()[0] == "200"
    assert json.loads(body)["results"][0]["label"] == "7"
