"""Request ids, metrics and logs."""

import asyncio
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send

from pdeinfer import Predictor
from serving.app import create_app
from serving.engine.served_model import ServedModel
from serving.middleware.observation import Observation
from serving.settings import Settings
from serving.telemetry.logs import JsonFormatter, PlainFormatter, request_id
from tests.images.image_makers import as_png
from tests.servers import ROOT

PNG = {"Content-Type": "image/png"}


def metric(client: TestClient, line: str) -> float:
    """Return the value of a metric; 0 if it is absent."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("sane", ["abc", "7f3c-22.B:1/x=", "a" * 128])
def test_sane_request_id_is_returned(client: TestClient, sane: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": sane}).headers["x-request-id"] == sane


@pytest.mark.parametrize("odd", ["", "a b", "a" * 129, "<script>", 'a"b', "a{b}"])
def test_odd_request_id_is_replaced(client: TestClient, odd: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", client.get("/healthz", headers={"X-Request-Id": odd}).headers["x-request-id"])


def test_every_response_has_its_own_id(client: TestClient) -> None:
    ids = {client.get(path).headers["x-request-id"] for path in ("/healthz", "/nowhere", "/models", "/docs")}

    assert len(ids) == 4


def test_requests_batches_and_images_are_counted_and_timed(client: TestClient, pixels: np.ndarray) -> None:
    model = 'model="tiny-grey",version="1"'
    lines = {
        'pdeinfer_requests_total{route="/classify",status="200"}': 1,
        'pdeinfer_request_seconds_count{route="/classify"}': 1,
        f'pdeinfer_queue_seconds_count{{for="decode",{model}}}': 1,
        f'pdeinfer_queue_seconds_count{{for="compute",{model}}}': 1,
        f"pdeinfer_decode_seconds_count{{{model}}}": 4,
        f"pdeinfer_batch_images_sum{{{model}}}": 4,
        f"pdeinfer_admitted_images{{{model}}}": 0,
    }
    before = {line: metric(client, line) for line in lines}
    client.post("/classify", files=[("file", ("a.png", as_png(image))) for image in pixels])

    assert {line: metric(client, line) - before[line] for line in lines} == lines
    assert metric(client, f"pdeinfer_inference_seconds_count{{{model}}}") >= 1


def test_metrics_describe_the_models_and_the_process(client: TestClient) -> None:
    info = (
        'pdeinfer_model_info{cuda_graphs="false",device="cpu",model="tiny-rgb",pde_layers="standard",'
        'provider="CPUExecutionProvider",version="1"}'
    )

    assert metric(client, info) == 1
    assert metric(client, "process_resident_memory_bytes") > 1e6
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("path", "route", "status", "reason"),
    [
        ("/classify?model=other", "/classify", 404, "model_not_found"),
        ("/classify?top_k=0", "/classify", 422, "invalid_parameter"),
        ("/made/up/0815", "other", 404, "not_found"),
    ],
)
def test_errors_are_counted_by_code_and_clients_cannot_create_labels(
    client: TestClient, path: str, route: str, status: int, reason: str
) -> None:
    lines = [
        f'pdeinfer_requests_total{{route="{route}",status="{status}"}}',
        f'pdeinfer_rejected_requests_total{{reason="{reason}"}}',
    ]
    before = [metric(client, line) for line in lines]
    client.post(path, content=b"", headers=PNG)

    assert [metric(client, line) for line in lines] == [value + 1 for value in before]
    assert "made/up" not in client.get("/metrics").text  # digits alone stand by chance in times


WITHOUT_KEY: dict[str, str] = {}
TOO_LARGE = {"X-API-Key": "k3y", "Content-Length": f"{10**9}"}
PREFLIGHT = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "route", "status"),
    [
        ("POST", "/classify", WITHOUT_KEY, "/classify", "401"),
        ("POST", "/classify", TOO_LARGE, "/classify", "413"),
        ("HEAD", "/models", WITHOUT_KEY, "/models", "401"),
        ("POST", "/v2/models/tiny-grey/infer", TOO_LARGE, "/v2/models/{model}/infer", "413"),
        ("GET", "/v2/models/tiny-grey", WITHOUT_KEY, "/v2/models/{model}", "401"),
        ("POST", "/made/up/0815", WITHOUT_KEY, "other", "401"),
        ("OPTIONS", "/classify", PREFLIGHT, "other", "200"),
    ],
)
def test_a_request_that_middleware_answers_is_counted_under_its_route(
    package_folder: Path, method: str, path: str, headers: dict[str, str], route: str, status: str
) -> None:
    def recorded() -> float:
        return REGISTRY.get_sample_value("pdeinfer_requests_total", {"route": route, "status": status}) or 0

    origins = ("https://example.org",)
    settings = Settings(models=(str(package_folder),), device="cpu", threads=1, api_keys="k3y", cors_origins=origins)
    with TestClient(create_app(settings)) as client:
        before = recorded()
        assert client.request(method, path, headers=headers).status_code == int(status)
        assert recorded() == before + 1


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_images_with_an_error_in_the_place_of_a_result_are_counted_by_its_code(
    client: TestClient, pixels: np.ndarray, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_the_first(predictor: Predictor, images: np.ndarray) -> np.ndarray:
        probabilities = predict_proba(predictor, images)
        probabilities[(images == pixels[0]).all(axis=(1, 2, 3))] = np.nan
        return probabilities

    predict_proba = Predictor.predict_proba
    monkeypatch.setattr(Predictor, "predict_proba", fail_on_the_first)
    lines = {
        'pdeinfer_failed_images_total{model="tiny-grey",reason="inference_failed",version="1"}': 1,
        'pdeinfer_failed_images_total{model="tiny-grey",reason="invalid_image",version="1"}': 1,
        'pdeinfer_rejected_requests_total{reason="inference_failed"}': 0,
        'pdeinfer_rejected_requests_total{reason="invalid_image"}': 0,
    }
    before = {line: metric(client, line) for line in lines}
    files = [("file", ("a.png", content)) for content in (b"no image", *map(as_png, pixels[:2]))]

    assert client.post("/classify", files=files, headers={"Accept": accept}).status_code == 200
    assert {line: metric(client, line) - before[line] for line in lines} == lines


def test_images_of_a_request_that_fails_are_not_counted_beside_it(client: TestClient) -> None:
    lines = {
        'pdeinfer_failed_images_total{model="tiny-grey",reason="invalid_image",version="1"}': 0,
        'pdeinfer_rejected_requests_total{reason="invalid_image"}': 1,
    }
    before = {line: metric(client, line) for line in lines}

    assert client.post("/classify", files=[("file", ("a.png", b"no image"))] * 2).status_code == 422
    assert {line: metric(client, line) - before[line] for line in lines} == lines


@pytest.mark.parametrize("path", ["/classify", "/v2/models/tiny-grey/infer", "/v2/repository/index"])
def test_a_client_that_leaves_before_its_body_is_complete_counts_as_disconnected(
    client: TestClient, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [(b"content-type", b"image/png"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    received = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"1", "more_body": True}]
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return received.pop()

    async def send(message: object) -> None:
        sent.append(message)

    def counted() -> float:
        return sum(
            sample.value
            for metric in REGISTRY.collect()
            for sample in metric.samples
            if sample.name == "pdeinfer_requests_total" and sample.labels["status"] == "disconnected"
        )

    before = counted()
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]

    assert sent == []
    assert counted() == before + 1
    assert caplog.records == []


def test_fault_is_logged_with_its_request_id_and_the_response_has_no_details(
    client: TestClient,
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(ServedModel, "classify", fail)
    handler = Handler()
    logging.getLogger("serving.middleware.observation").addHandler(handler)
    try:
        response = client.post("/classify", content=as_png(pixels[0]), headers={**PNG, "X-Request-Id": "id-of-fault"})
    finally:
        logging.getLogger("serving.middleware.observation").removeHandler(handler)

    (line,) = lines
    assert line["request_id"] == "id-of-fault"
    assert line["level"] == "error"
    assert "/secret/path" in line["exception"]
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "id-of-fault"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in response.text
    assert metric(client, 'pdeinfer_requests_total{route="/classify",status="500"}') >= 1


def test_log_line_is_one_json_object_whatever_the_message_holds() -> None:
    record = logging.makeLogRecord({"msg": 'a "quoted"\nmessage', "levelname": "INFO", "fields": {"status": "200"}})
    token = request_id.set("some-id")
    try:
        line = JsonFormatter().format(record)
    finally:
        request_id.reset(token)

    assert "\n" not in line
    assert json.loads(line)["message"] == 'a "quoted"\nmessage'
    assert json.loads(line)["status"] == "200"
    assert json.loads(line)["request_id"] == "some-id"


def test_plain_log_line_shows_the_fields_after_the_message() -> None:
    record = logging.makeLogRecord(
        {"levelname": "INFO", "msg": "request", "fields": {"path": "/models", "status": 200}}
    )
    token = request_id.set("7f")
    try:
        assert PlainFormatter().format(record) == "INFO: request request_id=7f path=/models status=200"
    finally:
        request_id.reset(token)
    assert PlainFormatter().format(logging.makeLogRecord({"levelname": "INFO", "msg": "ready"})) == "INFO: ready"
    worker = {"levelname": "ERROR", "msg": "worker %s: %s\n", "args": (7, "a\n\x1b[2J")}
    assert PlainFormatter().format(logging.makeLogRecord(worker)) == r"ERROR: worker 7: a\n\x1b[2J"
    forged = logging.makeLogRecord({"levelname": "INFO", "msg": "request", "fields": {"path": "/\nINFO: \x1b[2J"}})
    assert PlainFormatter().format(forged) == r'INFO: request path="/\nINFO: \u001b[2J"'


LOG_WITHOUT_THE_SERVERS_OWN = """
import logging, warnings
from io import BytesIO
import PIL.Image
from serving.errors import RequestError
from serving.http.classify import PARAMETERS
from serving.http.forms import parse_form
from serving.telemetry.logs import configure_logging

