"""Reads what an image says of itself beside its pixels."""

import PIL.Image
from PIL import ExifTags

from pdeinfer.images.damage import is_damage


def orientation(picture: PIL.Image.Image) -> int:
    """Return the EXIF orientation of a picture, 1 to 8; 1, upright, if its EXIF is missing or damaged."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        if not is_damage(error):
            raise
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
