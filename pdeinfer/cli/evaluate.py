"""`pdeinfer evaluate`: measure a model on the test images of its data set."""

import argparse
import json

from pdeinfer.checks.evaluation import evaluate


def run(options: argparse.Namespace) -> int:
    """Print the evaluation; return 1 if the accuracy differs from the one in the model's card."""
    evaluation = evaluate(options.package, options.data_dir, options.precision)
    print(json.dumps(evaluation.to_dict()) if options.json else evaluation)
    return 1 if evaluation.equals_card is False else 0
