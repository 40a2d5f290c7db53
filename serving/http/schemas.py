"""The JSON of requests and responses, as the OpenAPI document shows it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pdeinfer.images.formats import EXPECTED
from pdeinfer.package.package import Precision
from serving.engine.models import Action

Filename = Annotated[
    str | None, Field(description="as sent with the image; null if it came without one", examples=["seven.png"])
]
Label = Annotated[str, Field(examples=["7"])]
LabelIndex = Annotated[int, Field(ge=0, description="the label's position among the model's labels", examples=[7])]
Score = Annotated[float, Field(ge=0, le=1, description="the label's probability", examples=[0.981])]


class Schema(BaseModel):
    """A frozen model: the base of the others."""

    model_config = ConfigDict(frozen=True)


class ErrorDetail(Schema):
    """What went wrong."""

    code: str = Field(description="stable, for programs", examples=["invalid_image"])
    message: str = Field(
        description="for people; may change",
        examples=[f"notes.txt: expected {EXPECTED}, got a file of no known image format"],
    )


class ErrorResponse(Schema):
    """The body of every response with a status of 400 or more."""

    error: ErrorDetail


MAX_FILENAME = 1024  # file names are returned: without a limit, responses would be as large as requests


class Base64Image(Schema):
    """An image of a JSON body; a bare string is its content."""

    model_config = ConfigDict(extra="forbid")

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


class ImagesBody(Schema):
    """A JSON body of images."""

    model_config = ConfigDict(extra="forbid")

    images: tuple[Base64Image, ...] = Field(description="in the order of the results")


class ClassScore(Schema):
    """One class of a prediction."""

    label: Label
    index: LabelIndex
    score: Score


class Classification(Schema):
    """The best class of one image, and the best `top_k`."""

    filename: Filename
    label: Label | None = Field(description="null if the score is below the server's threshold", examples=["7"])
    index: LabelIndex | None = Field(description="null where the label is", examples=[7])
    score: Score
    top: tuple[ClassScore, ...] = Field(description="best first")


class ImageFailure(Schema):
    """An image that could not be classified."""

    filename: Filename
    error: ErrorDetail


class ClassifyResponse(Schema):
    """One result per image, in the order of the request."""

    model: str = Field(examples=["digits-pde"])
    version: str = Field(examples=["1"])
    results: list[Classification | ImageFailure]


class Embedding(Schema):
    """The features of one image."""

    filename: Filename
    features: list[float] = Field(description="what the last layer takes", examples=[[0.0, 1.25, 0.5]])


class EmbedResponse(Schema):
    """One result per image, in the order of the request."""

    model: str = Field(examples=["digits-pde"])
    version: str = Field(examples=["1"])
    results: list[Embedding | ImageFailure]


class Array(Schema):
    """An array in base64: little-endian numbers, the last axis first to vary (C order)."""

    dtype: Literal["uint8", "float32"]
    shape: tuple[int, ...] = Field(examples=[[6, 8, 8, 8]])
    data: str = Field(description="numbers in base64", examples=["AAAAAAAAgD8="])


class PdeValues(Schema):
    """The values of a model's PDE layers: those that an inspection can change, and whether they have a source."""

    dt: float = Field(description="the time step", examples=[0.2])
    num_steps: int = Field(description="K, the number of steps", examples=[5])
    advection: bool = Field(description="whether H is moved by a velocity")
    diffusion: bool = Field(description="whether H spreads by a diffusivity")
    source: bool = Field(description="whether a source feeds H")


class Extent(Schema):
    """The size of a number over all points of all channels; null if it is not finite."""

    maximum: float | None = Field(examples=[1.43])
    mean: float | None = Field(examples=[0.12])


class InspectedFields(Schema):
    """The fields of a PDE layer, (height, width, channels) each; null where the layer has none."""

    u: Array | None = Field(description="velocity to the right")
    v: Array | None = Field(description="velocity down")
    Dx: Array | None = Field(description="diffusivity along the rows")
    Dy: Array | None = Field(description="diffusivity along the columns")
    f: Array | None = Field(description="source; null also where it is H[0], see `values.source`")


