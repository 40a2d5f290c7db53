"""Changes of the served models with many workers: in all of them or in none, and in those that are started later."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from serving.process.changes import Changes
from tests.servers import PATIENCE, Server, children, running_server

Png = Callable[[np.ndarray], bytes]
REFUSED = ["refused", "model_load_failed", "it is damaged"]


class Worker:
    """What the supervisor has sent to a worker."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def send(self, *message: Any) -> None:
        self.sent.append(list(message))


def prepared(digest: str = "a", names: tuple[str, ...] = ("grey", "rgb")) -> list[Any]:
    return ["prepared", {"versions": {"1": digest}, "names": list(names)}]


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def workers(changes: Changes) -> tuple[Worker, Worker]:
    """Two workers, of which the first was asked to reload "grey"."""
    first, second = Worker(), Worker()
    changes.join(first)
    changes.join(second)
    changes.receive(first, ["change", "grey", "reload"])
    return first, second


def test_a_change_is_applied_once_all_have_prepared_it_and_answered_once_all_have_applied_it(
    changes: Changes, workers: tuple[Worker, Worker]
) -> None:
    first, second = workers
    assert first.sent == second.sent == [["prepare", "grey", "reload"]]
    changes.receive(first, prepared())
    assert len(first.sent) == 1
    changes.receive(second, prepared())
    assert first.sent[1:] == second.sent[1:] == [["apply"]]
    changes.receive(first, ["applied"])
    assert len(first.sent) == 2
    changes.receive(second, ["applied"])
    assert first.sent[2:] == [["changed", ["1"]]]
    assert len(second.sent) == 2
    assert changes.names == ["grey", "rgb"]


