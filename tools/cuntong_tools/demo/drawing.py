"""Pictures drawn by code and written as PNG: terraced fields and paper-cuts, without a drawing library.

A canvas keeps one palette index a pixel, column by column: what stands on the ground is filled downwards, so a
column is one slice. Rows, which PNG wants, are slices with a stride.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from collections.abc import Sequence

Colour = tuple[int, int, int]

_SHADES = 24
"""Steps of a colour gradient; all gradients of a picture fit into one palette of 256."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTED = 3
"""PNG colour type: one palette index a pixel."""


class Canvas:
    """A picture of at most 256 colours."""

    def __init__(self, width: int, height: int, palette: Sequence[Colour]) -> None:
        self.width = width
        self.height = height
        self._palette = tuple(palette)
        self._columns = bytearray(width * height)

    def fill_column(self, x: int, top: int, bottom: int, colour: int) -> None:
        """Colour the pixels of column `x` from `top` up to, not including, `bottom`."""
        top, bottom = max(0, top), min(self.height, bottom)
        if 0 <= x < self.width and top < bottom:
            start = x * self.height
            self._columns[start + top : start + bottom] = bytes((colour,)) * (bottom - top)

    def fill_circle(self, centre_x: int, centre_y: int, radius: int, colour: int) -> None:
        """Colour a disc."""
        for offset in range(-radius, radius + 1):
            half = math.isqrt(radius * radius - offset * offset)
            self.fill_column(centre_x + offset, centre_y - half, centre_y + half + 1, colour)

    def set(self, x: int, y: int, colour: int) -> None:
        """Colour one pixel, which must lie on the canvas."""
        self._columns[x * self.height + y] = colour

    def png(self) -> bytes:
        """The picture as a PNG file."""
        rows = b"".join(b"\0" + self._columns[y :: self.height] for y in range(self.height))
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, _PALETTED, 0, 0, 0)
        palette = b"".join(bytes(colour) for colour in self._palette)
        chunks = (
            (b"IHDR", header),
            (b"PLTE", palette),
            (b"IDAT", zlib.compress(rows, 9)),
            (b"IEND", b""),
        )
        return _PNG_SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _gradient(first: Colour, last: Colour) -> list[Colour]:
    steps = [(step / (_SHADES - 1)) for step in range(_SHADES)]
    return [
        (
            round(first[0] + (last[0] - first[0]) * part),
            round(first[1] + (last[1] - first[1]) * part),
            round(first[2] + (last[2] - first[2]) * part),
        )
        for part in steps
    ]


SEASONS: dict[str, tuple[Colour, Colour, Colour, Colour, Colour]] = {
    "春": ((176, 214, 230), (244, 236, 214), (92, 148, 132), (150, 196, 176), (255, 246, 224)),
    "夏": ((92, 164, 220), (214, 236, 240), (38, 110, 62), (112, 176, 74), (255, 240, 190)),
    "秋": ((222, 190, 150), (250, 228, 186), (142, 96, 34), (226, 178, 62), (244, 130, 60)),
    "冬": ((150, 166, 190), (230, 234, 240), (112, 126, 140), (214, 222, 230), (250, 236, 220)),
}
"""Of each season: sky above and below, field in the shade and in the light, the sun."""


