"""The command `python -m training.report`; it needs the source tree, and is not installed with the package."""

import sys

from benchmarks.results.report import main

if __name__ == "__main__":
    sys.exit(main())
