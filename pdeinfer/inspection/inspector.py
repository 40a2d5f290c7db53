"""Runs a network layer by layer: its fields, the steps of its PDE layers as they are or changed, and the answer."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdeinfer.errors import ModelPackageError
from pdeinfer.graph.rules import check_graph
from pdeinfer.images.convert import ImageLike, to_array
from pdeinfer.inspection.fields import LayerFields, layer_fields
from pdeinfer.package.package import FIELDS_FILE, INPUT_NAME, OUTPUT_NAME, ModelPackage
from pdeinfer.package.zoo import DEFAULT_MODEL, load
from pdeinfer.runtime.session import Session, TensorType, create_session
from pdeinfer.spec.pde_spec import PdeSpec


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What a network computes for one image.

    Attributes:
        layers: its PDE layers, in the order of the network.
        probabilities: float32 (classes,); None if the package's `fields.onnx` does not compute them.
    """

    layers: tuple[LayerFields, ...]
    probabilities: NDArray[np.float32] | None


class Inspector:
    """Computes what the PDE layers of a model do with an image. Many threads may share one Inspector.

    ONNX Runtime computes the fields on the CPU from the package's `fields.onnx`; the levels follow by `pdeinfer.pde`.
    Export has proven both equal to the Keras network. The file is read here, and opened at the first inspection.

    Args:
        package: the model.
        threads: CPU threads of ONNX Runtime; by default, the CPUs that this process may use.

    Attributes:
        spec: of the PDE layers.

    Raises:
        ModelPackageError: the model has no PDE layers, or its package has no `fields.onnx` or is damaged.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, package: ModelPackage, threads: int | None = None) -> None:
        spec = package.card.preset.pde
        if spec is None:
            raise ModelPackageError(f"{package.card.preset.name} has no PDE layers to inspect")
        if FIELDS_FILE not in package.card.files:
            raise ModelPackageError(f"{package.path} has no {FIELDS_FILE}: export the model again to add it")
        self.spec = spec
        self._path = package.path
        self._threads = threads
        self._content = package.read_network(FIELDS_FILE)
        try:
            check_graph(self._content)  # a server opens the session at the first request
        except ModelPackageError as error:
            raise ModelPackageError(f"{package.path / FIELDS_FILE}: {error}") from error

    @cached_property
    def _session(self) -> Session:
        return create_session(self._content, "cpu", self._threads, fused=False)

    @property
    def can_replay(self) -> bool:
        """Whether `inspect` takes another spec. Packages of earlier versions cannot be replayed."""
        return len(self._session.inputs) > 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape (H, W, C) of every PDE layer by name."""
        outputs = self._session.outputs
        return {name.partition("/")[0]: _sizes(outputs[name]) for name in outputs if name.endswith("/start")}

    def inspect(self, pixels: NDArray[np.uint8], spec: PdeSpec | None = None) -> Inspection:
        """Compute the fields, the levels and the answer for one image.

        Args:
            pixels: uint8 (H, W, C), in the network's shape.
            spec: replaces that of every PDE layer; it may have another dt or num_steps, no velocity or no diffusivity.

        Raises:
            ModelPackageError: the package's `fields.onnx` does not match its card, or it cannot be replayed.
        """
        if spec is not None and not self.can_replay:
            raise ModelPackageError(f"{self._path} cannot be replayed with other values: export the model again")
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # an unstable scheme may grow without bound
                outputs, layers = run_stages(self._session, pixels[np.newaxis], spec or self.spec)
        except ModelPackageError as error:
            raise ModelPackageError(f"{self._path / FIELDS_FILE} does not match its card: {error}") from error
        probabilities = outputs.get(OUTPUT_NAME)
        return Inspection(
            tuple(layer.of_image(0) for layer in layers), None if probabilities is None else probabilities[0]
        )


def inspect(image: ImageLike, model: str | Path | ModelPackage = DEFAULT_MODEL) -> tuple[LayerFields, ...]:
    """Compute the fields and levels of every PDE layer of a model for an image, in the order of the network.

    ONNX Runtime computes the fields on the CPU from the package's `fields.onnx`; the levels follow by `pdeinfer.pde`.
    Export has proven both equal to the Keras network.

    Args:
        image: as for `pdeinfer.Predictor.predict`; an image of another size or mode is converted.
        model: a bundled model's name, a package's folder, or a `ModelPackage`.

    Raises:
        ImageError: the image cannot be read.
        ModelNotFoundError: no bundled model and no package folder has this name.
        ModelPackageError: the model has no PDE layers, or its package has no `fields.onnx` or is damaged.
        MissingDependencyError: ONNX Runtime is not installed.
        TypeError: `model` is neither a name, a path nor a `ModelPackage`.
    """
    package = model if isinstance(model, ModelPackage) else load(model)
    inspector = Inspector(package)
    return inspector.inspect(to_array(image, package.card.preset.input)).layers


def run_stages(
    session: Session, images: NDArray[np.uint8], spec: PdeSpec
) -> tuple[dict[str, NDArray[Any]], tuple[LayerFields, ...]]:
    """Run a `fields.onnx`, solving each PDE layer in turn.

    Every run computes the whole network, from zeros where a layer has not been solved yet. That takes a millisecond or
    less, and asks nothing of the file but its inputs and outputs.

    Args:
        images: uint8 (N, H, W, C).
        spec: of the PDE layers.

    Returns:
        The outputs by name, and the layers, with an axis N before H, W and C.

    Raises:
        ModelPackageError: the file's inputs or outputs are not those of a `fields.onnx`.
    """
    feeds: dict[str, NDArray[Any]] = {INPUT_NAME: images}
    for name, kind in session.inputs.items():
        if name != INPUT_NAME:
            feeds[name] = np.zeros((len(images), *_sizes(kind)), np.float32)
    outputs = session.run_all(feeds)
    count = len({name.partition("/")[0] for name in outputs if "/" in name})
    layers = []
    for number in range(1, max(count, 1) + 1):
        layers.append(layer_fields(outputs, f"layer{number}", spec))
        if len(feeds) > 1:
            feeds[f"layer{number}/last"] = layers[-1].levels[-1]
            outputs = session.run_all(feeds)
    return outputs, tuple(layers)


def _sizes(kind: TensorType) -> tuple[int, ...]:
    """Return height, width and channels of a tensor (batch, height, width, channels)."""
    sizes = tuple(size for size in kind.shape[1:] if size is not None)
    if not len(sizes) + 1 == len(kind.shape) == 4:
        raise ModelPackageError(f"{FIELDS_FILE}: expected a tensor (batch, height, width, channels), got {kind}")
    return sizes
