"""A real server process on a real socket: limits, signals, workers that die."""

import gzip
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
import PIL.Image
import pytest

from serving.middleware.body_limit import LINGER_SECONDS
from tests.servers import PATIENCE, ROOT, Server, children, running_server

MAX_BODY_BYTES = 50_000
BUSY = 15  # seconds that a busy machine may add
Png = Callable[[np.ndarray], bytes]


@pytest.fixture(scope="module")
def server(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(log, str(package_folder), "--max-body-bytes", str(MAX_BODY_BYTES)) as server:
        yield server


def read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the body of the one answer that is waiting."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(file.readline, b"\r\n"))
        return status, headers, file.read(int(headers["content-length"]))


def test_it_gets_ready_and_classifies_over_a_socket(server: Server, pixels: np.ndarray, png: Png) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        deadline = time.monotonic() + PATIENCE
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        response = client.post("/classify", files={"file": ("a.png", png(pixels[0]))})

    assert response.status_code == 200
    assert response.json()["model"] == "tiny-grey"
    assert len(response.json()["results"][0]["top"]) == 5
    assert "server" not in response.headers


def test_the_log_is_json_and_names_the_models_and_how_they_run(server: Server) -> None:
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (loaded,) = [line for line in lines if line["message"] == "models are loaded"]

    assert loaded["models"] == ["tiny-grey 1 (cpu, CPUExecutionProvider, standard PDE layers)"]
    assert loaded["threads"] >= 1
    assert {"time", "level", "logger", "message", "process"} <= loaded.keys()


def test_a_chunked_body_over_the_limit_is_413_before_its_end_and_closes_the_connection(server: Server) -> None:
    chunk = b"2710\r\n" + b"0" * 10_000 + b"\r\n"
    with server.connect() as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(chunk * (MAX_BODY_BYTES // 10_000 + 1))

        started = time.monotonic()
        status, headers, body = read_response(connection)
        answered_after = time.monotonic() - started

        assert status == 413
        assert headers["connection"] == "close"
        assert json.loads(body)["error"]["code"] == "body_too_large"
        assert answered_after < LINGER_SECONDS
        assert connection.recv(1) == b""  # closed, though the body never ended


def test_a_content_length_over_the_limit_is_413_before_the_body_is_sent(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n"
        )

        status, headers, body = read_response(connection)

    assert status == 413
    assert headers["connection"] == "close"
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_a_client_that_sends_all_of_its_body_before_it_reads_gets_the_413(server: Server) -> None:
    response = httpx2.post(f"http://127.0.0.1:{server.port}/classify", content=b"0" * 20_000_000)

    assert response.status_code == 413


def test_a_client_that_disconnects_causes_no_traceback(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n0"
        )
        time.sleep(0.1)

    time.sleep(0.1)
    assert httpx2.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 200
    assert "Traceback" not in server.log.read_text()


def test_no_image_bytes_are_logged(server: Server) -> None:
    httpx2.post(
        f"http://127.0.0.1:{server.port}/classify", content=b"secret pixels", headers={"Content-Type": "image/png"}
    )

    assert "secret" not in server.log.read_text()


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, "1"), (signal.SIGINT, "1"), (signal.SIGHUP, "1"), (signal.SIGTERM, "2"), (signal.SIGHUP, "2")],
)
def test_a_signal_to_stop_lets_the_request_in_flight_be_answered(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray, png: Png, number: signal.Signals, workers: str
) -> None:
    image = png(pixels[0])
    options = (str(package_folder), "--workers", workers)
    with running_server(tmp_path / "log", *options) as server, server.connect() as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(image)
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the application is waiting for the body
        connection.sendall(image[:20])
        server.process.send_signal(number)
        server.wait_for_log("Shutting down")
        connection.sendall(image[20:])

        status, _, body = read_response(connection)

        assert status == 200
        assert len(json.loads(body)["results"]) == 1
        assert server.process.wait(PATIENCE) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_of_clients_that_keep_their_connections_is_lost_when_the_server_stops(
    package_folder: Path, tmp_path: Path, workers: str
) -> None:
    def send_until_refused(port: int) -> int:
        answered = 0
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return answered
            is_open = True
            while is_open:
                connection.request("GET", "/models")  # it raises an error if it is not answered
                response = connection.getresponse()
                response.read()
                answered += response.status == 200
                is_open = not response.will_close
            connection.close()

    options = (str(package_folder), "--workers", workers)
    with running_server(tmp_path / "log", *options) as server, ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(send_until_refused, server.port) for _ in range(16)]
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)

        assert all(client.result(PATIENCE) for client in clients)
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_that_mean_reopen_the_logs_are_ignored(package_folder: Path, tmp_path: Path, workers: str) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--workers", workers) as server:
        processes = [server.process.pid, *children(server.process.pid)]
        for process in processes:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                os.kill(process, number)
        time.sleep(0.2)

        assert httpx2.get(f"http://127.0.0.1:{server.port}/readyz").status_code == 200
        assert [server.process.pid, *children(server.process.pid)] == processes


