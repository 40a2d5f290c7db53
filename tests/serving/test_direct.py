"""Plain requests for images go past FastAPI and are answered as by it; their answers go out in one piece."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.http.direct import DirectRoute, query_arguments
from serving.process.protocol import JoinedWrites

Png = Callable[[np.ndarray], bytes]

ANY = re.fullmatch("", "")
assert ANY is not None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("model=digits-pde", {"model": "digits-pde"}),
        ("model=a%20b%2Fc&top_k=12", {"model": "a b/c", "top_k": 12}),
        ("top_k=1", {"top_k": 1}),
    ],
)
def test_a_plain_query_gives_the_arguments(query: str, expected: dict[str, Any]) -> None:
    assert query_arguments(ANY, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        *("top_k=0", "top_k=-1", "top_k=1.0", "top_k=%D9%A1", "top_k=1&top_k=2", "top_k=9999999", "top_k=", "top_k"),
        *("other=1", "model=a&top_k=1&other=1", f"model={'a' * 201}", "&", "%"),
    ],
)
def test_what_is_not_plain_is_left_to_fastapi(query: str) -> None:
    assert query_arguments(ANY, query) is None


@pytest.mark.parametrize("path", ["/classify", "/v2/models/tiny-grey/infer", "/v2/models/tiny-grey/versions/1/infer"])
def test_plain_requests_are_answered_as_by_fastapi(
    client: TestClient, path: str, pixels: np.ndarray, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": pixels[0].ravel().tolist()}
    requests = [
        {"json": {"inputs": [tensor]}},
        {"json": {"inputs": []}},
        {"content": png(pixels[0]), "headers": {"content-type": "image/png"}},
        {"content": b"no image", "headers": {"content-type": "image/png"}},
        {"content": b"no image", "headers": {"content-type": "image/png", "content-encoding": "gzip"}},
    ]

    handle, handled = DirectRoute.handle, []

    async def count(route: DirectRoute, *arguments: Any) -> None:
        handled.append(route)
        await handle(route, *arguments)

    monkeypatch.setattr(DirectRoute, "handle", count)
    direct = [client.post(path, **request) for request in requests]
    assert len(handled) == len(requests)
    monkeypatch.setattr(DirectRoute, "matches", lambda *_: (0, {}))
    through_fastapi = [client.post(path, **request) for request in requests]

    assert {response.status_code for response in direct} >= {200, 400}
    for one, other in zip(direct, through_fastapi, strict=True):
        assert (one.status_code, one.content) == (other.status_code, other.content)
        differing = {"x-request-id"}
        assert {name: one.headers[name] for name in one.headers.keys() - differing} == {
            name: other.headers[name] for name in other.headers.keys() - differing
        }


def test_a_model_that_is_not_served_is_404_on_the_direct_way(client: TestClient) -> None:
    assert client.post("/classify?model=none", content=b"").json()["error"]["code"] == "model_not_found"
    assert "no model 'none' is served" in client.post("/v2/models/none/infer", content=b"").json()["error"]


class _Transport:
    """Keeps what is written to it."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls

    def get_extra_info(self, name: str) -> str:
        return name


def test_what_is_written_in_one_turn_is_sent_at_once_and_before_the_connection_is_closed() -> None:
    transport = _Transport()

    async def write() -> None:
        joined = JoinedWrites(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
        joined.write(b"head ")
        joined.write(b"body")
        assert transport.calls == []
        await asyncio.sleep(0)
        joined.write(b"more")
        joined.close()
        joined.write(b"too late")
        await asyncio.sleep(0)

    asyncio.run(write())

    assert transport.calls == [b"head body", b"more", "close"]
