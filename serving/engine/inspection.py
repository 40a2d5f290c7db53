"""Looks inside a served model: the fields and levels of its PDE layers, as they are or with other values."""

import logging
import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pdeinfer import LayerFields, ModelPackageError, PdeSpec, Predictor
from pdeinfer.inspection.inspector import Inspection, Inspector
from pdeinfer.package.package import FIELDS_FILE, ModelPackage
from serving.errors import InferenceError, NotInspectableError

logger = logging.getLogger(__name__)

# Of the arrays of one inspection. A network for large images, or many steps, would otherwise take any amount of memory.
MAX_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Change:
    """Other values for all PDE layers of a network; None and True keep those of the network."""

    dt: float | None = None
    num_steps: int | None = None
    advection: bool = True
    diffusion: bool = True

    def apply(self, spec: PdeSpec) -> PdeSpec:
        """Return the spec with these values."""
        return replace(
            spec,
            dt=self.dt or spec.dt,
            num_steps=self.num_steps or spec.num_steps,
            velocity=spec.velocity if self.advection else None,
            diffusivity=spec.diffusivity if self.diffusion else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """What a network did with an image.

    Attributes:
        pixels: what it saw, uint8 (H, W, C).
        probabilities: float32 (classes,); they may be NaN if the PDE layers were changed.
        original: the spec of the PDE layers; None without them.
        spec: the one that was used.
        can_change: whether another spec can be used.
        layers: the PDE layers; empty if there are none, the package does not describe them, or they are too large.
        seconds: by "decode", "queue", "inference" and "fields".
    """

    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    original: PdeSpec | None
    spec: PdeSpec | None
    can_change: bool
    layers: tuple[LayerFields, ...]
    seconds: dict[str, float]


class ModelInspector:
    """Inspects images with one model, whose `fields.onnx` is read at once and opened at the first image.

    A model without the file, or with a damaged one, is served all the same.

    Args:
        name: what clients call the model.
        package: the model.
        predictor: computes the answer of the unchanged network.
    """

    def __init__(self, name: str, package: ModelPackage, predictor: Predictor) -> None:
        self._name = name
        self._predictor = predictor
        self._original = package.card.preset.pde
        self._inspector: Inspector | None = None
        if self._original is not None and FIELDS_FILE in package.card.files:
            try:
                self._inspector = Inspector(package, threads=1)
            except ModelPackageError as error:
                logger.warning("%s cannot be inspected: %s", self._name, error)

    def run(self, pixels: NDArray[np.uint8], change: Change) -> Inspected:
        """Compute an image's answer and what the PDE layers do with it.

        Args:
            pixels: uint8 (H, W, C), in the network's shape.

        Returns:
            The inspection; `seconds` has "fields" and "inference".

        Raises:
            InferenceError: the unchanged network computed NaN or infinity.
            NotInspectableError: the model cannot be changed, or its arrays are too large.
            ModelPackageError: the package's `fields.onnx` is damaged.
        """
        inspector = self._inspector
        spec = None if self._original is None else change.apply(self._original)
        is_changed = change != Change() and spec != self._original
        if is_changed and (inspector is None or not inspector.can_replay):
            raise NotInspectableError(f"the package of {self._name} cannot be changed: export the model again")
        if change != Change() and spec is None:
            raise NotInspectableError(f"{self._name} has no PDE layers to change")
        if inspector is not None and spec is not None and _size(inspector, spec) > MAX_BYTES:
            if is_changed:
                raise NotInspectableError(f"expected at most {MAX_BYTES} bytes of arrays: choose fewer steps")
            inspector = None
        started = time.perf_counter()
        inspection = (
            Inspection((), None) if inspector is None else inspector.inspect(pixels, spec if is_changed else None)
        )
        inspected = time.perf_counter()
        probabilities = inspection.probabilities
        if not is_changed or probabilities is None:
            (probabilities,) = self._predictor.predict_proba(pixels[np.newaxis])
        if not is_changed and not np.isfinite(probabilities).all():
            raise InferenceError
        seconds = {"fields": inspected - started, "inference": time.perf_counter() - inspected}
        can_change = inspector is not None and inspector.can_replay
        return Inspected(pixels, probabilities, self._original, spec, can_change, inspection.layers, seconds)


def _size(inspector: Inspector, spec: PdeSpec) -> int:
    """Return the bytes of u, v, Dx, Dy, H[0] to H[K], and f if it is not H[0], of all layers."""
    points = sum(math.prod(shape) for shape in inspector.shapes.values())
    return 4 * points * (5 + spec.num_steps + spec.has_separate_source)
