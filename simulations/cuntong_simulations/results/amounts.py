"""Amounts as people read them."""

from __future__ import annotations

from cuntong_daemon.i18n import _
from cuntong_protocol.texts import N_
from cuntong_simulations.scenario.units import Days, Money, Rate, Share, Size, Span

from .findings import Estimate

NOTHING = "-"

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BITS = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
_SPANS = ((86400.0, N_("{count} d")), (3600.0, N_("{count} h")), (60.0, N_("{count} min")))


def rate(bytes_s: float) -> str:
    return _scaled(bytes_s * 8, _BITS)


def size(count: float) -> str:
    return _scaled(count, _BYTES)


def span(seconds: float) -> str:
    for unit_s, template in _SPANS:
        if seconds >= unit_s:
            return _(template, count=f"{seconds / unit_s:.4g}")
    return _("{count} s", count=f"{seconds:.4g}")


def days(count: float | None) -> str:
    """`0.25`, `3.4`, `124`."""
    if count is None:
        return NOTHING
    digits = 2 if count < 0.995 else 1 if count < 99.95 else 0
    return f"{count:.{digits}f}"


def share(value: float | None) -> str:
    """Rounded towards the middle, so that 0 % means none and 100 % all."""
    if value is None:
        return NOTHING
    if value <= 0 or value >= 1:
        return "0 %" if value <= 0 else "100 %"
    if value < 0.001:
        return "<0.1 %"
    return f"{min(value * 100, 99.9):.1f} %"


def count(value: float) -> str:
    """Of places, which a sample may have parts of."""
    return f"{value:,.0f}"


def money(value: float, currency: str) -> str:
    """A scenario without prices has no currency either."""
    return f"{value:,.{2 if value < 100 else 0}f} {currency}".rstrip()


def estimate(found: Estimate | None) -> str:
    """A share; of a sample with half of its interval, in points: `97.9±0.3 %`."""
    if found is None:
        return NOTHING
    text = share(found.value)
    if found.low is None or found.high is None:
        return text
    half = max(found.high - found.value, found.value - found.low) * 100
    return text if half < 0.05 else text.replace(" %", f"±{half:.1f} %")


def percent(found: Estimate | None) -> str:
    """The same below a heading that says %."""
    return estimate(found).removesuffix(" %")


def part(value: float) -> str:
    """A share where points will do."""
    return share(value) if value < 0.005 or value > 0.995 else f"{value * 100:.0f} %"


def quantity(value: object) -> str:
    """A value of a scenario, with its unit."""
    match value:
        case Rate():
            return rate(value)
        case Size():
            return size(value)
        case Span():
            return span(value)
        case Share():
            return share(value)
        case Days():
            return span(value * 86400)
        case Money():
            return f"{value:,.6g}"
        case bool():
            return _("yes") if value else _("no")
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(quantity(one) for one in value)
        case dict():
            return ", ".join(f"{key} {quantity(one)}" for key, one in value.items())
        case _:
            return str(value)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    place = 0
    while abs(value) >= 999.5 and place < len(units) - 1:
        value /= 1000
        place += 1
    return f"{value:.3g} {units[place]}"
