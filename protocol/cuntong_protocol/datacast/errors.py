"""What is wrong with something that came from the air, or was to go there."""

from __future__ import annotations

from typing import Literal

from cuntong_protocol.errors import CuntongError, Fault

DropReason = Literal[
    "truncated",
    "oversized",
    "wrong-version",
    "malformed",
    "other-session",
    "bad-signature",
    "forged",
    "replayed",
    "unknown-block",
    "bad-symbol",
    "duplicate",
    "not-needed",
    "spool-full",
]
"""Why a packet is of no use (SPEC 11.9)."""
DROP_REASONS: tuple[DropReason, ...] = DropReason.__args__  # type: ignore[attr-defined]


class DatacastError(CuntongError):
    """An object from the air that must be refused, or a sender or receiver that can't work."""

    fault = Fault.CONTENT


class BadPacketError(Exception):
    """A packet that must be dropped. It isn't a `CuntongError`: nobody is told of one packet, they are counted."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason)
        self.reason = reason
