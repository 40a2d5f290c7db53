"""Makes text from elsewhere, such as the name of a file, fit for files and terminals."""

import re

# Control characters, halves of surrogate pairs, line separators, and what reverses the direction of writing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def valid(text: str) -> str:
    """Return text that UTF-8 can encode: a byte of a file's name that is not UTF-8 becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """Return text for one line of a terminal: what could move the cursor or hide other text becomes an escape."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
