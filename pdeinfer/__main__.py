"""`python -m pdeinfer` is `pdeinfer`."""

import sys

from pdeinfer.cli.main import main

sys.exit(main())
