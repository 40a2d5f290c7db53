"""Draw the samples of the server's page: four scenes of our own making, and digits of scikit-learn's data set.

python scripts/draw_samples.py serving/page/samples
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFilter

from pdeinfer.datasets import load_dataset

SIDE, DETAIL = 96, 4  # pixels; scenes are drawn four times as large and reduced
DIGITS = ("0", "3", "5", "7")

Colour = tuple[int, int, int]


class Scene:
    """A picture that is drawn in coordinates from 0 to 100, on a sky that fades from top to bottom."""

    def __init__(self, top: Colour, bottom: Colour) -> None:
        fade = PIL.Image.linear_gradient("L").resize((SIDE * DETAIL, SIDE * DETAIL))
        whole = [PIL.Image.new("RGB", fade.size, colour) for colour in (bottom, top)]
        self.image = PIL.Image.composite(*whole, fade)
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, colour: Colour, *points: tuple[float, float]) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._pixels(*point) for point in points], colour)

    def ellipse(self, colour: Colour, left: float, top: float, right: float, bottom: float) -> None:
        """Fill an ellipse."""
        self._draw.ellipse([self._pixels(left, top), self._pixels(right, bottom)], colour)

    def soften(self, radius: float) -> None:
        """Blur what has been drawn so far, as a lens does with a background."""
        self.image = self.image.filter(ImageFilter.GaussianBlur(radius * DETAIL))
        self._draw = ImageDraw.Draw(self.image)

    def finish(self, seed: int) -> PIL.Image.Image:
        """Return the picture in its size, with the grain of a photograph."""
        image = self.image.filter(ImageFilter.GaussianBlur(0.5 * DETAIL)).resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
        grain = np.random.default_rng(seed).normal(0, 4, (SIDE, SIDE, 1))
        return PIL.Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))

    def _pixels(self, x: float, y: float) -> tuple[float, float]:
        return x * SIDE * DETAIL / 100, y * SIDE * DETAIL / 100


def ship() -> PIL.Image.Image:
    """Draw a freighter at sea."""
    scene = Scene((150, 190, 226), (214, 226, 234))
    scene.polygon((48, 92, 128), (0, 62), (100, 62), (100, 100), (0, 100))
    scene.polygon((30, 66, 100), (0, 80), (100, 80), (100, 100), (0, 100))
    scene.soften(1.5)
    scene.polygon((38, 42, 52), (6, 54), (94, 54), (84, 72), (14, 72))
    scene.polygon((150, 40, 36), (11, 66), (87, 66), (84, 72), (14, 72))
    scene.polygon((236, 236, 232), (58, 54), (58, 34), (80, 34), (82, 54))
    scene.polygon((206, 208, 206), (62, 34), (62, 26), (76, 26), (76, 34))
    scene.polygon((196, 74, 40), (66, 26), (66, 14), (73, 14), (73, 26))
    for left in (18, 30, 42):
        scene.polygon(
            (176, 120, 60) if left == 30 else (86, 124, 108), (left, 54), (left, 44), (left + 11, 44), (left + 11, 54)
        )
    for left in (60, 66, 72):
        scene.polygon((60, 80, 100), (left, 40), (left, 37), (left + 4, 37), (left + 4, 40))
    scene.polygon((222, 232, 238), (2, 71), (98, 71), (96, 74), (5, 74))
    return scene.finish(1)


def airplane() -> PIL.Image.Image:
    """Draw an airliner in the sky."""
    scene = Scene((86, 142, 206), (176, 208, 236))
    for left, top in ((8, 70), (58, 80), (66, 12)):
        scene.ellipse((232, 240, 246), left, top, left + 34, top + 9)
    scene.soften(3)
    scene.polygon((228, 232, 236), (6, 50), (12, 45), (80, 42), (94, 46), (80, 53), (14, 55))
    scene.polygon((198, 204, 212), (12, 53), (80, 50), (94, 47), (80, 54), (14, 56))
    scene.polygon((168, 176, 188), (40, 50), (58, 49), (44, 78), (36, 78))
    scene.polygon((190, 196, 206), (46, 45), (58, 44), (50, 26), (44, 26))
    scene.polygon((40, 72, 130), (8, 47), (20, 46), (12, 28), (5, 28))
    scene.polygon((176, 184, 194), (8, 50), (18, 50), (10, 60), (4, 60))
    scene.ellipse((120, 128, 140), 48, 56, 58, 61)
    for left in range(24, 80, 5):
        scene.ellipse((70, 90, 116), left, 46.2, left + 2, 48.2)
    return scene.finish(2)


def automobile() -> PIL.Image.Image:
    """Draw a red car on a street."""
    scene = Scene((186, 204, 218), (206, 210, 206))
    scene.polygon((98, 126, 86), (0, 42), (30, 36), (64, 42), (100, 36), (100, 62), (0, 62))
    scene.polygon((112, 112, 116), (0, 60), (100, 60), (100, 100), (0, 100))
    scene.soften(2)
    scene.ellipse((66, 66, 70), 4, 76, 96, 86)
    scene.polygon((186, 26, 30), (4, 58), (12, 52), (26, 50), (38, 34), (66, 34), (80, 50), (94, 54), (97, 72), (4, 74))
    scene.polygon((142, 16, 22), (4, 66), (97, 66), (97, 75), (4, 76))
    scene.polygon((60, 76, 92), (31, 50), (40, 38), (51, 38), (51, 50))
    scene.polygon((60, 76, 92), (55, 50), (55, 38), (65, 38), (74, 50))
    for left in (15, 67):
        scene.ellipse((24, 24, 28), left, 62, left + 20, 84)
        scene.ellipse((168, 172, 176), left + 6, 68.5, left + 14, 77.5)
    scene.ellipse((250, 240, 190), 91, 56, 96, 61)
    return scene.finish(3)


def frog() -> PIL.Image.Image:
    """Draw a frog on the ground."""
    scene = Scene((112, 98, 70), (92, 76, 52))
    for left, top in ((0, 60), (52, 70), (70, 8), (10, 6)):
        scene.ellipse((128, 112, 80), left, top, left + 40, top + 24)
    scene.soften(4)
    scene.ellipse((52, 44, 30), 12, 74, 90, 92)
    for left in (10, 66):
        scene.ellipse((86, 118, 42), left, 50, left + 26, 84)
    scene.ellipse((104, 142, 52), 22, 34, 80, 84)
    scene.ellipse((176, 184, 118), 34, 62, 68, 86)
    scene.ellipse((112, 152, 56), 26, 24, 76, 58)
    for left in (28, 58):
        scene.ellipse((120, 158, 62), left, 15, left + 17, 33)
        scene.ellipse((214, 190, 70), left + 3, 18, left + 14, 30)
        scene.ellipse((16, 16, 14), left + 5, 20, left + 12, 28)
    scene.polygon((62, 86, 32), (32, 46), (51, 51), (70, 46), (51, 53))
    for left, top in ((20, 80), (66, 80)):
        scene.ellipse((96, 130, 48), left, top, left + 18, top + 8)
    return scene.finish(4)


SCENES: dict[str, Callable[[], PIL.Image.Image]] = {
    "ship": ship,
    "airplane": airplane,
    "automobile": automobile,
    "frog": frog,
}


def main(folder: Path) -> None:
    """Write all samples to a folder."""
    for name, draw in SCENES.items():
        draw().save(folder / f"{name}.png", optimize=True)
    test = load_dataset("digits", None).test
    for label in DIGITS:
        first = np.flatnonzero(test.labels == int(label))[0]
        PIL.Image.fromarray(test.images[first].squeeze()).save(folder / f"digit-{label}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
