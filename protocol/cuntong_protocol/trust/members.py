"""The members list: which nodes an authority has enrolled, with which keys (SPEC 5.4)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal

import msgspec

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import N_

from .custom import parse_date
from .names import MAX_MEMBERS_BYTES, TrustError

VERSION = 1
MAX_MEMBERS = 25_000
"""More than the largest authority enrols; keeps a list within `MAX_MEMBERS_BYTES`."""

_DATE = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", max_length=10)]


class _MemberRow(msgspec.Struct, frozen=True):
    code: Annotated[str, msgspec.Meta(max_length=12)]
    spki: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    status: Literal["active", "removed"]
    since: _DATE
    until: _DATE
    reason: Annotated[str, msgspec.Meta(max_length=300)] = ""


class _ListRow(msgspec.Struct, frozen=True):
    v: Annotated[int, msgspec.Meta(ge=1)]
    members: Annotated[list[_MemberRow], msgspec.Meta(max_length=MAX_MEMBERS)]


class Member(msgspec.Struct, frozen=True):
    """One enrolled (or removed) node.

    Attributes:
        code: The node.
        spki: SHA-256 of its certificate's public key (SubjectPublicKeyInfo, DER).
        status: `active` or `removed`.
        since: Enrolled, or removed, on this day.
        until: Last day of the enrolment.
        reason: Why it was removed; empty else.
    """

    code: Division
    spki: bytes
    status: Literal["active", "removed"]
    since: date
    until: date
    reason: str = ""

    @property
    def is_active(self) -> bool:
        return self.status == "active"


class MembersList(msgspec.Struct, frozen=True):
    """All nodes of one authority, by code."""

    members: dict[Division, Member] = {}

    @classmethod
    def of(cls, members: Iterable[Member]) -> MembersList:
        """Make a list; a later line for a code replaces an earlier one."""
        return cls({member.code: member for member in members})

    def encode(self) -> bytes:
        """Canonical bytes: lines in the order of codes."""
        return msgspec.msgpack.encode(
            _ListRow(
                VERSION,
                [
                    _MemberRow(
                        str(member.code),
                        member.spki,
                        member.status,
                        member.since.isoformat(),
                        member.until.isoformat(),
                        member.reason,
                    )
                    for _, member in sorted(self.members.items())
                ],
            ),
            order="sorted",
        )


def decode_members(data: bytes, *, authority: Division) -> MembersList:
    """Read a members list strictly.

    Raises:
        TrustError: `trust.bad-members`: not such a list, of a higher version, two lines for one code, or a
            node that isn't within `authority`.
    """
    try:
        members = _read_rows(data, authority)
    except (msgspec.DecodeError, ValueError, CuntongError) as error:
        raise TrustError(
            "trust.bad-members",
            N_("The members list of {authority} can't be read: {reason}."),
            authority=authority,
            reason=str(error),
        ) from error
    return MembersList(members)


def _read_rows(data: bytes, authority: Division) -> dict[Division, Member]:
    if len(data) > MAX_MEMBERS_BYTES:
        raise ValueError("too long")
    rows = msgspec.msgpack.decode(data, type=_ListRow)
    if rows.v > VERSION:
        raise ValueError(f"version {rows.v}")
    members: dict[Division, Member] = {}
    for row in rows.members:
        code = Division(row.code)
        if code in members:
            raise ValueError(f"{code} stands in it twice")
        if not code.is_within(authority):
            raise ValueError(f"{code} is not below it")
        members[code] = Member(
            code,
            row.spki,
            row.status,
            parse_date(row.since),
            parse_date(row.until),
            row.reason,
        )
    return members
