"""The server on CUDA, whose device is the CPU."""

import logging
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pdeinfer import Predictor
from serving.app import create_app
from serving.process.worker import log_models
from serving.settings import Settings
from tests.images.image_makers import as_png
from tests.runtime.cuda_on_cpu import CudaOnCpu
from tests.waiting import PATIENCE

PNG = {"Content-Type": "image/png"}


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnCpu())


@pytest.fixture
def client(package_folder: Path) -> Iterator[TestClient]:
    settings = Settings(models=(str(package_folder),), device="cuda", threads=1, admin_keys="admin")
    with TestClient(create_app(settings)) as client:
        yield client


def test_it_tells_what_computes_each_model(client: TestClient) -> None:
    (model,) = client.get("/models").json()["models"]

    expected = {"device": "cuda:0", "provider": "CUDAExecutionProvider", "pde_layers": "standard", "cuda_graphs": True}
    assert {name: model[name] for name in expected} == expected
    infos = re.findall(r"pdeinfer_model_info{(.*)} 1.0", client.get("/metrics").text)
    served = {'cuda_graphs="true"', 'device="cuda:0"', 'pde_layers="standard"', 'model="tiny-grey"'}
    assert any(served <= set(info.split(",")) for info in infos)


def test_the_log_tells_it_when_a_model_is_loaded_again(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        response = client.post(
            "/admin/models/tiny-grey", json={"action": "reload"}, headers={"Authorization": "Bearer admin"}
        )

    assert response.status_code == 200
    (record,) = [record for record in caplog.records if record.message == "a model was changed"]
    assert record.fields["execution"] == ["cuda:0, CUDAExecutionProvider, standard PDE layers, CUDA graphs"]


@pytest.mark.parametrize(("workers", "warnings"), [(1, 0), (2, 1)])
def test_the_log_tells_what_several_workers_cost(
    client: TestClient, workers: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(client.app, FastAPI)
    with caplog.at_level(logging.INFO):
        log_models(client.app.state.models, Settings(workers=workers))

    assert [record.levelno for record in caplog.records] == [logging.INFO] + [logging.WARNING] * warnings
    assert caplog.records[0].fields["models"] == [
        "tiny-grey 1 (cuda:0, CUDAExecutionProvider, standard PDE layers, CUDA graphs)"
    ]


def test_images_of_concurrent_requests_are_classified(
    client: TestClient, package_folder: Path, pixels: np.ndarray
) -> None:
    with Predictor(package_folder, device="cpu") as predictor, ThreadPoolExecutor(8) as pool:
        expected = [predictor.predict(image).label for image in pixels] * 8
        answers = pool.map(lambda image: client.post("/classify", content=as_png(image), headers=PNG), [*pixels] * 8)
        found = [answer.json()["results"][0]["label"] for answer in answers]

    assert found == expected


def test_batches_are_larger_by_default_and_no_larger_than_the_queue(package_folder: Path) -> None:
    for options, expected in (({}, 256), ({"max_queue": 100}, 100), ({"max_batch_size": 8}, 8)):
        settings = Settings(models=(str(package_folder),), device="cuda", threads=1, **options)
        with TestClient(create_app(settings)) as client:
            assert isinstance(client.app, FastAPI)
            (model,) = client.app.state.models
            assert model._max_batch_size == expected


def test_images_are_decoded_while_the_device_computes(
    client: TestClient, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thread: the one that waits for the device is another."""
    assert isinstance(client.app, FastAPI)
    (model,) = client.app.state.models
    computing, go_on = threading.Event(), threading.Event()
    classify = model.predictor.predict_proba

    def wait(images: np.ndarray) -> np.ndarray:
        computing.set()
        assert go_on.wait(PATIENCE)
        return classify(images)

    monkeypatch.setattr(model.predictor, "predict_proba", wait)
    decoded = model.metrics.decode_seconds

    def count() -> float:
        return next(sample.value for sample in decoded.collect()[0].samples if sample.name.endswith("_count"))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/classify", content=as_png(pixels[0]), headers=PNG)
        assert computing.wait(PATIENCE)
        before = count()
        second = pool.submit(client.post, "/classify", content=as_png(pixels[1]), headers=PNG)
        deadline = threading.Event()
        for _ in range(1000):
            if count() > before:
                break
            deadline.wait(0.01)
        decoded_meanwhile = count() > before
        go_on.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
    assert decoded_meanwhile
