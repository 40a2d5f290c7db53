"""`python -m pdeinfer` is `pdeinfer`."""

import sys

from pdeinfer.cli import main

sys.exit(main())
