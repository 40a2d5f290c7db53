"""Traces reach the collector that the environment names, or do not hold up the server."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx2
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from serving.process.port import reserve
from serving.telemetry.tracing import configure_tracing
from tests.images.image_makers import as_png
from tests.servers import running_server
from tests.serving.grpc.conftest import METHOD, grpc_port, infer_request
from tests.waiting import PATIENCE


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


# A trace and the span of it in which a client sends a request.
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def parts_of(collector: Collector, trace_id: str) -> list[Any]:
    """Return the spans of a trace, the parents first."""
    assert list(collector.bodies) == ["/v1/traces"]
    sent = ExportTraceServiceRequest.FromString(collector.bodies["/v1/traces"])  # bodies that follow each other are one
    resources = sent.resource_spans
    assert {
        a.value.string_value for each in resources for a in each.resource.attributes if a.key == "service.name"
    } == {"pdeinfer"}
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    return sorted(
        (span for span in spans if span.trace_id.hex() == trace_id), key=lambda span: span.start_time_unix_nano
    )


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_decoding_and_computing_are_traced_in_the_trace_of_the_client(
    collector: Collector,
    package_folder: Path,
    tmp_path: Path,
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    traces = [TRACE[:-1] + digit for digit in "1234"]
    parents = [{"traceparent": f"00-{each}-{PARENT}-01"} for each in traces]
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": pixels[0].ravel().tolist()}
    with running_server(tmp_path / "log", str(package_folder), "--drain-seconds", "0", "--grpc-port", "0") as server:
        address = f"http://127.0.0.1:{server.port}"
        headers = {"Content-Type": "image/png", **parents[0]}
        httpx2.post(f"{address}/classify", content=as_png(pixels[0]), headers=headers).raise_for_status()
        v2 = f"{address}/v2/models/tiny-grey/infer"
        httpx2.post(v2, json={"inputs": [tensor]}, headers=parents[1]).raise_for_status()
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel:
            infer = channel.unary_unary(METHOD + "ModelInfer")
            infer(infer_request(pixels[:2]).SerializeToString(), metadata=[*parents[2].items()], timeout=PATIENCE)
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(METHOD + "ModelStreamInfer")(b"", metadata=[*parents[3].items()], timeout=PATIENCE)
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0

    names, computed = [], []
    for each in traces[:3]:
        request, *parts = parts_of(collector, each)
        assert (request.parent_span_id.hex(), request.kind) == (PARENT, request.SPAN_KIND_SERVER)
        assert {part.parent_span_id for part in parts} == {request.span_id}
        names.append([request.name, *(part.name for part in parts)])
        computed.append(attributes(parts[-1]))
    method = METHOD.removeprefix("/") + "ModelInfer"
    assert names == [
        ["POST /classify", "decode", "compute"],
        ["POST /v2/models/{model}/infer", "compute"],
        [method, "compute"],
    ]
    assert computed == [{"model": "tiny-grey", "images": images} for images in (1, 1, 2)]
    (answered, _), (refused,) = (parts_of(collector, each) for each in traces[2:])
    assert attributes(answered) == {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": "OK"}
    assert attributes(refused)["rpc.response.status_code"] == "UNIMPLEMENTED"
    assert [span.status.code for span in (answered, refused)] == [
        trace.StatusCode.UNSET.value,
        trace.StatusCode.ERROR.value,
    ]
    assert not refused.events


def test_a_collector_that_cannot_be_reached_delays_the_exit_by_a_second_and_nothing_is_abandoned(
    package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reserve("127.0.0.1", 0) as closed:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        # It would be tried again for more than five seconds.
        arguments = (str(package_folder), "--drain-seconds", "0", "--shutdown-timeout", "4")
        with running_server(tmp_path / "log", *arguments) as server:
            httpx2.get(f"http://127.0.0.1:{server.port}/models").raise_for_status()
            server.process.terminate()
            assert server.process.wait(PATIENCE) == 0
            log = server.log.read_text()

    assert "abandoned" not in log
    assert "the last traces were not sent" in log


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TracerProvider]]:
    """What would send the traces of this process, whose variables name a collector."""
    made: list[TracerProvider] = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(trace, "set_tracer_provider", made.append)
    yield made
    for provider in made:
        provider.shutdown()


def test_no_traces_are_sent_if_the_exporter_is_none(
    providers: list[TracerProvider], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")

    configure_tracing()

    assert providers == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("protocol", "protocol_of_traces", "refused"),
    [
        (None, None, None),
        ("http/protobuf", None, None),
        ("grpc", "http/protobuf", None),
        ("grpc", None, "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"),
        ("http/protobuf", "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'http/json'"),
    ],
)
def test_another_protocol_is_refused_by_name(
    providers: list[TracerProvider],
    protocol: str | None,
    protocol_of_traces: str | None,
    refused: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if protocol is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    if protocol_of_traces is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol_of_traces)

    configure_tracing()

    assert len(providers) == (1 if refused is None else 0)
    expected = [] if refused is None else [f"no traces are sent: {refused}, and only http/protobuf is supported"]
    assert [record.getMessage() for record in caplog.records] == expected
