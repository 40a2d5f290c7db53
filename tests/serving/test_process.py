"""A real server process: its start, its log, its standard streams, and what it reads and opens."""

import gzip
import json
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
import PIL.Image
import pytest

from tests.images.image_makers import as_png
from tests.servers import ROOT, Server, children, running_server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(log, str(package_folder)) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


def test_it_gets_ready_and_classifies_over_a_socket(server: Server, pixels: np.ndarray) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        response = client.post("/classify", files={"file": ("a.png", as_png(pixels[0]))})

    assert response.status_code == 200
    assert response.json()["model"] == "tiny-grey"
    assert len(response.json()["results"][0]["top"]) == 5
    assert "server" not in response.headers


def test_the_log_is_json_and_names_the_models_and_how_they_run(server: Server) -> None:
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (loaded,) = [line for line in lines if line["message"] == "models are loaded"]

    assert loaded["models"] == ["tiny-grey 1 (cpu, CPUExecutionProvider, standard PDE layers)"]
    assert loaded["threads"] >= 1
    assert {"time", "level", "logger", "message", "process"} <= loaded.keys()


@pytest.mark.parametrize(("proxies", "client"), [(None, "203.0.113.7"), ("", "127.0.0.1"), ("10.0.0.1", "127.0.0.1")])
def test_only_a_proxy_that_is_believed_names_the_client_of_the_access_log(
    package_folder: Path, tmp_path: Path, proxies: str | None, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if proxies is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    with running_server(tmp_path / "log", str(package_folder), "--access-log") as server:
        httpx2.get(f"http://127.0.0.1:{server.port}/healthz", headers={"X-Forwarded-For": "203.0.113.7"})
        line = server.wait_for_log(r".*serving\.access.*")[0]

    assert json.loads(line)["client"] == client


def test_a_setting_of_other_servers_does_not_matter(
    package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")  # uvicorn reads it
    with running_server(tmp_path / "log", str(package_folder)) as server:
        assert httpx2.get(f"http://127.0.0.1:{server.port}/readyz").status_code == 200


def test_closed_standard_streams_are_the_null_device_in_all_processes(package_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "pdeinfer", "serve", str(package_folder), "--device", "cpu", "--workers", "2"]
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *serve, "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_until(lambda: is_ready(port) or process.poll() is not None)
            processes = [process.pid, *children(process.pid)]
            streams = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for pid in processes for number in range(3)]
        finally:
            process.kill()
    assert streams == [os.devnull] * 9


def is_ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx2.ConnectError:
        return False


NOTES_FILES = """\
import sys
from pdeinfer.cli import main as cli
from serving.process import worker

def note(event, arguments):
    # FastAPI reads the source of an operation when it is first used, and does without if that fails.
    name = str(arguments[0]) if arguments else ""
    if event == "import" or event == "open" and not name.startswith("/proc/") and not name.endswith(".py"):
        print("FILE", event, name, file=sys.stderr)

startup = worker.Server.startup

async def noted(server, sockets=None):
    await startup(server, sockets)
    sys.addaudithook(note)

worker.Server.startup = noted
sys.exit(cli.main())
"""


def test_no_file_is_opened_and_no_module_imported_while_serving(
    package_folder: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    with running_server(tmp_path / "log", str(package_folder), program=("-c", NOTES_FILES)) as server:
        picture = PIL.Image.fromarray(np.kron(pixels[0, :, :, 0], np.ones((30, 30), np.uint8)))
        images = [b"garbage", b"\x89PNG\r\n\x1a\ncut off"]
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
            file = BytesIO()
            picture.convert("RGB").save(file, kind)
            images.append(file.getvalue())
        with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            for image in images:
                client.post("/classify", content=image, headers={"Content-Type": "image/png"})
                client.post("/classify", files={"file": ("a.png", image)})
                body = gzip.compress(json.dumps({"images": [{"content": b64encode(image).decode()}]}).encode())
                headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
                client.post("/classify", content=body, headers=headers)
            data = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": pixels[0].ravel().tolist()}
            assert client.post("/v2/models/tiny-grey/infer", json={"inputs": [data]}).status_code == 200
            for path in ("/models", "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json", "/v2", "/nowhere"):
                client.get(path)

        assert "FILE" not in server.log.read_text()
