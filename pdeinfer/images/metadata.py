"""Reads the orientation, and ignores damaged metadata, which the rule in `pdeinfer.images.convert` accepts.

Pillow warns of it, and an application may turn warnings into errors. `warnings.catch_warnings` would ignore those of
all threads, and restore the wrong filters if two threads leave it in the order in which they came. So there is one
filter, which stays: it takes Pillow's warnings, of a class to which they belong only while the thread that asks reads
an image.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import PIL.Image
from PIL import ExifTags

from pdeinfer.images.damage import is_damage


class _Thread(threading.local):
    images = 0  # that it reads


_thread = _Thread()


class _OfMetadata(type):
    def __subclasscheck__(cls, category: type) -> bool:
        return _thread.images > 0 and category is UserWarning  # not DecompressionBombWarning, which is an error


class _MetadataWarning(Warning, metaclass=_OfMetadata):
    """The class of every UserWarning while this thread reads an image; the filter takes Pillow's."""


@contextmanager
def ignoring_metadata_warnings() -> Iterator[None]:
    """Ignore the warnings that Pillow issues in this thread about anything but the size of images."""
    if not warnings.filters or warnings.filters[0][2] is not _MetadataWarning:  # adding it again shows others again
        warnings.filterwarnings("ignore", category=_MetadataWarning, module=r"PIL\.")
    _thread.images += 1
    try:
        yield
    finally:
        _thread.images -= 1


def orientation(picture: PIL.Image.Image) -> int:
    """Return the EXIF orientation of a picture, 1 to 8; 1, upright, if its EXIF is missing or damaged."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        if not is_damage(error):
            raise
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
