"""The servers under comparison: how to start each, send it requests and read its answers."""

import json
import shlex
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.serving.load import files_request, pixels_request, post

FOLDER = Path(__file__).parent / "peers"
MAX_BATCH_SIZE = 32

Probabilities = np.ndarray  # float (N, classes)
ToRequest = Callable[[str, Sequence[bytes]], bytes]  # from the model's name and the bytes of images


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """One way to serve the model.

    Attributes:
        name: of the peer, and of its requirements file.
        command: after the Python of its environment.
        one: from one image to a request. many: from several. read: from the body of an answer to its labels (None
            where the protocol has none) and probabilities.
        is_ready: the path that answers 200 once requests are answered.
        from_pixels: from uint8 pixels (N, H, W, C) to V2 requests, by what they are called.
    """

    name: str
    command: Sequence[str]
    one: ToRequest
    many: ToRequest
    read: Callable[[bytes, Sequence[str]], tuple[list[str] | None, Probabilities]]
    is_ready: str
    environment: Mapping[str, str] = field(default_factory=dict)
    from_pixels: Mapping[str, Callable[[str, np.ndarray], bytes]] = field(default_factory=dict)


def _json_post(path: str, value: object) -> bytes:
    return post(path, json.dumps(value).encode(), "Content-Type: application/json")


def _base64(images: Sequence[bytes]) -> list[str]:
    return [b64encode(image).decode() for image in images]


def _json_images(path: str) -> ToRequest:
    return lambda _, images: _json_post(path, {"images": _base64(images)})


def _png(path: str) -> ToRequest:
    return lambda _, images: post(path, images[0], "Content-Type: image/png")


def _v2_images(model: str, images: Sequence[bytes]) -> bytes:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images), 1], "data": _base64(images)}
    return _json_post(f"/v2/models/{model}/infer", {"inputs": [{**tensor, "parameters": {"content_type": "base64"}}]})


def _v2_pixels(model: str, pixels: np.ndarray) -> bytes:
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    return _json_post(f"/v2/models/{model}/infer", {"inputs": [tensor]})


def _read_ours(body: bytes, labels: Sequence[str]) -> tuple[list[str] | None, Probabilities]:
    answer = json.loads(body)
    if "outputs" in answer:
        return _read_v2(body, labels)
    results = answer["results"]
    probabilities = np.zeros((len(results), len(labels)))
    for row, result in zip(probabilities, results, strict=True):
        row[[entry["index"] for entry in result["top"]]] = [entry["score"] for entry in result["top"]]
    return [result["label"] for result in results], probabilities


def _read_results(body: bytes, _: Sequence[str]) -> tuple[list[str] | None, Probabilities]:
    answer = json.loads(body)
    results = answer["results"] if isinstance(answer, dict) else answer
    return [result["label"] for result in results], np.array([result["probabilities"] for result in results])


def _read_v2(body: bytes, _: Sequence[str]) -> tuple[list[str] | None, Probabilities]:
    (output,) = json.loads(body)["outputs"]
    return None, np.array(output["data"]).reshape(output["shape"])


OURS = Peer(
    "pdeinfer",
    ["-m", "pdeinfer", "serve", "{model}", "--port", "{port}"],  # everything else by default
    one=_png("/classify?top_k=100"),
    many=lambda _, images: files_request(images, "/classify?top_k=100"),
    read=_read_ours,
    is_ready="/readyz",
    from_pixels={"V2, JSON": _v2_pixels, "V2, binary": pixels_request},
)
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "litserve",
            [f"{FOLDER / 'litserve_app.py'}"],
            one=_json_images("/predict"),
            many=_json_images("/predict"),
            read=_read_results,
            is_ready="/health",
        ),
        Peer(
            "bentoml",
            shlex.split(
                f"-m bentoml serve bentoml_app:Service --working-dir {FOLDER} --host 127.0.0.1 --port {{port}}"
            ),
            one=_json_images("/classify"),
            many=_json_images("/classify"),
            read=_read_results,
            is_ready="/readyz",
            environment={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Peer(
            "mlserver",
            ["-m", "mlserver.cli.main", "start", "{folder}"],
            one=_v2_images,
            many=_v2_images,
            read=_read_v2,
            is_ready="/v2/models/{model}/ready",
            from_pixels={"V2, JSON": _v2_pixels},
        ),
        Peer(
            "ray",
            [f"{FOLDER / 'ray_app.py'}"],
            one=_png("/"),
            many=_json_images("/"),
            read=_read_results,
            is_ready="/-/healthz",
            environment={
                "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
                "RAY_SERVE_ENABLE_HA_PROXY": "1",
                "RAY_SERVE_HAPROXY_NBTHREAD": "1",
                "RAY_USAGE_STATS_ENABLED": "0",
            },
        ),
    )
}
