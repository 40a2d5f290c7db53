"""Errors of serving, without HTTP: `serving.interface.statuses` gives each of them a status.

ServingError
├── RequestError
├── OverloadedError
├── DeadlineError
├── InferenceError
├── InternalError
├── NotReadyError
│   └── StoppingError
├── ModelNotServedError
├── VersionNotServedError
├── NotInspectableError
├── NoFeaturesError
├── ModelLoadError
└── ChangeRefusedError
"""


class ServingError(Exception):
    """A request, or one of its images, that cannot be served.

    Attributes:
        code: a stable name for programs; the exception's text is for people.
    """

    code: str


class RequestError(ServingError):
    """A request that breaks the rules of the server's interface.

    Args:
        code: one of `serving.interface.statuses.STATUSES`.
        message: what was expected, and what was received.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OverloadedError(ServingError):
    """The server has no room for more work."""

    code = "overloaded"

    def __init__(self) -> None:
        super().__init__("the server is at capacity: try again later")


class DeadlineError(ServingError):
    """The request ran out of time."""

    code = "deadline_exceeded"

    def __init__(self) -> None:
        super().__init__("the request could not be answered in time")


class InferenceError(ServingError):
    """The network failed on a valid image."""

    code = "inference_failed"

    def __init__(self) -> None:
        super().__init__("the network failed on this image; the server's log has the details")


class InternalError(ServingError):
    """The server failed: its log says why."""

    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("the server failed to answer; its log has the details")


class NotReadyError(ServingError):
    """The server serves no model, or is stopping."""

    code = "not_ready"

    def __init__(self, message: str = "no model is served, or the server is stopping") -> None:
        super().__init__(message)


class StoppingError(NotReadyError):
    """The server is stopping."""

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class ModelNotServedError(ServingError):
    """No model of this name is served."""

    code = "model_not_found"


class VersionNotServedError(ServingError):
    """The model is not served in this version."""

    code = "version_not_found"


class NotInspectableError(ServingError):
    """A model does not allow what an inspection asks of it."""

    code = "not_inspectable"


class NoFeaturesError(ServingError):
    """A model's network has no output for the features of an image."""

    code = "no_features"

    def __init__(self, model: str) -> None:
        super().__init__(f"the package of {model} has no features: export the model again")


class ModelLoadError(ServingError):
    """A model's package cannot be loaded."""

    code = "model_load_failed"


class ChangeRefusedError(ServingError):
    """A worker could not change its models, so none of the workers did.

    Args:
        code: the code of that worker's error.
        message: its text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
