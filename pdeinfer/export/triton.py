"""Turns a network into a model of a Triton model repository: `NAME/config.pbtxt`, labels, and the ONNX file."""

import logging
import os
import shutil
import tempfile
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from pdeinfer.checks.parity import compare, synthetic_images
from pdeinfer.checks.report import Report
from pdeinfer.checks.variants import as_candidate
from pdeinfer.errors import ExportError, ModelNotFoundError, ParityError
from pdeinfer.export.exporter import export_package
from pdeinfer.export.onnx_file import parse, require_onnx, write
from pdeinfer.export.original import check_output, check_outside_packages
from pdeinfer.export.rewrite.graph import without_functions
from pdeinfer.export.rules import broken_rules
from pdeinfer.files import new_folder
from pdeinfer.package import zoo
from pdeinfer.package.package import INPUT_NAME, ONNX_FILE, OUTPUT_NAME, ModelPackage
from pdeinfer.runtime.session import create_session

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.pbtxt"
OLD_CONFIG_FILE = f"{CONFIG_FILE}.old"
LABELS_FILE = "labels.txt"
VERSION = "1"
MAX_BATCH_SIZE = 64  # ours; the graph takes any

_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch_size}
input [ {{ name: "{input}", data_type: TYPE_UINT8, dims: {image} }} ]
output [
{outputs}
]
dynamic_batching {{ }}
instance_group [ {{ count: 1, kind: KIND_AUTO }} ]
"""


def export_to_triton(
    source: str | Path, repository: Path, *, temperature: bool = False, force: bool = False
) -> tuple[Path, list[Report]]:
    """Add a network to a Triton model repository; return the model's folder, and the proof.

    Args:
        source: a model package or the name of a bundled one, as `pdeinfer.package.zoo` spells them, which needs no
            TensorFlow; or what `export_package` takes.
        repository: the folder of the repository, which may hold other models.
        temperature: as in `export_package`.
        force: replace version 1 of the repository's model of the same name, with all files in it, its labels and its
            configuration. Other files stay. A warning is logged if there are other versions, or if the configuration
            differed: the old one is then kept as `config.pbtxt.old`, or under the next free name with a number.

    Raises:
        ExportError: `temperature` is asked for a package, or `repository` is one or lies in one; or the model exists
            and `force` is False, or cannot be written.
        MissingDependencyError: onnx is not installed.
        ModelPackageError: the package is damaged.
        ParityError: the model differs from the package. Nothing is left behind.
        Other errors are those of `export_package`.
    """
    package = None
    with suppress(ModelNotFoundError):  # it is a training
        package = zoo.load(source)
    if package is not None:
        if temperature:
            raise ExportError(f"{source}: a package is converted as it is: fit its temperature when you export it")
        folder, report = _convert(package, repository, force=force)
        return folder, [report]
    check_output(Path(source), repository)
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "package"
        reports = export_package(source, output, temperature=temperature)
        folder, report = _convert(ModelPackage.read(output), repository, force=force)
        return folder, [*reports, report]


def _convert(package: ModelPackage, repository: Path, *, force: bool) -> tuple[Path, Report]:
    """Write a package's network, without functions, and compare it with the package's own."""
    require_onnx("converting a package for Triton")
    preset = package.card.preset
    output, spec = repository / preset.name, preset.input
    check_outside_packages(output)
    with new_folder(output, CONFIG_FILE, ExportError, force=force) as folder:
        content = package.read_model()
        original = create_session(content, "cpu")
        model = without_functions(parse(content, ONNX_FILE))
        version = folder / VERSION
        version.mkdir()
        write(model, preset, version / ONNX_FILE, broken_rules)
        session = create_session((version / ONNX_FILE).read_bytes(), "cpu")
        report = compare(
            as_candidate(ONNX_FILE, original),
            as_candidate(f"{preset.name}/{VERSION}/{ONNX_FILE}", session),
            synthetic_images(spec.height, spec.width, spec.channels),
        )
        if not report.passed:
            raise ParityError(f"the model for Triton differs from the package:\n{report}")
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in preset.labels), encoding="utf-8")
        (folder / CONFIG_FILE).write_text(_config(preset.name, session.inputs, session.outputs))
        if output.is_dir():
            _keep_others(output, folder)
    return output, report


def _keep_others(old: Path, new: Path) -> None:
    """Copy what only the old model has: other versions, other files, and a configuration that is not the new one."""
    for path in old.iterdir():
        if path.name.startswith(".") or (new / path.name).exists():  # `new_folder` keeps hidden files itself
            continue
        if path.name.isdecimal() and path.is_dir():
            logger.warning("%s keeps version %s: by default, Triton serves the highest version only", old, path.name)
        if path.is_symlink() or not path.is_dir():
            shutil.copy2(path, new / path.name, follow_symlinks=False)
        else:
            shutil.copytree(path, new / path.name, symlinks=True)
    config = old / CONFIG_FILE
    if config.is_file() and config.read_bytes() != (new / CONFIG_FILE).read_bytes():
        names = chain([OLD_CONFIG_FILE], (f"{OLD_CONFIG_FILE}.{number}" for number in count(2)))
        name = next(name for name in names if not os.path.lexists(new / name))
        shutil.copy2(config, new / name)
        logger.warning("%s is replaced by another, and kept as %s", config, name)


def _config(name: str, inputs: Any, outputs: Any) -> str:
    """Return the text of `config.pbtxt`, whose dimensions leave out the batch."""
    lines = [
        f'  {{ name: "{output}", data_type: TYPE_FP32, dims: {list(kind.shape[1:])}'
        + (f', label_filename: "{LABELS_FILE}" }}' if output == OUTPUT_NAME else " }")
        for output, kind in outputs.items()
    ]
    return _CONFIG.format(
        name=name,
        max_batch_size=MAX_BATCH_SIZE,
        input=INPUT_NAME,
        image=list(inputs[INPUT_NAME].shape[1:]),
        outputs=",\n".join(lines),
    )
