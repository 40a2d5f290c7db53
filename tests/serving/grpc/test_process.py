"""gRPC beside HTTP in real server processes: the port, workers, signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx2
import numpy as np
import pytest

from serving.grpc import messages
from tests.documents import ROOT, code_blocks
from tests.images.image_makers import as_png
from tests.servers import Server, children, running_server
from tests.serving.grpc.conftest import METHOD, grpc_port, infer_request
from tests.waiting import PATIENCE

INFER = infer_request(np.zeros((1, 8, 8, 1), np.uint8)).SerializeToString()


def infer(channel: grpc.Channel, message: bytes = INFER) -> None:
    channel.unary_unary(METHOD + "ModelInfer")(message, timeout=PATIENCE, wait_for_ready=True)


def new_channel(port: int) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])


def test_http_and_grpc_count_together(server: Server) -> None:
    with new_channel(grpc_port(server)) as channel:
        infer(channel)
    metrics = httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text

    assert re.search(r'pdeinfer_requests_total\{route="/inference\.GRPC\w+/ModelInfer",status="OK"\} \d', metrics)


def test_grpc_listens_on_the_same_address_alone(server: Server) -> None:
    for address, is_open in (("127.0.0.1", True), ("127.0.0.2", False)):
        with socket.socket() as connection:
            assert (connection.connect_ex((address, grpc_port(server))) == 0) is is_open


def test_the_documents_example_classifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (
        text for language, text in code_blocks(ROOT / "docs/open-inference-protocol.md") if language == "python"
    )
    assert "127.0.0.1:8001" in example
    with running_server(tmp_path / "log", "digits-pde", "--grpc-port", "0") as server:
        exec(example.replace("8001", str(grpc_port(server))).replace("examples/", f"{ROOT}/examples/"), {})  # noqa: S102

    assert re.findall(r"b'0\.\d+:(\d):\d'", capsys.readouterr().out) == ["7", "3"]


def test_large_messages_take_no_more_memory_than_their_limit(package_folder: Path, tmp_path: Path) -> None:
    message = infer_request(np.zeros((7 * 2**14, 8, 8, 1), np.uint8)).SerializeToString()  # 7 MiB
    limits = ("--max-body-bytes", str(8 * 2**20), "--max-total-bytes", str(16 * 2**20))

    def send(channel: grpc.Channel) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, message)
        return caught.value.code()

    def peak(process: int) -> int:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[0]) // 1024

    with running_server(tmp_path / "log", str(package_folder), "--grpc-port", "0", *limits) as server:
        before = peak(server.process.pid)
        with ExitStack() as stack, ThreadPoolExecutor(40) as pool:
            channels = [stack.enter_context(new_channel(grpc_port(server))) for _ in range(10)]
            codes = set(pool.map(send, channels * 6))
        taken = peak(server.process.pid) - before

    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert taken < 120  # MiB; the messages have 420, 280 at a time


def test_every_worker_answers(package_folder: Path, tmp_path: Path) -> None:
    with running_server(
        tmp_path / "log", str(package_folder), "--grpc-port", "0", "--workers", "2", "--access-log"
    ) as server:
        port = grpc_port(server)
        workers = set(children(server.process.pid))
        deadline = time.monotonic() + PATIENCE
        seen: set[int] = set()
        while seen != workers:  # the kernel spreads connections by chance
            assert time.monotonic() < deadline
            with new_channel(port) as channel:
                infer(channel)
            found = re.findall(r'"process": (\d+)[^\n]*ModelInfer', server.log.read_text())
            seen = {int(process) for process in found}


def test_a_port_in_use_is_refused(server: Server, package_folder: Path) -> None:
    port = grpc_port(server)
    command = [sys.executable, "-m", "pdeinfer", "serve", str(package_folder), "--port", "0", "--grpc-port", str(port)]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert ended.returncode == 1
    assert ended.stderr.endswith(f"pdeinfer serve: 127.0.0.1:{port}: Address already in use\n")


def test_without_grpc_the_error_names_what_to_install(package_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['grpc'] = None\n")
    command = [sys.executable, "-m", "pdeinfer", "serve", str(package_folder), "--port", "0", "--grpc-port", "0"]
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))

    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.endswith("--grpc-port needs gRPC, which is not installed: pip install 'pdeinfer[grpc]'")


def test_grpc_is_off_by_default(package_folder: Path, tmp_path: Path) -> None:
    with running_server(tmp_path / "log", str(package_folder)) as server:
        loaded = Path(f"/proc/{server.process.pid}/maps").read_text()

        assert "gRPC" not in server.log.read_text()
    assert "cygrpc" not in loaded


def test_clients_that_repeat_calls_as_documented_do_not_notice_that_a_server_stops(
    tmp_path: Path, package_folder: Path, server: Server
) -> None:
    (policy,) = (text for language, text in code_blocks(ROOT / "docs/open-inference-protocol.md") if language == "json")
    options = [("grpc.service_config", policy), ("grpc.use_local_subchannel_pool", 1)]

    def call_until_it_has_stopped(stopping: Server) -> None:
        addresses = f"ipv4:127.0.0.1:{grpc_port(stopping)},127.0.0.1:{grpc_port(server)}"  # in this order
        with grpc.insecure_channel(addresses, options=options) as channel:
            infer(channel)
            has_begun.wait(PATIENCE)
            while stopping.process.poll() is None:
                infer(channel)
            infer(channel)

    has_begun = threading.Barrier(7)
    arguments = (str(package_folder), "--grpc-port", "0", "--drain-seconds", "0.2")
    with running_server(tmp_path / "log", *arguments) as stopping, ThreadPoolExecutor(6) as pool:
        calling = [pool.submit(call_until_it_has_stopped, stopping) for _ in range(6)]
        has_begun.wait(PATIENCE)
        stopping.process.send_signal(signal.SIGTERM)
        for client in calling:
            client.result(PATIENCE)


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_drains_calls_and_ends_watches(tmp_path: Path, package_folder: Path, workers: int) -> None:
    large = as_png(np.zeros((2000, 2000, 1), np.uint8))
    request = messages.ModelInferRequest(
        model_name="tiny-grey", raw_input_contents=[len(large).to_bytes(4, "little") + large]
    )
    request.inputs.add(name="image", datatype="BYTES", shape=(1,))
    arguments = (str(package_folder), "--grpc-port", "0", "--workers", str(workers), "--shutdown-timeout", "60")
    with running_server(tmp_path / "log", *arguments) as server:
        with new_channel(grpc_port(server)) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            assert next(watch) == b"\x08\x01"  # SERVING
            infer_large = channel.unary_unary(METHOD + "ModelInfer")
            calls = [infer_large.future(request.SerializeToString(), timeout=PATIENCE) for _ in range(10)]
            # The server accepts a connection's calls in turn: when it has answered this one, those have begun.
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PATIENCE)
            stopped = time.monotonic()
            server.process.send_signal(signal.SIGTERM)

            assert next(watch) == b"\x08\x02"  # NOT_SERVING
            with pytest.raises(grpc.RpcError) as caught:
                next(watch)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            for call in calls:
                call.result()
            assert server.process.wait(PATIENCE) == 0
            assert time.monotonic() - stopped < 50
        with socket.socket() as connection:
            assert connection.connect_ex(("127.0.0.1", grpc_port(server))) != 0
