"""The page at /docs classifies an image in a real browser, without errors or violations of its security policy."""

import json
from collections.abc import Iterator

import pytest

from tests.browser.devtools import Page
from tests.browser.page import IN_A_BROWSER, leave
from tests.servers import ROOT, Server

pytestmark = IN_A_BROWSER

CLASSIFY = "#operations-images-classify_classify_post"


@pytest.fixture
def page(browser: Page, server: Server) -> Iterator[Page]:
    """The loaded page. Afterwards, it has broken no rule."""
    leave(browser)
    browser.send("Page.navigate", url=f"http://127.0.0.1:{server.port}/docs")
    browser.wait_for("document.querySelectorAll('.opblock').length > 10")
    yield browser
    assert browser.evaluate("violations") == []
    assert browser.complaints == []


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
