"""What one refresh of the federation gathers, and how it is put into words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_, Sentence
from cuntong_protocol.trust.custom import BlobRef, Endorsement, Listed
from cuntong_protocol.trust.names import TrustError, blob_path

from .authority import Authority
from .view import AuthorityState, Missing, State


class Round:
    """What one refresh gathers."""

    def __init__(self, enrolled: datetime, clock: datetime, is_strict: bool) -> None:
        self.enrolled = enrolled
        self.clock = clock
        self.is_strict = is_strict
        self.followed: dict[Division, Authority] = {}
        self.endorsed: dict[Division, tuple[Division | None, Endorsement | None]] = {}
        self.endorsements: dict[Division, Mapping[Division, Endorsement]] = {}
        self.proven: dict[Division, datetime] = {}
        self.frozen: set[Division] = set()
        self.refusals: dict[Division, Sentence] = {}
        self.problems: list[Sentence] = []
        self.metadata: list[Missing] = []
        self.blobs: dict[str, Missing] = {}

    def time_above(self, code: Division) -> datetime:
        """The highest proven time of the followed authorities above `code`."""
        return max(
            (self.proven[above] for above in code.ancestors if above in self.proven),
            default=self.enrolled,
        )

    def need(self, blob: BlobRef) -> None:
        path = blob_path(blob.sha256)
        self.blobs.setdefault(path, Missing(path, blob.length))


class UniqueSentence:
    """A sentence as a key: the same one is told once."""

    def __init__(self, sentence: Sentence) -> None:
        self.sentence = sentence
        self._key = (sentence.code, sentence.render())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UniqueSentence) and self._key == other._key


def sources_of(
    round_: Round, codes: Iterable[Division]
) -> list[tuple[Division, tuple[Listed, ...]]]:
    sources: list[tuple[Division, tuple[Listed, ...]]] = []
    for code in codes:
        contents = round_.followed[code].contents
        sources.append((code, contents.bundles))
        sources.append((code, contents.promoted))
    return sources


def state_of(authority: Authority, round_: Round, time: datetime) -> AuthorityState:
    code = authority.code
    accepted = authority.accepted
    by, endorsement = round_.endorsed[code]
    problem = round_.refusals.get(code)
    stale_since: datetime | None = None
    state: State = "unknown"
    if accepted is not None:
        # Nobody can be older than its own word.
        now = max(time, round_.time_above(code), authority.proven_time or time)
        stale_since = accepted.expires if accepted.expires <= now else None
        state = "refused" if problem else "stale" if stale_since else "fresh"
    return AuthorityState(
        code,
        state,
        stale_since,
        accepted.signed_at if accepted else None,
        accepted.versions if accepted else {},
        authority.floor.epoch if authority.floor else 0,
        by,
        endorsement.until if endorsement else None,
        problem,
    )


def not_endorsed(code: Division) -> Sentence:
    return TrustError(
        "trust.not-endorsed",
        N_(
            "{code} is no longer endorsed by any authority above it: what it published is not shown any more."
        ),
        code=code,
    ).sentence


def wrong_clock(clock: datetime, proven: datetime) -> Sentence:
    return TrustError(
        "trust.wrong-clock",
        N_(
            "This machine's clock says {clock}, the national centre last signed at {proven}: set the clock, or updates may be refused."
        ),
        clock=clock.isoformat(timespec="minutes"),
        proven=proven.isoformat(timespec="minutes"),
    ).sentence
