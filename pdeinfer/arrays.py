"""The type of arrays whose dtype and shape are said in words."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
