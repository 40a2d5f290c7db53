"""A server, Chromium, and the server's page in it."""

import re
from collections.abc import Callable, Iterator

import pytest

from tests.browser.devtools import Page, open_page
from tests.browser.page import BROWSER, leave
from tests.servers import Server, running_server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of four models, which takes pictures of at most 300,000 bytes."""
    models = ("digits-pde", "cifar10-global", "cifar10-resnet32", "mnist-pde")
    with running_server(tmp_path_factory.mktemp("server") / "log", *models, "--max-body-bytes=300000") as server:
        yield server


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser's page, which records violations of its content security policy."""
    with open_page(str(BROWSER), tmp_path_factory.mktemp("profile") / "profile") as page:
        page.send(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.violations = []; document.addEventListener('securitypolicyviolation', "
            "event => violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`))",
        )
        yield page


@pytest.fixture
def open_at(browser: Page, server: Server) -> Iterator[Callable[..., Page]]:
    """Open the page at a state. Afterwards, it has broken no rule and asked no other server."""
    leave(browser)
    ports: list[int] = []
    allowed: list[str] = []

    def open_at(state: str = "", port: int = server.port, *, may_fail: str = "") -> Page:
        ports.append(port)
        if may_fail:
            allowed.append(may_fail)
        browser.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        browser.send("Emulation.setEmulatedMedia", features=[])
        browser.send("Page.navigate", url="about:blank")
        browser.send("Page.navigate", url=f"http://127.0.0.1:{port}/#{state}")
        browser.wait_for("document.querySelector('#samples li, dialog[open]') !== null")
        return browser

    yield open_at
    assert browser.evaluate("violations") == []
    assert [text for text in browser.complaints if not any(re.search(pattern, text) for pattern in allowed)] == []
    hosts = {re.sub(r"^(blob:)?(https?://[^/]+)?.*", r"\2", url) for url in browser.requested}
    assert hosts - {""} <= {f"http://127.0.0.1:{port}" for port in ports}
