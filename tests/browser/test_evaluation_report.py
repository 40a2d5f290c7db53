"""The report of `pdeinfer evaluate` on paper and in high contrast."""

from pathlib import Path

from pdeinfer.checks.evaluation_report import write_report
from pdeinfer.checks.measuring import evaluate
from tests.browser.devtools import Page
from tests.browser.page import IN_A_BROWSER

pytestmark = IN_A_BROWSER


def test_print_and_high_contrast_keep_the_confusion_matrix(browser: Page, tmp_path: Path) -> None:
    browser.send("Page.navigate", url=write_report(evaluate("digits-pde"), tmp_path).as_uri())
    browser.wait_for("document.querySelector('.matrix .wrong') !== null")

    def style(selector: str, name: str) -> str:
        return browser.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{name}")

    ink = style("body", "color")
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.send("Emulation.setEmulatedMedia", media="print", features=[dark])
    assert style("body", "color") == ink
    assert style(".right", "printColorAdjust") == style(".wrong", "printColorAdjust") == "exact"
    browser.send("Emulation.setEmulatedMedia", media="", features=[{"name": "forced-colors", "value": "active"}])
    assert style(".right", "outlineStyle") == "solid"
