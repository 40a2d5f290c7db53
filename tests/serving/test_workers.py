"""Several workers: those that die or hang are replaced, and the metrics of all are added up."""

import os
import re
import select
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import numpy as np

from serving.telemetry.metrics import counted, merge
from tests.images.image_makers import as_png
from tests.servers import children, running_server
from tests.serving.raw_http import read_response
from tests.waiting import PATIENCE, wait_until


def test_a_killed_worker_is_replaced_while_the_other_answers(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray
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
                content=as_png(pixels[0]),
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
        wait_until(lambda: len(children(server.process.pid)) >= 2)
        time.sleep(5)  # longer than a silent worker is left alive

        assert works in children(server.process.pid)
        assert server.log.read_text().count("has not answered") == 1
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0


def test_the_metrics_of_workers_are_added_up(package_folder: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2", "--drain-seconds", "0") as server:
        url = f"http://127.0.0.1:{server.port}"
        for _ in range(20):  # each on a connection of its own, to either of the workers
            httpx2.post(f"{url}/classify", content=as_png(pixels[0]), headers={"Content-Type": "image/png"})
        metrics = [httpx2.get(f"{url}/metrics").text for _ in range(10)]
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0

    for text in metrics:
        assert 'pdeinfer_requests_total{route="/classify",status="200"} 20.0' in text
        assert 'pdeinfer_admitted_images{model="tiny-grey",version="1"} 0.0' in text
        assert 'pdeinfer_max_queue_images{model="tiny-grey",version="1"} 512.0' in text  # 256 of each worker
        assert re.search(r"^pdeinfer_model_info{.*provider=.CPUExecutionProvider.*} 1.0$", text, re.MULTILINE)


def classified(text: str) -> float:
    found = re.search(r'^pdeinfer_requests_total{route="/classify",status="200"} (\S+)$', text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_counters_do_not_fall_and_gauges_do_when_a_worker_dies(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    served = r"^pdeinfer_model_info{.*} 1.0$"
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2") as server:
        url = f"http://127.0.0.1:{server.port}"
        for _ in range(20):  # each on a connection of its own, to either of the workers
            httpx2.post(f"{url}/classify", content=as_png(pixels[0]), headers={"Content-Type": "image/png"})
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


def test_counters_of_a_worker_that_has_ended_stay_and_gauges_do_not() -> None:
    of_worker = [
        ["pdeinfer_requests", "", "counter", [["pdeinfer_requests_total", {"status": "200"}, 3.0]]],
        ["pdeinfer_max_queue_images", "", "gauge", [["pdeinfer_max_queue_images", {}, 256.0]]],
        ["pdeinfer_request_seconds", "", "histogram", [["pdeinfer_request_seconds_sum", {}, 1.5]]],
    ]
    added = {name: samples[0][-1] for name, _, _, samples in merge((counted(of_worker), of_worker))}
    assert added == {
        "pdeinfer_requests": 6.0,
        "pdeinfer_max_queue_images": 256.0,
        "pdeinfer_request_seconds": 3.0,
    }


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
