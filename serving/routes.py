"""What the server answers: images classified, models described, health."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from pdeinfer import ImageError, ImageTooLargeError, Prediction
from serving.classifier import Classifier, ServedModel
from serving.errors import ApiError
from serving.schemas import (
    Classification,
    ClassifyResponse,
    ErrorDetail,
    ErrorResponse,
    Health,
    ImageFailure,
    ModelInfo,
    ModelInput,
    ModelList,
)
from serving.uploads import REQUEST_BODY, Upload, read_uploads

router = APIRouter()


def _error(description: str, *examples: tuple[str, str]) -> dict[str, Any]:
    """Return an error answer for the OpenAPI document, with examples of (code, message)."""
    values = {code: {"value": {"error": {"code": code, "message": message}}} for code, message in examples}
    return {
        "model": ErrorResponse,
        "description": description,
        "content": {"application/json": {"examples": values}},
    }


_INTERNAL = _error("The server failed", ("internal_error", "the server failed to answer; its log has the details"))
_CLASSIFY_ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error(
        "The form is broken or holds no files",
        ("invalid_form", "Missing boundary in multipart."),
        ("no_images", "the form holds no files: send each image as a file of the form"),
    ),
    404: _error("No such model", ("model_not_found", "no model 'digits' is served, only: digits-pde, mnist-pde")),
    413: _error(
        "The body is too large or holds too many images",
        ("body_too_large", "a request body may have at most 33554432 bytes"),
        ("too_many_images", "a request may hold at most 64 images"),
    ),
    415: _error(
        "Neither a form nor an image",
        (
            "unsupported_media_type",
            "expected the content type multipart/form-data, image/* or application/octet-stream, got text/plain",
        ),
    ),
    422: _error(
        "None of the images could be classified, or a parameter is wrong",
        ("invalid_image", "notes.txt: expected a PNG or JPEG image, got another file"),
        ("image_too_large", "map.png: expected at most 32000000 pixels, got 30000 x 30000"),
        ("invalid_parameter", "top_k: Input should be greater than or equal to 1"),
    ),
    500: _INTERNAL,
}


@router.post(
    "/classify",
    summary="Classify images",
    response_description="One result per image, in order; at least one image was classified",
    responses=_CLASSIFY_ERRORS,
    openapi_extra={"requestBody": REQUEST_BODY},
    tags=["images"],
)
async def classify(
    request: Request,
    model: Annotated[
        str | None, Query(max_length=200, description="a name from /models; by default, the first")
    ] = None,
    top_k: Annotated[int, Query(ge=1, description="how many classes to name; at most all of them")] = 5,
) -> ClassifyResponse:
    """Send the files of a form, or one image as the body:

        curl -F file=@seven.png -F file=@two.jpg 'http://127.0.0.1:8000/classify?top_k=3'
        curl --data-binary @seven.png -H 'Content-Type: image/png' http://127.0.0.1:8000/classify

    An image that cannot be classified has an `error` in its place and does not fail the others. Where that is so of
    every image, the answer is 422 with the error of the first.
    """
    classifier = _classifier(request)
    served = _find_model(classifier, model or classifier.default)
    uploads = await read_uploads(request, request.app.state.settings.max_images)
    outcomes = await classifier.classify(served, uploads, top_k)
    if isinstance(outcomes[0], ImageError) and all(isinstance(outcome, ImageError) for outcome in outcomes):
        raise ApiError(422, _code(outcomes[0]), str(outcomes[0]))
    results = [_result(upload, outcome) for upload, outcome in zip(uploads, outcomes, strict=True)]
    return ClassifyResponse(model=served.card.preset.name, results=results)


@router.get("/models", summary="The served models", responses={500: _INTERNAL}, tags=["models"])
async def models(request: Request) -> ModelList:
    classifier = _classifier(request)
    return ModelList(default=classifier.default, models=[_model_info(model) for model in classifier.models.values()])


@router.get("/healthz", summary="The server is alive", tags=["health"])
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz",
    summary="The models are loaded and warm",
    responses={503: _error("Not ready yet", ("not_ready", "the models are warming up"))},
    tags=["health"],
)
async def readyz(request: Request) -> Health:
    if not _classifier(request).ready:
        raise ApiError(503, "not_ready", "the models are warming up")
    return Health()


def _classifier(request: Request) -> Classifier:
    classifier: Classifier = request.app.state.classifier
    return classifier


def _find_model(classifier: Classifier, name: str) -> ServedModel:
    try:
        return classifier.models[name]
    except KeyError:
        served = ", ".join(classifier.models)
        raise ApiError(404, "model_not_found", f"no model {name!r} is served, only: {served}") from None


def _result(upload: Upload, outcome: Prediction | ImageError) -> Classification | ImageFailure:
    if isinstance(outcome, ImageError):
        return ImageFailure(filename=upload.filename, error=ErrorDetail(code=_code(outcome), message=str(outcome)))
    return Classification(filename=upload.filename, **outcome.to_dict())


def _code(error: ImageError) -> str:
    return "image_too_large" if isinstance(error, ImageTooLargeError) else "invalid_image"


def _model_info(model: ServedModel) -> ModelInfo:
    info, metrics = model.predictor.info(), model.card.metrics
    spec = info.input
    return ModelInfo(
        name=info.model,
        labels=info.labels,
        input=ModelInput(height=spec.height, width=spec.width, channels=spec.channels, fit=spec.fit),
        parameters=info.parameters,
        metrics=metrics,
        device=info.device,
        provider=info.provider,
    )