def test_a_change_that_one_worker_cannot_make_is_made_by_none(changes: Changes, workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    changes.receive(second, REFUSED)
    changes.receive(first, prepared())

    assert first.sent[1:] == [["discard"], REFUSED]
    assert second.sent[1:] == [["discard"]]
    assert changes.names is None


def test_a_package_that_changes_between_two_workers_is_refused(
    changes: Changes, workers: tuple[Worker, Worker]
) -> None:
    first, second = workers
    changes.receive(first, prepared("a"))
    changes.receive(second, prepared("b"))

    assert second.sent[1:] == [["discard"]]
    assert first.sent[1] == ["discard"]
    assert first.sent[2][:2] == ["refused", "model_load_failed"]


def test_changes_are_made_one_after_the_other(changes: Changes, workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    changes.receive(second, ["change", "rgb", "unload"])
    assert len(second.sent) == 1
    changes.receive(first, REFUSED)
    changes.receive(second, REFUSED)

    assert first.sent[-1] == second.sent[-1] == ["prepare", "rgb", "unload"]


@pytest.mark.parametrize("answers", [[], [prepared()]])
def test_a_worker_that_dies_is_not_waited_for(
    changes: Changes, workers: tuple[Worker, Worker], answers: list[list[Any]]
) -> None:
    first, second = workers
    for answer in answers:
        changes.receive(second, answer)
    changes.leave(second)
    changes.receive(first, prepared())
    changes.receive(first, ["applied"])

    assert first.sent[1:] == [["apply"], ["changed", ["1"]]]


def test_the_change_goes_on_without_the_worker_that_was_asked_for_it(
    changes: Changes, workers: tuple[Worker, Worker]
) -> None:
    first, second = workers
    changes.leave(first)
    changes.receive(second, prepared())
    changes.receive(second, ["applied"])
    changes.receive(second, ["change", "rgb", "load"])

    assert second.sent[1:] == [["apply"], ["prepare", "rgb", "load"]]


def test_a_change_ends_where_all_workers_die_and_the_next_ones_start_as_before(
    changes: Changes, workers: tuple[Worker, Worker]
) -> None:
    for worker in workers:
        changes.leave(worker)
    changes.join(later := Worker())
    changes.receive(later, ["change", "grey", "load"])

    assert changes.names is None
    assert later.sent == [["prepare", "grey", "load"]]


def test_a_worker_that_is_started_while_others_prepare_takes_part(
    changes: Changes, workers: tuple[Worker, Worker]
) -> None:
    first, second = workers
    changes.leave(second)
    changes.join(third := Worker())
    changes.receive(first, prepared())
    assert third.sent == [["prepare", "grey", "reload"]]
    changes.receive(third, prepared())

    assert first.sent[1:] == third.sent[1:] == [["apply"]]


def test_a_worker_that_is_started_while_others_apply_starts_with_what_is_new(
    changes: Changes, workers: tuple[Worker, Worker]
) -> None:
    first, second = workers
    changes.receive(first, prepared(names=("rgb",)))
    changes.receive(second, prepared(names=("rgb",)))
    changes.leave(second)
    assert changes.names == ["rgb"]
    changes.join(third := Worker())
    changes.receive(first, ["applied"])

    assert third.sent == []
    assert first.sent[-1] == ["changed", ["1"]]


def test_a_worker_that_is_started_later_serves_what_the_first_said(changes: Changes) -> None:
    changes.receive(first := Worker(), ["started", ["grey"]])
    changes.receive(Worker(), ["started", ["grey", "new"]])

    assert changes.names == ["grey"]
    assert first.sent == []


@pytest.fixture
def repository(package_folder: Path, rgb_package_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(package_folder, tmp_path / "models" / "tiny-grey" / "1")
    shutil.copytree(rgb_package_folder, tmp_path / "models" / "tiny-rgb")
    return tmp_path / "models"


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "keys").write_text("key\n")
    options = ("--workers", "2", "--admin-keys-file", str(tmp_path / "keys"))
    with running_server(tmp_path / "log", str(repository), *options) as server:
        yield server


def change(server: Server, name: str, action: str) -> httpx2.Response:
    return httpx2.post(
        f"http://127.0.0.1:{server.port}/admin/models/{name}",
        json={"action": action},
        headers={"X-API-Key": "key"},
        timeout=PATIENCE,
    )


def seen(server: Server) -> set[tuple[str, ...]]:
    """Return what 20 connections, to either of the workers, see of the served models."""
    answers = [httpx2.get(f"http://127.0.0.1:{server.port}/models").json() for _ in range(20)]
    return {tuple(f"{model['name']}/{model['version']}" for model in answer["models"]) for answer in answers}


def test_a_change_is_in_all_workers_once_it_is_answered_and_in_one_that_is_started_later(
    server: Server, repository: Path
) -> None:
    for _ in range(3):
        assert change(server, "tiny-grey", "unload").json() == {"name": "tiny-grey", "versions": []}
        assert seen(server) == {("tiny-rgb/1",)}
        shutil.copytree(repository / "tiny-grey" / "1", repository / "tiny-grey" / "2", dirs_exist_ok=True)
        assert change(server, "tiny-grey", "load").json() == {"name": "tiny-grey", "versions": ["1", "2"]}
        assert seen(server) == {("tiny-grey/2", "tiny-grey/1", "tiny-rgb/1")}
        assert change(server, "tiny-rgb", "unload").status_code == 200
        assert change(server, "tiny-rgb", "reload").status_code == 404
        assert change(server, "tiny-rgb", "load").status_code == 200
        assert seen(server) == {("tiny-grey/2", "tiny-grey/1", "tiny-rgb/1")}
    assert change(server, "tiny-rgb", "unload").status_code == 200
    killed, stays = children(server.process.pid)
    os.kill(killed, signal.SIGKILL)
    server.wait_for_log("died with exit code -9")
    deadline = time.monotonic() + PATIENCE
    while len(children(server.process.pid)) < 2 or children_that_listen(server) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert stays in children(server.process.pid)
    assert seen(server) == {("tiny-grey/2", "tiny-grey/1")}
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.log.read_text()


def children_that_listen(server: Server) -> int:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(fields[1].split(":")[1], 16) == server.port and fields[3] == "0A" for fields in lines)


def test_a_damaged_package_leaves_all_workers_as_they_are(server: Server, repository: Path) -> None:
    model = repository / "tiny-grey" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])

    response = change(server, "tiny-grey", "reload")

    assert (response.status_code, response.json()["error"]["code"]) == (422, "model_load_failed")
    assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}


def test_no_request_is_dropped_while_workers_are_changed_by_two_clients(
    server: Server, pixels: np.ndarray, png: Png
) -> None:
    url, image = f"http://127.0.0.1:{server.port}/classify", png(pixels[0])

    def classify() -> int:
        return httpx2.post(url, content=image, headers={"Content-Type": "image/png"}, timeout=PATIENCE).status_code

    changed = threading.Event()

    def classify_until_changed(_: int) -> set[int]:
        statuses = {classify()}
        while not changed.is_set():
            statuses.add(classify())
        return statuses

    with ThreadPoolExecutor(4) as clients, ThreadPoolExecutor(2) as admins:
        requests = clients.map(classify_until_changed, range(4))
        try:
            changes = admins.map(lambda name: change(server, name, "reload").status_code, ["tiny-grey", "tiny-rgb"] * 6)
            assert set(changes) == {200}
        finally:
            changed.set()
        assert set().union(*requests) == {200}
