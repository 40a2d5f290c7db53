"""Compact image classifiers whose backbone solves a diffusion-advection equation."""

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
from pdeinfer.version import __version__

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
