"""The address of the page at / holds what is shown: a link shows the same."""

from collections.abc import Callable

import pytest

from tests.browser.devtools import Page
from tests.browser.page import FIRST_LABEL, IN_A_BROWSER, MESSAGE, SEVEN, wait_for_label

pytestmark = IN_A_BROWSER


def test_the_address_holds_the_state(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship&layer=2&show=Dy&channel=7&step=0")
    wait_for_label(page, "ship")
    page.wait_for("document.querySelector('.thumbnails input[value=Dy]')?.checked")
    assert page.evaluate("document.querySelector(\"[aria-label='PDE layer'] input:checked\").value") == "2"
    assert page.evaluate("document.getElementById('channel').value") == "7"
    assert page.evaluate("document.getElementById('step').value") == "0"
    page.click("[aria-label=Channels] input[value=mean]")
    address = page.evaluate("location.hash")
    assert all(part in address for part in ("layer=2", "show=Dy", "channel=mean", "sample=ship", "step=0"))


def test_a_link_works_in_a_tab_that_is_open(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&other=cifar10-resnet32&sample=ship&layer=2&show=u")
    wait_for_label(page, "ship")
    page.evaluate("location.hash = 'model=digits-pde&sample=digit-3&show=Dy'")
    wait_for_label(page, "3")
    assert page.evaluate("document.querySelectorAll('.answer').length") == 1
    assert page.evaluate("document.querySelector('.thumbnails input[value=Dy]').checked")
    page.choose_file("#file", SEVEN)
    wait_for_label(page, "7")
    page.evaluate("location.hash = 'model=digits-pde&show=Dx'")  # the reader's picture stays
    page.wait_for("document.querySelector('.thumbnails input[value=Dx]').checked && !document.querySelector('.busy')")
    assert page.evaluate(FIRST_LABEL) == "7"


def test_a_link_chooses_its_models_and_says_what_is_not_served(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&other=mnist-pde&sample=ship")
    page.wait_for("document.querySelectorAll('.answer').length === 2 && !document.querySelector('.busy')")
    assert page.evaluate("document.getElementById('status').textContent").startswith("digits-pde: ")
    page.evaluate("location.hash = 'model=no-such-model&sample=ship&layer=2'")
    page.wait_for("document.querySelector('.stage').getAttribute('aria-label').includes('layer2')")
    assert page.evaluate("document.getElementById('status').textContent") == "cifar10-global: ship, 100 %"
    assert "no-such-model" in page.evaluate(MESSAGE)
    page.evaluate("location.hash = 'sample=digit-3'")
    wait_for_label(page, "3")
    assert page.evaluate("document.getElementById('message').hidden")


@pytest.mark.parametrize("show", ["nothing", "toString", "__proto__"])
def test_a_layer_that_a_model_does_not_have_is_the_last_one(show: str, open_at: Callable[..., Page]) -> None:
    page = open_at(f"model=digits-pde&sample=digit-3&layer=9&channel=99&step=99&show={show}")
    wait_for_label(page, "3")
    state = page.wait_for("location.hash.includes('channel=7') && location.hash")
    assert all(part in state for part in ("layer=1", "step=5", "show=H"))
