"""Reads what sources hold."""

from pathlib import Path

import pytest

from pdeinfer.errors import ImageError
from pdeinfer.images.files import LeftOut
from pdeinfer.offline.chunks import NamedImage, from_line, to_line
from pdeinfer.offline.sources import list_chunks


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("a pickle was loaded",)


def read(*sources: Path | str, left_out: list[LeftOut] | None = None) -> list[NamedImage]:
    """Return the images of sources, as a process reads them that has only the lines of the plan."""
    leave_out = (left_out if left_out is not None else []).append
    listed = list_chunks([str(source) for source in sources], leave_out)
    return [image for chunk in listed for image in from_line(to_line(chunk)).read()]


def names(*sources: Path | str) -> list[str]:
    return [name for name, _ in read(*sources)]


def contents(*sources: Path | str) -> dict[str, bytes]:
    return {Path(name).name: image for name, image in read(*sources) if isinstance(image, bytes)}


def errors(*sources: Path | str) -> dict[str, ImageError]:
    return {name: image for name, image in read(*sources) if isinstance(image, ImageError)}