def draw_terraces(season: str, width: int, height: int, randomness: random.Random) -> bytes:
    """Draw terraced fields on a hillside, with mountains, a sun, and water that mirrors the sky.

    Args:
        season: A key of `SEASONS`.
        width: Pixels.
        height: Pixels.
        randomness: Chooses the shape of the land.

    Returns:
        A PNG file.
    """
    sky_top, sky_low, field_dark, field_light, sun = SEASONS[season]
    palette = [
        *_gradient(sky_top, sky_low),
        *_gradient(field_dark, field_light),
        *_gradient(sky_low, field_dark),
        sun,
        (84, 66, 48),
        (255, 252, 240),
    ]
    fields, hills = _SHADES, 2 * _SHADES
    sun_colour, bank, glint = 3 * _SHADES, 3 * _SHADES + 1, 3 * _SHADES + 2
    canvas = Canvas(width, height, palette)
    horizon = height * 2 // 5
    for x in range(width):
        for shade in range(_SHADES):
            canvas.fill_column(x, horizon * shade // _SHADES, height, shade)
    canvas.fill_circle(width * 3 // 4, horizon // 2, height // 16, sun_colour)
    for ridge in range(4):
        line = _ridge_line(width, height, randomness)
        for x in range(width):
            top = horizon - height // 8 + ridge * height // 28 + line[x]
            canvas.fill_column(x, top, height, hills + 5 + ridge * 5)
    terraces = 26
    shape = _ridge_line(width, height, randomness)
    for terrace in range(terraces):
        depth = terrace / terraces
        own = _ridge_line(width, height, randomness)
        light = fields + _SHADES - 1 - (terrace * 7) % _SHADES
        water = (terrace * 5) % _SHADES
        for x in range(width):
            top = int(
                horizon
                + (height - horizon) * depth**1.4
                + shape[x] * (1 - depth)
                + own[x] * depth * 0.5
            )
            step = int(4 + 18 * depth * height / 1000)
            canvas.fill_column(x, top, height, bank)
            canvas.fill_column(x, top + 2, height, light)
            canvas.fill_column(x, top + 2, top + 2 + step, water)
            # Rows of rice: the nearer the terrace, the wider they stand.
            spacing = 3 + int(9 * depth)
            if (x + terrace * 3) % spacing == 0:
                canvas.fill_column(x, top + step, top + step + 3 + int(8 * depth), fields + 2)
            elif (x * 7 + terrace * 11) % 97 < 2:
                canvas.fill_column(x, top + 3, top + 5, glint)
    return canvas.png()


def _ridge_line(width: int, height: int, randomness: random.Random) -> list[int]:
    """Heights of a soft ridge, in pixels around 0, for each column."""
    waves = [
        (
            height / 22 / (number + 1) ** 1.3,
            (number + 1) * randomness.uniform(1.4, 2.6) / width,
            randomness.random(),
        )
        for number in range(5)
    ]
    return [
        int(sum(size * math.sin(math.tau * (x * pace + phase)) for size, pace, phase in waves))
        for x in range(width)
    ]


def draw_paper_cut(size: int, randomness: random.Random) -> bytes:
    """Draw a round window flower as cut from folded red paper: eight times the same petal, mirrored.

    Args:
        size: Width and height in pixels.
        randomness: Chooses where the scissors go.

    Returns:
        A PNG file.
    """
    canvas = Canvas(size, size, [(252, 244, 226), (192, 22, 30), (226, 188, 96)])
    rings = [
        (
            randomness.choice((1, 2, 3)),
            randomness.uniform(0, math.pi),
            randomness.uniform(0.3, 0.75),
        )
        for _ in range(9)
    ]
    half = size / 2
    for y in range(size // 2):
        for x in range(y, size // 2):
            dx, dy = half - x - 0.5, half - y - 0.5
            distance = math.hypot(dx, dy) / half
            colour = _paper_at(distance, math.atan2(dx, dy), rings)
            if colour:
                for a, b in ((x, y), (y, x)):
                    for across in (a, size - 1 - a):
                        canvas.set(across, b, colour)
                        canvas.set(across, size - 1 - b, colour)
    return canvas.png()


def _paper_at(distance: float, angle: float, rings: Sequence[tuple[int, float, float]]) -> int:
    """0 where the scissors cut, 1 for paper, 2 for the gilded rim.

    Args:
        distance: From the middle; 1 at the edge of the picture.
        angle: 0 to pi/4, within one fold.
        rings: Of each ring of holes: how many a fold, where the wave begins, how much is cut away.
    """
    rim = 0.90 + 0.06 * abs(math.cos(angle * 16))
    if distance > rim:
        return 0
    if distance > rim - 0.035:
        return 2
    if distance > 0.86:
        return 1
    place = distance / 0.86 * len(rings)
    ring = min(int(place), len(rings) - 1)
    within = place - ring
    if within < 0.14 or within > 0.86:
        return 1
    count, phase, share = rings[ring]
    wave = math.cos(angle * 8 * count + math.sin(within * math.pi + phase))
    bow = math.sin(within * math.pi)
    return 0 if wave * bow > 1 - 1.25 * share else 1
