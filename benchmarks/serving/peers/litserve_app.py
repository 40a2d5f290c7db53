"""LitServe: JSON with images in base64; batches of requests in processes of their own, behind ZeroMQ."""

import base64
from typing import Any

import litserve
from classifier import CPUS, MAX_BATCH_SIZE, PORT, Classifier


class API(litserve.LitAPI):
    """Requests {"images": [base64, ...]}, answered by {"results": [...]}."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.classifier = Classifier(threads=1)

    def decode_request(self, request: dict[str, Any]) -> list[bytes]:
        return [base64.b64decode(text) for text in request["images"]]

    def predict(self, requests: list[list[bytes]]) -> list[list[dict[str, Any]]]:
        results = iter(self.classifier.classify([image for images in requests for image in images]))
        return [[next(results) for _ in images] for images in requests]

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {"results": output}


if __name__ == "__main__":
    api = API(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=CPUS, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
