"""Draws the fields and levels of a PDE layer as maps, channel by channel."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from pdeinfer.inspection.fields import Field, LayerFields

MAX_CHANNELS = 16

# Equally spaced colours: sequential from 0 to the largest value, diverging from its negative to it. 0 is light in both,
# and lightness falls evenly with the distance from 0: equal steps look equal, in grey print too.
SEQUENTIAL = (
    (246, 246, 246),
    (190, 221, 214),
    (126, 189, 190),
    (70, 149, 173),
    (48, 105, 151),
    (46, 60, 120),
    (42, 14, 76),
)
DIVERGING = (
    (20, 50, 115),
    (48, 108, 178),
    (130, 175, 215),
    (246, 246, 246),
    (233, 158, 122),
    (197, 76, 64),
    (115, 16, 40),
)

NOT_FINITE = (128, 128, 128)  # the colour of NaN and infinity, which an unstable scheme can reach

_INK, _GREY, _PAPER = (30, 30, 34), (95, 95, 102), (255, 255, 255)
_TITLE, _TEXT, _SMALL = 26, 17, 15  # font sizes
_MARGIN, _SPACE = 28, 20  # around the picture; between its parts
_WIDTH = 1700  # panels stand side by side up to this width
_MAP_SIDE, _MAX_MAP_SIDE, _GAP = 80, 160, 4  # _MAP_SIDE: the least size of a map; _GAP: between maps
_BAR_WIDTH, _SCALE_WIDTH = 12, 70  # of a panel's colour bar, without and with its numbers
_AFTER_SYMBOL = 14  # between a panel's symbol and its smallest and largest value


@dataclass(frozen=True)
class _Panel:
    """One field: its symbol, its maps (H, W, C), and the values at the ends of its colour scale."""

    symbol: str
    maps: Field
    low: float
    high: float

    @property
    def extent(self) -> str:
        """The smallest and the largest value."""
        return f"{self.maps.min():.3g} to {self.maps.max():.3g}"

    @property
    def title_width(self) -> int:
        symbol, extent = _font(_TEXT).getlength(self.symbol), _font(_SMALL).getlength(self.extent)
        return int(symbol + _AFTER_SYMBOL + extent) + 1


def draw_layer(layer: LayerFields, image: NDArray[np.uint8], model: str) -> PIL.Image.Image:
    """Draw the fields and levels of a PDE layer beside the image that they were computed for.

    A panel shows the first `MAX_CHANNELS` channels of one field, left to right, on one colour scale. The scale starts
    at 0, or is symmetric about 0 if the field or its partner has negative values. Absent and constant fields are
    described in words.

    Args:
        layer: what to draw.
        image: the network's input, uint8 (H, W, 1) or (H, W, 3).
        model: the network's name, for the title.
    """
    _, map_height, map_width, channels = layer.levels.shape
    shown = min(channels, MAX_CHANNELS)
    map_size = _scaled(map_width, map_height)
    panel_height = _TEXT + 8 + map_size[1]
    groups = [_panels(symbols, fields, shown) for symbols, fields in _groups(layer).items()]
    levels = _panels(tuple(f"H[{k}]" for k in range(len(layer.levels))), tuple(layer.levels), shown)
    titles = [panel.title_width for group in (*groups, levels) for panel in group]
    panel_width = max(shown * (map_size[0] + _GAP) + _SCALE_WIDTH, *titles)  # a title may be wider than a single map
    most_panels = max(sum(map(len, groups)), len(levels))
    columns = max(1, min((_WIDTH + _SPACE) // (panel_width + _SPACE), most_panels))
    rows = _rows(groups, columns) + _rows([levels], columns)

    header = _draw_header(layer, image, model, shown)
    width = max(header.width, columns * (panel_width + _SPACE) - _SPACE)
    height = header.height + len(rows) * (_SPACE + panel_height) + _SMALL + 4
    picture = PIL.Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _PAPER)
    picture.paste(header, (_MARGIN, _MARGIN))
    top = _MARGIN + header.height + _SPACE
    for row in rows:
        for column, panel in enumerate(row):
            _draw_panel(picture, (_MARGIN + column * (panel_width + _SPACE), top), panel, map_size)
        top += panel_height + _SPACE
    if channels > 1:
        for column in range(len(rows[-1])):
            left = _MARGIN + column * (panel_width + _SPACE)
            _draw_channel_numbers(picture, (left, top - _SPACE + 5), shown, map_size[0])
    return picture


def colours(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return the colour, uint8 (..., 3), of every value on a scale from `low` to `high`; `low` is 0 or `-high`.

    NaN and infinity have the colour `NOT_FINITE`.
    """
    anchors = np.array(SEQUENTIAL if low == 0 else DIVERGING, float)
    is_finite = np.isfinite(values)
    position = (np.where(is_finite, values.astype(float), 0) - low) / ((high - low) or 1) * (len(anchors) - 1)
    channels = [np.interp(position, np.arange(len(anchors)), anchor) for anchor in anchors.T]
    return np.where(is_finite[..., np.newaxis], np.stack(channels, axis=-1).round(), NOT_FINITE).astype(np.uint8)


