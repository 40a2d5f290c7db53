"""The documentation's site: it builds without warnings, needs no other host, and its reference is complete."""

import argparse
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.config import load_config

import pdeinfer
from pdeinfer.cli.arguments import make_parser
from serving.settings import Settings
from tests.documents import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def html_files(site: Path) -> dict[str, str]:
    return {str(path.relative_to(site)): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loaded = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?https?://""")

    assert [name for name, html in html_files(site).items() if loaded.search(html)] == []


def test_the_address_of_a_published_site_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_URL", "https://example.org/prefix/")

    assert load_config(str(ROOT / "mkdocs.yml"))["site_url"] == "https://example.org/prefix/"


def test_formulas_are_mathml(site: Path) -> None:
    pages = html_files(site)

    assert pages["method.html"].count("<math") > 20
    assert [name for name, html in pages.items() if "arithmatex" in html or "\\frac" in html] == []


def test_nothing_generated_is_left_out(site: Path) -> None:
    assert [name for name, html in html_files(site).items() if "<!-- generated:" in html] == []


def test_notes_for_readers_of_the_source_are_on_no_page_of_the_site(site: Path) -> None:
    sources = [path.name for path in DOCS.rglob("*.md") if "\nThis part is generated" in path.read_text()]

    assert {"settings.md", "http.md", "errors.md", "python.md", "operate.md"} <= set(sources)
    assert [name for name, html in html_files(site).items() if "This part is generated" in html] == []


def test_the_http_reference_has_every_operation_and_the_settings_every_flag(site: Path) -> None:
    pages = html_files(site)

    for operation in ("POST /classify", "POST /inspect", "GET /models", "GET /readyz", "POST /v2/models/{model}/infer"):
        assert f"<code>{operation}</code>" in pages["reference/http.html"]
    flags = {f"--{name.replace('_', '-')}" for name, field in Settings.model_fields.items() if field.description}
    flags.remove("--models")  # an argument without a flag
    assert [flag for flag in sorted(flags) if f"<code>{flag}</code>" not in pages["reference/settings.html"]] == []


def test_the_commands_page_has_every_command() -> None:
    (subparsers,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    shown = re.findall(r"^<!-- generated: help (.+) -->$", (DOCS / "reference/cli.md").read_text(), re.MULTILINE)

    assert sorted(shown) == sorted(subparsers.choices)


def test_the_python_page_has_every_public_name() -> None:
    text = (DOCS / "reference/python.md").read_text() + (DOCS / "reference/errors.md").read_text()
    names = {name for name in pdeinfer.__all__ if not name.endswith("Error") and name != "__version__"}

    assert [name for name in sorted(names) if f"::: pdeinfer.{name}\n" not in text and f"`{name}`" not in text] == []


def test_the_package_page_has_every_key_of_a_card() -> None:
    text = (DOCS / "reference/package.md").read_text()
    card = json.loads((ROOT / "pdeinfer/models/digits-pde/card.json").read_text())

    assert re.findall(r"^\| `(\w+)` \|", text.partition("## card.json")[2].partition("## ")[0], re.MULTILINE) == list(
        card
    )


def test_the_docstring_of_a_public_dataclass_has_every_field() -> None:
    public = [getattr(pdeinfer, name) for name in pdeinfer.__all__]
    classes = [each for each in public if isinstance(each, type) and dataclasses.is_dataclass(each)]
    documented = {each: re.findall(r"^    (\w+): ", inspect.getdoc(each) or "", re.MULTILINE) for each in classes}

    assert documented == {each: [field.name for field in dataclasses.fields(each)] for each in classes}
