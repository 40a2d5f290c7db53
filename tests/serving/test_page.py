"""GET /: the page and its files are complete, small, cached, open and closed to other hosts."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings

MAX_BYTES = 150_000


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client without a key, of a server that has keys."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("the-key")
    settings = Settings(models=("digits-pde",), device="cpu", api_keys_file=keys)
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def loaded(client: TestClient) -> dict[str, str]:
    """What a browser loads at the address "/", by path: the page, and what it and its files name."""
    found: dict[str, str] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            response = client.get(path)
            assert response.status_code == 200, path
            found[path] = response.text
            names = re.findall(r'(?:src|href)="([^"#]+)"|from "([^"]+)"', response.text)
            waiting += [
                urljoin(path, name) for pair in names for name in pair if name and name not in ("docs", "page/samples/")
            ]
    return found


def test_the_page_and_its_files_are_small_and_from_this_host(loaded: dict[str, str]) -> None:
    assert {"/", "/page/app.js", "/page/view.js", "/page/view.css", "/page/page.css"} <= loaded.keys()
    assert sum(len(text.encode()) for text in loaded.values()) < MAX_BYTES
    addresses = {address for text in loaded.values() for address in re.findall(r"https?://[^\s\"']+", text)}
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}


def test_the_page_has_no_inline_script_or_style(loaded: dict[str, str]) -> None:
    page = loaded["/"]
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", page) == []


def test_its_addresses_are_relative(loaded: dict[str, str]) -> None:
    """Behind a proxy with a prefix, "/page/app.js" would be another server's."""
    for path, text in loaded.items():
        assert re.findall(r'(?:src|href)="/|fetch\(["`]/|ask\(["`]/', text) == [], path


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/view.css", "/page/icon.svg", "/page/samples/ship.png"])
def test_browsers_keep_a_file_until_it_changes(path: str, client: TestClient) -> None:
    response = client.get(path)
    assert response.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-length" not in again.headers
    assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200
    weak = f'"another", W/{response.headers["etag"]}'  # of a proxy that compresses
    assert client.get(path, headers={"If-None-Match": weak}).status_code == 304
    lines = [("If-None-Match", '"another"'), ("If-None-Match", response.headers["etag"])]
    assert client.get(path, headers=lines).status_code == 304
    assert client.get(path, headers={"If-None-Match": "*"}).status_code == 304
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(response.content)


def test_the_policy_forbids_everything_but_this_server(client: TestClient) -> None:
    policy = dict(entry.split(None, 1) for entry in client.get("/").headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not any(word in value for value in policy.values() for word in ("unsafe", "*", "http"))


def test_only_the_page_is_open_without_a_key(client: TestClient) -> None:
    assert client.get("/").status_code == 200
    for path in ("/models", "/metadata", "/pages"):
        assert client.get(path).status_code == 401


def test_files_outside_of_the_page_are_not_served(client: TestClient) -> None:
    for path in ("/page/", "/page/index.html", "/page/../app.py", "/page/%2e%2e/settings.py", "/page/samples/"):
        assert client.get(path).status_code in (401, 404)


def test_every_sample_of_the_page_exists(client: TestClient, loaded: dict[str, str]) -> None:
    listed = loaded["/page/samples.js"].partition("SAMPLES = [")[2].partition("];")[0]
    names = re.findall(r'\["([\w-]+)", "\w+"\]', listed)
    assert len(names) == 8
    for name in names:
        assert client.get(f"/page/samples/{name}.png").headers["content-type"] == "image/png"


def test_the_samples_are_recognised() -> None:
    from pdeinfer import Predictor

    samples = Path(__file__).parents[2] / "serving/page/samples"
    for model, labels in (
        ("cifar10-global", ("ship", "airplane", "automobile", "frog")),
        ("digits-pde", ("digit-0", "digit-3", "digit-5", "digit-7")),
    ):
        with Predictor(model, device="cpu") as predictor:
            found = [predictor.predict(samples / f"{label}.png").label for label in labels]
        assert found == [label.removeprefix("digit-") for label in labels]