@pytest.mark.parametrize(("proxies", "client"), [(None, "203.0.113.7"), ("", "127.0.0.1"), ("10.0.0.1", "127.0.0.1")])
def test_only_a_proxy_that_is_believed_names_the_client_of_the_access_log(
    package_folder: Path, tmp_path: Path, proxies: str | None, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if proxies is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    with running_server(tmp_path / "log", str(package_folder), "--access-log") as server:
        httpx2.get(f"http://127.0.0.1:{server.port}/healthz", headers={"X-Forwarded-For": "203.0.113.7"})
        line = server.wait_for_log(r".*serving\.access.*")[0]

    assert json.loads(line)["client"] == client


def test_a_setting_of_other_servers_does_not_matter(
    package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")  # uvicorn reads it
    with running_server(tmp_path / "log", str(package_folder)) as server:
        assert httpx2.get(f"http://127.0.0.1:{server.port}/readyz").status_code == 200


def test_closed_standard_streams_are_the_null_device_in_all_processes(package_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "pdeinfer", "serve", str(package_folder), "--device", "cpu", "--workers", "2"]
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *serve, "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_ready(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            processes = [process.pid, *children(process.pid)]
            streams = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for pid in processes for number in range(3)]
        finally:
            process.kill()
    assert streams == [os.devnull] * 9


def is_ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx2.ConnectError:
        return False


def test_a_server_started_by_nohup_survives_sighup(package_folder: Path, tmp_path: Path) -> None:
    program = (
        "import signal, sys\n"
        "from pdeinfer.cli.main import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does
        "sys.exit(main())\n"
    )
    with running_server(tmp_path / "log", str(package_folder), program=("-c", program)) as server:
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.2)

        assert httpx2.get(f"http://127.0.0.1:{server.port}/readyz").status_code == 200


def test_a_worker_that_is_sent_sighup_drains_and_is_replaced(package_folder: Path, tmp_path: Path) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2", "--drain-seconds", "0") as server:
        drained, stays = children(server.process.pid)
        os.kill(drained, signal.SIGHUP)
        server.wait_for_log(f"worker {drained} died with exit code 0")
        deadline = time.monotonic() + PATIENCE
        while len(children(server.process.pid)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)

        assert stays in children(server.process.pid)


def test_after_sigterm_it_is_not_ready_but_answers_for_the_drain_seconds(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray, png: Png
) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--drain-seconds", "3") as server:
        url = f"http://127.0.0.1:{server.port}"
        server.process.send_signal(signal.SIGTERM)
        stopped_at = time.monotonic()
        time.sleep(0.2)

        ready = httpx2.get(f"{url}/readyz")
        answer = httpx2.post(f"{url}/classify", content=png(pixels[0]), headers={"Content-Type": "image/png"})
        exit_code = server.process.wait(PATIENCE)

        assert ready.status_code == 503
        assert ready.json()["error"]["code"] == "not_ready"
        assert answer.status_code == 200
        assert exit_code == 0
        assert time.monotonic() - stopped_at > 2.9
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/readyz")


def test_endless_headers_are_431(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * 32_768)
        status, headers, body = read_response(connection)
    assert (status, headers["connection"]) == (431, "close")
    assert json.loads(body)["error"]["code"] == "headers_too_large"


def test_endless_trailers_are_431_and_close_the_connection(server: Server) -> None:
    with server.connect() as connection, suppress(ConnectionError):
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\n0\r\n0\r\n"
        )
        for number in range(100):
            connection.sendall(b"X-%d: %s\r\n" % (number, b"a" * 2000))
        assert read_response(connection)[0] == 431
        assert connection.recv(1) == b""


