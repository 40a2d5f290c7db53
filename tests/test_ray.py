"""A real Ray cluster: `pdeinfer classify --engine ray` loses one of two nodes, and the server runs in Ray Serve."""

import concurrent.futures
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import PIL.Image
import pytest

from pdeinfer.errors import ClassifyError
from pdeinfer.offline import ray_cluster
from pdeinfer.offline.run import classify
from pdeinfer.predictor import Predictor
from tests.documents import ROOT
from tests.images.image_makers import encode
from tests.offline.makers import options, picture, write_pictures
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
PICTURES, REPEATS = 256, 16


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node, to which this process is connected; its processes end with the tests."""
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(ROOT))
        health = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": health})
        try:
            ray.init(address=made.address, log_to_driver=False)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that take a while to decode, one of them damaged; together they fill a chunk."""
    folder = tmp_path_factory.mktemp("sources") / "photos"
    first, second = write_pictures(folder, 2, side=300)
    for number in range(2, PICTURES):
        shutil.copyfile(first, folder / f"{number:05}.png")
    second.write_bytes(picture(1)[:50])
    return folder


def test_a_node_is_killed_and_no_row_is_lost_or_repeated(
    cluster: Any, photos: Path, package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_TASK_CHUNKS", 1)
    monkeypatch.setattr(ray_cluster, "_PAUSE_SECONDS", 2.0)
    node = cluster.add_node(**NODE)
    sources, how = [str(photos)] * REPEATS, options(package_folder)
    reports = []

    def kill_node(done: int, _: int) -> None:
        if len(reports) == 1:
            cluster.remove_node(node, allow_graceful=False)
        reports.append(done)

    count = classify(sources, tmp_path / "ray.jsonl", how, engine="ray", workers=2, report=kill_node)
    classify(sources, tmp_path / "local.jsonl", how, workers=2)

    assert count == (PICTURES * REPEATS, REPEATS)
    assert reports == sorted(reports)
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local.jsonl", "ray.jsonl"]


@pytest.mark.usefixtures("cluster")
def test_a_problem_of_an_actor_is_an_error_at_once(photos: Path, package_folder: Path, tmp_path: Path) -> None:
    other = replace(options(package_folder), digest="0" * 64)

    with pytest.raises(ClassifyError, match=package_folder.name):
        classify([str(photos)], tmp_path / "a.jsonl", other, engine="ray", workers=1)

    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def address(cluster: Any, package_folder: Path) -> Iterator[str]:  # noqa: ARG001
    """The server in Ray Serve, with room for one request and one that waits."""
    from ray import serve

    from serving.ray_app import app

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    arguments = {"models": f"{package_folder},digits-pde", "max_images": "1", "max_queue": "1"}
    serve.run(app({**arguments, "max_queued_requests": "1", "access_log": "true"}))
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


def wait_until_ready(url: str) -> None:
    """Wait for the proxy, which Serve starts again where a busy machine takes long to start it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx2.TransportError):
            if httpx2.get(url).status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"{url} is not ready")


def post(address: str, image: bytes) -> httpx2.Response:
    return httpx2.post(f"{address}/classify", content=image, headers={"Content-Type": "image/png"}, timeout=60)


def test_serve_answers_as_the_predictor(address: str, package_folder: Path) -> None:
    answer = post(address, picture(0))

    with Predictor(package_folder) as predictor:
        expected = predictor.predict(picture(0))
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    assert result["label"] == expected.label
    assert result["score"] == pytest.approx(expected.score)
    assert post(address, b"no image").status_code == 422
    assert httpx2.get(f"{address}/readyz").status_code == 200


def test_serve_logs_a_request_once(cluster: Any, address: str) -> None:
    logs = Path(cluster.head_node.get_logs_dir_path())

    def logged() -> int:
        lines = [line for path in logs.glob("worker-*") for line in path.read_text().splitlines()]
        return sum('"serving.access"' in line and '"request_id": "logged-once"' in line for line in lines)

    httpx2.get(f"{address}/models", headers={"X-Request-Id": "logged-once"}).raise_for_status()

    wait_until(logged)
    assert logged() == 1


def test_serve_refuses_what_its_queue_has_no_room_for(address: str) -> None:
    image = encode(PIL.Image.new("L", (4000, 4000)), "PNG")  # takes a while to decode
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(address, image), range(8)))

    assert {answer.status_code for answer in answers} == {200, 503}
