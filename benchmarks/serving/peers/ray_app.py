"""Ray Serve: one image as the body, or JSON with images in base64; batches of requests in each replica."""

import base64
import signal
from typing import Any

import ray
from classifier import CPUS, MAX_BATCH_SIZE, PORT, Classifier
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse


@serve.deployment(num_replicas=CPUS, max_ongoing_requests=256)
class Deployment:
    """Answered by {"results": [...]}."""

    def __init__(self) -> None:
        self.classifier = Classifier(threads=1)

    async def __call__(self, request: Request) -> JSONResponse:
        if request.headers["content-type"] == "application/json":
            images = [base64.b64decode(text) for text in (await request.json())["images"]]
        else:
            images = [await request.body()]
        return JSONResponse({"results": await self.classify(images)})

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0)
    async def classify(self, requests: list[list[bytes]]) -> list[list[dict[str, Any]]]:
        results = iter(self.classifier.classify([image for images in requests for image in images]))
        return [[next(results) for _ in images] for images in requests]


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    serve.start(
        http_options={"host": "127.0.0.1", "port": PORT},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    serve.run(Deployment.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