def test_a_killed_worker_is_replaced_while_the_other_answers(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray, png: Png
) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2") as server:
        workers = children(server.process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        server.wait_for_log("died with exit code -9")
        statuses = set()
        started_at = time.monotonic()
        while len(children(server.process.pid)) < 2 or time.monotonic() < started_at + 2:
            assert time.monotonic() < started_at + PATIENCE
            response = httpx2.post(
                f"http://127.0.0.1:{server.port}/classify",
                content=png(pixels[0]),
                headers={"Content-Type": "image/png", "Connection": "close"},
            )
            statuses.add(response.status_code)
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(PATIENCE) == 0
        assert statuses == {200}


def test_only_a_worker_that_hangs_is_replaced(package_folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pdeinfer.cli import main as cli\n"
        "from serving.process import supervisor\n"
        "supervisor.PING_SECONDS = 0.5\n"
        "sys.exit(cli.main())\n"
    )
    arguments = (str(package_folder), "--workers", "2", "--drain-seconds", "0")
    with running_server(tmp_path / "log", *arguments, program=("-c", program)) as server:
        time.sleep(2)  # a ping from before the start may take as long as loading
        hangs, works = children(server.process.pid)
        os.kill(hangs, signal.SIGSTOP)
        server.wait_for_log(f"worker {hangs} has not answered for 3 seconds")
        server.wait_for_log(f"worker {hangs} died with exit code -9")
        deadline = time.monotonic() + PATIENCE
        while len(children(server.process.pid)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(5)  # longer than a silent worker is left alive

        assert works in children(server.process.pid)
        assert server.log.read_text().count("has not answered") == 1
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0


def test_the_metrics_of_workers_are_added_up(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray, png: Png
) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2", "--drain-seconds", "0") as server:
        url = f"http://127.0.0.1:{server.port}"
        for _ in range(20):  # each on a connection of its own, to either of the workers
            httpx2.post(f"{url}/classify", content=png(pixels[0]), headers={"Content-Type": "image/png"})
        metrics = [httpx2.get(f"{url}/metrics").text for _ in range(10)]
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0

    for text in metrics:
        assert 'pdeinfer_requests_total{route="/classify",status="200"} 20.0' in text
        assert 'pdeinfer_admitted_images{model="tiny-grey",version="1"} 0.0' in text
        assert re.search(r"^pdeinfer_model_info{.*provider=.CPUExecutionProvider.*} 1.0$", text, re.MULTILINE)


def classified(text: str) -> float:
    found = re.search(r'^pdeinfer_requests_total{route="/classify",status="200"} (\S+)$', text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_counters_do_not_fall_and_gauges_do_when_a_worker_dies(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray, png: Png
) -> None:
    served = r"^pdeinfer_model_info{.*} 1.0$"
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2") as server:
        url = f"http://127.0.0.1:{server.port}"
        for _ in range(20):  # each on a connection of its own, to either of the workers
            httpx2.post(f"{url}/classify", content=png(pixels[0]), headers={"Content-Type": "image/png"})
        assert classified(httpx2.get(f"{url}/metrics").text) == 20
        first, second = children(server.process.pid)
        for killed in (first, second):
            os.kill(killed, signal.SIGKILL)
            server.wait_for_log(f"worker {killed} died with exit code -9")
            text = ""
            deadline = time.monotonic() + PATIENCE
            while not re.search(served, text, re.MULTILINE):
                assert time.monotonic() < deadline
                with suppress(httpx2.TransportError):  # for a moment there may be no worker
                    text = httpx2.get(f"{url}/metrics").text
            assert classified(text) == 20


def test_metrics_are_served_while_a_worker_hangs(package_folder: Path, tmp_path: Path) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2") as server:
        hangs, _ = children(server.process.pid)
        with ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in range(20)]  # to either of the workers
            time.sleep(0.2)
            os.kill(hangs, signal.SIGSTOP)
            for connection in connections:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            answered = select.select(connections, [], [], 10)[0]
            statuses = {read_response(connection)[0] for connection in answered}
            os.kill(hangs, signal.SIGCONT)

        assert statuses == {200}


NEVER_ENDS = f"""\
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pdeinfer import Predictor
from pdeinfer.cli import main as cli
from serving.http import health

def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

async def stand_still():
    busy(120)

def set_up():
    predict = Predictor.predict_proba
    Predictor.predict_proba = lambda self, images: busy(120) if images.max() == 255 else predict(self, images)
    health.router.add_api_route("/still", stand_still)

set_up()
if __name__ == "__main__":
    sys.exit(cli.main())
"""
WHITE = b"POST /v2/models/tiny-grey/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"


@pytest.fixture
def never_ends(tmp_path: Path) -> tuple[str, ...]:
    """A program whose network never ends on a white image, and whose event loop never ends at /still."""
    program = tmp_path / "never_ends.py"
    program.write_text(NEVER_ENDS)
    return (str(program),)


def send_white_image(connection: socket.socket) -> None:
    data = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [255] * 64}
    body = json.dumps({"inputs": [data]}).encode()
    connection.sendall(WHITE % (len(body), body))


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_that_never_ends_delays_the_exit_by_the_shutdown_timeout_and_a_second_at_most(
    package_folder: Path, tmp_path: Path, never_ends: tuple[str, ...], workers: str, number: signal.Signals
) -> None:
    arguments = (str(package_folder), "--workers", workers, "--shutdown-timeout", "1", "--drain-seconds", "0.5")
    with (
        running_server(tmp_path / "log", *arguments, program=never_ends) as server,
        server.connect() as connection,
    ):
        processes = [server.process.pid, *children(server.process.pid)]
        send_white_image(connection)
        time.sleep(0.5)
        server.process.send_signal(number)
        stopped_at = time.monotonic()

        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - stopped_at < 2.5 + BUSY
        assert not any(Path(f"/proc/{process}").exists() for process in processes)
        assert "abandoned" in server.log.read_text()


def test_workers_whose_event_loop_stands_still_end_with_the_server(
    package_folder: Path, tmp_path: Path, never_ends: tuple[str, ...]
) -> None:
    arguments = (str(package_folder), "--workers", "2", "--shutdown-timeout", "1", "--drain-seconds", "0")
    with running_server(tmp_path / "log", *arguments, program=never_ends) as server, ExitStack() as stack:
        for _ in range(10):  # to both workers
            stack.enter_context(server.connect()).sendall(b"GET /still HTTP/1.1\r\nHost: x\r\n\r\n")
        for worker in children(server.process.pid):
            os.kill(worker, signal.SIGSTOP)  # as if it could not run Python
        server.process.terminate()
        stopped_at = time.monotonic()

        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - stopped_at < 2 + BUSY


@pytest.mark.parametrize("request_of", ["idle", "thread", "event loop"])
def test_workers_end_with_their_supervisor_whatever_they_do(
    package_folder: Path, tmp_path: Path, never_ends: tuple[str, ...], request_of: str
) -> None:
    arguments = (str(package_folder), "--workers", "2")
    with running_server(tmp_path / "log", *arguments, program=never_ends) as server, ExitStack() as stack:
        workers = children(server.process.pid)
        for connection in [stack.enter_context(server.connect()) for _ in range(10)]:  # to both workers
            if request_of == "thread":
                send_white_image(connection)
            elif request_of == "event loop":
                connection.sendall(b"GET /still HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.5)
        server.process.kill()
        server.process.wait()

        deadline = time.monotonic() + BUSY
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_endless_request_delays_the_exit_by_the_shutdown_timeout_at_most(
    package_folder: Path, tmp_path: Path
) -> None:
    with (
        running_server(
            tmp_path / "log", str(package_folder), "--shutdown-timeout", "1", "--body-timeout", "600"
        ) as server,
        server.connect() as connection,
    ):
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.recv(100)
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(PATIENCE) == 0
        assert b'"code":"not_ready"' in connection.recv(1000)
        assert "Traceback" not in server.log.read_text()


NOTES_FILES = """\
import sys
from pdeinfer.cli import main as cli
from serving.process import worker

def note(event, arguments):
    # FastAPI reads the source of an operation when it is first used, and does without if that fails.
    name = str(arguments[0]) if arguments else ""
    if event == "import" or event == "open" and not name.startswith("/proc/") and not name.endswith(".py"):
        print("FILE", event, name, file=sys.stderr)

startup = worker.Server.startup

async def noted(server, sockets=None):
    await startup(server, sockets)
    sys.addaudithook(note)

worker.Server.startup = noted
sys.exit(cli.main())
"""


def test_no_file_is_opened_and_no_module_imported_while_serving(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    with running_server(tmp_path / "log", str(package_folder), program=("-c", NOTES_FILES)) as server:
        picture = PIL.Image.fromarray(np.kron(pixels[0, :, :, 0], np.ones((30, 30), np.uint8)))
        images = [b"garbage", b"\x89PNG\r\n\x1a\ncut off"]
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
            file = BytesIO()
            picture.convert("RGB").save(file, kind)
            images.append(file.getvalue())
        with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            for image in images:
                client.post("/classify", content=image, headers={"Content-Type": "image/png"})
                client.post("/classify", files={"file": ("a.png", image)})
                body = gzip.compress(json.dumps({"images": [{"content": b64encode(image).decode()}]}).encode())
                headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
                client.post("/classify", content=body, headers=headers)
            data = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": pixels[0].ravel().tolist()}
            assert client.post("/v2/models/tiny-grey/infer", json={"inputs": [data]}).status_code == 200
            for path in ("/models", "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json", "/v2", "/nowhere"):
                client.get(path)

        assert "FILE" not in server.log.read_text()
