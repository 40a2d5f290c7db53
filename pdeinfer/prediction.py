"""What a Predictor returns: the classes of an image, and what it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdeinfer.package.package import Precision
from pdeinfer.runtime.session import PdeLayers
from pdeinfer.spec.presets import InputSpec


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of a prediction: its label, its index among the model's labels, and its probability."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The classes of one image, best first.

    Attributes:
        label, index, score: of the best class.
        top: the best `top_k` classes, best first; of equal scores the one that comes first among the labels.
    """

    label: str
    index: int
    score: float
    top: tuple[ClassScore, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        top = [{"label": entry.label, "index": entry.index, "score": entry.score} for entry in self.top]
        return {"label": self.label, "index": self.index, "score": self.score, "top": top}


@dataclass(frozen=True, slots=True)
class PredictorInfo:
    """What a Predictor runs.

    Attributes:
        model: the model's name. path: its package.
        labels, input, parameters: from its card.
        precision: of the network: "float32", "half" or "int8".
        device: "cpu" or "cuda:N", the one in use. provider: ONNX Runtime's name for it.
        threads: of one prediction on the CPU. batch_size: the most images in one run.
        pde_layers: "fused" where they run in pdeinfer's own operator, "standard" where all that runs is ONNX Runtime's.
        versions: of pdeinfer, of the pdeinfer that wrote the package, of onnxruntime and of numpy.
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
    versions: dict[str, str]
