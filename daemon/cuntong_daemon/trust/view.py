"""What a node knows for sure, as one frozen value that anyone may read (SPEC 4.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Literal

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import Sentence
from cuntong_protocol.trust.custom import Tombstone
from cuntong_protocol.trust.members import Member
from cuntong_protocol.trust.rules import Listing

from .floors import Equivocation

State = Literal["fresh", "stale", "refused", "unknown"]


_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """How one followed authority stands.

    Attributes:
        code: The authority.
        state: `fresh`; `stale` past its timestamp's expiry; `refused`: something newer was offered, or its
            endorsement ended, and nothing newer is accepted; `unknown`: nothing accepted yet. In the first
            three its last verified catalogue is part of the view.
        stale_since: When the timestamp expired.
        signed_at: When the accepted timestamp was signed, by its own word.
        versions: Accepted version of each role, `timestamp` among them.
        epoch: Epoch of the endorsement that holds.
        endorsed_by: Whose endorsement that is; None for the nation.
        until: Last day of the endorsement; None for the nation.
        problem: Why it is refused or unknown.
    """

    code: Division
    state: State
    stale_since: datetime | None
    signed_at: datetime | None
    versions: Mapping[str, int]
    epoch: int
    endorsed_by: Division | None
    until: date | None
    problem: Sentence | None


@dataclass(frozen=True, slots=True)
class View:
    """All that is verified.

    Attributes:
        authorities: Every authority that is followed.
        listings: What may be had here, by bundle id.
        withdrawn: Tombstones by bundle id; whatever has one must not be held.
        candidates: What endorsed children list or promote: what can be reviewed.
        members: The members of each authority by code.
        ca_certificates: CA certificates (PEM) by the code they are for.
        proven_time: The nation's proven time.
        time: What licence ends are judged by: the clock when it can be trusted, proven time else.
        is_clock_trusted: Whether this machine's clock is plausible.
        is_complete: False when accepted files were damaged on this disk and haven't come back yet. Then
            what isn't listed may be listed all the same: delete nothing because of its absence.
        equivocations: Evidence against authorities, to be reported upward.
    """

    authorities: Mapping[Division, AuthorityState] = field(default_factory=dict)
    listings: Mapping[str, Listing] = field(default_factory=dict)
    withdrawn: Mapping[str, Tombstone] = field(default_factory=dict)
    candidates: Mapping[str, Listing] = field(default_factory=dict)
    members: Mapping[Division, Mapping[Division, Member]] = field(default_factory=dict)
    ca_certificates: Mapping[Division, bytes] = field(default_factory=dict)
    proven_time: datetime = _LONG_AGO
    time: datetime = _LONG_AGO
    is_clock_trusted: bool = True
    is_complete: bool = True
    equivocations: tuple[Equivocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """An object to fetch. `is_optional`: it may well not exist (the next root)."""

    path: str
    max_bytes: int
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Refresh:
    """The outcome of one look at everything.

    Attributes:
        view: What is verified now.
        missing: What to fetch before the next call, the most important first.
        changed: Whether the view differs from that of the call before.
        problems: What an administrator should know.
    """

    view: View
    missing: tuple[Missing, ...]
    changed: bool
    problems: tuple[Sentence, ...]
