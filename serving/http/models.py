"""GET /models: the served models."""

from fastapi import APIRouter, Depends, Request

from pdeinfer import ModelCard
from pdeinfer.inspection.values import spec_values
from serving.engine.served_model import ServedModel
from serving.errors import InternalError, RequestError
from serving.http.openapi import describe_error
from serving.http.query import refuse_query
from serving.http.schemas import ModelInfo, ModelInput, ModelList, PdeValues
from serving.http.state import models_of

router = APIRouter(tags=["models"], dependencies=[Depends(refuse_query)])


@router.get(
    "/models",
    summary="The served models",
    responses={
        422: describe_error(
            "A query parameter", RequestError("invalid_parameter", "unknown query parameter 'version': expected none")
        ),
        500: describe_error("The server failed", InternalError()),
    },
)
async def models(request: Request) -> ModelList:
    served = models_of(request)
    return ModelList(default=served.default, models=[_model_info(model) for model in served])


def _model_info(model: ServedModel) -> ModelInfo:
    info, spec, values = model.info, model.spec, spec_values(model.card.preset.pde)
    return ModelInfo(
        name=model.name,
        version=model.version,
        labels=model.labels,
        input=ModelInput(height=spec.height, width=spec.width, channels=spec.channels, fit=spec.fit),
        parameters=info.parameters,
        macs=model.card.macs,
        pde=None if values is None else PdeValues(**values),
        training=_training(model.card),
        metrics=model.card.metrics,
        precision=info.precision,
        device=info.device,
        provider=info.provider,
        pde_layers=info.pde_layers,
        cuda_graphs=info.cuda_graphs,
    )


def _training(card: ModelCard) -> dict[str, object]:
    recipe = card.training.get("recipe")
    values = {**(recipe if isinstance(recipe, dict) else {}), "seed": card.training.get("seed")}
    return {name: values.get(name) for name in ("dataset", "epochs", "seed")}
