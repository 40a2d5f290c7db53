"""MkDocs hooks: fill in the generated parts of the reference pages and render formulas as MathML.

A line `<!-- generated: NAME [ARGUMENT ...] -->` of a page stands for what the function of that name returns. The site
leaves out the paragraph after `<!-- not on the site -->`, which tells readers of the source where to find that.
"""

import html
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
ROOT_DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")

_GENERATED = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)
_NOT_ON_THE_SITE = re.compile(r"^<!-- not on the site -->\n(?:.+\n)+", re.MULTILINE)
_LINK_TO_CODE = re.compile(
    r"\[[^\]]*\]\((?:\.\./)+((?:benchmarks|deploy|examples|pdeinfer|results|scripts|serving|tests|training)[\w./-]*)\)"
)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the repository's root to the site."""
    for name in ROOT_DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        for other in ROOT_DOCUMENTS:
            text = text.replace(f"]({other}", f"]({other.lower()}")
        files.append(File.generated(config, name.lower(), content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the generated lines of a page, and links to files that are not on the site with their names."""
    markdown = _LINK_TO_CODE.sub(r"`\1`", _NOT_ON_THE_SITE.sub("", markdown))
    return _GENERATED.sub(lambda line: generate(*line[1].split()), markdown)


def on_page_content(content: str, **_: object) -> str:
    """Replace LaTeX with MathML, which browsers render without a script."""
    return _FORMULA.sub(lambda formula: _to_mathml(formula[2], is_block=formula[1] == "div"), content)


def generate(name: str, *arguments: str) -> str:
    """Return the Markdown that stands for a generated line."""
    return GENERATORS[name](*arguments)


def command_help(*command: str) -> str:
    """Return what `pdeinfer COMMAND --help` prints, as a code block."""
    from pdeinfer.cli.main import main

    output = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": "88"}), redirect_stdout(output), suppress(SystemExit):
        main([*command, "--help"])
    return f"```text\n{output.getvalue().strip()}\n```"


def settings_table() -> str:
    """Return a table of the server's settings: flag, default, meaning."""
    from pydantic_core import PydanticUndefined

    from serving.settings import Settings

    rows = []
    for name, field in Settings.model_fields.items():
        if not field.description:
            continue
        flag = name.upper() if name == "models" else f"--{name.replace('_', '-')}"
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, (), {}, PydanticUndefined) else f"`{json.dumps(default)}`".replace('"', "")
        rows.append((f"`{flag}`", shown, html.escape(field.description)))
    return _table(("flag", "default", "meaning"), rows)


def http_operations() -> str:
    """Return a section for each operation of the server's OpenAPI document."""
    return "\n\n".join(_operation(path, method, operation) for path, method, operation in _operations())


def error_codes() -> str:
    """Return a table of the server's error codes, with a message of each that the OpenAPI document shows."""
    from serving.interface.statuses import STATUSES

    messages: dict[str, str] = {}
    for _, _, operation in _operations():
        for answer in operation["responses"].values():
            messages |= {code: error["message"] for code, error in _examples(answer).items()}
    return _table(
        ("status", "code", "an example of its message"),
        [(str(status), f"`{code}`", html.escape(messages.get(code, ""))) for code, status in STATUSES.items()],
    )


def metrics_table() -> str:
    """Return a table of the server's metrics: name with labels, and meaning."""
    from prometheus_client.metrics import MetricWrapperBase

    from serving.telemetry import metrics

    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    rows = []
    for metric in found:
        (family,) = metric.describe()
        suffix = "_total" if family.type == "counter" else ""
        rows.append((f"`{family.name}{suffix}{{{','.join(metric._labelnames)}}}`", html.escape(family.documentation)))
    return _table(("metric", "meaning"), rows)


GENERATORS: Final[dict[str, Callable[..., str]]] = {
    "help": command_help,
    "settings": settings_table,
    "http": http_operations,
    "error-codes": error_codes,
    "metrics": metrics_table,
}


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    from serving.app import create_app
    from serving.settings import Settings

    document = create_app(Settings(admin_keys=("key",))).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"### `{method} {path}`", operation.get("description") or f"{operation['summary']}."]
    if parameters := operation.get("parameters"):
        rows = [
            (f"`{parameter['name']}`", parameter["in"], _type_name(parameter["schema"]), _description(parameter))
            for parameter in parameters
        ]
        parts.append(_table(("parameter", "in", "type", "meaning"), rows))
    if body := operation.get("requestBody"):
        types = ", ".join(f"`{name}`" for name in body["content"])
        parts.append(f"Request body: {types}. {body.get('description', '')}")
    rows = [
        (status, answer["description"], ", ".join(f"`{code}`" for code in _examples(answer)))
        for status, answer in operation["responses"].items()
    ]
    parts.append(_table(("status", "meaning", "codes"), rows))
    return "\n\n".join(parts)


def _examples(answer: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the errors that an answer of the OpenAPI document shows, by code. Those under /v2 have no code."""
    examples = answer.get("content", {}).get("application/json", {}).get("examples", {})
    errors = {name: example["value"].get("error") for name, example in examples.items()}
    return {code: error for code, error in errors.items() if isinstance(error, dict)}


def _description(parameter: Mapping[str, Any]) -> str:
    return str(parameter.get("description") or parameter["schema"].get("description", ""))


def _type_name(schema: Mapping[str, Any]) -> str:
    names = [schema.get("type"), *(option.get("type") for option in schema.get("anyOf", ()))]
    return " or ".join(name for name in names if name and name != "null")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _to_mathml(latex: str, *, is_block: bool) -> str:
    mathml: str = convert(html.unescape(latex).strip(), display="block" if is_block else "inline")
    return f'<div class="formula">{mathml}</div>' if is_block else mathml
