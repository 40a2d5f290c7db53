"""POST /inspect: classifies one image and returns what the PDE layers do with it."""

import re
from functools import partial
from typing import Any

import numpy as np
from fastapi import Request, Response
from numpy.typing import NDArray

from pdeinfer import ImageError
from pdeinfer.inspection.values import array_values, layer_values, spec_values
from serving.engine.inspection import Change, Inspected
from serving.engine.served_model import ServedModel
from serving.errors import NotInspectableError, RequestError
from serving.http.byte_budget import Hold
from serving.http.descriptions import FAILURES, MODEL_PARAMETER, REQUEST_BODY, query_parameter
from serving.http.examples import BODY_TOO_LARGE, IMAGE_ERRORS
from serving.http.openapi import describe_error, reference
from serving.http.operations import find_model, hold_answer, to_json
from serving.http.query import QueryParameters
from serving.http.schemas import InspectResponse
from serving.http.state import models_of
from serving.http.uploads import read_uploads

PATH = "/inspect"
PARAMETERS = QueryParameters(PATH, ("model", "layer", "dt", "num_steps", "advection", "diffusion"))

_MIN_DT, _MAX_DT, _MAX_STEPS, _MAX_LAYER = 0.001, 2.0, 20, 99
_NUMBER = re.compile(r"(\d{1,6}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,2})?", re.ASCII)  # neither inf nor 1_0
_INTEGER = re.compile(r"\d{1,6}", re.ASCII)

_DESCRIPTION = """\
Send one image as for /classify. The answer holds the fields u, v, Dx, Dy and f of every PDE layer, and its feature map
H from step to step. Arrays are numbers in base64:

    import base64, numpy, requests
    answer = requests.post("http://127.0.0.1:8000/inspect", files={"file": open("seven.png", "rb")}).json()
    levels = answer["layers"][0]["levels"]
    h = numpy.frombuffer(base64.b64decode(levels["data"]), "<f4").reshape(levels["shape"])

`dt`, `num_steps`, `advection` and `diffusion` change the PDE layers of the network. Its later layers and its answer
are computed from what the changed layers return."""

OPERATION: dict[str, Any] = {
    "tags": ["images"],
    "summary": "Look inside the PDE layers",
    "description": _DESCRIPTION,
    "operationId": "inspect_inspect_post",
    "parameters": [
        MODEL_PARAMETER,
        query_parameter(
            "layer",
            "the PDE layer to return the arrays of, from 1; 0 for none; by default, all of them",
            {"type": "integer", "minimum": 0, "maximum": _MAX_LAYER},
        ),
        query_parameter("dt", "another time step", {"type": "number", "minimum": _MIN_DT, "maximum": _MAX_DT}),
        query_parameter(
            "num_steps", "another number of steps", {"type": "integer", "minimum": 1, "maximum": _MAX_STEPS}
        ),
        query_parameter("advection", "false: u = v = 0", {"type": "boolean", "default": True}),
        query_parameter("diffusion", "false: Dx = Dy = 0", {"type": "boolean", "default": True}),
    ],
    "requestBody": {**REQUEST_BODY, "description": "One image: as a file of a form, as JSON, or its bytes."},
    "responses": {
        **FAILURES,
        "200": {
            "description": "The answer, and the PDE layers in the order of the network",
            "content": {"application/json": {"schema": reference(InspectResponse)}},
        },
        "413": describe_error(
            "The body is too large or holds several images",
            BODY_TOO_LARGE,
            RequestError("too_many_images", "a request may hold at most 1 image"),
        ),
        "422": describe_error(
            "The image, a parameter or the model does not allow it",
            *IMAGE_ERRORS,
            RequestError("invalid_parameter", f"num_steps: expected an integer from 1 to {_MAX_STEPS}, got '50'"),
            NotInspectableError("cifar10-resnet32 has no PDE layers to change"),
        ),
    },
}
SCHEMAS = (InspectResponse,)


async def inspect(request: Request, hold: Hold) -> Response:
    """Answer a request, as `OPERATION` describes it."""
    query = PARAMETERS.parse(request)
    served = find_model(models_of(request), query.get("model"))
    layer, change = _integer(query, "layer", 0, _MAX_LAYER), _change(query)
    uploads = await read_uploads(request, hold, 1, PARAMETERS)
    (file,), (name,) = uploads.files, uploads.names
    try:
        encode = partial(_answer, served, name, layer)
        answer = await served.inspect(file, change, encode, uploads.deadline)
    except ImageError as error:
        raise RequestError(error.code, str(error)) from None
    hold_answer(hold, len(answer))
    return Response(answer, media_type="application/json")


def _change(query: dict[str, str]) -> Change:
    return Change(
        _dt(query),
        _integer(query, "num_steps", 1, _MAX_STEPS),
        advection=_boolean(query, "advection"),
        diffusion=_boolean(query, "diffusion"),
    )


def _dt(query: dict[str, str]) -> float | None:
    text = query.get("dt")
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not _MIN_DT <= float(text) <= _MAX_DT:
        raise RequestError("invalid_parameter", f"dt: expected a number from {_MIN_DT} to {_MAX_DT}, got {text[:20]!r}")
    return float(text)


def _integer(query: dict[str, str], name: str, lowest: int, highest: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text) or not lowest <= int(text) <= highest:
        raise RequestError(
            "invalid_parameter", f"{name}: expected an integer from {lowest} to {highest}, got {text[:20]!r}"
        )
    return int(text)


def _boolean(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "true")
    if text not in ("true", "false"):
        raise RequestError("invalid_parameter", f"{name}: expected true or false, got {text[:20]!r}")
    return text == "true"


def _answer(served: ServedModel, name: str | None, layer: int | None, inspected: Inspected) -> bytes:
    if layer is not None and inspected.layers and layer > len(inspected.layers):
        raise RequestError("invalid_parameter", f"layer: expected at most {len(inspected.layers)}, got {layer}")
    content = {
        "model": served.name,
        "version": served.version,
        "filename": name,
        "top": _top(served, inspected.probabilities),
        "pixels": array_values(inspected.pixels),
        "milliseconds": {part: round(1000 * seconds, 3) for part, seconds in inspected.seconds.items()},
        "values": spec_values(inspected.spec),
        "trained_values": spec_values(inspected.original),
        "can_change": inspected.can_change,
        "layers": [
            layer_values(fields, has_arrays=layer in (None, number))
            for number, fields in enumerate(inspected.layers, 1)
        ],
    }
    return to_json(content)


def _top(served: ServedModel, probabilities: NDArray[np.float32]) -> object:
    if not np.isfinite(probabilities).all():
        return None
    return served.predictor.rank(probabilities, len(probabilities)).to_dict()["top"]
