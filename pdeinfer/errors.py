"""The error tree of this package; other wrong arguments, such as `top_k=0`, raise a plain TypeError or ValueError.

    PdeinferError
    ├── PresetError             ValueError    a network or input description has an impossible value
    ├── ModelNotFoundError      LookupError   no bundled model and no package folder of that name
    ├── ModelPackageError       ValueError    a model package is incomplete, damaged or of another format
    ├── ImageError              ValueError    an input is not an image that can be classified
    │   ├── ImageTooLargeError                it has more pixels or bytes than the limit
    │   └── ImageTooCostlyError               decoding it takes more memory or CPU time than the limit
    ├── DeviceError             RuntimeError  the device asked for cannot be used
    ├── PredictorClosedError    RuntimeError  a closed Predictor was used
    ├── ExportError             ValueError    a network or file cannot be exported
    ├── BackendError            RuntimeError  Keras runs on a backend that cannot do this
    ├── ParityError             RuntimeError  an exported model differs from its original
    ├── DatasetError            ValueError    a data set's file is missing or damaged
    ├── TrainingError           ValueError    a training cannot start or resume as asked
    ├── ClassifyError           ValueError    many images cannot be classified into a file as asked
    └── MissingDependencyError  ImportError   an optional dependency is missing or broken

Each leaf also subclasses the builtin that a caller would catch. Messages say what was expected and what was received.
"""

from typing import ClassVar


class PdeinferError(Exception):
    """Base class of every error in this package."""


class PresetError(PdeinferError, ValueError):
    """A network or input description has an impossible value."""


class ModelNotFoundError(PdeinferError, LookupError):
    """No bundled model and no package folder has the name asked for."""


class ModelPackageError(PdeinferError, ValueError):
    """A model package is incomplete, damaged, or of a format this version does not read."""


class ImageError(PdeinferError, ValueError):
    """An input is not an image that can be classified.

    Attributes:
        code: the stable code of the kind of error, in the server's answers and in the rows of `pdeinfer classify`.
    """

    code: ClassVar[str] = "invalid_image"


class ImageTooLargeError(ImageError):
    """An image has more pixels, or a file more bytes, than the limit.

    Attributes:
        pixels: the number of pixels that decoding it takes, if known.
    """

    code: ClassVar[str] = "image_too_large"

    def __init__(self, message: str, pixels: int | None = None) -> None:
        super().__init__(message)
        self.pixels = pixels


class ImageTooCostlyError(ImageError):
    """Decoding an image took more memory or CPU time than the limit, which only an isolated decoder has."""

    code: ClassVar[str] = "image_too_costly"


class DeviceError(PdeinferError, RuntimeError):
    """The device asked for cannot be used."""


class PredictorClosedError(PdeinferError, RuntimeError):
    """A Predictor was used after close()."""


class ExportError(PdeinferError, ValueError):
    """A network or file cannot be exported."""


class BackendError(PdeinferError, RuntimeError):
    """Keras runs on a backend that cannot do this."""


class ParityError(PdeinferError, RuntimeError):
    """An exported model's outputs differ from the original's by more than the tolerance."""


class DatasetError(PdeinferError, ValueError):
    """A data set's file is missing or damaged."""


class TrainingError(PdeinferError, ValueError):
    """A training cannot start or resume as asked."""


class ClassifyError(PdeinferError, ValueError):
    """Many images cannot be classified into a file as asked, or their classification cannot be resumed."""


class MissingDependencyError(PdeinferError, ImportError):
    """An optional dependency is missing or cannot be imported; the message names the command that fixes it."""

    def __init__(
        self,
        package: str,
        extra: str | None,
        purpose: str,
        problem: str = "which is not installed",
        cure: str | None = None,
    ) -> None:
        wanted = f"'pdeinfer[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs {package}, {problem}: {cure or f'pip install {wanted}'}", name=package)
        self.args = (package, extra, purpose, problem, cure)  # what pickle passes to __init__
