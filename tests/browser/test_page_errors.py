"""The page at / says what went wrong, and asks for a key where the server wants one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.devtools import Page
from tests.browser.page import IN_A_BROWSER, MESSAGE, wait_for_label
from tests.servers import running_server

pytestmark = IN_A_BROWSER


def test_a_bad_and_a_large_file_have_clear_messages(open_at: Callable[..., Page], tmp_path: Path) -> None:
    page = open_at("model=digits-pde&sample=digit-3", may_fail="status of (413|422)|Connection reset|ERR_")
    wait_for_label(page, "3")
    (tmp_path / "notes.txt").write_text("no picture")
    page.choose_file("#file", tmp_path / "notes.txt")
    assert page.wait_for(f"{MESSAGE}.includes('notes.txt') && {MESSAGE}").startswith("This file cannot be read")
    (tmp_path / "large.png").write_bytes(b"\0" * 400_000)
    page.choose_file("#file", tmp_path / "large.png")
    assert "300000 bytes" in page.wait_for(f"{MESSAGE}.startsWith('The file is too large') && {MESSAGE}")
    page.click("[data-sample=digit-5]")
    wait_for_label(page, "5")
    assert page.evaluate("document.getElementById('message').hidden")


def test_a_server_that_is_gone_has_a_message_and_a_second_try(open_at: Callable[..., Page], tmp_path: Path) -> None:
    with running_server(tmp_path / "log", "digits-pde") as server:
        page = open_at("model=digits-pde&sample=digit-3", server.port, may_fail="ERR_|Failed to load")
        wait_for_label(page, "3")
    page.evaluate("document.getElementById('reset').click()")
    assert page.wait_for(f"{MESSAGE}.includes('does not answer') && {MESSAGE}").endswith("Try again")


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("not_ready", 503, "The server is about to stop"),
        ("overloaded", 503, "The server is busy"),
        ("deadline_exceeded", 504, "The server ran out of time"),
        ("internal_error", 500, "The server failed on this picture"),
    ],
)
def test_trouble_of_the_server_has_a_clear_message(
    code: str, status: int, message: str, open_at: Callable[..., Page]
) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    body = json.dumps({"error": {"code": code, "message": "..."}})
    page.evaluate(
        f"window.fetch = () => Promise.resolve(new Response({json.dumps(body)}, {{ status: {status} }})); "
        "document.getElementById('other').dispatchEvent(new Event('change'))"
    )
    assert page.wait_for(f"!document.getElementById('message').hidden && {MESSAGE}").startswith(message)


def test_no_former_layer_stays_under_the_name_of_one_that_fails(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship")
    wait_for_label(page, "ship")
    shown = "document.querySelector('.stage').checkVisibility({ visibilityProperty: true })"
    page.wait_for(shown)
    page.evaluate(
        """window.real = window.fetch; window.fetch = () => Promise.resolve(
          new Response('{"error": {"code": "overloaded"}}', { status: 503 })); undefined"""
    )
    page.click("[aria-label='PDE layer'] input[value='2']")
    page.wait_for(f"{MESSAGE}.startsWith('The server is busy') && !{shown}")
    page.evaluate("document.querySelector('#message button').focus()")
    page.press(" ")
    page.wait_for("document.activeElement.textContent === 'Try again'")  # that of the new message
    page.evaluate("window.fetch = real; undefined")
    page.press(" ")
    page.wait_for(f"{shown} && document.querySelector('.stage').getAttribute('aria-label').includes('layer2')")
    page.wait_for("document.getElementById('message').hidden && document.activeElement.id === 'answer-title'")


def test_an_answer_that_breaks_off_has_a_message(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate(
        "window.fetch = () => Promise.resolve(new Response('{')); "
        "document.getElementById('other').dispatchEvent(new Event('change'))"
    )
    page.wait_for(f"{MESSAGE}.includes('does not answer')")


def test_a_key_that_no_header_carries_is_refused_in_the_dialog(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.click("#enter-key")
    for key, is_accepted in (("20 \u20ac", False), ("schl\u00fcssel", False), (" ", False), ("a key!~", True)):
        page.evaluate(f"document.getElementById('key').value = {json.dumps(key)}")
        page.click("#key-dialog [value=use]")
        page.wait_for(f"document.getElementById('key-dialog').open === {json.dumps(not is_accepted)}")


def test_a_key_is_asked_for_and_kept_in_memory(open_at: Callable[..., Page], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("the-key")
    with running_server(tmp_path / "log", "digits-pde", f"--api-keys-file={tmp_path / 'keys'}") as server:
        page = open_at("model=digits-pde&other=digits-pde&sample=digit-3", server.port, may_fail="status of 401")
        page.wait_for("document.getElementById('key-dialog').open")
        refused = "document.getElementById('key-refused').checkVisibility()"
        assert not page.evaluate(refused)
        page.evaluate("document.getElementById('key').value = 'the-key'")
        page.click("#key-dialog [value=use]")
        wait_for_label(page, "3")
        stored = "[localStorage.length, sessionStorage.length, document.cookie, document.getElementById('key').value]"
        assert page.evaluate(stored) == [0, 0, "", ""]
        assert "the-key" not in page.evaluate("location.href")

        page.evaluate("document.getElementById('enter-key').click()")
        page.evaluate("document.getElementById('key').value = 'another'")
        page.click("#key-dialog [value=use]")
        page.wait_for(f"document.getElementById('key-dialog').open && {refused}")  # asks again
        page.click("#key-dialog [value=cancel]")
        page.wait_for(f"!document.getElementById('message').hidden && {MESSAGE}.startsWith('The server refused')")
        page.click("#enter-key")
        assert not page.evaluate(refused)
