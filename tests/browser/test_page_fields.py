"""The page at / shows the fields of PDE layers, and changes their equation."""

import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.browser.devtools import Page
from tests.browser.page import (
    AXE,
    IN_A_BROWSER,
    NOTE,
    STAGE,
    faults,
    hold_requests,
    picture,
    set_slider,
    wait_for_label,
)
from tests.servers import ROOT
from tests.waiting import wait_until

pytestmark = IN_A_BROWSER


def test_steps_channels_layers_and_quantities_change_the_picture(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship")
    wait_for_label(page, "ship")
    seen = [picture(page)]
    for slider, key in (("step", "ArrowLeft"), *[("channel", "ArrowRight")] * 3):
        page.evaluate(f"document.getElementById('{slider}').focus()")
        page.press(key)
        page.wait_for(f"{STAGE} !== {json.dumps(seen[-1])}")
        seen.append(picture(page))
    for selector in (
        "[aria-label=Channels] input[value=mean]",
        "[aria-label=Channels] input[value=all]",
        *(f".thumbnails input[value={name}]" for name in ("Dy", "v", "velocity", "stable", "change")),
        "[aria-label='PDE layer'] input[value='2']",
    ):
        page.click(selector)
        page.wait_for(f"{STAGE} !== {json.dumps(seen[-1])}")
        seen.append(picture(page))
    assert len(set(seen)) == len(seen)


def test_the_last_step_stays_the_last_one_with_another_model(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship&step=1")
    wait_for_label(page, "ship")
    page.click("[data-sample=digit-3]")
    wait_for_label(page, "3")
    assert page.evaluate("document.getElementById('step').value") == "5"
    page.evaluate("location.hash = 'model=digits-pde&sample=digit-3&step=1'")
    page.wait_for("document.getElementById('step').value === '1' && !document.querySelector('.busy')")
    page.click("[data-sample=ship]")
    wait_for_label(page, "ship")
    assert page.evaluate("document.getElementById('step').value") == "1"


def test_play_changes_the_picture_until_it_is_paused(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    step = "document.getElementById('step').value"
    page.click("#play")
    steps = {page.wait_for(f"{step} === '{number}' && {STAGE}") for number in range(6)}
    assert len(steps) == 6
    page.click("#play")
    stopped = page.evaluate(step)
    assert page.evaluate(f"new Promise(done => setTimeout(() => done({step}), 1200))") == stopped


def test_play_waits_for_another_layer_and_ends_without_layers(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship")
    wait_for_label(page, "ship")
    hold_requests(page, "layer=2")
    page.click("#play")
    page.click("[aria-label='PDE layer'] input[value='2']")
    page.evaluate("new Promise(done => setTimeout(done, 700))")  # a step takes 450 ms
    page.evaluate("release()")
    page.wait_for("held === 1 && document.querySelector('.stage').getAttribute('aria-label').includes('layer2')")
    assert page.evaluate("document.getElementById('play').getAttribute('aria-label')") == "Pause"
    page.evaluate("document.getElementById('model').value = 'cifar10-resnet32'")
    page.evaluate("document.getElementById('model').dispatchEvent(new Event('change'))")
    page.wait_for("document.getElementById('view').hidden")
    assert page.evaluate("document.getElementById('play').getAttribute('aria-label')") == "Play"


def test_play_lets_the_velocity_carry_streaks_over_the_picture(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship&show=velocity")
    wait_for_label(page, "ship")
    arrows = picture(page)
    page.click("#play")
    streaks = page.wait_for(f"{STAGE} !== {json.dumps(arrows)} && {STAGE}")
    page.wait_for(f"!{json.dumps([arrows, streaks])}.includes({STAGE})")
    page.click("#play")
    page.wait_for(f"{STAGE} === {json.dumps(arrows)}")


def test_the_value_under_the_pointer_is_that_of_the_array(open_at: Callable[..., Page]) -> None:
    import pdeinfer

    page = open_at("model=digits-pde&sample=digit-3&channel=2&step=5")
    wait_for_label(page, "3")
    (layer,) = pdeinfer.inspect(ROOT / "serving/page/samples/digit-3.png", "digits-pde")
    page.evaluate("document.querySelector('.stage').focus()")
    page.press("ArrowRight")
    page.press("ArrowDown", 2)
    text = page.wait_for("document.getElementById('readout').textContent.startsWith('x 5, y 6') && "
                         "document.getElementById('readout').textContent")  # fmt: skip
    found = {name: float(value) for name, value in re.findall(r"(H\[5\]|u|v|Dx|Dy) (-?[\d.e-]+)", text)}
    arrays = {"H[5]": layer.levels[5], **dict(zip("uv", layer.velocity, strict=True))}
    arrays |= dict(zip(("Dx", "Dy"), layer.diffusivity, strict=True))
    assert found == {name: pytest.approx(float(array[6, 5, 2]), rel=6e-3) for name, array in arrays.items()}


def test_no_point_is_marked_where_all_channels_are_side_by_side(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3&channel=all")
    wait_for_label(page, "3")
    plain = picture(page)
    page.evaluate("document.querySelector('.stage').focus()")
    page.press("ArrowRight")
    assert picture(page) == plain
    page.click("[aria-label=Channels] input[value=mean]")
    page.wait_for(f"{STAGE} !== {json.dumps(plain)}")
    page.evaluate("document.querySelector('.stage').focus()")
    page.press("ArrowRight")
    page.wait_for("document.getElementById('readout').textContent.startsWith('x 5, y 4')")
    page.evaluate("document.querySelector('[aria-label=Channels] input[value=all]').click()")  # the pointer stays away
    page.wait_for("document.getElementById('readout').textContent.startsWith('One scale')")
    assert picture(page) == plain


def test_the_caption_gives_the_speed_of_the_longest_arrow(open_at: Callable[..., Page]) -> None:
    import pdeinfer

    page = open_at("model=cifar10-global&sample=ship&show=velocity")
    wait_for_label(page, "ship")
    layer = pdeinfer.inspect(ROOT / "serving/page/samples/ship.png", "cifar10-global")[0]
    speeds = np.hypot(*layer.velocity)
    drawn = speeds[1::2, 1::2].max(axis=(0, 1))  # of 32 x 32 points
    channel = int((speeds.max(axis=(0, 1)) - drawn).argmax())
    page.evaluate(
        """(() => {
          const write = CanvasRenderingContext2D.prototype.fillText;
          window.written = [];
          CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
            written.push(text);
            write.call(this, text, ...rest);
          };
        })()"""
    )
    set_slider(page, "channel", channel)
    text = page.wait_for("written.find((text) => text.startsWith('longest arrow: '))")
    assert text.endswith(" points per unit of time")
    assert float(text.split()[2]) == pytest.approx(float(drawn[channel]), rel=6e-3)
    page.click("#play")  # streaks instead of arrows
    text = page.wait_for("written.find((text) => text.startsWith('fastest: '))")
    assert float(text.split()[1]) == pytest.approx(float(speeds[..., channel].max()), rel=6e-3)
    page.click("#play")


def test_changed_values_change_the_picture_and_the_answer(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    trained = picture(page), page.evaluate("document.querySelector('.bars').textContent")
    for change in (
        lambda: set_slider(page, "dt", -1.5),
        lambda: set_slider(page, "num-steps", 12),
        lambda: page.click("#advection"),
        lambda: page.click("#diffusion"),
    ):
        before = picture(page), page.evaluate("document.querySelector('.bars, .verdict .note').textContent")
        change()
        page.wait_for(
            f"{STAGE} !== {json.dumps(before[0])} && "
            f"document.querySelector('.bars, .verdict .note').textContent !== {json.dumps(before[1])}"
        )
        assert page.wait_for(NOTE).startswith("Changed: ")
    assert page.evaluate("document.querySelectorAll('.equation .off').length") == 2
    page.click("#reset")
    page.wait_for(f"document.querySelector('.bars').textContent === {json.dumps(trained[1])}")
    assert picture(page) == trained[0]


def answer_with_trained_values(page: Page, **values: object) -> None:
    """Let further answers of the server say that the network was trained with these values."""
    page.evaluate(
        """(() => {
          const real = window.fetch;
          window.fetch = async (address, options) => {
            const answer = await real(address, options);
            if (!String(address).includes("inspect")) return answer;
            const content = await answer.json();
            Object.assign(content.trained_values, VALUES);
            return new Response(JSON.stringify(content));
          };
        })()""".replace("VALUES", json.dumps(values))
    )


def test_the_terms_that_a_network_lacks_are_struck_out(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    off = "[...document.querySelectorAll('.equation .off')].map((term) => term.classList[0])"
    assert page.evaluate(off) == []
    answer_with_trained_values(page, advection=False, source=False)
    page.click("[data-sample=digit-5]")
    wait_for_label(page, "5")
    assert page.evaluate(off) == ["advection", "source"]
    assert page.evaluate("document.querySelector('.legend-line .source').textContent").endswith(": off")


def test_trained_values_beside_the_sliders_are_shown_and_kept(open_at: Callable[..., Page]) -> None:
    """The sliders have two digits and ends: they cannot stand on every dt and K that a network was trained with."""
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    answer_with_trained_values(page, dt=0.0078125, num_steps=30)
    page.click("[data-sample=digit-5]")
    wait_for_label(page, "5")
    for name, value in (("dt", "0.0078125"), ("num-steps", "30")):
        assert page.evaluate(f"document.getElementById('{name}-text').textContent") == value
        assert page.evaluate(f"document.getElementById('{name}').getAttribute('aria-valuetext')") == value

    def asked(act: Callable[[], None]) -> str:
        """Return the parameters of the request that follows an action."""
        page.requested.clear()
        act()
        page.wait_for(f"{NOTE}.startsWith('Changed: ')")
        page.evaluate("document.getElementById('play-note').textContent = ''")
        (address,) = [address for address in page.requested if "inspect" in address]
        return address.partition("?")[2]

    assert asked(lambda: page.click("#reset")) == "model=digits-pde&layer=1"
    assert asked(lambda: set_slider(page, "num-steps", 6)) == "model=digits-pde&layer=1&num_steps=6"
    assert asked(lambda: page.click("#advection")) == "model=digits-pde&layer=1&num_steps=6&advection=false"
    assert page.evaluate("document.getElementById('dt-text').textContent") == "0.0078125"
    assert asked(lambda: page.click("#reset")) == "model=digits-pde&layer=1"


def test_a_change_is_shown_within_a_fraction_of_a_second(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship")
    wait_for_label(page, "ship")
    times = []
    for number in range(2, 9):
        set_slider(page, "num-steps", number)
        text = page.wait_for(f"document.getElementById('step').max === '{number}' && {NOTE}.startsWith('Ch') && {NOTE}")
        times.append(int(text.rsplit(None, 2)[1]))
    assert min(times) < 400  # 40 ms on a quiet machine


def test_a_picture_is_saved_as_png(open_at: Callable[..., Page], tmp_path: Path) -> None:
    page = open_at("model=digits-pde&sample=digit-3&channel=1&step=2")
    wait_for_label(page, "3")
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#save")
    file = tmp_path / "digits-pde-layer1-H-1-step2.png"
    wait_until(file.exists)
    with PIL.Image.open(BytesIO(file.read_bytes())) as saved:
        assert saved.format == "PNG"
        assert len(set(saved.convert("RGB").resize((64, 64)).get_flattened_data())) > 20


def test_the_html_file_of_inspect_shows_the_same_and_connects_to_nothing(
    browser: Page, open_at: Callable[..., Page], tmp_path: Path
) -> None:
    from pdeinfer.cli.main import main

    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    bars = page.evaluate("document.querySelector('.bars').textContent")
    image = ROOT / "serving/page/samples/digit-3.png"
    assert main(["inspect", str(image), "--html", str(tmp_path / "three.html")]) == 0
    browser.requested.clear()
    browser.send("Page.navigate", url=(tmp_path / "three.html").as_uri())
    browser.wait_for("document.querySelector('.bars') !== null && document.title.startsWith('digits-pde on')")
    assert browser.evaluate("document.querySelector('.bars').textContent") == bars
    before = picture(page)
    browser.click("#play")
    browser.wait_for(f"{STAGE} !== {json.dumps(before)}")
    browser.evaluate(AXE + "; undefined")
    assert faults(browser) == []
    assert browser.requested == [(tmp_path / "three.html").as_uri()]
