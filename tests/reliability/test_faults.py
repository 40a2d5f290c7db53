"""Processes killed and stopped, and packages damaged, under load."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
import pytest

from benchmarks.serving.load import LOST, Answer, Client, closed_loop, pixels_request, statuses
from tests.conftest import GREY_PRESET
from tests.reliability.conftest import IS_FULL, NEEDS_PROC, Report, random_pixels
from tests.servers import children, owners, running_server
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, NEEDS_PROC]

SECONDS = 10 if IS_FULL else 3
PROBES = (b"/readyz", b"/v2/health/ready", b"/healthz")


def test_a_killed_worker_loses_only_its_own_requests(slow_package_folder: Path, tmp_path: Path, report: Report) -> None:
    request = pixels_request("slow-grey", random_pixels(2))
    with running_server(tmp_path / "log", str(slow_package_folder), "--workers", "2") as server:
        first = children(server.process.pid)
        lost_with_worker: set[int] = set()
        killed_at = 0.0

        async def kill() -> None:
            nonlocal lost_with_worker, killed_at
            await asyncio.sleep(SECONDS / 3)
            os.kill(first[0], signal.SIGSTOP)  # it accepts nothing more
            lost_with_worker = {port for port, worker in owners(server).items() if worker == first[0]}
            killed_at = time.monotonic()
            os.kill(first[0], signal.SIGKILL)

        async def run() -> list[Answer]:
            load = asyncio.create_task(closed_loop(server.port, [request], 16, SECONDS))
            await kill()
            return await load

        answers = asyncio.run(run())
        server.wait_for_log("died with exit code -9")
        wait_until(lambda: len(children(server.process.pid)) >= 2)

        found = statuses(answers)
        lost = [answer for answer in answers if answer.status == LOST]
        report(
            f"One of two workers killed, 16 connections, {SECONDS} s",
            f"{found[200]} requests answered, {len(lost)} lost, all on the {len(lost_with_worker)} connections of that "
            "worker; replaced",
        )
        assert set(found) == {200, LOST}
        assert {answer.port for answer in lost} <= lost_with_worker
        assert len(lost) <= len(lost_with_worker)
        assert all(answer.due <= killed_at + 0.1 for answer in lost)
        assert any(answer.due > killed_at + 0.5 for answer in answers)
        assert first[0] not in children(server.process.pid)


def test_after_sigterm_accepted_requests_are_answered_and_it_exits_0(
    slow_package_folder: Path, tmp_path: Path, report: Report
) -> None:
    request = pixels_request("slow-grey", random_pixels(32))
    with running_server(
        tmp_path / "log", str(slow_package_folder), "--drain-seconds", "3", "--max-queue", "512"
    ) as server:

        async def run() -> tuple[list[Answer], list[int]]:
            clients = [Client(server.port) for _ in range(8)]
            sent = [asyncio.create_task(client.send(request)) for client in clients]
            await asyncio.sleep(0.1)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            probe = Client(server.port)
            ready = [(await probe.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)).status for path in PROBES]
            sent.append(asyncio.create_task(probe.send(request)))  # during the drain: accepted too
            answers = await asyncio.gather(*sent)
            for client in (*clients, probe):
                await client.close()
            return list(answers), ready

        answers, ready = asyncio.run(run())

        assert ready == [503, 503, 200]
        assert server.process.wait(20) == 0
        found = statuses(answers)
        report(
            "SIGTERM with 8 requests of 32 images in flight and one more in the grace time",
            f"{found[200]} answered, exit code 0",
        )
        assert found == {200: 9}
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"http://127.0.0.1:{server.port}/healthz")
        assert "Traceback" not in server.log.read_text()


def test_a_damaged_package_is_not_loaded_and_the_served_model_stays(
    package_folder: Path,
    tiny_probabilities: Callable[..., np.ndarray],
    tmp_path: Path,
    report: Report,
) -> None:
    pixels = random_pixels(4)
    expected = tiny_probabilities(GREY_PRESET, pixels)
    request = pixels_request("tiny-grey", pixels)
    package, good = tmp_path / "tiny-grey", package_folder
    shutil.copytree(good, package)
    (tmp_path / "keys").write_text("key\n")
    options = ("--admin-keys-file", str(tmp_path / "keys"))

    def restore() -> None:
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(good, package)

    def write(name: str, content: bytes) -> None:
        restore()
        (package / name).write_bytes(content)

    model, card = (good / "model.onnx").read_bytes(), (good / "card.json").read_bytes()
    damages: list[tuple[Callable[[], object], int]] = [
        (lambda: write("model.onnx", model[: len(model) // 2]), 422),
        (lambda: write("model.onnx", bytes([model[0] ^ 1]) + model[1:]), 422),
        (lambda: write("model.onnx", b""), 422),
        (lambda: (restore(), (package / "model.onnx").unlink()), 422),
        (lambda: write("card.json", card[: len(card) // 2]), 422),
        (lambda: write("card.json", card.replace(b"tiny-grey", b"tiny-gray")), 422),
        (lambda: (restore(), (package / "card.json").unlink()), 422),
        (lambda: shutil.rmtree(package), 422),
        (restore, 200),
    ]
    with running_server(tmp_path / "log", str(package), *options) as server:

        async def run() -> list[Answer]:
            load = asyncio.create_task(closed_loop(server.port, [request], 4, SECONDS))
            for damage, status in damages * (3 if IS_FULL else 1):
                damage()
                assert await asyncio.to_thread(reload) == status
                assert not load.done()
            return await load

        def reload() -> int:
            response = httpx2.post(
                f"http://127.0.0.1:{server.port}/admin/models/tiny-grey",
                json={"action": "reload"},
                headers={"X-API-Key": "key"},
            )
            assert str(tmp_path) not in response.text
            return response.status_code

        answers = asyncio.run(run())

    found = statuses(answers)
    report(
        f"The package damaged in {len(damages)} ways and reloaded after each",
        f"{found[200]} of {len(answers)} requests answered meanwhile, with the model's probabilities",
    )
    assert set(found) == {200}
    for answer in answers[:: max(1, len(answers) // 200)]:
        (output,) = json.loads(answer.body)["outputs"]
        np.testing.assert_allclose(np.reshape(output["data"], (4, 10)), expected, rtol=0, atol=1e-6)