configure_logging()
logging.getLogger("another.package").warning("odd bytes")
warnings.warn("will change", FutureWarning)
try:
    parse_form(b"malformed", b"b", 1, PARAMETERS)
except RequestError as error:
    assert error.code == "invalid_form"
for side in range(10_000, 10_100):
    header = b"P6 %d %d 255\\n" % (side, side)
    PIL.Image.open(BytesIO(header))
print(len(PIL.Image.__dict__.get("__warningregistry__", {})))
"""


def test_other_packages_log_in_json_and_what_clients_cause_is_not_a_warning() -> None:
    command = [sys.executable, "-c", LOG_WITHOUT_THE_SERVERS_OWN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["another.package", "py.warnings"]
    assert int(done.stdout) <= 1


def test_access_log_is_off_by_default_and_holds_no_bytes_queries_or_keys(
    package_folder: Path, pixels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving")
    for access_log in (False, True):
        settings = Settings(
            models=(str(package_folder),), device="cpu", threads=1, access_log=access_log, api_keys="k3y"
        )
        with TestClient(create_app(settings)) as client:
            client.post("/classify?top_k=3", content=as_png(pixels[0]), headers={**PNG, "X-API-Key": "k3y"})

    (record,) = [record for record in caplog.records if record.name == "serving.access"]
    fields = record.fields  # type: ignore[attr-defined]
    assert {key: fields[key] for key in ("method", "path", "status")} == {
        "method": "POST",
        "path": "/classify",
        "status": "200",
    }
    assert set(fields) == {"method", "path", "status", "client", "seconds"}
    assert "k3y" not in JsonFormatter().format(record)


@pytest.mark.parametrize("failure", [RuntimeError("a fault"), asyncio.CancelledError()], ids=["fault", "shutdown"])
def test_an_answer_that_the_server_breaks_off_has_its_status(failure: BaseException) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}\n", "more_body": True})
        raise failure

    async def nothing(*_: object) -> None: ...

    counts = [("pdeinfer_requests_total", {"route": "other", "status": each}) for each in ("200", "disconnected")]
    before = [REGISTRY.get_sample_value(*count) or 0 for count in counts]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None}
    asyncio.run(Observation(app, routes=[], access_log=False, origins=())(scope, nothing, nothing))
    assert [REGISTRY.get_sample_value(*count) or 0 for count in counts] == [before[0] + 1, before[1]]
