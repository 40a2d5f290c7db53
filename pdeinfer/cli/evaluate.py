"""`pdeinfer evaluate`: measure a model on labelled images."""

import argparse
import json
import sys
from pathlib import Path

from pdeinfer.checks.evaluation import Evaluation, describe_unknown_labels
from pdeinfer.checks.evaluation_report import write_report
from pdeinfer.checks.measuring import evaluate
from pdeinfer.datasets import holds_files
from pdeinfer.errors import DatasetError
from pdeinfer.files import is_inside
from pdeinfer.images.files import describe_left_out
from pdeinfer.text import printable


def run(options: argparse.Namespace) -> int:
    """Print the evaluation; return 1 if an image cannot be read, or the accuracy is not the one in the card."""
    if options.report is not None and options.data_dir is not None:
        _require_outside(options.report, options.data_dir)
    evaluation = evaluate(options.package, options.data_dir, options.precision)
    for line in _warnings(evaluation):
        print(f"pdeinfer: {printable(line)}", file=sys.stderr)
    # The report is written before anything is printed: the reader of the output may stop reading.
    report = None if options.report is None else write_report(evaluation, options.report)
    print(json.dumps(evaluation.to_dict(), allow_nan=False) if options.json else evaluation)
    if report is not None:
        print(f"pdeinfer: the report is {printable(str(report))}", file=sys.stderr)
    return 1 if evaluation.unreadable or evaluation.equals_card is False else 0


def _require_outside(report: Path, data_dir: Path) -> None:
    """Raise DatasetError for a report among photos, where it would be a class of the next evaluation."""
    is_standard = holds_files("mnist", data_dir) or holds_files("cifar10", data_dir)
    if is_inside(report, data_dir) and not is_standard:
        raise DatasetError(f"expected --report outside --data-dir, whose folders are taken for classes, got {report}")


def _warnings(evaluation: Evaluation) -> list[str]:
    lines = describe_left_out(evaluation.left_out)
    if evaluation.unknown_labels:
        unknown, known = describe_unknown_labels(evaluation), ", ".join(evaluation.labels)
        lines.append(f"left out, as the model has no such label: {unknown}; its labels: {known}")
    return lines
