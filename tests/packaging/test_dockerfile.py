"""The Dockerfile's runtime stage: unprivileged, with a health check that works, and no more than the environment."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.servers import ROOT, running_server

TEXT = (ROOT / "Dockerfile").read_text()
RUNTIME = TEXT.rpartition("\nFROM ")[2]


def test_the_container_runs_as_an_unprivileged_numeric_user() -> None:
    # Kubernetes' runAsNonRoot needs a number: it cannot look up a name.
    assert re.findall(r"^USER (\S+)$", RUNTIME, re.MULTILINE) == ["10001:10001"]


def test_the_runtime_stage_copies_the_environment_alone() -> None:
    assert re.findall(r"^COPY (.+)$", RUNTIME, re.MULTILINE) == ["--from=build /opt/pdeinfer /opt/pdeinfer"]
    assert not re.search(r"^RUN ", RUNTIME, re.MULTILINE)


def test_the_container_turns_telemetry_off() -> None:
    assert re.search(r"^ENV .*\bORT_DISABLE_TELEMETRY=1\b", RUNTIME, re.MULTILINE)


def test_the_health_check_passes_while_the_server_runs_and_fails_afterwards(
    package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(r"^HEALTHCHECK [^\[]*(\[.+\])$", RUNTIME, re.MULTILINE)
    program, *arguments = json.loads(command)
    assert program == "bash"

    def check(port: int) -> int:
        probe = [program, *(argument.replace("8000", str(port)) for argument in arguments)]
        return subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode

    with running_server(tmp_path / "log", str(package_folder)) as server:
        assert check(server.port) == 0
    assert check(server.port) != 0
    monkeypatch.setenv("PDEINFER_API_KEYS", "secret")
    with running_server(tmp_path / "locked-log", str(package_folder), "--probes-need-key") as server:
        assert check(server.port) == 0


def test_dockerignore_lets_in_exactly_what_the_build_stage_copies() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE)

    assert let_in == {source for line in copies for source in line.split()[:-1]}
