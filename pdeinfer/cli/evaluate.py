"""`pdeinfer evaluate`: measure a model on labelled images."""

import argparse
import json
import sys

from pdeinfer.checks.evaluation import Evaluation, describe_unknown_labels, evaluate
from pdeinfer.checks.evaluation_report import write_report
from pdeinfer.images.files import describe_left_out


def run(options: argparse.Namespace) -> int:
    """Print the evaluation; return 1 if the accuracy differs from the one in the model's card."""
    evaluation = evaluate(options.package, options.data_dir, options.precision)
    for line in _warnings(evaluation):
        print(f"pdeinfer: {line}", file=sys.stderr)
    print(json.dumps(evaluation.to_dict()) if options.json else evaluation)
    if options.report is not None:
        path = write_report(evaluation, options.report)
        print(f"pdeinfer: the report is {path}", file=sys.stderr)
    return 1 if evaluation.equals_card is False else 0


def _warnings(evaluation: Evaluation) -> list[str]:
    lines = describe_left_out(evaluation.left_out)
    if evaluation.unknown_labels:
        unknown, known = describe_unknown_labels(evaluation), ", ".join(evaluation.labels)
        lines.append(f"left out, as the model has no such label: {unknown}; its labels: {known}")
    return lines
