"""Many small TUF repositories, one view: who is followed, who is believed, what may be had (SPEC 4).

Sync and not thread-safe: `refresh` is called in one worker thread at a time. `announcements` and `wants`
may be called from any thread meanwhile; they read what the last refresh left.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

from tuf.api._payload import Root
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from cuntong_daemon.paths import DataPaths
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_, Sentence
from cuntong_protocol.trust.custom import BlobRef, Endorsement
from cuntong_protocol.trust.names import (
    MAX_TIMESTAMP_BYTES,
    TrustError,
    blob_path,
    timestamp_path,
)
from cuntong_protocol.trust.rules import (
    Step,
    check_endorsement_time,
    find_endorsement,
    is_clock_trusted,
    judge_epoch,
    merge_listings,
    merge_tombstones,
)

from .authority import Authority
from .floors import Floors
from .rounds import Round, UniqueSentence, not_endorsed, sources_of, state_of, wrong_clock
from .spool import Spool
from .view import AuthorityState, Missing, Refresh, View

Profile = Literal["strict", "tolerant"]

MAX_CHILDREN = 4_096
"""Endorsed children followed by one node; a province has at most some hundreds below it."""
MAX_PROBLEMS = 200
"""Sentences of one refresh; more is noise."""
BUSY_TIMEOUT_S = 10.0
"""Other parts of the daemon write to the same database; none holds it for long."""
CONFIRMED_WITHIN_S = 600
"""A parent confirms a clock that differs from its own by no more than this."""


class Federation:
    """Verifies everything that concerns one node."""

    def __init__(
        self,
        paths: DataPaths,
        *,
        code: Division,
        profile: Profile,
        clock: Callable[[], datetime],
    ) -> None:
        """Open the floors.

        Args:
            paths: The node's data directory; it must exist.
            code: The node's own division.
            profile: `strict` judges expiry by the clock, `tolerant` by signed time (SPEC 4.7).
            clock: Gives the present time, aware.

        Raises:
            TrustError: `trust.newer-state`.
            sqlite3.Error: the database can't be used.
        """
        self.paths = paths
        self.code = code
        self.profile = profile
        self.spool = Spool(paths, own=code)
        self._clock = clock
        self._confirmed: datetime | None = None
        self._floors = Floors(
            sqlite3.connect(paths.database, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        )
        self._authorities: dict[Division, Authority] = {}
        self._followed: dict[Division, AuthorityState] = {}
        self._announcements: tuple[tuple[Division, int, str], ...] = ()
        self._view = View()
        self._fingerprint: object = None
        self._descriptors: dict[str, int] = {}
        self._merge_problems: tuple[Sentence, ...] = ()

    def close(self) -> None:
        """Close the database."""
        self._floors.close()

    def bootstrap(self, nation_root: bytes, proven_time: datetime) -> None:
        """Set the anchor of all trust, at enrolment. Doing it again with the same root changes nothing.

        Args:
            nation_root: The nation's root, version 1.
            proven_time: When the node was enrolled.

        Raises:
            TrustError: `trust.bad-root`: it isn't a root; `trust.other-nation`: this node is bound to another.
        """
        anchor = hashlib.sha256(nation_root).hexdigest()
        known = self._floors.load(NATION)
        if known is not None:
            if known.anchor != anchor:
                raise TrustError(
                    "trust.other-nation",
                    N_(
                        "This node already belongs to a network with another national root. To move it, enrol it into an empty data directory."
                    ),
                )
            return
        try:
            root = Metadata[Root].from_bytes(nation_root)
            root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
        except (RepositoryError, ValueError) as error:
            raise TrustError(
                "trust.bad-root",
                N_("The national root can't be used: {reason}."),
                reason=str(error),
            ) from error
        self._floors.bootstrap(NATION, anchor, nation_root, proven_time)
        self._authorities.pop(NATION, None)

    @property
    def nation_root_sha256(self) -> bytes:
        """Of the nation's first root, which this node was enrolled with; empty before that."""
        known = self._floors.load(NATION)
        return b"" if known is None else bytes.fromhex(known.anchor)

    def confirm_clock(self, parent_time: datetime) -> None:
        """The parent said what time it is; when the clock here agrees, it is trusted from now on."""
        clock = self._clock()
        if abs((clock - parent_time).total_seconds()) <= CONFIRMED_WITHIN_S:
            self._confirmed = clock

    def announcements(self) -> tuple[tuple[Division, int, str], ...]:
        """(authority, timestamp version, SHA-256 of the timestamp) of every accepted catalogue."""
        return self._announcements

    def wants(self, authority: Division, version: int, sha256: str) -> bool:
        """Whether an announced timestamp should be fetched and stored."""
        known = self._authorities.get(authority)
        return known is not None and authority in self._followed and known.wants(version, sha256)

    def refresh(self, *, is_tolerant: bool = False) -> Refresh:
        """Look at everything in the spool, verify what is new, and work out the view.

        Whatever others sent, this doesn't raise: it is refused, and the last verified catalogue stays.

        Args:
            is_tolerant: Judge by the tolerant profile this time, whatever the node's own: what comes by post was weeks
                on its way.

        Raises:
            TrustError: `trust.no-anchor`: the node was never enrolled.
            sqlite3.Error: the database can't be read.
        """
        enrolled = self._floors.enrolled
        if enrolled is None:
            raise TrustError(
                "trust.no-anchor",
                N_("This node has no national root: enrol it with “cuntong node enrol PACK”."),
                fault=Fault.CONFIG,
            )
        round_ = Round(enrolled, self._clock(), self.profile == "strict" and not is_tolerant)
        chain = [*reversed(self.code.ancestors), self.code]
        for code in chain:
            self._follow(code, round_)
        own = round_.followed.get(self.code)
        if own is not None:
            children = sorted(own.contents.endorsements, key=lambda code: (code.tier, code))
            for code in children[:MAX_CHILDREN]:
                self._follow(code, round_)
        return self._conclude(round_, chain)

    # -- Following -------------------------------------------------------------------------------

    def _follow(self, code: Division, round_: Round) -> None:
        """Find who endorses `code`, update it, and add it to the round (SPEC 4.4, 4.5)."""
        authority = self._authorities.get(code)
        if authority is None:
            authority = self._authorities[code] = Authority(code, self.spool, self._floors)
        endorsed_by: Division | None = None
        endorsement: Endorsement | None = None
        frozen: Sentence | None = None
        if code != NATION:
            found = find_endorsement(code, round_.endorsements)
            if found is None:
                if authority.accepted is not None and self._is_complete(round_):
                    round_.problems.append(not_endorsed(code))
                return
            endorsed_by, endorsement = found
            frozen = self._admit(authority, endorsed_by, endorsement, round_)
        above = round_.time_above(code)
        strict_clock = round_.clock if round_.is_strict else None
        if frozen is None:
            authority.update(round_.enrolled, above, strict_clock)
            round_.metadata.extend(authority.waiting)
            frozen = authority.problem
        else:
            round_.frozen.add(code)
        round_.followed[code] = authority
        round_.endorsed[code] = (endorsed_by, endorsement)
        round_.endorsements[code] = authority.contents.endorsements
        if authority.proven_time is not None:
            round_.proven[code] = authority.proven_time
        if frozen is not None:
            round_.refusals[code] = frozen
            round_.problems.append(frozen)

    def _admit(
        self, authority: Authority, by: Division, endorsement: Endorsement, round_: Round
    ) -> Sentence | None:
        """Apply an endorsement. Returns why nothing new may be taken from the authority, or None."""
        code = authority.code
        now = round_.time_above(code)
        if round_.is_strict:
            now = max(now, round_.clock)
        if by in round_.frozen:
            return TrustError(
                "trust.endorser-ended",
                N_(
                    "{code} is endorsed by {by}, whose own endorsement doesn't hold: nothing new from it is accepted."
                ),
                code=code,
                by=by,
            ).sentence
        try:
            check_endorsement_time(endorsement, now)
            anchor = endorsement.root.sha256
            floor = authority.floor
            if floor is None:
                authority.begin_epoch(endorsement.epoch, anchor, round_.enrolled)
            else:
                step = judge_epoch(code, floor.epoch, floor.anchor, endorsement)
                if step is Step.AFRESH:
                    authority.begin_epoch(endorsement.epoch, anchor, round_.enrolled)
                elif step is Step.RAISE:
                    authority.raise_epoch(endorsement.epoch)
        except TrustError as error:
            return error.sentence
        if authority.floor is not None and authority.floor.documents is None:
            root = self.spool.read_blob(anchor)
            if root is None:
                round_.need(endorsement.root)
                if not self.spool.has_spooled(code, "timestamp.json"):
                    round_.metadata.append(Missing(timestamp_path(code), MAX_TIMESTAMP_BYTES))
            else:
                authority.start(root)
        return None

    # -- Concluding ------------------------------------------------------------------------------

    def _conclude(self, round_: Round, chain: list[Division]) -> Refresh:
        nation_time = round_.proven.get(NATION, round_.enrolled)
        is_trusted = is_clock_trusted(round_.clock, nation_time) or (
            self._confirmed is not None and is_clock_trusted(round_.clock, self._confirmed)
        )
        time = max(round_.clock, nation_time) if is_trusted else nation_time
        if self.profile == "strict" and not is_trusted:
            round_.problems.insert(0, wrong_clock(round_.clock, nation_time))
        members = {}
        for code, authority in round_.followed.items():
            missing, problem = authority.read_members()
            members[code] = authority.members.members
            if missing is not None:
                round_.blobs.setdefault(missing.path, missing)
            if problem is not None:
                round_.problems.append(problem)
            if authority.accepted is not None:
                round_.problems.extend(authority.accepted.problems)
        certificates = self._certificates(round_, chain)
        states = {
            code: state_of(authority, round_, time) for code, authority in round_.followed.items()
        }
        fingerprint = (
            states,
            {
                code: (authority.accepted.timestamp_sha256, authority.accepted.damaged)
                for code, authority in round_.followed.items()
                if authority.accepted is not None
            },
            {code: authority.members.sha256 for code, authority in round_.followed.items()},
            certificates,
            is_trusted,
            len(equivocations := self._floors.equivocations()),
        )
        changed = fingerprint != self._fingerprint
        if changed:
            view = self._build(round_, chain)
            self._view = dataclasses.replace(
                view,
                authorities=states,
                members=members,
                ca_certificates=certificates,
                is_clock_trusted=is_trusted,
                is_complete=self._is_complete(round_),
                equivocations=equivocations,
            )
            self._fingerprint = fingerprint
            self._announcements = tuple(
                (code, authority.accepted.version, authority.accepted.timestamp_sha256)
                for code, authority in round_.followed.items()
                if authority.accepted is not None
            )
            self._followed = states
        self._view = dataclasses.replace(self._view, proven_time=nation_time, time=time)
        for found in equivocations:
            round_.problems.append(
                TrustError(
                    "trust.equivocation",
                    N_(
                        "{authority} has signed two different catalogues as version {version}: its online key may be stolen, or it shows different things to different nodes."
                    ),
                    authority=found.code,
                    version=found.version,
                ).sentence
            )
        problems = dict.fromkeys(
            UniqueSentence(one) for one in (*round_.problems, *self._merge_problems)
        )
        return Refresh(
            self._view,
            (*round_.metadata, *round_.blobs.values(), *self._lacking_descriptors()),
            changed,
            tuple(problem.sentence for problem in problems)[:MAX_PROBLEMS],
        )

    def _is_complete(self, round_: Round) -> bool:
        return not any(
            authority.accepted is not None and authority.accepted.damaged
            for authority in round_.followed.values()
        )

    def _certificates(self, round_: Round, chain: list[Division]) -> dict[Division, bytes]:
        """CA certificates of the places above, this one and those below; of other subtrees none is needed."""
        wanted: dict[Division, BlobRef] = {}
        for authority in round_.followed.values():
            wanted |= {
                code: blob
                for code, blob in authority.contents.certificates.items()
                if code in chain or code.is_below(self.code)
            }
        found: dict[Division, bytes] = {}
        for code, blob in wanted.items():
            data = self.spool.read_blob(blob.sha256)
            if data is None:
                round_.need(blob)
            else:
                found[code] = data
        return found

    def _build(self, round_: Round, chain: list[Division]) -> View:
        """Merge what the authorities say (SPEC 4.8)."""
        withdrawn = merge_tombstones(
            authority.contents.tombstones for authority in round_.followed.values()
        )
        above = [code for code in round_.followed if code in chain]
        below = [code for code in round_.followed if code not in chain]
        listings, problems = merge_listings(sources_of(round_, above), withdrawn)
        offered, more_problems = merge_listings(sources_of(round_, below), withdrawn)
        candidates = {
            id_: listing
            for id_, listing in offered.items()
            if id_ not in listings or listings[id_].sha256 != listing.sha256
        }
        self._merge_problems = (*problems, *more_problems)[:MAX_PROBLEMS]
        newest_first = sorted(
            listings.values(), key=lambda listing: listing.id[13:19], reverse=True
        )
        self._descriptors = {
            listing.sha256: listing.length for listing in (*newest_first, *candidates.values())
        }
        return View(listings=listings, withdrawn=withdrawn, candidates=candidates)

    def _lacking_descriptors(self) -> Iterable[Missing]:
        if not self._descriptors:
            return []
        lacking = set(self._descriptors)
        for name in self.spool.blob_names():
            lacking.discard(name)
        return [
            Missing(blob_path(sha256), length)
            for sha256, length in self._descriptors.items()
            if sha256 in lacking
        ]
