"""`python -m serving` is `pdeinfer serve`."""

import sys

from serving.run import main

sys.exit(main())
