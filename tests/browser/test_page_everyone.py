"""The page at / for everyone: axe's rules in both colour schemes, telephones, the keyboard alone."""

import json
from collections.abc import Callable

import pytest

from tests.browser.devtools import Page
from tests.browser.page import AXE, IN_A_BROWSER, STAGE, faults, picture, wait_for_label

pytestmark = IN_A_BROWSER


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(scheme: str, open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&other=cifar10-resnet32&sample=ship")
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.wait_for("document.querySelectorAll('.answer').length === 2")
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    page.evaluate("document.getElementById('play-note').textContent = 'Changed'")
    page.evaluate(AXE + "; undefined")
    assert faults(page) == []
    for dialog in ("key-dialog", "draw-dialog", "camera-dialog"):
        page.evaluate(f"document.getElementById('{dialog}').showModal()")
        assert faults(page) == []
        page.evaluate(f"document.getElementById('{dialog}').close()")


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_shows_everything_without_scrolling_sideways(width: int, open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&other=cifar10-resnet32&sample=ship")
    page.wait_for("document.querySelectorAll('.answer').length === 2")
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=2, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    box = "document.querySelector('{}').getBoundingClientRect()"
    assert page.evaluate(f"{box.format('.halves math:last-child')}.right < {box.format('#pde')}.right")
    page.evaluate("document.querySelector('#other option:checked').textContent = 'a-model-with-a-rather-long-name'")
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [320, 375, 390, 720, 1180])
def test_every_bar_has_a_width(width: int, open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&other=cifar10-resnet32&sample=automobile")
    page.wait_for("document.querySelectorAll('.answer').length === 2")
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=2, mobile=True)
    widths = "[...document.querySelectorAll('.bar')].map(bar => bar.clientWidth)"
    assert min(page.evaluate(widths)) >= 40
    page.evaluate("document.querySelectorAll('.label')[1].textContent = 'class_07_of_a_hundred'")
    assert min(page.evaluate(widths)) >= 40


def test_high_contrast_keeps_bars_marks_and_choices(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate(
        "import('./page/answer.js').then(({ bars }) => { const top = [{ label: '3', index: 3, score: 0.5 }]; "
        "document.querySelector('.bars').replaceWith(bars(top, top)) })"
    )
    page.send("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])

    def shown(selector: str) -> list[str]:
        style = f"getComputedStyle(document.querySelector({selector!r}))"
        return page.evaluate(f"(({{ backgroundColor, borderColor }}) => [backgroundColor, borderColor])({style})")

    for one, other in (
        (".bar .fill", ".bar"),
        (".bar .mark", ".bar"),
        (".split .decode", ".split .queue"),
        (".split .inference", ".split .queue"),
        (".split .inference", ".split .decode"),
        (".segments label:has(:checked)", ".segments label:not(:has(:checked))"),
        (".thumbnails label:has(:checked)", ".thumbnails label:not(:has(:checked))"),
    ):
        assert shown(one) != shown(other), (one, other)


def test_print_is_light_and_keeps_what_colours_say(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    light = picture(page)
    page.send("Emulation.setEmulatedMedia", features=dark)
    page.wait_for(f"{STAGE} !== {json.dumps(light)}")
    page.send("Emulation.setEmulatedMedia", media="print", features=dark)
    page.wait_for(f"{STAGE} === {json.dumps(light)}")
    for selector in (".bar", ".bar .fill", ".split span", ".times .legend li"):
        style = f"getComputedStyle(document.querySelector({selector!r}))"
        assert page.evaluate(f"{style}.printColorAdjust") == "exact", selector


@pytest.mark.parametrize("width", [320, 390])
def test_the_caption_stands_beside_the_colour_bar(width: int, open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship&show=change&channel=all")
    wait_for_label(page, "ship")
    page.evaluate(
        """(() => {
          const { fillRect, fillText } = CanvasRenderingContext2D.prototype;
          CanvasRenderingContext2D.prototype.fillRect = function (x, y, width, height) {
            if (height === 10) window.barEnds = x + width;
            return fillRect.call(this, x, y, width, height);
          };
          CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
            if (text.includes("all channels")) window.captionStarts = x - this.measureText(text).width;
            return fillText.call(this, text, x, y);
          };
        })()"""
    )
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=2, mobile=True)
    assert page.wait_for("window.captionStarts && window.barEnds && captionStarts - barEnds") > 5
    assert page.evaluate("barEnds") > 60


def test_everything_is_reached_by_keyboard(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className || "
                                  "document.activeElement.name || document.activeElement.dataset.sample"))  # fmt: skip
    expected = {"file", "camera", "draw", "model", "other", "dt", "num-steps", "advection", "diffusion", "reset"}
    assert expected | {"stage", "play", "step", "channel", "arrows", "save", "show", "enter-key"} <= reached
