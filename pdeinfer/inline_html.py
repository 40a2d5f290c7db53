"""Makes HTML files that need nothing else: their styles and scripts are inline, and their policy names each by hash."""

import base64
import hashlib
import re
from collections.abc import Mapping


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Return a template with the part of that name in place of every `{name}`."""
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], template)


def source(text: str) -> str:
    """Return the expression of a content security policy that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
