"""Schemathesis against a running server: what the OpenAPI document says, and what it does not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.test_process import Server, running_server

SECONDS = int(os.environ.get("PDEINFER_FUZZ_SECONDS", "5"))
SCHEMATHESIS = shutil.which("schemathesis", path=Path(sys.executable).parent)


@pytest.fixture(scope="module")
def server(
    package_folder: Path, rgb_package_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(log, str(package_folder), str(rgb_package_folder)) as server:
        yield server


def test_every_answer_is_one_that_the_document_promises(server: Server, tmp_path: Path) -> None:
    assert SCHEMATHESIS is not None
    command = [
        *(SCHEMATHESIS, "--no-color", "run", f"http://127.0.0.1:{server.port}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-time", f"{SECONDS}", "--max-response-time", "5"),
        # No schema can say that bytes are an image, or pixels of the model's size.
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
    ]

    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 4 + 60, check=False
    )

    assert result.returncode == 0, result.stdout[-5000:]
    assert "Traceback" not in server.log.read_text()
