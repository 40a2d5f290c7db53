"""Changes of models with several workers: made by all or by none, and by workers that start later."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import numpy as np
import pytest

from pdeinfer import ModelPackage
from pdeinfer.package.writing import write_card
from tests.images.image_makers import as_png
from tests.servers import Server, children, let_models_hang, running_server
from tests.waiting import PATIENCE, wait_until


@pytest.fixture
def repository(package_folder: Path, rgb_package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    let_models_hang(monkeypatch, tmp_path / "site")
    shutil.copytree(package_folder, tmp_path / "models" / "tiny-grey" / "1")
    shutil.copytree(rgb_package_folder, tmp_path / "models" / "tiny-rgb")
    return tmp_path / "models"


@contextmanager
def administered(tmp_path: Path, *arguments: str) -> Iterator[Server]:
    """Start a server whose models can be changed with the key "key"."""
    (tmp_path / "keys").write_text("key\n")
    with running_server(tmp_path / "log", *arguments, "--admin-keys-file", str(tmp_path / "keys")) as server:
        yield server


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Server]:
    with administered(tmp_path, str(repository), "--workers", "2") as server:
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


def await_workers(server: Server, count: int) -> None:
    wait_until(lambda: listening_workers(server) >= count)


def listening_workers(server: Server) -> int:
    log = server.log.read_text()
    return sum(f"Started server process [{worker}]" in log for worker in children(server.process.pid))


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
    await_workers(server, 2)

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
    with administered(tmp_path, f"a={package_folder}", f"b={package}", "--workers", "2") as server:
        assert change(server, "b", "unload").status_code == 200
        package.rename(tmp_path / "elsewhere")
        assert change(server, "a", "reload").json()["versions"] == ["1"]
        killed, stays = children(server.process.pid)
        os.kill(killed, signal.SIGKILL)
        server.wait_for_log(f"worker {killed} died")
        await_workers(server, 2)

        assert stays in children(server.process.pid)
        assert seen(server) == {("a/1",)}


def test_reloading_a_damaged_package_changes_no_worker(server: Server, repository: Path) -> None:
    model = repository / "tiny-grey" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])

    response = change(server, "tiny-grey", "reload")

    assert (response.status_code, response.json()["error"]["code"]) == (422, "model_load_failed")
    assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}


def test_no_request_is_lost_while_two_clients_reload_models(server: Server, pixels: np.ndarray) -> None:
    url, image = f"http://127.0.0.1:{server.port}/classify", as_png(pixels[0])

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


def test_a_reload_that_hangs_is_refused_and_the_workers_serve_on(repository: Path, tmp_path: Path) -> None:
    model = repository / "tiny-grey" / "1" / "model.onnx"
    with administered(tmp_path, str(repository), "--workers", "2", "--load-timeout", "5") as server:
        hangs = block(model)

        response = change(server, "tiny-grey", "reload")

        assert (response.status_code, response.json()["error"]["code"]) == (422, "model_load_failed")
        assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}
        hangs.unlink()
        assert change(server, "tiny-grey", "reload").status_code == 200
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0


def test_a_single_process_refuses_a_reload_that_hangs_and_stops_afterwards(repository: Path, tmp_path: Path) -> None:
    with administered(tmp_path, str(repository), "--load-timeout", "1") as server:
        block(repository / "tiny-grey" / "1" / "model.onnx")
        response = change(server, "tiny-grey", "reload")
        served = seen(server)
        server.process.terminate()

        assert server.process.wait(PATIENCE) == 0
    assert (response.status_code, response.json()["error"]["code"]) == (422, "model_load_failed")
    assert served == {("tiny-grey/1", "tiny-rgb/1")}


def test_a_worker_that_hangs_while_it_loads_its_models_is_replaced(repository: Path, tmp_path: Path) -> None:
    model = repository / "tiny-grey" / "1" / "model.onnx"
    with administered(tmp_path, str(repository), "--workers", "2", "--load-timeout", "5") as server:
        hangs = block(model)
        killed, stays = children(server.process.pid)
        os.kill(killed, signal.SIGKILL)
        server.wait_for_log("was not loaded within 5 seconds")
        assert seen(server) == {("tiny-grey/1", "tiny-rgb/1")}
        hangs.unlink()
        await_workers(server, 2)

        assert stays in children(server.process.pid)
