"""The requests that every server gets, and the check of its answers."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL.Image

from benchmarks.serving.load import Answer
from benchmarks.serving.servers import Peer
from pdeinfer import ModelPackage, Predictor
from pdeinfer.checks.parity import TOLERANCE

IMAGES = 64  # different ones
MANY = 32  # of a large request


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of one kind on a number of connections.

    Attributes:
        kind: PNG files, or pixels as the V2 protocol has them.
        images: of each request.
    """

    kind: Literal["PNG", "V2, JSON", "V2, binary"]
    images: int
    connections: int

    @property
    def title(self) -> str:
        kind = "" if self.kind == "PNG" else f"{self.kind}, "
        return f"{kind}{self.images} image{'s' * (self.images > 1)}, {self.connections} conn."


SINGLE = tuple(Case("PNG", 1, connections) for connections in (1, 8, 32, 128))
CASES = (
    *SINGLE,
    Case("PNG", MANY, 4),
    Case("V2, JSON", 1, 32),
    Case("V2, binary", 1, 32),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Random images of the network's size, with the Predictor's answers.

    Attributes:
        pixels: uint8 (N, H, W, C). files: the same as PNG.
        probabilities: float32 (N, classes).
    """

    model: str
    labels: tuple[str, ...]
    pixels: np.ndarray
    files: list[bytes]
    probabilities: np.ndarray


def draw_sample(package: ModelPackage) -> Sample:
    """Return the images that all servers classify."""
    spec, labels = package.card.preset.input, package.card.preset.labels
    shape = (IMAGES, spec.height, spec.width, spec.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Predictor(package, device="cpu") as predictor:
        probabilities = predictor.predict_proba(pixels)
    return Sample(package.card.preset.name, labels, pixels, [_png(image) for image in pixels], probabilities)


def requests_of(peer: Peer, case: Case, sample: Sample) -> list[bytes] | None:
    """Return the requests of a case in the order of the images; None if the peer does not take this kind."""
    groups = [slice(start, start + case.images) for start in range(0, IMAGES, case.images)]
    if case.kind != "PNG":
        to_request = peer.from_pixels.get(case.kind)
        return None if to_request is None else [to_request(sample.model, sample.pixels[group]) for group in groups]
    to_request = peer.one if case.images == 1 else peer.many
    return [to_request(sample.model, sample.files[group]) for group in groups]


def check(peer: Peer, case: Case, sample: Sample, number: int, answer: Answer) -> None:
    """Check the answer to request `number` of a case against the Predictor's.

    Raises:
        RuntimeError: the status is not 200, the label differs, or a probability differs by more than 1e-5.
    """
    what = f"{peer.name}, {case.title}"
    if answer.status != 200:
        raise RuntimeError(f"{what}: expected status 200, got {answer.status}: {answer.body[:500]!r}")
    labels, probabilities = peer.read(answer.body, sample.labels)
    group = slice(number * case.images, (number + 1) * case.images)
    expected = sample.probabilities[group]
    if probabilities.shape != expected.shape or not np.abs(probabilities - expected).max() <= TOLERANCE:
        raise RuntimeError(f"{what}: expected the probabilities {expected[0]}, got {probabilities[0]}")
    best = [sample.labels[index] for index in expected.argmax(axis=1)]
    if labels not in (None, best):
        raise RuntimeError(f"{what}: expected the labels {best}, got {labels}")


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def images_per_second(answers: Sequence[Answer], images: int) -> float:
    """Return the rate of some answers, each of which was for a number of images."""
    end = max(answer.due + answer.seconds for answer in answers)
    return len(answers) * images / (end - min(answer.due for answer in answers))
