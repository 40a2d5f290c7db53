"""Request headers that hold a list of names, some with weights, on one line or several (RFC 9110, 5.3 and 12.4.2)."""

import re

from starlette.datastructures import Headers

_WEIGHT = re.compile(r"q=(0?\.\d+|0\.?|1(?:\.0*)?)", re.ASCII)


def names(headers: Headers, header: str) -> list[str]:
    """Return the entries of a header in their order, in lower case, with their parameters."""
    entries = ",".join(headers.getlist(header)).lower().split(",")
    return [entry for entry in map(str.strip, entries) if entry]


def weights(headers: Headers, header: str) -> dict[str, float]:
    """Return the weight of each name in a header, from 0, refused, to 1, which is that of a name without a weight."""
    found: dict[str, float] = {}
    for entry in names(headers, header):
        name, *parameters = map(str.strip, entry.split(";"))
        weight = next((float(match[1]) for match in map(_WEIGHT.fullmatch, parameters) if match), 1.0)
        found[name] = max(found.get(name, 0.0), weight)
    return found