class InspectedLayer(Schema):
    """What a PDE layer does with the image."""

    name: str = Field(examples=["layer1"])
    shape: tuple[int, int, int] = Field(description="height, width, channels", examples=[[8, 8, 8]])
    courant: Extent = Field(description="of |Ax| + |Ay|, the Courant numbers u dt and v dt")
    diffusion: Extent = Field(description="of Bx + By, the diffusion numbers Dx dt and Dy dt")
    unstable: float = Field(ge=0, le=1, description="share of the points outside the stable range", examples=[0.312])
    fields: InspectedFields | None = Field(description="null unless this layer was asked for")
    levels: Array | None = Field(
        description="H[0] to H[K], (K + 1, height, width, channels); null unless this layer was asked for"
    )
    stable: Array | None = Field(
        description="1 at points in the stable range, else 0; null unless this layer was asked for"
    )


class Milliseconds(Schema):
    """How long the parts of an inspection took."""

    decode: float = Field(description="decoding the image and making it fit, with the wait for it", examples=[0.4])
    queue: float = Field(description="waiting for a thread to compute on", examples=[0.1])
    inference: float = Field(description="computing the answer; 0 if the PDE layers were changed", examples=[0.2])
    fields: float = Field(description="computing the fields and levels, and the answer if changed", examples=[1.3])


class InspectResponse(Schema):
    """What a model does with one image."""

    model: str = Field(examples=["digits-pde"])
    version: str = Field(examples=["1"])
    filename: Filename
    top: tuple[ClassScore, ...] | None = Field(
        description="all classes, best first; null if the changed PDE layers have made the values infinite"
    )
    pixels: Array = Field(description="what the network saw, (height, width, channels)")
    milliseconds: Milliseconds
    values: PdeValues | None = Field(description="of the PDE layers, as used; null without PDE layers")
    trained_values: PdeValues | None = Field(description="of the PDE layers, as trained; null without PDE layers")
    can_change: bool = Field(description="whether the values can be changed; false for packages of earlier versions")
    layers: tuple[InspectedLayer, ...] = Field(
        description="in the order of the network; empty without PDE layers, for packages that do not describe them, "
        "and for layers that are too large"
    )


class ModelInput(Schema):
    """The images that a network takes; the server converts others."""

    height: int = Field(examples=[8])
    width: int = Field(examples=[8])
    channels: int = Field(description="1 (grey) or 3 (RGB)", examples=[1])
    fit: Literal["crop", "pad", "stretch"] = Field(description="how an image of another aspect ratio is fitted")


class ModelInfo(Schema):
    """A served model."""

    name: str = Field(examples=["digits-pde"])
    version: str = Field(description="a number; 1 if its folder has none", examples=["1"])
    labels: tuple[str, ...] = Field(examples=[["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]])
    input: ModelInput
    parameters: int = Field(description="number of trained parameters", examples=[5490])
    macs: int = Field(description="multiply-adds per image", examples=[172704])
    pde: PdeValues | None = Field(description="of its PDE layers; null without them")
    training: dict[str, object] = Field(
        description="dataset, epochs and seed, from the model's card",
        examples=[{"dataset": "digits", "epochs": 40, "seed": 3}],
    )
    metrics: dict[str, object] = Field(
        description="what was measured, from the model's card", examples=[{"test_accuracy": 0.97}]
    )
    precision: Precision = Field(description="of the model file in use", examples=["float32"])
    device: str = Field(description="cpu or cuda:N", examples=["cpu"])
    provider: str = Field(description="of ONNX Runtime", examples=["CPUExecutionProvider"])
    pde_layers: Literal["fused", "standard"] = Field(
        description="fused: in an operator of their own; standard: in ONNX Runtime's operators", examples=["fused"]
    )
    cuda_graphs: bool = Field(description="whether batches are replayed as CUDA graphs", examples=[False])


class ModelList(Schema):
    """The served models, in every version."""

    default: str | None = Field(description="the model that answers without ?model=", examples=["digits-pde"])
    models: list[ModelInfo]


class ModelChange(Schema):
    """A change of the served models."""

    model_config = ConfigDict(extra="forbid")

    action: Action


class ServedVersions(Schema):
    """The versions of a model that are served now."""

    name: str = Field(examples=["digits-pde"])
    versions: tuple[str, ...] = Field(examples=[["1", "2"]])


class Health(Schema):
    """The server is well."""

    status: Literal["ok"] = "ok"
