"""Does what a document of this repository tells its reader to do.

In a `console` block, a line with a prompt is a command, and the lines after it are its output, standard error included.
`...` in an output matches anything. `pycon` blocks are doctests.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import wait_for_log
from tests.waiting import PATIENCE

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

Example = tuple[str, str]  # a command and the output that it must have


def code_blocks(document: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def console_examples(document: Path) -> list[Example]:
    """Return the examples of the console blocks, in order."""
    examples = []
    for language, text in code_blocks(document):
        if language == "console":
            commands = re.split(r"^\$ ", text, flags=re.MULTILINE)
            assert commands.pop(0) == "", "a console block begins with a prompt"
            examples += [(line, output) for line, _, output in (command.partition("\n") for command in commands)]
    return examples


def run_examples(examples: Sequence[Example], folder: Path, port: int | None = None) -> None:
    """Run each command in `folder`, in order, and assert that it succeeds with its output.

    Args:
        examples: commands with their outputs.
        folder: the working directory.
        port: replaces port 8000 of the commands.
    """
    for command, expected in examples:
        if re.search(r"\bcurl\b", command) and shutil.which("curl") is None:
            continue  # tests/serving makes the same requests
        result = subprocess.run(
            command.replace("127.0.0.1:8000", f"127.0.0.1:{port}"),
            shell=True,  # as the reader would
            cwd=folder,
            env=reader_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"$ {command}\n{result.stdout}"
        assert matches(expected, result.stdout), f"$ {command}\n{result.stdout}\ninstead of\n{expected}"


def failed_doctests(document: Path) -> str:
    """Return what a run of the document's `pycon` blocks reports; nothing if all are right."""
    report: list[str] = []
    for language, text in code_blocks(document):
        if language == "pycon":
            example = doctest.DocTestParser().get_doctest(text, {}, document.name, str(document), 0)
            doctest.DocTestRunner().run(example, out=report.append)
    return "".join(report)


@contextmanager
def serve(folder: Path, *arguments: str) -> Iterator[int]:
    """Run `pdeinfer serve` in `folder`, and give its port once it is ready."""
    log = folder / "server.log"
    command = ["pdeinfer", "serve", *arguments, "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=reader_environment(), cwd=folder, stdout=file, stderr=file)
    try:
        port = int(wait_for_log(process, log, r"running on http://127\.0\.0\.1:(\d+)")[1])
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE)
        yield port
    finally:
        process.terminate()
        assert process.wait(30) == 0


def matches(expected: str, output: str) -> bool:
    """Return whether the output is the expected one, where `...` is anything."""
    pattern = ".*".join(re.escape(part) for part in expected.rstrip("\n").split("..."))
    return re.fullmatch(pattern, output.rstrip("\n"), re.DOTALL) is not None


def broken_links(document: Path) -> list[str]:
    """Return the document's links to files of the repository that do not exist."""
    links = re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8"))
    return [link for link in links if "://" not in link and not (document.parent / link).exists()]


def reader_environment() -> dict[str, str]:
    """Return the environment of a reader who has activated the environment that runs the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}  # keeps output and errors in order
