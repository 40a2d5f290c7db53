"""Turns a network into a model of a Triton model repository: `NAME/config.pbtxt`, labels, and the ONNX file."""

import tempfile
from pathlib import Path
from typing import Any

from pdeinfer.checks.parity import compare, synthetic_images
from pdeinfer.checks.report import Report
from pdeinfer.checks.variants import as_candidate
from pdeinfer.errors import ExportError, MissingDependencyError, ParityError
from pdeinfer.export.exporter import export_package
from pdeinfer.export.onnx_file import write
from pdeinfer.export.original import check_output
from pdeinfer.export.rewrite.graph import without_functions
from pdeinfer.export.rules import broken_rules
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE
from pdeinfer.package.package import INPUT_NAME, ONNX_FILE, OUTPUT_NAME, ModelPackage, new_folder
from pdeinfer.runtime.session import create_session

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
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
    source: Path, repository: Path, *, temperature: bool = False, force: bool = False
) -> tuple[Path, list[Report]]:
    """Add a network to a Triton model repository; return the model's folder, and the proof.

    Args:
        source: a model package or the name of a bundled one, which needs no TensorFlow; or what `export_package` takes.
        repository: the folder of the repository, which may hold other models.
        temperature: as in `export_package`.
        force: replace the repository's model of the same name.

    Raises:
        ExportError: `temperature` is asked for a package.
        MissingDependencyError: onnx is not installed.
        ModelPackageError: the package is damaged; or the model exists and `force` is False, or cannot be written.
        ParityError: the model differs from the package. Nothing is left behind.
        Other errors are those of `export_package`.
    """
    if (source / CARD_FILE).is_file() or (str(source) in zoo.names() and not source.exists()):
        if temperature:
            raise ExportError(f"{source}: a package is converted as it is: fit its temperature when you export it")
        folder, report = _convert(zoo.load(source), repository, force=force)
        return folder, [report]
    check_output(source, repository)
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "package"
        reports = export_package(source, package, temperature=temperature)
        folder, report = _convert(ModelPackage.read(package), repository, force=force)
        return folder, [*reports, report]


def _convert(package: ModelPackage, repository: Path, *, force: bool) -> tuple[Path, Report]:
    """Write a package's network, without functions, and compare it with the package's own."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("onnx", "train", "converting a package for Triton") from error
    preset = package.card.preset
    output, spec = repository / preset.name, preset.input
    with new_folder(output, CONFIG_FILE, force=force) as folder:
        original = package.read_model()
        model = without_functions(onnx.load_model_from_string(original))
        version = folder / "1"
        version.mkdir()
        write(model, preset, version / ONNX_FILE, broken_rules)
        session = create_session((version / ONNX_FILE).read_bytes(), "cpu")
        report = compare(
            as_candidate(ONNX_FILE, create_session(original, "cpu")),
            as_candidate(f"{preset.name}/1/{ONNX_FILE}", session),
            synthetic_images(spec.height, spec.width, spec.channels),
        )
        if not report.passed:
            raise ParityError(f"the model for Triton differs from the package:\n{report}")
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in preset.labels), encoding="utf-8")
        (folder / CONFIG_FILE).write_text(_config(preset.name, session.input_shapes, session.output_shapes))
    return output, report


def _config(name: str, inputs: Any, outputs: Any) -> str:
    """Return the text of `config.pbtxt`, whose dimensions leave out the batch."""
    lines = [
        f'  {{ name: "{output}", data_type: TYPE_FP32, dims: {list(shape[1:])}'
        + (f', label_filename: "{LABELS_FILE}" }}' if output == OUTPUT_NAME else " }")
        for output, shape in outputs.items()
    ]
    return _CONFIG.format(
        name=name,
        max_batch_size=MAX_BATCH_SIZE,
        input=INPUT_NAME,
        image=list(inputs[INPUT_NAME][1:]),
        outputs=",\n".join(lines),
    )
