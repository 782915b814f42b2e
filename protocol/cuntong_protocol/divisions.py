"""Statistical division codes: who is above whom (SPEC 2).

A code has 12 digits: province 2, city 2, county 2, township 3, village 3. The national centre is
000000000000. A group of zeros means "not that deep"; a deeper group may follow a zero group (Dongguan
441900000000 has townships but no counties: 441900003000). The tier is that of the deepest group that
isn't zero; the parent is the nearest shallower place.
"""

from __future__ import annotations

import enum
import re
from itertools import accumulate

from .errors import CuntongError, Fault
from .texts import N_

NATION_CODE = "000000000000"
GROUP_LENGTHS = (2, 2, 2, 3, 3)
_GROUP_ENDS = tuple(accumulate(GROUP_LENGTHS))
_CODE = re.compile(r"[0-9]{12}")
_SHORT_LENGTHS = frozenset(_GROUP_ENDS)
DNS_SUFFIX = "cuntong.internal"


class DivisionError(CuntongError):
    """Not a division code."""

    fault = Fault.USAGE


class Tier(enum.IntEnum):
    """How deep a place is; 0 is the national centre."""

    NATION = 0
    PROVINCE = 1
    CITY = 2
    COUNTY = 3
    TOWNSHIP = 4
    VILLAGE = 5

    @property
    def label(self) -> str:
        """The tier's name in configuration files and metadata, for example `county`."""
        return self.name.lower()


TIER_LABELS = tuple(tier.label for tier in Tier)
_TIERS = tuple(
    Tier(sum(end - length < digits for length, end in zip(GROUP_LENGTHS, _GROUP_ENDS, strict=True)))
    for digits in range(13)
)
"""By the number of digits up to the last that isn't zero."""


class Division(str):
    """A valid 12-digit division code. It is a `str`, so it can be stored and compared as one."""

    __slots__ = ()

    def __new__(cls, code: str) -> Division:
        """Check a full code.

        Raises:
            DivisionError: `division.bad-code` when it isn't exactly 12 ASCII digits.
        """
        if not _CODE.fullmatch(code):
            raise DivisionError(
                "division.bad-code",
                N_("{code} is not a division code: a code has exactly 12 digits."),
                code=code,
            )
        return super().__new__(cls, code)

    @property
    def groups(self) -> tuple[str, ...]:
        """The five digit groups, province first."""
        return tuple(
            self[end - length : end] for length, end in zip(GROUP_LENGTHS, _GROUP_ENDS, strict=True)
        )

    @property
    def tier(self) -> Tier:
        return _TIERS[len(self.rstrip("0"))]

    @property
    def prefix(self) -> str:
        """The digits that every code of this subtree starts with; empty for the nation.

        Dongguan (441900000000) has the prefix 4419, its township 441900003000 has 441900003.
        """
        tier = self.tier
        return "" if tier is Tier.NATION else str(self[: _GROUP_ENDS[tier - 1]])

    @property
    def parent(self) -> Division | None:
        """The nearest place above by code, or None for the nation."""
        groups = list(self.groups)
        tier = self.tier
        if tier is Tier.NATION:
            return None
        groups[tier - 1] = "0" * GROUP_LENGTHS[tier - 1]
        return Division("".join(groups))

    @property
    def ancestors(self) -> tuple[Division, ...]:
        """The places above, nearest first, the nation last; each once."""
        found: list[Division] = []
        place = self.parent
        while place is not None:
            found.append(place)
            place = place.parent
        return tuple(found)

    def is_within(self, other: Division) -> bool:
        """True when this place is `other` or lies below it."""
        return self.startswith(other.prefix)

    def is_below(self, other: Division) -> bool:
        """True when this place lies strictly below `other`."""
        return self != other and self.is_within(other)

    @property
    def dns_name(self) -> str:
        """`441900003005` -> `005.003.00.19.44.cuntong.internal` (for certificates)."""
        return ".".join((*reversed(self.groups), DNS_SUFFIX))

    @property
    def dns_subtree(self) -> str:
        """The DNS subtree that holds this place and all below it: `19.44.cuntong.internal`."""
        groups = self.groups[: self.tier]
        return ".".join((*reversed(groups), DNS_SUFFIX))


NATION = Division(NATION_CODE)


def parse_division(text: str) -> Division:
    """Read a code as people write it: 12 digits, or a prefix of 2, 4, 6 or 9 digits padded with zeros.

    Raises:
        DivisionError: `division.bad-code`.
    """
    if re.fullmatch(r"[0-9]+", text, re.ASCII) and len(text) in _SHORT_LENGTHS:
        text = text.ljust(12, "0")
    return Division(text)


def division_of_prefix(prefix: str) -> Division:
    """The place whose subtree is `prefix` (as in `Division.prefix`).

    Raises:
        DivisionError: `division.bad-prefix` when no place has exactly this prefix.
    """
    code = prefix.ljust(12, "0")
    if _CODE.fullmatch(code):
        division = Division(code)
        if division.prefix == prefix:
            return division
    raise DivisionError(
        "division.bad-prefix", N_("{prefix} is not the prefix of a division."), prefix=prefix
    )


def division_of_dns_name(name: str) -> Division:
    """The inverse of `Division.dns_name`; nothing but the exact form is taken.

    Raises:
        DivisionError: `division.bad-name`.
    """
    labels = name.split(".")
    suffix = DNS_SUFFIX.split(".")
    if labels[len(GROUP_LENGTHS) :] == suffix:
        code = "".join(reversed(labels[: len(GROUP_LENGTHS)]))
        if _CODE.fullmatch(code):
            division = Division(code)
            if division.dns_name == name:
                return division
    raise DivisionError(
        "division.bad-name", N_("{name} is not the network name of a division."), name=name
    )
