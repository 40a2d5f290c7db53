"""Makes text for people: text from elsewhere fit for files and terminals, numbers of things, durations."""

import re
from decimal import ROUND_CEILING, Context

# Control characters, halves of surrogate pairs, line separators, and what reverses the direction of writing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_URL = re.compile("[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Return whether a text is a URL, such as s3://bucket/name, where a path is expected."""
    return _URL.match(text) is not None


def valid(text: str) -> str:
    """Return text that UTF-8 can encode: a byte of a file's name that is not UTF-8 becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """Return text for one line of a terminal: what could move the cursor or hide other text becomes an escape."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(error: Exception) -> str:
    """Return an error's text as one printable line, or its class where it says nothing, as a MemoryError often does."""
    return " ".join(map(printable, str(error).splitlines())) or type(error).__name__


def counted(count: int, what: str) -> str:
    """Return a number of things, such as "1 image", "0 images" or "2,000 images"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def round_up(value: float) -> float:
    """Round a number up to two significant digits, for a text that says "within": 0.471 becomes 0.48."""
    digits = repr(float(value))  # the shortest that mean this number: 0.1 stays, though what is stored is larger
    return float(Context(prec=2, rounding=ROUND_CEILING).create_decimal(digits))


def describe_seconds(seconds: float) -> str:
    """Return a duration as "1:05" or "2:10:00"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
