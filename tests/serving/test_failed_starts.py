"""A server that cannot start exits with a code and one line that says why."""

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from serving.process.run import run
from serving.process.supervisor import Supervisor
from serving.settings import Settings
from tests.servers import ROOT, children, let_models_hang, running_server
from tests.waiting import PATIENCE, wait_until


def run_to_the_end(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving", "--port", "0", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_workers_that_cannot_start_stop_the_server_with_exit_code_2() -> None:
    result = run_to_the_end("no-such-model", "--workers", "2")

    assert result.returncode == 2
    assert "'no-such-model' is neither a bundled model" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_system_that_the_server_does_not_run_on_is_one_line_and_exit_code_2(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)

    assert run(Settings()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Linux" in line
    assert system in line


class FakeWorker:
    """A stand-in for a worker that never starts."""

    process = SimpleNamespace(pid=0)
    has_started = is_outdated = False
    snapshot: tuple[Any, ...] = ()

    @classmethod
    async def start(cls, *_: object) -> Self:
        return cls()

    def __init__(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def tell(self, _: str) -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.sleep(0))

    def stop(self, _: int) -> None:
        pass


async def never_started() -> None:
    raise AssertionError


@pytest.mark.parametrize(("worker_code", "exit_code"), [(-signal.SIGKILL, 1), (1, 1), (2, 2)])
def test_a_first_worker_that_ends_stops_the_server(
    worker_code: int, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worker(FakeWorker):
        def __init__(self) -> None:
            super().__init__()
            if not stopped:
                self.ended.set_result(worker_code)

        def stop(self, number: int) -> None:
            stopped.append(number)
            if not self.ended.done():
                self.ended.set_result(-signal.SIGKILL)

    stopped: list[int] = []
    monkeypatch.setattr("serving.process.supervisor.WorkerProcess", Worker)
    with socket.socket() as bound:
        assert asyncio.run(Supervisor(Settings(workers=2), bound, never_started)._run()) == exit_code


def test_a_worker_that_cannot_be_replaced_yet_is_replaced_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Worker(FakeWorker):
        has_started = has_joined = True
        started_at = 0.0

        @classmethod
        async def start(cls, *_: object) -> Self:
            starts.append(len(starts))
            worker = cls()
            if starts[-1] == 0:
                worker.ended.set_result(-signal.SIGKILL)
            elif starts[-1] == 2:  # in the place of the first
                raise BlockingIOError(errno.EAGAIN, "no process is left")
            elif starts[-1] == 3:
                signal.raise_signal(signal.SIGTERM)
            return worker

        def stop(self, _: int) -> None:
            self.ended.set_result(0)

    starts: list[int] = []
    monkeypatch.setattr("serving.process.supervisor.WorkerProcess", Worker)
    monkeypatch.setattr("serving.process.supervisor.MAX_RESTART_SECONDS", 0.01)
    with socket.socket() as bound:
        supervisor = Supervisor(Settings(workers=2), bound, never_started)
        supervisor._has_started = True
        assert asyncio.run(asyncio.wait_for(supervisor._run(), PATIENCE)) == 0
    assert len(starts) == 4
    assert "a worker cannot be started" in caplog.text
    assert "no process is left" in caplog.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_models_that_take_too_long_to_load_end_the_start_with_exit_code_2(
    package_folder: Path, tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_models_hang(monkeypatch, tmp_path / "site")
    package = shutil.copytree(package_folder, tmp_path / "tiny-grey")
    (package / "model.onnx.hangs").touch()

    result = run_to_the_end(str(package), "--workers", workers, "--port", "0", "--load-timeout", "0.5")

    assert result.returncode == 2
    assert "was not loaded within 0.5 seconds" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_during_the_start_stops_the_server_with_exit_code_0(
    package_folder: Path, tmp_path: Path, number: signal.Signals, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_models_hang(monkeypatch, tmp_path / "site")
    package = shutil.copytree(package_folder, tmp_path / "tiny-grey")
    (package / "model.onnx.hangs").touch()  # the models are never loaded
    command = [sys.executable, "-m", "serving", str(package), "--port", "0", "--workers", workers]
    with subprocess.Popen(command, cwd=ROOT) as process:
        wait_until(lambda: handles(process.pid, number))
        process.send_signal(number)

        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_process_group_while_workers_start_stops_the_server_quietly(
    package_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "serving", str(package_folder), "--port", "0", "--workers", "2"]
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True) as process,
    ):
        wait_until(lambda: any(imports(child) for child in children(process.pid)))
        os.killpg(process.pid, number)

        assert process.wait(PATIENCE) == 0
    assert log.read_text() == ""


def imports(process: int) -> bool:
    """Return whether a worker is at its own imports, after those that Python starts with, in the group still."""
    with suppress(OSError):  # it has just exited
        return "pydantic" in Path(f"/proc/{process}/maps").read_text() and os.getpgid(process) != process
    return False


def test_workers_and_what_they_start_do_not_block_signals(package_folder: Path, tmp_path: Path) -> None:
    with running_server(tmp_path / "log", str(package_folder), "--workers", "2") as server:
        workers = children(server.process.pid)
        processes = [*workers, *(started for worker in workers for started in children_of(worker))]
        assert len(processes) >= 4
        for process in processes:  # those that decode block Ctrl-C until they ignore it
            wait_until(lambda process=process: blocked_signals(process) == 0)


def blocked_signals(process: int) -> int:
    return int(Path(f"/proc/{process}/status").read_text().split("SigBlk:")[1].split()[0], 16)


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_a_worker_that_is_stopped_just_before_the_server_does_not_count_as_dead(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Worker(FakeWorker):
        def __init__(self) -> None:
            super().__init__()
            self.ended.set_result(0)
            asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGTERM)

    monkeypatch.setattr("serving.process.supervisor.WorkerProcess", Worker)
    with socket.socket() as bound:
        assert asyncio.run(Supervisor(Settings(workers=2), bound, never_started)._run()) == 0
    assert "died" not in caplog.text


def handles(process: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal other than Python's own."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return bool(caught & 1 << (signal.SIGTERM - 1)) and bool(caught & 1 << (number - 1))


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--port", "http"], {}, "'http'"),
        ([], {"PDEINFER_MAX_IMAGES": "none"}, "PDEINFER_MAX_IMAGES"),
        (["no-such-model"], {}, "'no-such-model' is neither a bundled model"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    result = run_to_the_end(*arguments, **environment)

    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("pdeinfer serve: ")
    assert message in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_control_characters_of_a_package_do_not_reach_the_terminal(tmp_path: Path, workers: str) -> None:
    package = tmp_path / "a\x1b[31m\nb"
    package.mkdir()
    (package / "card.json").write_text("{")

    result = run_to_the_end(str(package), "--workers", workers)

    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert r"a\x1b[31m b/card.json: not JSON" in line


def test_an_unusable_device_is_one_line_and_exit_code_2(package_folder: Path) -> None:
    result = run_to_the_end(str(package_folder), "--device", "cuda:63")

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "cuda:63" in result.stderr


@pytest.mark.parametrize("workers", [("1", "1"), ("2", "2"), ("1", "2")], ids="-".join)
def test_of_two_servers_started_at_once_on_one_port_one_ends_with_exit_code_1(
    package_folder: Path, tmp_path: Path, workers: tuple[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    logs = [tmp_path / name for name in ("first", "second")]
    with ExitStack() as stack:
        servers = []
        for log, count in zip(logs, workers, strict=True):
            arguments = (str(package_folder), "--device", "cpu", "--port", str(port), "--workers", count)
            command = [sys.executable, "-m", "pdeinfer", "serve", *arguments]
            file = stack.enter_context(log.open("wb"))
            server = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file))
            stack.callback(server.kill)
            servers.append(server)
        wait_until(
            lambda: (
                sum("running on" in log.read_text() for log in logs) + sum(s.poll() is not None for s in servers) >= 2
            )
        )

        assert sorted(str(server.poll()) for server in servers) == ["1", "None"]
    assert "Address already in use" in logs[0].read_text() + logs[1].read_text()
    assert "Traceback" not in logs[0].read_text() + logs[1].read_text()


def test_a_port_in_use_is_exit_code_1(package_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run_to_the_end(str(package_folder), "--device", "cpu", "--port", str(port))

    assert result.returncode == 1
    assert "Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_invalid_host_name_is_exit_code_1() -> None:
    result = run_to_the_end("--host", "a..b", "--port", "0")

    assert result.returncode == 1
    assert result.stderr.splitlines() == ["pdeinfer serve: a..b:0: not a host name"]
