"""Sizes as people write them."""

from __future__ import annotations

import re

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(?:([kmgt]i?)?b)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


class SizeError(CuntongError):
    """It isn't a size."""

    fault = Fault.USAGE


def parse_size(text: str) -> int:
    """Bytes of `64MB`, `1.5GiB` or `1000`.

    Raises:
        SizeError: `usage.bad-size`.
    """
    match = _SIZE.fullmatch("".join(text.split()))
    size = 0
    if match is not None:
        unit = (match[2] or "").lower()
        base = 1024 if unit.endswith("i") else 1000
        size = round(float(match[1]) * base ** _POWERS.get(unit[:1], 0))
    if not size:
        raise SizeError(
            "usage.bad-size",
            N_("{text} isn't a size such as 500kB, 64MB or 1.5GiB."),
            text=text,
        )
    return size
