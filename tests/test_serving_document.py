"""docs/serving.md: every command does what it says there, against the server that it starts."""

import re
import shutil
from pathlib import Path

import pytest

from serving.settings import Settings
from tests.documents import ROOT, code_blocks, console_examples, run_examples, serve

DOCUMENT = ROOT / "docs" / "serving.md"


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    start = next(text for language, text in code_blocks(DOCUMENT) if language == "sh").splitlines()[-1]
    variable, *command = start.split()
    monkeypatch.setenv(*variable.split("="))
    assert command[:2] == ["pdeinfer", "serve"]
    examples = console_examples(DOCUMENT)
    assert len(examples) > 20
    with serve(tmp_path, *command[2:]) as port:
        run_examples(examples, tmp_path, port)


def test_the_flags_are_settings() -> None:
    flags = set(re.findall(r"`--([a-z-]+)", DOCUMENT.read_text()))
    settings = {name.replace("_", "-") for name in Settings.model_fields}

    assert {flag.removeprefix("no-") for flag in flags} <= settings


def test_the_metrics_are_those_of_the_server() -> None:
    named = set(re.findall(r"`(pdeinfer_\w+)", DOCUMENT.read_text()))
    source = (ROOT / "serving/telemetry/metrics.py").read_text()

    assert named == set(re.findall(r'"(pdeinfer_\w+)"', source))