def _groups(layer: LayerFields) -> dict[tuple[str, ...], tuple[Field, ...]]:
    """Return the fields to draw, in groups that share a colour scale, by their symbols."""
    groups: dict[tuple[str, ...], tuple[Field, ...]] = {}
    if layer.diffusivity is not None and not isinstance(layer.spec.diffusivity, float | int):
        groups["Dx", "Dy"] = layer.diffusivity
    if layer.velocity is not None:
        groups["u", "v"] = layer.velocity
    if layer.velocity_gradients is not None:
        groups["u_x", "v_y"] = layer.velocity_gradients
    if layer.separate_source is not None:
        groups[("f",)] = (layer.separate_source,)
    return groups


def _rows(groups: list[list[_Panel]], columns: int) -> list[list[_Panel]]:
    """Return the panels in rows of at most `columns`, keeping a group in one row if it fits."""
    rows: list[list[_Panel]] = []
    for group in groups:
        if rows and len(rows[-1]) + len(group) <= columns:
            rows[-1].extend(group)
        else:
            rows += [group[first : first + columns] for first in range(0, len(group), columns)]
    return rows


def _panels(symbols: tuple[str, ...], fields: tuple[Field, ...], channels: int) -> list[_Panel]:
    """Return the panels of a group of fields; a field that occurs twice is one panel."""
    if len(fields) == 2 and fields[0] is fields[1]:
        symbols, fields = (" = ".join(symbols),), fields[:1]
    shown = [field[..., :channels] for field in fields]
    signed = any((field < 0).any() for field in shown)
    panels = []
    for symbol, maps in zip(symbols, shown, strict=True):
        high = float(np.abs(maps).max(where=np.isfinite(maps), initial=0))
        panels.append(_Panel(symbol, maps, -high if signed else 0.0, high))
    return panels


def _draw_header(layer: LayerFields, image: NDArray[np.uint8], model: str, channels: int) -> PIL.Image.Image:
    """Return a picture of the image, with the title and the layer's summary beside it."""
    size, *rest = layer.summary
    all_channels = layer.levels.shape[-1]
    lines = [size if channels == all_channels else f"{size}; channels 0 to {channels - 1} are shown", *rest]
    picture = PIL.Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
    text_height = _TITLE + 12 + len(lines) * (_TEXT + 7)
    picture = picture.resize(_scaled(*picture.size, smallest=text_height), PIL.Image.Resampling.BOX)
    left = picture.width + _SPACE
    width = left + max(int(_font(_TEXT).getlength(line)) for line in lines) + 1
    header = PIL.Image.new("RGB", (width, max(picture.height, text_height)), _PAPER)
    header.paste(picture)
    draw = ImageDraw.Draw(header)
    draw.text((left, 0), f"{model}, {layer.name}", _INK, _font(_TITLE))
    for number, line in enumerate(lines):
        draw.text((left, _TITLE + 14 + number * (_TEXT + 7)), line, _GREY, _font(_TEXT))
    return header


def _draw_panel(picture: PIL.Image.Image, corner: tuple[int, int], panel: _Panel, map_size: tuple[int, int]) -> None:
    left, top = corner
    draw = ImageDraw.Draw(picture)
    draw.text((left, top), panel.symbol, _INK, _font(_TEXT))
    after_symbol = left + _font(_TEXT).getlength(panel.symbol) + _AFTER_SYMBOL
    draw.text((after_symbol, top + 2), panel.extent, _GREY, _font(_SMALL))
    top += _TEXT + 8
    for channel in range(panel.maps.shape[-1]):
        pixels = PIL.Image.fromarray(colours(panel.maps[..., channel], panel.low, panel.high))
        picture.paste(pixels.resize(map_size, PIL.Image.Resampling.BOX), (left, top))
        left += map_size[0] + _GAP
    left += 4
    bar = colours(np.linspace(panel.high, panel.low, map_size[1])[:, np.newaxis], panel.low, panel.high)
    picture.paste(PIL.Image.fromarray(bar.repeat(_BAR_WIDTH, axis=1)), (left, top))
    left += _BAR_WIDTH + 5
    draw.text((left, top), f"{panel.high:.3g}", _GREY, _font(_SMALL), anchor="lt")
    draw.text((left, top + map_size[1] - 1), f"{panel.low:.3g}", _GREY, _font(_SMALL), anchor="lb")


def _draw_channel_numbers(picture: PIL.Image.Image, corner: tuple[int, int], channels: int, map_width: int) -> None:
    left, top = corner
    for channel in range(channels):
        middle = left + channel * (map_width + _GAP) + map_width // 2
        ImageDraw.Draw(picture).text((middle, top), str(channel), _GREY, _font(_SMALL), anchor="mt")


def _scaled(width: int, height: int, smallest: int = _MAP_SIDE) -> tuple[int, int]:
    """Return a size: enlarged by an integer factor to at least `smallest`, or reduced to `_MAX_MAP_SIDE`."""
    side = max(width, height)
    if side > _MAX_MAP_SIDE:
        return max(1, width * _MAX_MAP_SIDE // side), max(1, height * _MAX_MAP_SIDE // side)
    factor = -(-smallest // side)
    return width * factor, height * factor


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
