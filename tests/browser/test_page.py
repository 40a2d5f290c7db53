"""The page at / in a real browser: pictures, answers, PDE layers, changed equations, errors, accessibility."""

import json
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.browser.devtools import Page, open_page
from tests.browser.test_docs_page import BROWSER, IS_SKIPPED
from tests.servers import ROOT, Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(IS_SKIPPED, reason="Chromium is not installed")]

SEVEN = ROOT / "examples" / "seven.png"
AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
FIRST_LABEL = "document.querySelector('.bars li .label')?.textContent"
NOTE = "document.getElementById('play-note').textContent"
STAGE = "document.querySelector('.stage').toDataURL()"
MESSAGE = "document.getElementById('message').textContent"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = ("digits-pde", "cifar10-global", "cifar10-resnet32")
    with running_server(tmp_path_factory.mktemp("server") / "log", *models, "--max-body-bytes=300000") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
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
    allowed: list[str] = []

    def open_at(state: str = "", port: int = server.port, *, may_fail: str = "") -> Page:
        allowed.append(may_fail)
        browser.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        browser.send("Emulation.setEmulatedMedia", features=[])
        browser.send("Page.navigate", url="about:blank")
        browser.complaints.clear()
        browser.requested.clear()
        browser.send("Page.navigate", url=f"http://127.0.0.1:{port}/#{state}")
        browser.wait_for("document.querySelector('#samples li, dialog[open]') !== null")
        return browser

    yield open_at
    assert browser.evaluate("violations") == []
    assert [text for text in browser.complaints if not (allowed[-1] and re.search(allowed[-1], text))] == []
    hosts = {re.sub(r"^(blob:)?(https?://[^/]+)?.*", r"\2", url) for url in browser.requested}
    assert hosts - {""} <= {f"http://127.0.0.1:{server.port}", *re.findall(r"http://127\.0\.0\.1:\d+", str(hosts))}
    assert all(host in ("",) or host.startswith("http://127.0.0.1:") for host in hosts)


def wait_for_label(page: Page, label: str) -> None:
    page.wait_for(f"{FIRST_LABEL} === {json.dumps(label)} && !document.querySelector('.busy')")


def picture(page: Page, expression: str = STAGE) -> str:
    """Return a canvas once it is drawn: the same in two frames."""
    return page.evaluate(f"new Promise(done => setTimeout(() => done({expression}), 60))")


