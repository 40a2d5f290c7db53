"""The page at / takes pictures: files, what is pasted or dropped, samples, drawings, the camera's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from tests.browser.devtools import Page
from tests.browser.page import FIRST_LABEL, IN_A_BROWSER, MESSAGE, SEVEN, hold_requests, wait_for_label, watch_cameras

pytestmark = IN_A_BROWSER


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


def test_of_several_dropped_pictures_the_first_is_taken_and_the_page_says_so(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.evaluate(
        """(async () => {
          const transfer = new DataTransfer();
          for (const digit of [5, 7]) {
            const blob = await (await fetch(`page/samples/digit-${digit}.png`)).blob();
            transfer.items.add(new File([blob], `${digit}.png`, { type: "image/png" }));
          }
          dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        })()"""
    )
    wait_for_label(page, "5")
    assert "first of these 2 files" in page.evaluate(MESSAGE)


def test_small_upright_pictures_keep_their_shape(open_at: Callable[..., Page], tmp_path: Path) -> None:
    page = open_at("model=digits-pde")
    PIL.Image.new("L", (20, 60)).save(tmp_path / "upright.png")
    page.choose_file("#file", tmp_path / "upright.png")
    page.wait_for("document.getElementById('preview').matches('.small:not([hidden])')")
    assert page.evaluate("getComputedStyle(document.getElementById('preview')).objectFit") == "contain"


def test_samples_have_a_title_if_there_are_any(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    title = "document.querySelector('.picture h3').checkVisibility()"
    assert page.evaluate(title)
    page.evaluate("document.getElementById('samples').replaceChildren()")  # as if no model knew any of their labels
    assert not page.evaluate(title)


def test_a_folder_is_refused_and_the_picture_stays(open_at: Callable[..., Page], tmp_path: Path) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    data = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.send("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)
    assert "a folder" in page.wait_for(f"!document.getElementById('message').hidden && {MESSAGE}")
    assert page.evaluate("document.getElementById('preview').alt") == "sample: digit-3"
    assert page.evaluate(FIRST_LABEL) == "3"


def test_a_file_that_was_deleted_can_be_shown_to_another_model(open_at: Callable[..., Page], tmp_path: Path) -> None:
    page = open_at("model=digits-pde")
    file = tmp_path / "seven.png"
    shutil.copyfile(SEVEN, file)
    page.choose_file("#file", file)
    wait_for_label(page, "7")
    file.unlink()
    page.evaluate("document.getElementById('model').value = 'mnist-pde'")
    page.evaluate("document.getElementById('model').dispatchEvent(new Event('change'))")
    page.wait_for("document.getElementById('status').textContent.startsWith('mnist-pde: ')")


def test_a_choice_while_another_picture_loads_or_decodes_wins(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde&sample=digit-3")
    wait_for_label(page, "3")
    page.requested.clear()
    page.evaluate(
        """(async () => {
          const real = HTMLImageElement.prototype.decode;
          const slow = Promise.withResolvers();
          HTMLImageElement.prototype.decode = function () {
            HTMLImageElement.prototype.decode = real;
            return slow.promise;
          };
          const [five, seven] = [5, 7].map((digit) => document.querySelector(`[data-sample=digit-${digit}]`));
          const preview = document.getElementById("preview");
          five.click();
          while (!preview.alt.includes("digit-5")) await new Promise((done) => setTimeout(done));
          seven.click();
          while (!preview.alt.includes("digit-7")) await new Promise((done) => setTimeout(done));
          slow.reject(new DOMException("overtaken", "EncodingError"));
        })()"""
    )
    wait_for_label(page, "7")
    assert not page.evaluate("document.getElementById('preview').hidden")
    assert len([address for address in page.requested if "inspect" in address]) == 1

    hold_requests(page, "digit-5")
    page.click("[data-sample=digit-5]")
    page.wait_for("held === 1")
    page.choose_file("#file", SEVEN)
    page.wait_for("document.getElementById('preview').alt.includes('seven.png')")
    page.evaluate("release()")
    page.wait_for("!document.querySelector('.busy')")
    assert "seven.png" in page.evaluate(
        "new Promise((done) => setTimeout(() => done(document.getElementById('preview').alt), 100))"
    )


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


def open_pad(page: Page) -> list[float]:
    """Open the dialog in which digits are drawn; return the left, top, width and height of its pad."""
    page.click("#draw")
    return page.wait_for("(() => { const box = document.getElementById('pad').getBoundingClientRect(); "
                         "return box.width ? [box.left, box.top, box.width, box.height] : null })()")  # fmt: skip


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
    page = open_at("model=cifar10-global")  # knows no digits: another model answers
    left, top, width, height = open_pad(page)
    for stroke in strokes:
        page.drag(*((left + x * width, top + y * height) for x, y in stroke))
    page.click("#drawn")
    wait_for_label(page, digit)


def test_a_stroke_begins_on_the_pad(open_at: Callable[..., Page]) -> None:
    page = open_at("model=digits-pde")
    left, top, width, height = open_pad(page)
    inside, outside = (left + 0.8 * width, top + 0.2 * height), (left + 0.8 * width, top - 15)
    page.drag((left + 0.2 * width, top + 0.8 * height), (left + 0.4 * width, top + 0.8 * height))
    drawn = page.evaluate("document.getElementById('pad').toDataURL()")
    page.drag(outside, inside)
    assert page.evaluate("document.getElementById('pad').toDataURL()") == drawn
    assert page.evaluate("String(getSelection())") == ""


def test_an_empty_pad_is_not_classified(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global")
    left, top, width, height = open_pad(page)
    page.drag((left + 0.5 * width, top + 0.2 * height), (left + 0.5 * width, top + 0.8 * height))
    page.click("#wipe")
    page.click("#drawn")
    page.wait_for("document.getElementById('undrawn').checkVisibility()")
    page.click("#wipe")
    assert not page.evaluate("document.getElementById('undrawn').checkVisibility()")
    page.click("#draw-close")
    assert page.evaluate("document.getElementById('model').value") == "cifar10-global"
    assert page.evaluate("document.getElementById('preview').hidden")


def test_a_picture_of_the_camera_is_classified(open_at: Callable[..., Page]) -> None:
    page = open_at("model=cifar10-global")
    page.click("#camera")
    page.wait_for("!document.getElementById('shoot').disabled")
    page.click("#shoot")
    page.wait_for("document.getElementById('preview').alt === 'your picture camera.jpg'")
    page.wait_for("document.getElementById('status').textContent.startsWith('cifar10-global: ')")
    assert page.evaluate("document.getElementById('video').srcObject") is None


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
