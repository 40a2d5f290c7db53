"""`python -m serving` is `pdeinfer serve`."""

import sys

from serving.process.run import main

sys.exit(main())
