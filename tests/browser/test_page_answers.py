"""The page at / shows the answers to the last choice, and what is known of each model."""

import json
from collections.abc import Callable

import pytest

from tests.browser.devtools import Page
from tests.browser.page import IN_A_BROWSER, MESSAGE, NOTE, SEVEN, hold_requests, set_slider, wait_for_label

pytestmark = IN_A_BROWSER

CHOICES = pytest.mark.parametrize(
    "choose",
    [
        "document.querySelector('[data-sample=digit-5]').click()",
        "document.getElementById('model').value = 'mnist-pde'; "
        "document.getElementById('model').dispatchEvent(new Event('change'))",
    ],
    ids=["picture", "model"],
)
SHOWN = "document.querySelector('.answers > *').checkVisibility({ visibilityProperty: true })"


def test_two_models_are_compared(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&other=cifar10-resnet32&sample=frog")
    page.wait_for("document.querySelectorAll('.answer').length === 2")
    for index, name in enumerate(("cifar10-global", "cifar10-resnet32")):
        text = page.evaluate(f"document.querySelectorAll('.answer')[{index}].textContent")
        assert text.startswith(f"{name}frog")
        assert "multiply-adds" in text
        assert "inference" in text


@CHOICES
def test_no_former_answer_stays_when_the_next_one_fails(choose: str, open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate("window.real = window.fetch; window.asked = 0; undefined")
    page.evaluate(
        "window.fetch = (address, options) => String(address).includes('inspect') && asked++ >= 0 "
        """? Promise.resolve(new Response('{"error": {"code": "overloaded"}}', { status: 503 })) """
        ": real(address, options)"
    )
    page.evaluate(choose)
    page.wait_for(f"{MESSAGE}.startsWith('The server is busy')")
    assert page.evaluate("document.querySelector('.bars')") is None
    assert page.evaluate("document.getElementById('view').hidden && document.getElementById('values').hidden")
    set_slider(page, "num-steps", 6)  # as one that is being dragged meanwhile
    assert page.evaluate("new Promise(done => setTimeout(() => done(asked), 100))") == 1
    assert page.evaluate(MESSAGE).startswith("The server is busy")
    page.evaluate("window.fetch = real; undefined")
    page.click("#message button")
    page.wait_for(f"document.querySelector('.bars') && {SHOWN} && !document.getElementById('view').hidden")
    assert page.evaluate("document.getElementById('message').hidden")


@CHOICES
@pytest.mark.parametrize("is_earlier", [True, False])
def test_a_slider_moved_around_a_choice_changes_nothing(
    is_earlier: bool, choose: str, open_at: Callable[..., Page]
) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    hold_requests(page, "inspect")
    if is_earlier:
        set_slider(page, "num-steps", 19)
        page.wait_for("held === 1")
    page.evaluate(choose)
    page.wait_for(f"held === {1 + is_earlier}")
    if not is_earlier:
        set_slider(page, "num-steps", 19)
    page.evaluate("new Promise(done => setTimeout(done, 200)).then(release)")
    page.wait_for("!document.querySelector('.busy')")
    assert page.evaluate(f"new Promise(done => setTimeout(() => done({NOTE}), 300))").startswith("Change the equation")
    assert page.evaluate("document.getElementById('step').max") != "19"
    set_slider(page, "num-steps", 2)
    page.wait_for(f"{NOTE}.startsWith('Changed') && document.getElementById('step').max === '2'")


def test_a_former_answer_goes_while_the_next_one_is_slow(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    hold_requests(page, "inspect")
    page.click("[data-sample=digit-5]")
    page.wait_for(f"!{SHOWN}")
    page.evaluate("release()")
    wait_for_label(page, "5")
    assert page.evaluate(SHOWN)


def test_models_that_are_no_longer_served_leave_the_menus(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&other=mnist-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate(
        """(() => {
          const real = window.fetch;
          window.gone = ["mnist-pde"];
          window.fetch = async (address, options) => {
            if (gone.some((name) => address.includes(`model=${name}&`))) {
              return new Response('{"error": {"code": "model_not_found", "message": "..."}}', { status: 404 });
            }
            const answer = await real(address, options);
            if (address !== "models") return answer;
            const models = (await answer.json()).models.filter(({ name }) => !gone.includes(name));
            return new Response(JSON.stringify({ default: models[0]?.name ?? null, models }));
          };
        })()"""
    )
    names = "[...document.getElementById('model').options].map(({ value }) => value)"
    page.choose_file("#file", SEVEN)
    assert "mnist-pde" in page.wait_for(f"{MESSAGE}.startsWith('The server no longer has') && {MESSAGE}")
    wait_for_label(page, "7")
    assert page.evaluate(f"{names}.includes('mnist-pde') || document.getElementById('other').value") == ""
    page.evaluate("gone.push('digits-pde')")
    set_slider(page, "num-steps", 6)
    page.wait_for(f"{MESSAGE} === 'The server no longer has digits-pde. This is the answer of cifar10-global.'")
    assert page.evaluate("document.getElementById('model').value") == "cifar10-global"
    assert "seven.png" in page.evaluate("document.getElementById('preview').alt")
    assert "model=cifar10-global" in page.evaluate("location.hash")
    page.evaluate(f"gone.push(...{names})")
    page.evaluate("document.getElementById('model').dispatchEvent(new Event('change'))")
    page.wait_for(f"{MESSAGE}.startsWith('The server has no model loaded')")
    page.evaluate("gone = []; undefined")
    page.click("#message button")
    wait_for_label(page, "7")
    assert "digits-pde" in page.evaluate(names)


def test_the_weakest_class_is_one_with_test_images(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")

    def weakest(confusion: list[list[int]]) -> str:
        entry = {"labels": ["a", "b", "c"], "metrics": {"confusion": confusion}, "input": {}, "training": {}}
        return page.evaluate(
            f"import('./page/card.js').then(({{ card }}) => card({json.dumps(entry)}, true).textContent)"
        )

    assert "weakest class is c: 50.0 %" in weakest([[9, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert "weakest" not in weakest([[0, 0, 0]] * 3)


def test_labels_are_shown_in_full_and_in_their_own_direction(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    long = [f"great_white_shark_Carcharodon_carcharias_of_the_open_ocean_{letter}" for letter in "AB"]
    labels = [*long, "\u05e7\u05d8\u05e2 (1)"]  # Hebrew: beside "99 %" its parts would change places
    page.evaluate(
        f"""(async () => {{
          const [{{ bars }}, {{ card }}] = [await import("./page/answer.js"), await import("./page/card.js")];
          const labels = {json.dumps(labels)};
          const top = labels.map((label, index) => ({{ label, index, score: index / 3 }}));
          const entry = {{ labels, metrics: {{ confusion: [[1, 1], [0, 1]] }}, input: {{}}, training: {{}} }};
          document.querySelector(".bars").replaceWith(bars(top));
          document.querySelector(".model-card").replaceWith(card(entry, true));
        }})()"""
    )
    assert page.evaluate("[...document.querySelectorAll('.bars bdi')].map(bdi => bdi.textContent)") == labels
    assert page.evaluate("[...document.querySelectorAll('dd bdi')].map(bdi => bdi.textContent)") == labels
    assert page.evaluate("document.querySelector('.model-card li bdi').textContent") == long[0]
    for width in (320, 1280):
        page.send("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=1, mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        is_clipped = "[...document.querySelectorAll('.label')].some(label => label.scrollWidth > label.clientWidth)"
        assert not page.evaluate(is_clipped)


def test_a_model_without_pde_layers_says_so(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-resnet32&sample=ship")
    wait_for_label(page, "ship")
    page.wait_for("document.getElementById('status').textContent === 'cifar10-resnet32: ship, 100 %'")
    assert "no PDE layers" in page.evaluate("document.getElementById('pde-note').textContent")
    assert page.evaluate("document.getElementById('view').hidden && document.getElementById('values').hidden")
