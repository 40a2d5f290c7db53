"""BentoML: JSON with images in base64; adaptive batching, one worker per CPU."""

import base64
from typing import Any

import bentoml
from classifier import CPUS, MAX_BATCH_SIZE, Classifier


@bentoml.service(workers=CPUS, logging={"access": {"enabled": False}})
class Service:
    """Requests {"images": [base64, ...]}, answered by a list of results."""

    def __init__(self) -> None:
        self.classifier = Classifier(threads=1)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE)
    def classify(self, images: list[str]) -> list[dict[str, Any]]:
        return self.classifier.classify([base64.b64decode(image) for image in images])
