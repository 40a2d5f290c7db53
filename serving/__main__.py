"""Run `pdeinfer serve` as `python -m serving`."""

import sys

from serving.process.run import main

sys.exit(main())
