"""Sorts names in bounded memory."""

import heapq
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice

from pdeinfer.files import naming

_NAMES_IN_MEMORY = 100_000


def sorted_names(names: Iterable[str]) -> Iterator[str]:
    """Yield names in order; many of them are sorted in parts, in temporary files."""
    names = iter(names)
    run = sorted(islice(names, _NAMES_IN_MEMORY))
    if len(run) < _NAMES_IN_MEMORY:
        yield from run
        return
    from tempfile import TemporaryFile, gettempdir

    with naming(gettempdir()), ExitStack() as stack:
        runs = []
        while run:
            file = stack.enter_context(TemporaryFile("w+", encoding="ascii"))
            file.writelines(json.dumps(name) + "\n" for name in run)  # a name may hold a line break
            file.seek(0)
            runs.append(map(json.loads, file))
            run = sorted(islice(names, _NAMES_IN_MEMORY))
        yield from heapq.merge(*runs)
