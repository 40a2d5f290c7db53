"""A server ends in time, and its workers with it, whatever they are doing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import ROOT, children, is_alive, running_server
from tests.waiting import PATIENCE, wait_until

BUSY = 15  # seconds that a busy machine may add
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
        assert not any(is_alive(process) for process in processes)
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


def test_the_last_traces_are_sent_although_the_deadline_comes_meanwhile() -> None:
    program = (
        "import os, time; from serving.process import ending\n"
        "ending.flush_traces = lambda: (time.sleep(0.1), os.write(1, b'sent'))\n"
        "process = ending.Ending(); process.end_within(0.1); time.sleep(0.05); process.finish(); time.sleep(5)"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout) == (0, b"sent")


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

        wait_until(lambda: not any(is_alive(worker) for worker in workers), BUSY)


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
