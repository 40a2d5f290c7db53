"""The command `python -m training.report`; it needs a checkout and is not installed."""

import sys

from benchmarks.results.report import main

if __name__ == "__main__":
    sys.exit(main())
