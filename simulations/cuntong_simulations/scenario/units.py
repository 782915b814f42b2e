"""Numbers with units, as people write them: "512 kbit/s", "4 TB", "60 d", "5 %", "30 h/week".

Prefixes are decimal. A number without a unit is taken where it can mean one thing only: shares, money and days; rates,
sizes and times have to say what they count.
"""

from __future__ import annotations

import re
from typing import ClassVar, Self

from cuntong_protocol.texts import N_

_WRITTEN = re.compile(r"\s*([-+]?(?:nan|inf)|[-+]?(?:[0-9][0-9_]*)?(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*(\S.*?)?\s*",
                      re.ASCII | re.IGNORECASE)  # fmt: skip
_SECONDS = {
    "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "week": 604800.0, "weeks": 604800.0,
}  # fmt: skip
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
MOST_SHOWN = 60
"""Characters of a value in an error."""


def half_width(text: str) -> str:
    """ASCII as a Chinese keyboard writes it in full width, "５１２ ｋｂｉｔ／ｓ", as plain ASCII; all else as it is."""
    return text.translate(_HALF_WIDTH)


def shown(given: object) -> str:
    """A value for an error: as TOML writes it where Python doesn't, and not too long."""
    if isinstance(given, bool):
        return str(given).lower()
    if given == "":
        return '""'
    text = str(given)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


class UnitError(ValueError):
    """A value that isn't what it has to be.

    Attributes:
        code: For `ScenarioError`.
        template: With places for the file, the line, the key, `value`, and for `least` and `most` where it has them.
        params: What fills them, but for file, line and key.
    """

    def __init__(self, code: str, template: str, **params: str) -> None:
        super().__init__(code)
        self.code = code
        self.template = template
        self.params = params


class Quantity(float):
    """A number that was written with its unit; 0 and more, never NaN, within what makes sense in a plan.

    Attributes:
        units: What one of each unit is; "" is a number without one.
        least: What is less, and yet not 0, is a slip of the pen.
        most: Above it one is certain too.
        least_text, most_text: The same for people.
    """

    units: ClassVar[dict[str, float]]
    least: ClassVar[float] = 0.0
    least_text: ClassVar[str] = "0"
    most: ClassVar[float]
    most_text: ClassVar[str]
    refusal: ClassVar[tuple[str, str]]

    @classmethod
    def of(cls, given: object) -> Self:
        """Read it.

        Raises:
            UnitError: not a number, an unknown unit, or out of bounds.
        """
        found = cls._number(given)
        if found is None:
            code, template = cls.refusal
            raise UnitError(code, template, value=shown(given))
        if not 0 <= found <= cls.most:  # Also of NaN.
            raise UnitError(
                "sim.absurd",
                N_("{file}, line {line}: {key} = {value} makes no sense: it has to lie between 0 and {most}."),
                value=shown(given),
                most=cls.most_text,
            )  # fmt: skip
        if 0 < found < cls.least:
            raise UnitError(
                "sim.absurd",
                N_("{file}, line {line}: {key} = {value} makes no sense: it has to be at least {least}."),
                value=shown(given),
                least=cls.least_text,
            )  # fmt: skip
        return cls(found)

    @classmethod
    def _number(cls, given: object) -> float | None:
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            return None
        written = _WRITTEN.fullmatch(half_width(given)) if isinstance(given, str) else None
        number, unit = (written[1], written[2] or "") if written else (given, "")
        if unit not in cls.units:
            return None
        try:
            return float(number) * cls.units[unit]
        except (ValueError, OverflowError):
            return None


class Rate(Quantity):
    """Bytes/s, written as "512 kbit/s"."""

    units: ClassVar = {
        f"{prefix}{name}": factor * size
        for prefix, factor in (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))
        for name, size in (("bit/s", 0.125), ("B/s", 1.0))
    }
    least = 1e3 / 8
    least_text = "1 kbit/s"
    most = 1e12 / 8
    most_text = "1 Tbit/s"
    refusal = (
        "sim.not-a-rate",
        N_("{file}, line {line}: {key} has to be a rate such as '512 kbit/s' or '2 Mbit/s', not {value}."),
    )  # fmt: skip


class Size(Quantity):
    """Bytes, written as "4 TB"; decimal prefixes."""

    units: ClassVar = _BYTES
    most = 1e18
    most_text = "1000 PB"
    refusal = (
        "sim.not-a-size",
        N_("{file}, line {line}: {key} has to be a size such as '20 GB' or '4 TB', not {value}."),
    )


class Span(Quantity):
    """Seconds, written as "1 h"."""

    units: ClassVar = _SECONDS
    most = 3660 * 86400.0
    most_text = "3660 d"
    refusal = (
        "sim.not-a-time",
        N_("{file}, line {line}: {key} has to be a time such as '10 min', '1 h' or '60 d', not {value}."),
    )  # fmt: skip


class Days(Quantity):
    """Days, written as a number or as "60 d"."""

    units: ClassVar = {"": 1.0} | {unit: seconds / 86400.0 for unit, seconds in _SECONDS.items()}
    most = 3660.0
    most_text = "3660 d"
    refusal = (
        "sim.not-days",
        N_(
            "{file}, line {line}: {key} has to be a number of days such as 60 or '60 d', not {value}."
        ),
    )


class Share(Quantity):
    """0 to 1, written as a number, as "5 %", or as a share of the time: "2 min/h", "30 h/week"."""

    units: ClassVar = {"": 1.0, "%": 0.01} | {
        f"{part}/{whole}": seconds / _SECONDS[whole]
        for part, seconds in _SECONDS.items()
        for whole in _SECONDS
        if _SECONDS[whole] > seconds
    }
    most = 1.0
    most_text = "100 %"
    refusal = (
        "sim.not-a-share",
        N_("{file}, line {line}: {key} has to be a share such as 0.05, '5 %' or '2 min/h', not {value}."),
    )  # fmt: skip


class Money(Quantity):
    """In the scenario's currency, not negative."""

    units: ClassVar = {"": 1.0}
    most = 1e12
    most_text = "1000000000000"
    refusal = (
        "sim.not-money",
        N_("{file}, line {line}: {key} has to be an amount of money, a number without a unit, not {value}."),
    )  # fmt: skip
