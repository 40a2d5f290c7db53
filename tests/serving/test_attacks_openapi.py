"""Schemathesis against a running server: requests inside and outside of the OpenAPI document."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Server, running_server

SECONDS = int(os.environ.get("PDEINFER_FUZZ_SECONDS", "5"))
SCHEMATHESIS = shutil.which("schemathesis", path=Path(sys.executable).parent)


@pytest.fixture(params=["", "the-key"], ids=["open", "with keys"])
def server_and_key(
    request: pytest.FixtureRequest, package_folder: Path, rgb_package_folder: Path, tmp_path: Path
) -> Iterator[tuple[Server, str]]:
    key: str = request.param
    options = []
    if key:
        (tmp_path / "keys").write_text(key)
        options = [f"--{kind}-keys-file={tmp_path / 'keys'}" for kind in ("api", "admin")]
    with running_server(tmp_path / "log", str(package_folder), str(rgb_package_folder), *options) as server:
        yield server, key


def test_every_response_conforms_to_the_openapi_document(server_and_key: tuple[Server, str], tmp_path: Path) -> None:
    server, key = server_and_key
    assert SCHEMATHESIS is not None
    command = [
        *(SCHEMATHESIS, "--no-color", "run", f"http://127.0.0.1:{server.port}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-time", f"{SECONDS}", "--max-response-time", "10"),
        # No schema can say that bytes are an image, or pixels of the model's size.
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *(("--header", f"Authorization: Bearer {key}") if key else ()),
    ]

    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 4 + 60, check=False
    )

    assert result.returncode == 0, result.stdout[-5000:]
    assert "Traceback" not in server.log.read_text()
