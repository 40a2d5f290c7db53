"""`pdeinfer verify`: check a model package."""

import argparse

from pdeinfer.errors import ModelPackageError
from pdeinfer.export.verification import REFERENCE, verify
from pdeinfer.package import zoo
from pdeinfer.text import printable


def run(options: argparse.Namespace) -> int:
    """Print one line per check, then the skipped ones; return 1 if a check failed or, unless allowed, was skipped."""
    try:
        package = zoo.load(options.package)
    except ModelPackageError as error:  # a finding, as those below
        print(f"card: FAILED, {printable(str(error))}")
        return 1
    checks = []
    for check in verify(package, options.device):
        print(f"{check.name}: {check.outcome}, {printable(check.detail)}", flush=True)
        checks.append(check)
    if any(check.outcome == "FAILED" for check in checks):
        return 1
    skipped = [check.name for check in checks if check.outcome == "skipped"]
    # Packages of earlier versions have no reference. On a CPU, parity with the original itself says more.
    if not skipped or (skipped == [REFERENCE] and options.device == "cpu"):
        return 0
    advice = "" if options.allow_skipped else " (--allow-skipped accepts this)"
    print(f"{len(skipped)} of {len(checks)} checks were skipped: {', '.join(skipped)}{advice}")
    return 0 if options.allow_skipped else 1
