"""The README's examples do what the README says, word for word.

In a `console` block a line with a prompt is run and the lines after it are its output; `...` stands for anything. A
`pycon` block is a doctest. What only sets up a machine stands in `sh` blocks, and other tests run it.
"""

import doctest
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
# The beginnings of the commands in `sh` blocks. The Makefile, the Dockerfile and the installed wheel are tested in
# tests/packaging; a fixture here starts the server.
SET_UP = (
    "make demo",
    "make test",
    "pip install '.[",
    "docker build --tag pdeinfer",
    "docker run --rm",
    "pdeinfer serve",
)


def console_examples() -> list[tuple[str, str]]:
    """Return the commands of the console blocks, in order, each with the output that it must have."""
    examples = []
    for language, text in BLOCKS:
        if language == "console":
            commands = re.split(r"^\$ ", text, flags=re.MULTILINE)
            assert commands.pop(0) == "", "a console block begins with a prompt"
            examples += [tuple(command.split("\n", 1)) for command in commands]
    return examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the README's reader stands, with the repository's example images."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path}


@pytest.fixture(scope="module")
def port(environment: dict[str, str], folder: Path) -> Iterator[int]:
    """The port of a running `pdeinfer serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["pdeinfer", "serve", "--port", str(port)], env=environment, cwd=folder)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz")
                break
            except urllib.error.URLError:
                assert process.poll() is None, "the server stopped"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        assert process.wait(30) == 0


def matches(expected: str, output: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.rstrip("\n").split("..."))
    return re.fullmatch(pattern, output.rstrip("\n"), re.DOTALL) is not None


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "pycon"])
def test_python_examples(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    report: list[str] = []
    results = doctest.DocTestRunner().run(example, out=report.append)
    assert results.attempted > 0
    assert results.failed == 0, "".join(report)


def test_console_examples(folder: Path, environment: dict[str, str], port: int) -> None:
    examples = console_examples()
    assert examples
    for command, expected in examples:  # in order: a later one uses what an earlier one made
        if command.startswith("curl") and shutil.which("curl") is None:
            continue  # a machine without curl; the same requests are made by tests/serving
        result = subprocess.run(
            command.replace("127.0.0.1:8000", f"127.0.0.1:{port}"),
            shell=True,  # as its reader would
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"$ {command}\n{result.stdout}{result.stderr}"
        assert matches(expected, result.stdout), f"$ {command}\n{result.stdout}\ninstead of\n{expected}"


def test_set_up_commands_are_ones_that_other_tests_run() -> None:
    commands = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
    assert commands
    assert [command for command in commands if not command.startswith(SET_UP)] == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= set(targets)


def test_links_lead_to_files_of_the_repository() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize(("expected", "output"), [("a ... c", "a b\nb c"), ("...", "anything"), ("", "")])
def test_the_wildcard_matches(expected: str, output: str) -> None:
    assert matches(expected, output)


def test_the_wildcard_does_not_match_everything() -> None:
    assert not matches("a ... c", "a b d")
