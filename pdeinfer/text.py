"""Makes text from elsewhere, such as the name of a file, fit for files and terminals."""


def valid(text: str) -> str:
    """Return text that UTF-8 can encode: a byte of a file's name that is not UTF-8 becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """Return text for one line of a terminal: line breaks and control characters become escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
