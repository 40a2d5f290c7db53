"""Changes of models with several workers: made by all or by none, and by workers that start later."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest

from pdeinfer import ModelPackage
from pdeinfer.package.package import write_card
from serving.engine.models import Models
from serving.errors import ChangeRefusedError, ModelLoadError
from serving.process.channel import PeerLostError
from serving.process.membership import Membership
from serving.process.supervisor import Supervisor
from serving.settings import Settings
from tests.servers import PATIENCE, Server, children, let_models_hang, running_server

Png = Callable[[np.ndarray], bytes]
REFUSAL = ChangeRefusedError("model_load_failed", "it is damaged")


class Worker:
    """Stands for a worker process: answers "prepare" as it is told, and notes what it is told itself."""

    def __init__(self, prepared: dict[str, Any] | Exception) -> None:
        self.prepared = prepared
        self.applied: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.calls: list[str] = []
        self.channel = self
        self.has_joined = True
        self.is_outdated = self.was_killed = False
        self.changes = 0
        self.process = SimpleNamespace(kill=self.kill)

    async def call(self, function: str, *arguments: str) -> Any:
        self.calls.append(" ".join((function, *arguments)))
        await self.may_answer.wait()
        answer = self.prepared if function == "prepare" else self.applied
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tell(self, function: str) -> None:
        self.calls.append(function)

    def kill(self) -> None:
        self.was_killed = True


def prepared(digest: str = "a", names: tuple[str, ...] = ("grey", "rgb")) -> dict[str, Any]:
    return {name: {"1": digest} for name in names}


def supervised(*answers: dict[str, Any] | Exception) -> tuple[Supervisor, list[Worker]]:
    """Return a supervisor of workers that answer "prepare" with these."""
    supervisor = Supervisor(Settings(workers=2), None, nothing)  # type: ignore[arg-type]
    workers = [Worker(answer) for answer in answers]
    supervisor._workers.extend(workers)  # type: ignore[arg-type]
    return supervisor, workers


async def nothing() -> None:
    pass


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_change_is_prepared_by_all_before_any_applies_it_and_answered_when_all_have() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        second.may_answer.clear()
        change = asyncio.create_task(supervisor._change(first, "grey", "reload"))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert first.calls == second.calls == ["prepare grey reload"]
        second.may_answer.set()

        assert await change == ["1"]
        assert first.calls == second.calls == ["prepare grey reload", "apply"]
        assert supervisor._served == prepared()

    run(test)


def test_workers_that_load_different_cards_prepare_different_states(package: Path) -> None:
    async def state() -> dict[str, Any]:
        models = Models(Settings(models=(str(package),), device="cpu", threads=1))
        await models.load()
        membership = Membership(None, None, None)  # type: ignore[arg-type]
        membership._models = models
        return await membership._prepare("tiny-grey", "reload")

    before = asyncio.run(state())
    card = ModelPackage.read(package).card
    write_card(package, replace(card, metrics={"test_accuracy": 0.25}))
    after = asyncio.run(state())

    assert before.keys() == after.keys() == {"tiny-grey"}
    assert before["tiny-grey"]["1"] != after["tiny-grey"]["1"]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((prepared(), REFUSAL), ChangeRefusedError),
        ((prepared(), PeerLostError()), ModelLoadError),
        ((prepared("a"), prepared("b")), ModelLoadError),
    ],
    ids=["refused", "died", "other files"],
)
def test_a_change_that_one_worker_cannot_make_is_made_by_none(
    answers: tuple[dict[str, Any] | Exception, ...], error: type[Exception]
) -> None:
    async def test() -> None:
        supervisor, workers = supervised(*answers)
        with pytest.raises(error) as caught:
            await supervisor._change(workers[0], "grey", "reload")  # type: ignore[arg-type]

        assert caught.value.code == "model_load_failed"  # type: ignore[attr-defined]
        assert [worker.calls[1:] for worker in workers] == [["discard"], ["discard"]]
        assert supervisor._served == {}
        workers[0].prepared = workers[1].prepared = prepared()
        assert await supervisor._change(workers[0], "grey", "reload") == ["1"]  # type: ignore[arg-type]

    run(test)


def test_changes_are_made_one_after_the_other() -> None:
    async def test() -> None:
        supervisor, (worker,) = supervised(prepared())
        worker.may_answer.clear()
        changes = [
            asyncio.create_task(supervisor._change(worker, name, "reload"))  # type: ignore[arg-type]
            for name in ("grey", "rgb")
        ]
        await asyncio.sleep(0.01)
        assert worker.calls == ["prepare grey reload"]
        worker.may_answer.set()
        await asyncio.gather(*changes)

        assert worker.calls == ["prepare grey reload", "apply", "prepare rgb reload", "apply"]

    run(test)


def test_a_worker_that_dies_while_it_applies_a_change_does_not_undo_it() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        second.applied = PeerLostError()

        assert await supervisor._change(first, "grey", "reload") == ["1"]  # type: ignore[arg-type]
        assert first.calls[-1] == "apply"

    run(test)


def test_a_worker_that_fails_to_apply_a_change_is_killed() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        second.applied = REFUSAL

        assert await supervisor._change(first, "grey", "reload") == ["1"]  # type: ignore[arg-type]
        assert (first.was_killed, second.was_killed) == (False, True)

    run(test)


def test_a_change_that_a_dead_worker_was_asked_for_is_not_made() -> None:
    async def test() -> None:
        supervisor, (worker,) = supervised(prepared())
        with pytest.raises(PeerLostError):
            await supervisor._change(Worker(prepared()), "grey", "reload")  # type: ignore[arg-type]
        assert worker.calls == []

    run(test)


def test_a_worker_that_was_loading_during_a_change_is_started_again() -> None:
    async def test() -> None:
        supervisor, (worker, loading) = supervised(prepared(names=("rgb",)), prepared())
        loading.has_joined = False
        worker.may_answer.clear()
        change = asyncio.create_task(supervisor._change(worker, "grey", "unload"))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        joining = asyncio.create_task(supervisor._join(loading, prepared()))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert not loading.was_killed
        worker.may_answer.set()
        await asyncio.gather(change, joining)

        assert (loading.was_killed, loading.is_outdated, loading.has_joined) == (True, True, False)
        assert loading.calls == []
        assert supervisor._served == prepared(names=("rgb",))

    run(test)


@pytest.mark.parametrize("other", [prepared("b"), prepared(names=("rgb", "grey")), prepared(names=("grey",))])
def test_a_worker_that_would_serve_other_models_than_the_others_is_not_let_in(other: dict[str, Any]) -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        first.has_joined = second.has_joined = False
        assert supervisor._expected() is None
        await supervisor._join(first, prepared())  # type: ignore[arg-type]
        assert supervisor._expected() == prepared()
        await supervisor._join(second, other)  # type: ignore[arg-type]

        assert (first.has_joined, first.was_killed) == (True, False)
        assert (second.has_joined, second.was_killed, second.is_outdated) == (False, True, True)
        assert supervisor._served == prepared()

    run(test)


def test_workers_serve_what_is_on_the_disk_when_none_serves_the_former_packages() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        first.has_joined = second.has_joined = False
        await supervisor._join(first, prepared())  # type: ignore[arg-type]
        supervisor._workers.remove(first)  # type: ignore[arg-type]
        assert supervisor._expected() == {"grey": None, "rgb": None}
        await supervisor._join(second, prepared("b"))  # type: ignore[arg-type]

        assert (second.has_joined, second.was_killed) == (True, False)
        assert supervisor._served == prepared("b")

    run(test)


@pytest.fixture
def repository(package_folder: Path, rgb_package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    let_models_hang(monkeypatch, tmp_path / "site")
    shutil.copytree(package_folder, tmp_path / "models" / "tiny-grey" / "1")
    shutil.copytree(rgb_package_folder, tmp_path / "models" / "tiny-rgb")
    return tmp_path / "models"


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "keys").write_text("key\n")
    options = ("--workers", "2", "--admin-keys-file", str(tmp_path / "keys"), "--load-timeout", "5")
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
    """Return the models that 20 connections, which go to either worker, find served."""
    answers = set()
    for _ in range(20):
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/models")
            models = json.load(connection.getresponse())["models"]
        answers.add(tuple(f"{model['name']}/{model['version']}" for model in models))
    return answers


def test_an_answered_change_is_seen_by_every_connection_and_by_workers_started_later(
    server: Server, repository: Path
) -> None:
    for _ in range(2):
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
    while len(children(server.process.pid)) < 2 or listening_workers(server) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert stays in children(server.process.pid)
    assert seen(server) == {("tiny-grey/2", "tiny-grey/1")}
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.log.read_text()


def test_a_replacement_serves_the_packages_of_its_siblings_or_does_not_start(server: Server, repository: Path) -> None:
    package = repository / "tiny-grey" / "1"
    shutil.copytree(package, repository / "tiny-grey" / "2")  # a new version, not loaded yet
    card = ModelPackage.read(package).card
    killed, stays = children(server.process.pid)
    os.kill(killed, signal.SIGKILL)
    server.wait_for_log(f"worker {killed} died")
    await_workers(server, 2)
    assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}

    write_card(package, replace(card, metrics={"test_accuracy": 0.25}))
    (killed,) = set(children(server.process.pid)) - {stays}
    os.kill(killed, signal.SIGKILL)
    server.wait_for_log("'tiny-grey', version 1, was changed or removed after other workers had loaded it")
    assert listening_workers(server) == 1
    assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}
    assert change(server, "tiny-grey", "reload").json()["versions"] == ["1", "2"]
    await_workers(server, 2)
    assert seen(server) == {("tiny-grey/2", "tiny-grey/1", "tiny-rgb/1")}
    assert all(json.loads(line)["time"] for line in server.log.read_text().splitlines())


def test_an_unloaded_model_whose_package_is_gone_stops_neither_reloads_nor_replacements(
    package_folder: Path, tmp_path: Path
) -> None:
    package = shutil.copytree(package_folder, tmp_path / "b")
    (tmp_path / "keys").write_text("key\n")
    options = ("--workers", "2", "--admin-keys-file", str(tmp_path / "keys"))
    with running_server(tmp_path / "log", f"a={package_folder}", f"b={package}", *options) as server:
        assert change(server, "b", "unload").status_code == 200
        package.rename(tmp_path / "elsewhere")
        assert change(server, "a", "reload").json()["versions"] == ["1"]
        killed, stays = children(server.process.pid)
        os.kill(killed, signal.SIGKILL)
        server.wait_for_log(f"worker {killed} died")
        await_workers(server, 2)

        assert stays in children(server.process.pid)
        assert seen(server) == {("a/1",)}


def await_workers(server: Server, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while listening_workers(server) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listening_workers(server: Server) -> int:
    log = server.log.read_text()
    return sum(f"Started server process [{worker}]" in log for worker in children(server.process.pid))


def test_reloading_a_damaged_package_changes_no_worker(server: Server, repository: Path) -> None:
    model = repository / "tiny-grey" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])

    response = change(server, "tiny-grey", "reload")

    assert (response.status_code, response.json()["error"]["code"]) == (422, "model_load_failed")
    assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}


def test_no_request_is_lost_while_two_clients_reload_models(server: Server, pixels: np.ndarray, png: Png) -> None:
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


def block(model: Path) -> Path:
    """Let the opening of a file hang until the file that is returned is removed."""
    hangs = Path(f"{model}.hangs")
    hangs.touch()
    return hangs


def test_a_reload_that_hangs_is_refused_and_the_workers_serve_on(server: Server, repository: Path) -> None:
    model = repository / "tiny-grey" / "1" / "model.onnx"
    hangs = block(model)

    response = change(server, "tiny-grey", "reload")

    assert (response.status_code, response.json()["error"]["code"]) == (422, "model_load_failed")
    assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}
    hangs.unlink()
    assert change(server, "tiny-grey", "reload").status_code == 200
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0


def test_a_single_process_refuses_a_reload_that_hangs_and_stops_afterwards(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("key\n")
    options = ("--admin-keys-file", str(tmp_path / "keys"), "--load-timeout", "1")
    with running_server(tmp_path / "log", str(repository), *options) as server:
        block(repository / "tiny-grey" / "1" / "model.onnx")
        response = change(server, "tiny-grey", "reload")
        served = seen(server)
        server.process.terminate()

        assert server.process.wait(PATIENCE) == 0
    assert (response.status_code, response.json()["error"]["code"]) == (422, "model_load_failed")
    assert served == {("tiny-grey/1", "tiny-rgb/1")}


def test_a_worker_that_hangs_while_it_loads_its_models_is_replaced(server: Server, repository: Path) -> None:
    model = repository / "tiny-grey" / "1" / "model.onnx"
    hangs = block(model)
    killed, stays = children(server.process.pid)
    os.kill(killed, signal.SIGKILL)
    server.wait_for_log("was not loaded within 5 seconds")
    assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}
    hangs.unlink()
    deadline = time.monotonic() + PATIENCE
    while listening_workers(server) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert stays in children(server.process.pid)
