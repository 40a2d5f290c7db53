"""Chromium, where there is one, and what the tests of several pages look at, do and wait for."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.browser.devtools import Page
from tests.servers import ROOT

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# In CI a missing browser is a failure.
IS_SKIPPED = BROWSER is None and "CI" not in os.environ
IN_A_BROWSER = [pytest.mark.slow, pytest.mark.skipif(IS_SKIPPED, reason="Chromium is not installed")]

SEVEN = ROOT / "examples" / "seven.png"
AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
FIRST_LABEL = "document.querySelector('.bars li .label')?.textContent"
NOTE = "document.getElementById('play-note').textContent"
STAGE = "document.querySelector('.stage').toDataURL()"
MESSAGE = "document.getElementById('message').textContent"


def leave(page: Page) -> None:
    """Leave the page that is open, and forget its complaints and requests."""
    page.send("Page.navigate", url="about:blank")
    page.complaints.clear()
    page.requested.clear()


def wait_for_label(page: Page, label: str) -> None:
    page.wait_for(f"{FIRST_LABEL} === {json.dumps(label)} && !document.querySelector('.busy')")


def picture(page: Page) -> str:
    """Return the picture of the stage once it is drawn: the same in two frames."""
    return page.evaluate(
        """(async () => {
          const frame = () => new Promise((done) => requestAnimationFrame(() => done(STAGE)));
          let [former, latest] = [await frame(), await frame()];
          while (former !== latest) [former, latest] = [latest, await frame()];
          return latest;
        })()""".replace("STAGE", STAGE)
    )


def set_slider(page: Page, name: str, value: float) -> None:
    page.evaluate(
        f"(() => {{ const slider = document.getElementById('{name}'); slider.value = {value}; "
        "slider.dispatchEvent(new Event('input', { bubbles: true })) })()"
    )


def hold_requests(page: Page, text: str) -> None:
    """Keep the answers to requests with a text in their address back until `release()`; `held` counts them."""
    page.evaluate(
        """(() => {
          const real = window.fetch;
          const released = new Promise((done) => (window.release = done));
          window.held = 0;
          window.fetch = async (address, options) => {
            const answer = await real(address, options);
            if (!String(address).includes(TEXT)) return answer;
            held += 1;
            await released;
            return answer;
          };
        })()""".replace("TEXT", json.dumps(text))
    )


def watch_cameras(page: Page) -> None:
    """Keep every stream that the page opens in `streams`; each takes a moment to open, as if the reader were asked."""
    page.evaluate(
        """(() => {
          const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          window.streams = [];
          navigator.mediaDevices.getUserMedia = async (wanted) => {
            await new Promise((done) => setTimeout(done, 300));
            streams.push(await open(wanted));
            return streams.at(-1);
          };
        })()"""
    )


def faults(page: Page) -> list[Any]:
    return page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(node => node.html)]))"
    )
