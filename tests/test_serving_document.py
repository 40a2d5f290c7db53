"""The pages on serving: every command does what it says, against one running server."""

import re
import shutil
from pathlib import Path

import pytest

from serving.settings import Settings
from tests.documents import ROOT, code_blocks, console_examples, run_examples, serve

TUTORIAL = ROOT / "docs/serving.md"
PAGES = [TUTORIAL, ROOT / "docs/open-inference-protocol.md", ROOT / "docs/operate.md"]


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    start = next(text for language, text in code_blocks(TUTORIAL) if language == "sh").splitlines()[-1]
    variable, *command = start.split()
    monkeypatch.setenv(*variable.split("="))
    assert command[:2] == ["pdeinfer", "serve"]
    with serve(tmp_path, *command[2:]) as port:
        for page in PAGES:
            examples = console_examples(page)
            assert len(examples) > 5
            run_examples(examples, tmp_path, port)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "docs/docker.md", ROOT / "docs/kubernetes.md"], ids=lambda page: page.stem
)
def test_the_flags_are_settings(page: Path) -> None:
    flags = set(re.findall(r"`(?:pdeinfer serve )?--([a-z-]+)", page.read_text(encoding="utf-8")))
    settings = {name.replace("_", "-") for name in Settings.model_fields}

    # Docker's own.
    assert {flag.removeprefix("no-") for flag in flags} - {"publish", "cpus"} <= settings
