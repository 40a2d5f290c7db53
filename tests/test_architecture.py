"""docs/architecture.md: imports point the way it says, and every file that it names exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.documents import ROOT

DOCUMENT = ROOT / "docs" / "architecture.md"

# Rooms from the lowest up. A module imports its own room and lower ones, none beside it.
LAYERS: dict[str, list[set[str]]] = {
    "pdeinfer": [
        {"arrays", "errors", "files", "inline_html", "processes", "text", "version", "pde"},
        {"graph", "spec"},
        {"images", "package", "runtime"},
        {"backend", "prediction"},
        {"predictor", "datasets", "nn"},
        {"inspection", "offline"},
        {"checks"},
        {"export"},
        {"__init__"},
        {"cli"},
        {"__main__"},
    ],
    "serving": [
        {"errors", "settings", "telemetry"},
        {"engine"},
        {"interface"},
        {"http", "grpc"},
        {"middleware"},
        {"app"},
        {"ray_app"},
        {"__init__"},
        {"process"},
        {"__main__"},
    ],
}
HTTP_LIBRARIES = {"fastapi", "starlette", "uvicorn", "httptools", "multipart"}


class Import(NamedTuple):
    """An import statement: the module it stands in, the module it names, and whether it runs inside a function."""

    importer: str
    imported: str
    is_lazy: bool

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


def imports(package: str) -> list[Import]:
    """Return every import statement of a package's modules."""
    return [
        Import(_module_name(path), imported, is_lazy)
        for path in sorted((ROOT / package).rglob("*.py"))
        for imported, is_lazy in _imports_in(ast.parse(path.read_text(encoding="utf-8")), is_lazy=False)
    ]


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports_in(tree: ast.AST, *, is_lazy: bool) -> Iterator[tuple[str, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, is_lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield _resolve(str(node.module), alias.name), is_lazy
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports_in(node, is_lazy=is_lazy or is_function)


def _resolve(module: str, name: str) -> str:
    """Return the module that `from module import name` reads: a submodule, or where a package found the name."""
    folder = ROOT / module.replace(".", "/")
    if (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists():
        return f"{module}.{name}"
    if module == "pdeinfer":
        for node in ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
                return str(node.module)
    return module


def _room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def _library(module: str) -> str:
    return module.partition(".")[0]


def test_pdeinfer_imports_training_and_serving_only_for_their_commands() -> None:
    found = [entry for entry in imports("pdeinfer") if _library(entry.imported) in {"training", "serving"}]

    assert [str(entry) for entry in found if not (entry.is_lazy and _room(entry.importer) == "cli")] == []


def test_training_and_serving_do_not_import_each_other() -> None:
    for package, other in (("training", "serving"), ("serving", "training")):
        assert [str(entry) for entry in imports(package) if _library(entry.imported) == other] == []


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_downwards(package: str) -> None:
    heights = {room: height for height, rooms in enumerate(LAYERS[package]) for room in rooms}

    wrong = [
        str(entry)
        for entry in imports(package)
        if _library(entry.imported) == package
        and _room(entry.importer) != _room(entry.imported)
        and heights[_room(entry.importer)] <= heights[_room(entry.imported)]
    ]

    assert wrong == []


def test_only_the_layers_and_what_builds_them_import_keras() -> None:
    rooms = {_room(entry.importer) for entry in imports("pdeinfer") if _library(entry.imported) == "keras"}

    assert rooms <= {"backend", "nn", "export", "datasets"}  # datasets: Keras downloads the standard ones


def test_only_the_export_and_the_training_step_import_tensorflow() -> None:
    importers = {entry.importer for entry in imports("pdeinfer") if _library(entry.imported) == "tensorflow"}

    assert {importer for importer in importers if not importer.startswith("pdeinfer.export.")} <= {
        "pdeinfer.nn.normalization",
        "pdeinfer.nn.step_gradient",
    }


def test_the_engine_knows_no_http() -> None:
    found = [
        str(entry)
        for entry in imports("serving")
        if _room(entry.importer) == "engine" and _library(entry.imported) in HTTP_LIBRARIES
    ]

    assert found == []


@pytest.mark.parametrize("package", ["pdeinfer", "training", "serving", "benchmarks"])
def test_onnx_runtime_is_imported_in_functions_alone_after_pdeinfer_has_turned_its_telemetry_off(package: str) -> None:
    found = [entry for entry in imports(package) if _library(entry.imported) == "onnxruntime"]

    assert [str(entry) for entry in found if not entry.is_lazy] == []


def test_only_the_runtime_makes_onnx_runtime_sessions() -> None:
    paths = [*(ROOT / "pdeinfer").rglob("*.py"), *(ROOT / "serving").rglob("*.py")]
    makers = {path.parent for path in paths if "InferenceSession(" in path.read_text(encoding="utf-8")}

    assert makers == {ROOT / "pdeinfer/runtime"}


def test_the_files_it_names_exist() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:pdeinfer|serving|training|tests)/[\w/.-]+)`", text))

    assert len(named) > 20
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_room_is_on_the_map() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rooms = [path.parent for package in ("pdeinfer", "serving") for path in (ROOT / package).glob("*/__init__.py")]

    (tree,) = re.findall(r"```text\n(pdeinfer/ .+?)```", text, re.DOTALL)
    named = set(re.findall(r"(\w+)/(?= |$)", tree, re.MULTILINE))
    assert sorted(room.name for room in rooms if room.name not in named) == []
