"""What python-tuf leaves to be judged about an update (SPEC 4.6, 4.7, 4.9)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tuf.api._payload import Root, Snapshot, Timestamp

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import TrustError, is_version

from .accepted import sha256_of, signed_at
from .verifier import Documents, Verification, is_signed_timestamp, parse_timestamp


@dataclass(frozen=True, slots=True)
class SignedTimestamp:
    """A timestamp whose signature holds: its version, its signed part, the hash of its bytes."""

    version: int
    content: bytes
    sha256: str


def check_root(code: Division, run: Verification, now: datetime) -> None:
    """An authority's root is judged by the time of those above it, whom it can't influence.

    Raises:
        TrustError: `trust.root-expired`.
    """
    root = run.signed(Root)
    if root is not None and root.is_expired(now):
        raise TrustError(
            "trust.root-expired",
            N_(
                "The root of {authority} expired on {expired}: nothing new from it is accepted until it renews its root."
            ),
            authority=code,
            expired=root.expires.date().isoformat(),
        )


def countable(run: Verification, before: Documents) -> Documents:
    """What a run has verified, but no version that a counter can't hold."""
    now = run.documents()
    for kind in (Timestamp, Snapshot):
        signed = run.signed(kind)
        if signed is not None and not is_version(signed.version):
            return Documents(now.root, before.timestamp, before.snapshot)
    return now


def proven_time(verified: Documents, before: Documents, own: datetime) -> datetime:
    """The proven time after a run: it grows with each newly verified timestamp that carries a sound time."""
    if verified.timestamp is None or verified.timestamp == before.timestamp:
        return own
    moment = signed_at(parse_timestamp(verified.timestamp))
    return own if moment is None else max(own, moment)


def compare_timestamps(
    documents: Documents, offered: bytes
) -> tuple[SignedTimestamp | None, SignedTimestamp | None]:
    """The known and the offered timestamp, when both are signed and have the same version; None else."""
    if documents.timestamp is None:
        return None, None
    first = _signed(documents.timestamp, documents.root)
    second = _signed(offered, documents.root)
    if first is None or second is None or first.version != second.version:
        return None, None
    return first, second


def _signed(data: bytes, root: bytes) -> SignedTimestamp | None:
    content = is_signed_timestamp(data, root)
    if content is None:
        return None
    return SignedTimestamp(parse_timestamp(data).version, content, sha256_of(data))
