"""The JSON of requests and responses, as the OpenAPI document shows it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pdeinfer.images.formats import EXPECTED
from pdeinfer.package.package import Precision
from serving.engine.models import Action

# The query parameters of /classify. In a body they would be ignored, so there they are refused.
PARAMETERS = ("model", "top_k")

Filename = Annotated[
    str | None, Field(description="as sent with the image; null if it came without one", examples=["seven.png"])
]
Label = Annotated[str, Field(examples=["7"])]
LabelIndex = Annotated[int, Field(ge=0, description="the label's position among the model's labels", examples=[7])]
Score = Annotated[float, Field(ge=0, le=1, description="the label's probability", examples=[0.981])]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorDetail(_Schema):
    """What went wrong."""

    code: str = Field(description="stable, for programs", examples=["invalid_image"])
    message: str = Field(
        description="for people; may change",
        examples=[f"notes.txt: expected {EXPECTED}, got a file of no known image format"],
    )


class ErrorResponse(_Schema):
    """The body of every response with a status of 400 or more."""

    error: ErrorDetail


MAX_FILENAME = 1024  # file names are returned: without a limit, responses would be as large as requests


class Base64Image(_Schema):
    """An image of a JSON body; a bare string is its content."""

    content: str = Field(
        description="an image file in base64: standard or URL-safe alphabet, or a data URL", examples=["iVBORw0KGgo..."]
    )
    filename: str | None = Field(
        default=None, max_length=MAX_FILENAME, description="returned with its result", examples=["seven.png"]
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        if not isinstance(value, str | dict):
            raise PydanticCustomError("image", "Input should be a string or an object")
        return {"content": value} if isinstance(value, str) else value


class ImagesBody(_Schema):
    """A JSON body of images."""

    images: tuple[Base64Image, ...] = Field(description="in the order of the results")
    model: Any = None
    top_k: Any = None

    @field_validator(*PARAMETERS, mode="before")
    @classmethod
    def _is_absent(cls, _: object) -> object:
        raise PydanticCustomError("parameter", "belongs in the query string, not in the body")


class ClassScore(_Schema):
    """One class of a prediction."""

    label: Label
    index: LabelIndex
    score: Score


class Classification(_Schema):
    """The best class of one image, and the best `top_k`."""

    filename: Filename
    label: Label
    index: LabelIndex
    score: Score
    top: tuple[ClassScore, ...] = Field(description="best first")


class ImageFailure(_Schema):
    """An image that could not be classified."""

    filename: Filename
    error: ErrorDetail


class ClassifyResponse(_Schema):
    """One result per image, in the order of the request."""

    model: str = Field(examples=["digits-pde"])
    version: str = Field(examples=["1"])
    results: list[Classification | ImageFailure]


class ModelInput(_Schema):
    """The images that a network takes; the server converts others."""

    height: int = Field(examples=[8])
    width: int = Field(examples=[8])
    channels: int = Field(description="1 (grey) or 3 (RGB)", examples=[1])
    fit: Literal["crop", "pad", "stretch"] = Field(description="how an image of another aspect ratio is fitted")


class ModelInfo(_Schema):
    """A served model."""

    name: str = Field(examples=["digits-pde"])
    version: str = Field(description="a number; 1 if its folder has none", examples=["1"])
    labels: tuple[str, ...] = Field(examples=[["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]])
    input: ModelInput
    parameters: int = Field(description="number of trained parameters", examples=[5490])
    metrics: dict[str, object] = Field(
        description="what was measured, from the model's card", examples=[{"test_accuracy": 0.97}]
    )
    precision: Precision = Field(description="of the model file in use", examples=["float32"])
    device: str = Field(description="cpu or cuda:N", examples=["cpu"])
    provider: str = Field(description="of ONNX Runtime", examples=["CPUExecutionProvider"])


class ModelList(_Schema):
    """The served models, in every version."""

    default: str | None = Field(description="the model that answers without ?model=", examples=["digits-pde"])
    models: list[ModelInfo]


class ModelChange(_Schema):
    """A change of the served models."""

    action: Action


class ServedVersions(_Schema):
    """The versions of a model that are served now."""

    name: str = Field(examples=["digits-pde"])
    versions: tuple[str, ...] = Field(examples=[["1", "2"]])


class Health(_Schema):
    """The server is well."""

    status: Literal["ok"] = "ok"
