"""Signals to a server process: it stops without losing a request, or goes on."""

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.images.image_makers import as_png
from tests.servers import children, running_server
from tests.serving.raw_http import read_response
from tests.waiting import PATIENCE, wait_until


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, "1"), (signal.SIGINT, "1"), (signal.SIGHUP, "1"), (signal.SIGTERM, "2"), (signal.SIGHUP, "2")],
)
def test_a_signal_to_stop_lets_the_request_in_flight_be_answered(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray, number: signal.Signals, workers: str
) -> None:
    image = as_png(pixels[0])
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
        wait_until(lambda: len(children(server.process.pid)) >= 2)

        assert stays in children(server.process.pid)


def test_after_sigterm_it_is_not_ready_but_answers_for_the_drain_seconds(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--drain-seconds", "3") as server:
        url = f"http://127.0.0.1:{server.port}"
        server.process.send_signal(signal.SIGTERM)
        stopped_at = time.monotonic()
        time.sleep(0.2)

        ready = httpx2.get(f"{url}/readyz")
        answer = httpx2.post(f"{url}/classify", content=as_png(pixels[0]), headers={"Content-Type": "image/png"})
        exit_code = server.process.wait(PATIENCE)

        assert ready.status_code == 503
        assert ready.json()["error"]["code"] == "not_ready"
        assert answer.status_code == 200
        assert exit_code == 0
        assert time.monotonic() - stopped_at > 2.9
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/readyz")
