"""The page in examples/web gives the Predictor's answers, in the browser alone."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pdeinfer import Predictor
from pdeinfer.images.convert import to_array
from pdeinfer.package import zoo
from pdeinfer.spec.networks import InputSpec
from tests.browser.devtools import Page
from tests.browser.page import AXE, IN_A_BROWSER, faults, leave, watch_cameras
from tests.servers import ROOT

pytestmark = IN_A_BROWSER

WEB = ROOT / "examples" / "web"
SAMPLES = ROOT / "serving" / "page" / "samples"
BARS = "[...document.querySelectorAll('#bars li')]"
ANSWER = f"{BARS}.map(row => [row.querySelector('.label').textContent, Number(row.querySelector('data').value)])"
MESSAGE = "document.getElementById('message')?.textContent"


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with onnxruntime-web: the example's, or a new one."""
    installed = WEB / "node_modules"
    if (installed / "onnxruntime-web").is_dir():
        return installed
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(WEB / name, folder / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if result.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {result.stderr}")
    return folder / "node_modules"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def open_example(browser: Page, node_modules: Path, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Open the page with a model. Afterwards, it has broken no rule and asked no other server."""
    site = tmp_path / "site"
    shutil.copytree(WEB, site, ignore=shutil.ignore_patterns("node_modules", "model"))
    (site / "node_modules").symlink_to(node_modules, target_is_directory=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"

        def open_example(package: Path | None, ready: str = "Choose a picture") -> Page:
            if package is not None:
                shutil.copytree(package, site / "model")
            browser.send(
                "Emulation.setDeviceMetricsOverride", width=1100, height=800, deviceScaleFactor=1, mobile=False
            )
            leave(browser)
            browser.send("Page.navigate", url=address)
            browser.wait_for(f"{MESSAGE}?.includes({ready!r})")
            return browser

        yield open_example
        assert browser.evaluate("violations") == []
        assert [url for url in browser.requested if not url.removeprefix("blob:").startswith(address)] == []
        browser.send("Page.navigate", url="about:blank")
        server.shutdown()


def classify(page: Page, image: Path) -> dict[str, float]:
    """Choose a picture; return the probabilities that the page shows, by label."""
    page.evaluate("document.getElementById('answer').hidden = true")
    page.choose_file("#file", image)
    page.wait_for("!document.getElementById('answer').hidden")
    return dict(page.evaluate(ANSWER))


def pictures(folder: Path) -> list[Path]:
    """PNG files: larger and smaller than the network's input, wide and tall, colour, grey, transparent."""
    rng = np.random.default_rng(0)
    paths = [SAMPLES / "ship.png", SAMPLES / "digit-3.png", ROOT / "examples" / "seven.png"]
    for mode, size in (("RGB", (301, 77)), ("RGB", (45, 190)), ("RGB", (20, 13)), ("L", (65, 64)), ("RGB", (32, 32))):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).convert(mode)
        path = folder / f"{mode}-{size[0]}x{size[1]}.png"
        coarse.resize(size, PIL.Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    opaque_or_not = np.dstack([rng.integers(0, 256, (50, 40, 3)), rng.choice([0, 255], (50, 40, 1))]).astype(np.uint8)
    PIL.Image.fromarray(opaque_or_not).save(folder / "transparent.png")
    return [*paths, folder / "transparent.png"]


@pytest.mark.parametrize("name", ["cifar10-global", "digits-pde", "mnist-pde"])
def test_the_page_gives_the_predictor_s_probabilities(
    name: str, open_example: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_example(zoo.load(name).path)
    with Predictor(name) as predictor:
        for picture in pictures(tmp_path):
            expected = {entry.label: entry.score for entry in predictor.predict(picture).top}
            found = classify(page, picture)
            assert found == pytest.approx(expected, abs=1e-4), picture.name
    assert page.complaints == []


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (9, 12, 1), (40, 24, 3)])
def test_the_pixels_are_those_of_the_predictor(
    fit: Any, height: int, width: int, channels: int, open_example: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_example(zoo.load("digits-pde").path)
    spec = InputSpec(height, width, channels, mean=(0.0,) * channels, std=(1.0,) * channels, fit=fit)
    page.evaluate(
        "document.getElementById('file')"
        ".addEventListener('change', ({ target }) => (chosenFile = target.files[0]), true)"
    )
    for picture in pictures(tmp_path):
        page.choose_file("#file", picture)
        found = page.evaluate(
            f"""(async () => {{
              const {{ toPixels }} = await import("./pixels.js");
              const bitmap = await createImageBitmap(chosenFile, {{ colorSpaceConversion: "none" }});
              return [...toPixels(bitmap, bitmap.width, bitmap.height, {json.dumps(asdict(spec))})];
            }})()"""
        )
        expected = to_array(picture, spec)
        assert np.array_equal(np.array(found, np.uint8).reshape(expected.shape), expected), picture.name


def test_the_camera_is_classified_until_it_is_stopped(open_example: Callable[..., Page]) -> None:
    page = open_example(zoo.load("cifar10-global").path)
    page.click("#camera")
    page.wait_for("!document.getElementById('answer').hidden && document.getElementById('video').videoWidth > 0")
    scores = dict(page.evaluate(ANSWER))
    assert len(scores) == 5
    assert 0 < sum(scores.values()) <= 1 + 1e-6

    page.click("#camera")
    page.wait_for("document.getElementById('camera').getAttribute('aria-pressed') === 'false'")
    assert page.evaluate("document.getElementById('video').hidden")
    assert page.complaints == []


def test_leaving_the_camera_turns_it_off_also_after_two_clicks(open_example: Callable[..., Page]) -> None:
    page = open_example(zoo.load("cifar10-global").path)
    watch_cameras(page)
    page.evaluate("document.getElementById('camera').click()")
    page.click("#camera")
    page.wait_for("!document.getElementById('video').hidden && document.getElementById('video').videoWidth > 0")
    page.click("#camera")
    page.wait_for("streams.length === 1 && !streams[0].active")
    assert page.complaints == []


def test_the_picture_chosen_last_is_shown_whichever_is_decoded_first(open_example: Callable[..., Page]) -> None:
    page = open_example(zoo.load("cifar10-global").path)
    page.evaluate(
        """(() => {
          const real = window.createImageBitmap;
          window.decoded = [];
          window.createImageBitmap = async (file, options) => {
            const bitmap = await real(file, options);
            if (!decoded.length) {
              decoded.push(bitmap);
              await new Promise((done) => (window.release = done));
            }
            return bitmap;
          };
        })()"""
    )
    page.choose_file("#file", SAMPLES / "ship.png")
    page.wait_for("decoded.length === 1")
    assert next(iter(classify(page, SAMPLES / "frog.png"))) == "frog"
    page.evaluate("release()")
    page.wait_for("decoded[0].width === 0")  # closed
    assert next(iter(dict(page.evaluate(ANSWER)))) == "frog"


def test_a_file_dropped_beside_the_zone_is_taken(open_example: Callable[..., Page]) -> None:
    page = open_example(zoo.load("digits-pde").path)
    data = {"items": [], "files": [str(SAMPLES / "digit-3.png")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.send("Input.dispatchDragEvent", type=kind, x=5, y=5, data=data)
    page.wait_for("!document.getElementById('answer').hidden")
    assert next(iter(dict(page.evaluate(ANSWER)))) == "3"


def test_a_phone_shows_everything_without_scrolling_sideways(open_example: Callable[..., Page]) -> None:
    page = open_example(zoo.load("cifar10-global").path)
    classify(page, SAMPLES / "automobile.png")
    page.send("Emulation.setDeviceMetricsOverride", width=320, height=740, deviceScaleFactor=2, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.evaluate("document.querySelector('.bar').clientWidth") > 100


def test_a_file_that_is_no_picture_is_named(open_example: Callable[..., Page], tmp_path: Path) -> None:
    page = open_example(zoo.load("digits-pde").path)
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    page.choose_file("#file", file)
    page.wait_for(f"{MESSAGE}.startsWith('notes.png')")


def test_a_picture_that_is_too_large_for_the_browser_is_refused(
    open_example: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_example(zoo.load("digits-pde").path)
    classify(page, SAMPLES / "digit-3.png")
    PIL.Image.new("1", (70_000, 20), 1).save(tmp_path / "long.png")
    page.choose_file("#file", tmp_path / "long.png")
    page.wait_for(f"{MESSAGE}.startsWith('long.png') && {MESSAGE}.includes('too large')")
    assert page.evaluate("document.getElementById('answer').hidden")
    assert next(iter(classify(page, SAMPLES / "digit-5.png"))) == "5"
    assert page.complaints == []


def test_a_file_can_be_chosen_again(open_example: Callable[..., Page]) -> None:
    page = open_example(zoo.load("digits-pde").path)
    for _ in range(2):
        assert next(iter(classify(page, SAMPLES / "digit-3.png"))) == "3"
        assert page.evaluate("document.getElementById('file').value") == ""  # or the browser sees no change


def test_without_a_model_the_page_says_what_to_do(open_example: Callable[..., Page]) -> None:
    page = open_example(None, ready="copy a model package")
    assert page.evaluate("document.getElementById('camera').disabled")


def test_axe_finds_no_fault(open_example: Callable[..., Page]) -> None:
    page = open_example(zoo.load("cifar10-global").path)
    classify(page, SAMPLES / "frog.png")
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.evaluate(AXE + "; undefined")
        assert faults(page) == []