def set_slider(page: Page, name: str, value: float) -> None:
    page.evaluate(
        f"(() => {{ const slider = document.getElementById('{name}'); slider.value = {value}; "
        "slider.dispatchEvent(new Event('input', { bubbles: true })) })()"
    )


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_chosen_file_is_classified(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde")
    page.choose_file("#file", SEVEN)
    wait_for_label(page, "7")
    assert page.evaluate("document.querySelector('.times .legend').textContent").count(" ms") == 3
    assert page.evaluate("document.querySelector('.model-card').textContent").count("5,490") == 1
    assert page.evaluate("document.querySelector('.seen').getAttribute('aria-label')").startswith("the 8 x 8 pixels")


@pytest.mark.parametrize("type_", ["paste", "drop"])
def test_a_pasted_or_dropped_picture_is_classified(type_: str, open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde")
    page.evaluate(
        """(async () => {
          const transfer = new DataTransfer();
          const blob = await (await fetch("page/samples/digit-5.png")).blob();
          transfer.items.add(new File([blob], "five.png", { type: "image/png" }));
          dispatchEvent(TYPE === "paste"
            ? new ClipboardEvent("paste", { clipboardData: transfer })
            : new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        })()""".replace("TYPE", json.dumps(type_))
    )
    wait_for_label(page, "5")


def test_a_sample_chooses_a_model_that_knows_it(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde")
    for sample, label, model in (("ship", "ship", "cifar10-global"), ("digit-3", "3", "digits-pde")):
        page.click(f"[data-sample={sample}]")
        wait_for_label(page, label)
        assert page.evaluate("document.getElementById('model').value") == model


def test_the_first_visit_shows_a_sample_at_once(open_at: Callable[..., Page]) -> None:
    page = open_at()
    wait_for_label(page, "ship")
    page.wait_for("location.hash.includes('sample=ship')")


@pytest.mark.parametrize(
    ("digit", "strokes"),
    [
        ("7", [[(0.2, 0.12), (0.78, 0.12), (0.45, 0.9)]]),
        ("0", [[(0.5, 0.1), (0.25, 0.3), (0.25, 0.7), (0.5, 0.9), (0.75, 0.7), (0.75, 0.3), (0.5, 0.1)]]),
        ("1", [[(0.4, 0.25), (0.53, 0.1), (0.53, 0.9)]]),
    ],
)
def test_a_drawn_digit_is_recognised(
    digit: str, strokes: list[list[tuple[float, float]]], open_at: Callable[..., Page]
) -> None:
    page = open_at("model=digits-pde")
    page.click("#draw")
    box = page.wait_for("(() => { const box = document.getElementById('pad').getBoundingClientRect(); "
                        "return box.width ? [box.left, box.top, box.width, box.height] : null })()")  # fmt: skip
    left, top, width, height = box
    for stroke in strokes:
        page.drag(*((left + x * width, top + y * height) for x, y in stroke))
    page.click("#drawn")
    wait_for_label(page, digit)


def test_a_picture_of_the_camera_is_classified(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global")
    page.click("#camera")
    page.wait_for("!document.getElementById('shoot').disabled")
    page.click("#shoot")
    page.wait_for("document.getElementById('preview').alt === 'your picture camera.jpg'")
    page.wait_for("document.getElementById('status').textContent.startsWith('cifar10-global: ')")
    assert page.evaluate("document.getElementById('video').srcObject") is None


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


def test_leaving_the_camera_turns_it_off_also_after_two_clicks(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global")
    watch_cameras(page)
    for leave in ("#camera-close", "#shoot"):
        page.evaluate("document.getElementById('camera').click()")
        page.click("#camera")
        page.wait_for("!document.getElementById('shoot').disabled")
        page.click(leave)
        page.wait_for("!document.getElementById('camera-dialog').open")
        page.wait_for("streams.every(({ active }) => !active)")
    assert page.evaluate("streams.length") == 2


def test_no_picture_is_taken_before_the_first_frame(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global")
    page.evaluate("navigator.mediaDevices.getUserMedia = () => Promise.resolve(new MediaStream())")
    page.click("#camera")
    page.wait_for("document.getElementById('camera-dialog').open")
    page.click("#shoot")
    assert page.evaluate("document.getElementById('shoot').disabled")
    assert page.evaluate("document.getElementById('camera-dialog').open")
    page.click("#camera-close")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NotAllowedError", "not allowed"),
        ("NotFoundError", "No camera"),
        ("NotReadableError", "Another program"),
        ("AbortError", "AbortError"),
    ],
)
def test_a_camera_that_does_not_open_has_a_message_of_its_own(
    name: str, message: str, open_at: Callable[..., Page]
) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate(
        f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', {json.dumps(name)}))"
    )
    page.click("#camera")
    page.wait_for(f"{MESSAGE}.includes({json.dumps(message)})")
    assert not page.evaluate("document.getElementById('camera-dialog').open")


def test_two_models_are_compared(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&other=cifar10-resnet32&sample=frog")
    page.wait_for("document.querySelectorAll('.answer').length === 2")
    for index, name in enumerate(("cifar10-global", "cifar10-resnet32")):
        text = page.evaluate(f"document.querySelectorAll('.answer')[{index}].textContent")
        assert text.startswith(f"{name}frog")
        assert "multiply-adds" in text
        assert "inference" in text


# --- the PDE layers ---------------------------------------------------------------------------------------------------


def test_steps_channels_layers_and_quantities_change_the_picture(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship")
    wait_for_label(page, "ship")
    seen = [picture(page)]
    page.evaluate("document.getElementById('step').focus()")
    page.press("ArrowLeft")
    seen.append(picture(page))
    page.evaluate("document.getElementById('channel').focus()")
    page.press("ArrowRight", 3)
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


def test_play_lets_the_velocity_carry_streaks_over_the_picture(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship&show=velocity")
    wait_for_label(page, "ship")
    arrows = picture(page)
    page.click("#play")
    page.wait_for(f"{STAGE} !== {json.dumps(arrows)}")
    assert picture(page) != picture(page)
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


def test_a_change_is_shown_within_a_fraction_of_a_second(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&sample=ship")
    wait_for_label(page, "ship")
    times = []
    for number in range(2, 9):
        set_slider(page, "num-steps", number)
        text = page.wait_for(f"document.getElementById('step').max === '{number}' && {NOTE}.startsWith('Ch') && {NOTE}")
        times.append(int(text.rsplit(None, 2)[1]))
    assert min(times) < 400  # 40 ms on a quiet machine


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


def test_a_layer_that_a_model_does_not_have_is_the_last_one(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3&layer=9&channel=99&step=99&show=nothing")
    wait_for_label(page, "3")
    state = page.wait_for("location.hash.includes('channel=7') && location.hash")
    assert all(part in state for part in ("layer=1", "step=5", "show=H"))


def test_a_picture_is_saved_as_png(open_at: Callable[..., Page], tmp_path: Path) -> None:
    page = open_at("model=digits-pde&sample=digit-3&channel=1&step=2")
    wait_for_label(page, "3")
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#save")
    file = tmp_path / "digits-pde-layer1-H-1-step2.png"
    page.evaluate("new Promise(done => setTimeout(done, 1500))")
    with PIL.Image.open(BytesIO(file.read_bytes())) as saved:
        assert saved.format == "PNG"
        assert len(set(saved.convert("RGB").resize((64, 64)).get_flattened_data())) > 20


def test_a_model_without_pde_layers_says_so(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-resnet32&sample=ship")
    wait_for_label(page, "ship")
    page.wait_for("document.getElementById('status').textContent === 'cifar10-resnet32: ship, 100 %'")
    assert "no PDE layers" in page.evaluate("document.getElementById('pde-note').textContent")
    assert page.evaluate("document.getElementById('view').hidden && document.getElementById('values').hidden")


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


# --- errors -----------------------------------------------------------------------------------------------------------


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


def test_an_answer_that_breaks_off_has_a_message(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate(
        "window.fetch = () => Promise.resolve(new Response('{')); "
        "document.getElementById('other').dispatchEvent(new Event('change'))"
    )
    page.wait_for(f"{MESSAGE}.includes('does not answer')")


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
        page.evaluate("document.getElementById('key').value = 'the-key'")
        page.click("#key-dialog [value=use]")
        wait_for_label(page, "3")
        stored = "[localStorage.length, sessionStorage.length, document.cookie, document.getElementById('key').value]"
        assert page.evaluate(stored) == [0, 0, "", ""]
        assert "the-key" not in page.evaluate("location.href")

        page.evaluate("document.getElementById('enter-key').click()")
        page.evaluate("document.getElementById('key').value = 'another'")
        page.click("#key-dialog [value=use]")
        page.wait_for("document.getElementById('key-dialog').open")  # asks again: that key is wrong
        page.click("#key-dialog [value=cancel]")
        assert page.wait_for(f"!document.getElementById('message').hidden && {MESSAGE}").startswith("This server asks")


# --- everyone ---------------------------------------------------------------------------------------------------------


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


def faults(page: Page) -> list[Any]:
    return page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(node => node.html)]))"
    )


def test_a_phone_shows_everything_without_scrolling_sideways(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global&other=cifar10-resnet32&sample=ship")
    page.wait_for("document.querySelectorAll('.answer').length === 2")
    page.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


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
