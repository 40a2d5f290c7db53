"""Traces reach the collector that the environment names."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.servers import PATIENCE, running_server

Png = Callable[[np.ndarray], bytes]


class Collector(ThreadingHTTPServer):
    """Keeps the bodies posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: dict[str, bytes] = {}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies[self.path] = self.server.bodies.get(self.path, b"") + body
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_decoding_and_computing_are_traced_in_the_trace_of_the_client(
    collector: Collector,
    package_folder: Path,
    tmp_path: Path,
    pixels: np.ndarray,
    png: Png,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with running_server(tmp_path / "log", str(package_folder), "--drain-seconds", "0") as server:
        headers = {"Content-Type": "image/png", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        response = httpx2.post(f"http://127.0.0.1:{server.port}/classify", content=png(pixels[0]), headers=headers)
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0

    assert response.status_code == 200
    assert list(collector.bodies) == ["/v1/traces"]
    spans = collector.bodies["/v1/traces"]
    assert spans.count(bytes.fromhex(trace)) == 3
    assert b"service.name\x12\n\n\x08pdeinfer" in spans
    for name in (b"/classify", b"decode", b"compute", b"tiny-grey"):
        assert name in spans
