"""The results of a Predictor: predictions, and the description of what it runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdeinfer.package.package import Precision
from pdeinfer.runtime.session import PdeLayers
from pdeinfer.spec.networks import InputSpec


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of a prediction.

    Attributes:
        label: the class's label.
        index: its place among the model's labels.
        score: its probability.
    """

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The classes of one image, best first.

    Attributes:
        label: of the most probable class; None if its score is below the Predictor's threshold.
        index: its place among the model's labels; None if `label` is None.
        score: of the most probable class.
        top: the `top_k` most probable classes, best first; equal scores keep the order of the labels.
        source: the path of the image's file; None for other images. Predictions are compared without it.
    """

    label: str | None
    index: int | None
    score: float
    top: tuple[ClassScore, ...]
    source: str | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON values, without its source."""
        top = [{"label": entry.label, "index": entry.index, "score": entry.score} for entry in self.top]
        return {"label": self.label, "index": self.index, "score": self.score, "top": top}


@dataclass(frozen=True, slots=True)
class PredictorInfo:
    """The model, device and versions that a Predictor uses.

    Attributes:
        model: the model's name.
        path: the package's folder.
        labels: of the classes, in the order of their indices.
        input: the images that the network takes.
        parameters: the number of the network's weights.
        precision: of the network, "float32" or "int8".
        device: the device in use, "cpu" or "cuda:N".
        provider: ONNX Runtime's name for the device.
        threads: CPU threads of one prediction.
        batch_size: the most images in one run of the network.
        pde_layers: "fused" if they run in pdeinfer's own operator, "standard" if in ONNX Runtime's operators.
        cuda_graphs: whether runs replay CUDA graphs; False on a CPU, and where ONNX Runtime cannot capture them.
        versions: of "pdeinfer", "onnxruntime" and "numpy", and of the pdeinfer that wrote the "package".
    """

    model: str
    path: Path
    labels: tuple[str, ...]
    input: InputSpec
    parameters: int
    precision: Precision
    device: str
    provider: str
    threads: int
    batch_size: int
    pde_layers: PdeLayers
    cuda_graphs: bool
    versions: dict[str, str]
