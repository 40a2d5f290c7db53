"""Turns a trained network into a model package, and proves it equal to the original."""

from pathlib import Path

from pdeinfer.errors import ParityError
from pdeinfer.export.fields import pde_layers, trace_fields
from pdeinfer.export.graph import convert_classifier
from pdeinfer.export.model_readme import README_FILE, model_readme
from pdeinfer.export.onnx_file import OPSET, write, write_onnx
from pdeinfer.export.original import load_original
from pdeinfer.export.proof import SAVED_MODEL, Report, prove
from pdeinfer.export.rules import broken_fields_rules, broken_rules
from pdeinfer.export.saved_model import write_saved_model
from pdeinfer.export.traced import trace
from pdeinfer.package import FIELDS_FILE, KERAS_FILE, ONNX_FILE, ModelCard, new_package, write_card


def export_package(
    source: str | Path, output: str | Path, *, inline: bool = False, saved_model: bool = False, force: bool = False
) -> list[Report]:
    """Write the model package of a trained network, prove it equal to the network, and return the proof.

    Args:
        source: the folder of a training, or a `.keras` file.
        output: the package's folder.
        inline: write the ONNX file without functions, for tools that do not read them: the operators of a PDE layer
            stand in the graph itself.
        saved_model: add a SavedModel to the ONNX file, which every package has.
        force: replace the package that is at `output`.

    Raises:
        ExportError: `source` is not a network of this package, or cannot be converted.
        ModelPackageError: `output` exists without `force`, or cannot be written.
        ParityError: an exported file differs from the network; its message is the report. Nothing is left then.
        MissingDependencyError: TensorFlow or tf2onnx is not installed.
    """
    with new_package(output, force=force) as folder:
        original = load_original(Path(source))
        from pdeinfer.nn import count_macs, count_parameters  # Keras is there from here on

        classifier = original.classifier
        classifier.save(folder / KERAS_FILE)
        model = convert_classifier(classifier, inline=inline)
        write(model, classifier.preset, folder / ONNX_FILE, broken_rules)
        if pde_layers(classifier):
            write_onnx(trace_fields(classifier), classifier.preset, folder / FIELDS_FILE, broken_fields_rules)
        if saved_model:
            write_saved_model(classifier, trace(classifier), folder / SAVED_MODEL)
        reports = prove(classifier, folder, original.test_images, saved_model=saved_model)
        if not all(report.passed for report in reports):
            raise ParityError("the export differs from the network:\n" + "\n".join(map(str, reports)))
        card = ModelCard(
            preset=classifier.preset,
            parameters=count_parameters(classifier),
            macs=count_macs(classifier),
            opset=OPSET,
            training=original.training,
            metrics=original.metrics,
            parity={report.candidate: report.to_dict() for report in reports},
        )
        (folder / README_FILE).write_text(model_readme(card), encoding="utf-8")
        write_card(folder, card)
    return reports
