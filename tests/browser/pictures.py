"""Take the pictures of the page for the documentation: `python -m tests.browser.pictures`."""

import base64
import tempfile
from io import BytesIO
from pathlib import Path

import PIL.Image

from tests.browser.devtools import Page, open_page
from tests.browser.page import BROWSER
from tests.servers import ROOT, running_server

FOLDER = ROOT / "docs" / "page"
READY = "document.querySelector('.bars') !== null && !document.querySelector('.busy')"


def main() -> None:
    """Write the pictures that docs/page.md and the README show."""
    assert BROWSER is not None, "Chromium is not installed"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = ("cifar10-global", "cifar10-resnet32", "digits-pde")
        with (
            running_server(folder / "log", *models) as server,
            open_page(BROWSER, folder / "profile") as page,
        ):
            address = f"http://127.0.0.1:{server.port}/#"
            page.send("Emulation.setScrollbarsHidden", hidden=True)
            visit(page, f"{address}model=cifar10-global&sample=frog", 1180)  # the first request is slow
            visit(page, f"{address}model=cifar10-global&other=cifar10-resnet32&sample=ship&show=H&channel=0", 1180)
            shoot(page, "page.webp")
            visit(page, f"{address}model=cifar10-global&sample=ship&show=velocity&channel=mean", 1180)
            shoot(page, "equation.webp", "#pde")
            visit(page, f"{address}model=digits-pde&sample=digit-3&show=Dx&channel=all", 390, scheme="dark")
            shoot(page, "phone-dark.webp")
            visit(page, f"{address}model=cifar10-global&sample=ship&show=H&channel=0", 1180)
            film(page, "evolving.webp")


def visit(page: Page, url: str, width: int, scheme: str = "light") -> None:
    """Open the page at a state and wait for its answer."""
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.send("Page.navigate", url="about:blank")
    page.send("Page.navigate", url=url)
    page.wait_for(READY)
    page.evaluate("new Promise(done => setTimeout(done, 1500))")


def shoot(page: Page, name: str, selector: str = "body") -> None:
    """Write a picture of an element."""
    box = page.evaluate(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
    clip = {**{key: box[key] for key in ("x", "y", "width", "height")}, "scale": 1}
    shot = page.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    with PIL.Image.open(BytesIO(base64.b64decode(shot["data"]))) as image:
        image.convert("RGB").save(FOLDER / name, quality=88, method=6)


def film(page: Page, name: str) -> None:
    """Write the steps of H, with a short time step, as an animated picture."""
    for slider, value in (("dt", -1.3), ("num-steps", 16)):
        page.evaluate(
            f"document.getElementById('{slider}').value = {value}; "
            f"document.getElementById('{slider}').dispatchEvent(new Event('input'))"
        )
    page.wait_for("document.getElementById('step').max === '16'")
    page.evaluate("new Promise(done => setTimeout(done, 1000))")
    frames = []
    for step in range(17):
        data = page.evaluate(
            f"(() => {{ const step = document.getElementById('step'); step.value = {step}; "
            "step.dispatchEvent(new Event('input')); return document.querySelector('.stage').toDataURL() })()"
        )
        with PIL.Image.open(BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
            white = PIL.Image.new("RGBA", image.size, "white")
            frames.append(PIL.Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    durations = [900, *[220] * 15, 1500]
    frames[0].save(
        FOLDER / name, save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=True, method=6
    )


if __name__ == "__main__":
    main()
