"""Which requests are refused by their heads, with which answer and how fast."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serving.app import create_app
from serving.engine.models import Models
from serving.http.admission import Admission
from serving.http.raw_answers import RawAnswer
from serving.interface.pace import MAX_DELAY, REFUSALS_PER_SECOND, Pace
from serving.settings import Settings

MODEL = "tiny-grey"


@pytest.fixture(scope="module")
def full(package_folder: Path, rgb_package_folder: Path) -> Callable[..., bytes | None]:
    """Return the answer to a request whose head is complete while all models but "tiny-rgb" are full."""
    settings = Settings(models=(str(package_folder), str(rgb_package_folder)), device="cpu", threads=1, max_images=4)
    models = Models(settings)
    asyncio.run(models.load())
    models.get(MODEL)._enter(models.get(MODEL).max_queue)

    def refusal(path: str, method: bytes = b"POST") -> bytes | None:
        async def ask() -> RawAnswer | None:
            target, _, query = path.partition("?")
            return Admission(models, Pace())(method, target, query.encode())

        answer = asyncio.run(ask())
        return answer and answer.encode([])

    return refusal


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/classify",
            "/classify?top_k=1",
            f"/classify?model={MODEL}",
            "/classify?model=tiny%2Dgrey",
            "/inspect",
            "/embed",
        ),
        *(f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/versions/1/infer", "/v2/models/tiny%2Dgrey/infer"),
    ],
)
def test_request_for_a_full_model_is_refused(full: Callable[..., bytes | None], path: str) -> None:
    answer = full(path)

    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert {b"retry-after: 1", b"connection: close"} <= set(head.split(b"\r\n"))
    error = json.loads(body)["error"]
    assert isinstance(error, str) if path.startswith("/v2") else error["code"] == "overloaded"


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/classify?model=tiny-rgb", b"POST"),
        ("/v2/models/tiny-rgb/infer", b"POST"),
        ("/classify?model=nonsense", b"POST"),
        (f"/v2/models/{MODEL}/versions/7/infer", b"POST"),
        (f"/v2/models/{MODEL}/infer/more", b"POST"),
        ("/healthz", b"POST"),
        ("/healthz", b"GET"),
        ("/classify", b"GET"),
        (f"/v2/models/{MODEL}", b"GET"),
        ("/admin/models/tiny-grey", b"POST"),
    ],
)
def test_every_other_request_reaches_the_application(
    full: Callable[..., bytes | None], path: str, method: bytes
) -> None:
    assert full(path, method) is None


def test_refusals_are_immediate_until_they_come_faster_than_the_pace() -> None:
    async def test() -> None:
        pace = Pace()
        delays = [pace.delay() for _ in range(3 * REFUSALS_PER_SECOND)]

        assert delays[REFUSALS_PER_SECOND // 20] == 0
        assert 0.3 < delays[REFUSALS_PER_SECOND // 2] < 0.5
        assert delays[-1] == pytest.approx(MAX_DELAY, abs=0.05)

    asyncio.run(test())


def test_a_refusal_after_the_head_keeps_the_pace_too(package_folder: Path, pixels: np.ndarray) -> None:
    """The last free place is too small for the request, which shows only when its body is parsed."""
    app = create_app(Settings(models=(str(package_folder),), device="cpu", threads=1, max_images=4, max_queue=4))
    tensor = {"name": "image", "datatype": "UINT8", "shape": [4, 8, 8, 1], "data": pixels.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    scope = {"type": "http", "method": "POST", "path": f"/v2/models/{MODEL}/infer", "query_string": b"", "headers": []}

    async def post() -> int:
        statuses: list[int] = []
        requests = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, object]:
            return requests.pop() if requests else await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, object]) -> None:
            statuses.extend([message["status"]] if "status" in message else [])  # type: ignore[list-item]

        await app(dict(scope), receive, send)
        return statuses[0]

    async def test() -> None:
        async with app.router.lifespan_context(app):
            app.state.models.get(MODEL)._enter(1)
            started = asyncio.get_running_loop().time()
            count = REFUSALS_PER_SECOND // 4
            assert await asyncio.gather(*(post() for _ in range(count))) == [503] * count
            assert asyncio.get_running_loop().time() - started > 0.09

    asyncio.run(test())
