"""Requests to a busy, slow or failing server, and the work of clients that disconnect."""

import asyncio
import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from pdeinfer import Prediction, Predictor
from serving.app import create_app
from serving.engine import served_model
from serving.engine.served_model import ServedModel
from serving.http.body import PARSED_AT_ONCE
from serving.settings import Settings
from tests.images.image_makers import as_png
from tests.serving.brake import Brake
from tests.waiting import PATIENCE, eventually, wait_until

PNG = {"Content-Type": "image/png"}


def settings_for(package_folder: Path, **values: Any) -> Settings:
    return Settings(models=(str(package_folder),), device="cpu", threads=1, max_images=4, **values)


async def send_to(
    app: FastAPI,
    body: bytes,
    headers: dict[str, str],
    gone: asyncio.Event,
    answer: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Post to /classify as a client that disconnects on `gone`, and return the messages of the answer."""
    messages = [] if answer is None else answer
    requests = [{"type": "http.request", "body": body}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    raw_headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw_headers.append((b"content-length", str(len(body)).encode()))
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": raw_headers}
    await app(scope, receive, send)
    return messages


def test_a_full_queue_refuses_at_once_and_admitted_requests_are_answered(
    package_folder: Path, pixels: np.ndarray, brake: Brake
) -> None:
    with (
        TestClient(create_app(settings_for(package_folder, max_queue=4))) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        brake.on()
        image = as_png(pixels[0])
        admitted = [pool.submit(client.post, "/classify", content=image, headers=PNG) for _ in range(4)]
        (model,) = client.app.state.models  # type: ignore[attr-defined]
        wait_until(lambda: model.admitted == 4)

        refused = client.post("/classify", content=image, headers=PNG)
        brake.released.set()

        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert refused.json()["error"]["code"] == "overloaded"
        assert [response.result().status_code for response in admitted] == [200] * 4
        assert client.post("/classify", content=image, headers=PNG).status_code == 200


def test_a_request_beyond_its_deadline_is_504_and_leaves_the_queue(
    package_folder: Path, pixels: np.ndarray, brake: Brake
) -> None:
    with (
        TestClient(create_app(settings_for(package_folder, request_timeout=1))) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        brake.on()
        requests = [pool.submit(client.post, "/classify", content=as_png(pixels[0]), headers=PNG) for _ in range(3)]
        responses = [request.result() for request in requests]
        brake.released.set()

        assert [response.status_code for response in responses] == [504] * 3
        assert responses[0].json()["error"]["code"] == "deadline_exceeded"
        assert client.post("/classify", content=as_png(pixels[0]), headers=PNG).status_code == 200
        assert len(brake.batches) == 2  # the one in progress and the last request
        assert brake.batches[-1] == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/classify", {"Content-Type": "application/json"}),
        ("/classify", {"Content-Type": "image/png", "Content-Encoding": "gzip"}),
        ("/v2/models/tiny-grey/infer", {"Content-Encoding": "gzip"}),
    ],
)
def test_the_deadline_includes_the_time_in_which_the_body_waits_for_a_thread(
    package_folder: Path, pixels: np.ndarray, brake: Brake, path: str, headers: dict[str, str]
) -> None:
    settings = settings_for(package_folder, request_timeout=0.2)
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(1) as pool:
        brake.on()
        pool.submit(client.post, "/classify", content=as_png(pixels[0]), headers=PNG)
        wait_until(lambda: brake.batches == [1])  # the only thread is busy, for as long as it likes

        assert client.post(path, content=b"{}" + b" " * PARSED_AT_ONCE, headers=headers).status_code == 504
        brake.released.set()


def test_images_of_clients_that_disconnected_are_not_computed(
    package_folder: Path, pixels: np.ndarray, brake: Brake
) -> None:
    app = create_app(settings_for(package_folder))
    request = partial(send_to, app, as_png(pixels[0]), PNG)

    async def test() -> None:
        async with app.router.lifespan_context(app):
            (model,) = app.state.models
            brake.on()
            gone, stays = asyncio.Event(), asyncio.Event()
            first = asyncio.create_task(request(stays))
            await eventually(lambda: brake.batches == [1])
            leaving = [asyncio.create_task(request(gone)) for _ in range(20)]
            last = asyncio.create_task(request(stays))
            await eventually(lambda: model.admitted == 22)
            gone.set()
            assert await asyncio.gather(*leaving) == [[]] * 20  # nobody is answered
            assert model.admitted == 2
            brake.released.set()

            assert [answer[0]["status"] for answer in await asyncio.gather(first, last)] == [200, 200]
            assert brake.batches == [1, 1]

    asyncio.run(test())


def test_a_client_that_disconnects_between_its_lines_leaves_nothing_behind(
    package_folder: Path, pixels: np.ndarray, brake: Brake, caplog: pytest.LogCaptureFixture
) -> None:
    # Not even a deadline ends what is left behind.
    app = create_app(settings_for(package_folder, max_batch_size=1, request_timeout=10 * PATIENCE))
    images = [{"content": base64.b64encode(as_png(image)).decode()} for image in pixels]
    headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
    counted = [("pdeinfer_requests_total", {"route": "/classify", "status": each}) for each in ("disconnected", "200")]
    before = [REGISTRY.get_sample_value(*sample) or 0 for sample in counted]

    async def test() -> None:
        async with app.router.lifespan_context(app):
            (model,) = app.state.models
            gone = asyncio.Event()
            answer: list[dict[str, Any]] = []
            brake.on(free=1)
            request = asyncio.create_task(send_to(app, json.dumps({"images": images}).encode(), headers, gone, answer))
            await eventually(lambda: len(brake.batches) == 2 and len(answer) == 2)  # a line is out
            gone.set()
            await request
            await eventually(lambda: model.admitted == 0)
            brake.released.set()
            await asyncio.sleep(0.05)

            assert b"".join(message.get("body", b"") for message in answer).count(b"\n") == 1
            assert brake.batches == [1, 1]

    asyncio.run(test())
    assert caplog.text == ""
    assert [REGISTRY.get_sample_value(*sample) or 0 for sample in counted] == [before[0] + 1, before[1]]


@pytest.mark.parametrize(("max_batch_size", "parts"), [(1, 4), (3, 2)])
def test_a_slow_reader_does_not_occupy_the_queue(
    package_folder: Path, pixels: np.ndarray, max_batch_size: int, parts: int
) -> None:
    async def test() -> None:
        app = create_app(settings_for(package_folder, max_batch_size=max_batch_size))
        async with app.router.lifespan_context(app):
            (model,) = app.state.models
            uploads = [("image", as_png(image)) for image in pixels]
            lines = model.stream(uploads, 1, asyncio.get_running_loop().time() + 60)
            await anext(lines)
            await eventually(lambda: model.admitted == 0)  # and only the first part has been read
            assert len([part async for part in lines]) == parts - 1

    asyncio.run(test())


def test_an_image_on_which_the_network_fails_has_its_own_error(
    package_folder: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_proba = Predictor.predict_proba

    def failing(predictor: Predictor, images: np.ndarray) -> np.ndarray:
        if (images == pixels[1]).all(axis=(1, 2, 3)).any():
            raise RuntimeError("/secret/path")
        return predict_proba(predictor, images)

    monkeypatch.setattr(Predictor, "predict_proba", failing)
    with TestClient(create_app(settings_for(package_folder))) as client:
        mixed = client.post("/classify", files=[("file", (str(i), as_png(image))) for i, image in enumerate(pixels)])
        alone = client.post("/classify", content=as_png(pixels[1]), headers=PNG)

    assert mixed.status_code == 200
    assert ["error" in result for result in mixed.json()["results"]] == [False, True, False, False]
    assert mixed.json()["results"][1]["error"]["code"] == "inference_failed"
    assert alone.status_code == 500
    assert alone.json()["error"]["code"] == "inference_failed"
    assert "secret" not in mixed.text + alone.text


def test_a_failing_batch_is_computed_image_by_image_and_its_neighbours_are_answered(
    package_folder: Path, pixels: np.ndarray, brake: Brake, monkeypatch: pytest.MonkeyPatch
) -> None:
    braked = Predictor.predict_proba

    def failing(predictor: Predictor, images: np.ndarray) -> np.ndarray:
        probabilities = braked(predictor, images)
        if (images == pixels[1]).all(axis=(1, 2, 3)).any():
            raise RuntimeError("this one cannot be computed")
        return probabilities

    monkeypatch.setattr(Predictor, "predict_proba", failing)
    with TestClient(create_app(settings_for(package_folder))) as client, ThreadPoolExecutor(5) as pool:
        (model,) = client.app.state.models  # type: ignore[attr-defined]
        brake.on()
        requests = [pool.submit(client.post, "/classify", content=as_png(pixels[0]), headers=PNG)]
        wait_until(lambda: brake.batches == [1])
        # These are decoded at once, being tiny, and wait for the only thread, which computes them together.
        requests += [pool.submit(client.post, "/classify", content=as_png(image), headers=PNG) for image in pixels]
        wait_until(lambda: model._network._waiting == 4)
        brake.released.set()
        statuses = [request.result().status_code for request in requests]

    assert statuses == [200, 200, 500, 200, 200]
    assert brake.batches == [1, 4, 1, 1, 1, 1]


def test_an_idle_model_classifies_images_while_others_are_kept_busy(
    package_folder: Path, rgb_package_folder: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_proba = Predictor.predict_proba

    def slow(predictor: Predictor, images: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return predict_proba(predictor, images)

    models = (str(package_folder), str(rgb_package_folder), "digits-pde")
    app = create_app(Settings(models=models, device="cpu", threads=1, max_batch_size=1))

    async def test() -> None:
        async with app.router.lifespan_context(app):
            *busy, idle = app.state.models
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(Predictor, "predict_proba", slow)

            async def keep_busy(model: ServedModel) -> None:
                image = np.zeros((1, model.spec.height, model.spec.width, model.spec.channels), np.uint8)
                while True:
                    await model.infer(image, ["probabilities"], loop.time() + 60)

            load = [asyncio.create_task(keep_busy(model)) for model in busy for _ in range(4)]
            await asyncio.sleep(0.1)
            for _ in range(3):
                (outcome,) = await idle.classify([("image", as_png(pixels[0]))], 1, loop.time() + 2)
                assert isinstance(outcome, Prediction)
            for task in load:
                assert not task.done()
                task.cancel()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("workers", "threads", "cpus", "is_inline"),
    [(2, 1, 2, True), (1, 1, 1, True), (1, 1, 2, False), (1, 2, 2, False), ("auto", 1, 2, False)],
)
def test_only_a_worker_with_one_cpu_computes_in_its_event_loop(
    workers: int | str, threads: int, cpus: int, is_inline: bool, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_model, "available_cpus", lambda: cpus)
    settings = Settings(models=(str(package_folder),), device="cpu", workers=workers, threads=threads)

    async def test() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            (model,) = app.state.models
            assert model._network._max_inline == (served_model.MAX_INLINE_SECONDS if is_inline else 0)

    asyncio.run(test())
