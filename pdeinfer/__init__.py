"""Compact image classifiers whose backbone solves a diffusion-advection equation."""

import importlib
from typing import TYPE_CHECKING

from pdeinfer.errors import (
    BackendError,
    ClassifyError,
    DatasetError,
    DeviceError,
    ExportError,
    ImageError,
    ImageTooCostlyError,
    ImageTooLargeError,
    MissingDependencyError,
    ModelNotFoundError,
    ModelPackageError,
    ParityError,
    PdeinferError,
    PredictorClosedError,
    PresetError,
    TrainingError,
)
from pdeinfer.runtime import onnx_runtime as _onnx_runtime  # noqa: F401  # it turns ONNX Runtime's telemetry off
from pdeinfer.version import __version__

if TYPE_CHECKING:
    from pdeinfer.inspection.fields import LayerFields
    from pdeinfer.inspection.inspector import inspect
    from pdeinfer.package.card import ModelCard
    from pdeinfer.package.package import ModelPackage
    from pdeinfer.prediction import ClassScore, Prediction, PredictorInfo
    from pdeinfer.predictor import Predictor
    from pdeinfer.spec.networks import (
        DepthwiseConvolution,
        DepthwiseSum,
        InputSpec,
        ResidualNetwork,
        SingleChannelNetwork,
    )
    from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
    from pdeinfer.spec.presets import PRESETS, Preset

__all__ = [
    "PRESETS",
    "BackendError",
    "ClassScore",
    "ClassifyError",
    "DatasetError",
    "DepthwiseConvolution",
    "DepthwiseSum",
    "DeviceError",
    "ExportError",
    "ImageError",
    "ImageTooCostlyError",
    "ImageTooLargeError",
    "InputSpec",
    "LayerFields",
    "MissingDependencyError",
    "ModelCard",
    "ModelNotFoundError",
    "ModelPackage",
    "ModelPackageError",
    "ParityError",
    "PdeSpec",
    "PdeinferError",
    "PeronaMalik",
    "Prediction",
    "Predictor",
    "PredictorClosedError",
    "PredictorInfo",
    "Preset",
    "PresetError",
    "ResidualNetwork",
    "SingleChannelNetwork",
    "TrainingError",
    "__version__",
    "inspect",
]

# The modules of all names but the errors. They are imported when a name is used: the command `pdeinfer` imports this
# package first, and Ctrl-C should find it in its own code, which ends without a traceback.
_MODULES = {
    "ClassScore": "pdeinfer.prediction",
    "DepthwiseConvolution": "pdeinfer.spec.networks",
    "DepthwiseSum": "pdeinfer.spec.networks",
    "InputSpec": "pdeinfer.spec.networks",
    "LayerFields": "pdeinfer.inspection.fields",
    "ModelCard": "pdeinfer.package.card",
    "ModelPackage": "pdeinfer.package.package",
    "PRESETS": "pdeinfer.spec.presets",
    "PdeSpec": "pdeinfer.spec.pde_spec",
    "PeronaMalik": "pdeinfer.spec.pde_spec",
    "Prediction": "pdeinfer.prediction",
    "Predictor": "pdeinfer.predictor",
    "PredictorInfo": "pdeinfer.prediction",
    "Preset": "pdeinfer.spec.presets",
    "ResidualNetwork": "pdeinfer.spec.networks",
    "SingleChannelNetwork": "pdeinfer.spec.networks",
    "inspect": "pdeinfer.inspection.inspector",
}

if not TYPE_CHECKING:  # a type checker would accept any attribute

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
