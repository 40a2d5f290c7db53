"""Run the `pdeinfer` command as `python -m pdeinfer`."""

import sys

from pdeinfer.cli.main import main

sys.exit(main())
