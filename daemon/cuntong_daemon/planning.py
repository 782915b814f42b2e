"""What this node should have: the policies of selection, put to the catalogue (DESIGN 5).

A plan is a pure consequence of what is listed, ordered, demanded from below and held; the replicator
makes it true.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from cuntong_protocol.bundle.descriptor import Descriptor
from cuntong_protocol.bundle.torrent import torrent_size_limit
from cuntong_protocol.divisions import Division
from cuntong_protocol.link.messages import MAX_OBJECT_BYTES
from cuntong_protocol.texts import Sentence

from .catalogue import Catalogue, Entry
from .config import Config
from .policy.selection import Candidate, NodeProfile, judge, select

USUAL_PRIORITY = 5


@dataclass(slots=True)
class Want:
    """A decision to have a bundle, with what is needed to bring it.

    Attributes:
        size: Of the payload, in bytes.
        torrent_limit: The most that its torrent can have, in bytes.
        is_restricted: Its licence is; so its torrent must be closed.
        priority: The publisher's, 0 to 9.
        deadline: The day by which it should be here.
        order: Place in the queue.
    """

    id: str
    revision: int
    infohash: bytes
    title: str
    size: int
    torrent_limit: int
    is_restricted: bool
    reason: Sentence
    priority: int = USUAL_PRIORITY
    deadline: date | None = None
    order: int = -1


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be, by bundle id.

    Attributes:
        wants: To have, in order.
        refusals: What is held or would be liked, and why it isn't wanted (any more).
        licence_until: Of what is listed and held.
        short_bytes: Room that the first one without room lacks.
        closed: Infohashes of everything listed that has a restricted licence.
    """

    wants: dict[str, Want] = field(default_factory=dict)
    refusals: dict[str, Sentence] = field(default_factory=dict)
    licence_until: dict[str, date] = field(default_factory=dict)
    short_bytes: int = 0
    closed: frozenset[bytes] = frozenset()


class Planner:
    """Makes plans. Its methods that read the catalogue block; they run in the database's thread."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        self._config = config
        self._catalogue = catalogue
        self._profile = NodeProfile(
            code=config.division,
            categories=tuple(config.subscriptions.categories),
            languages=tuple(config.subscriptions.languages),
            groups=tuple(config.subscriptions.groups),
            publishers=tuple(config.subscriptions.publishers),
        )
        self._latest = Plan()
        self._basis: object = None
        self._news = 0

    def forget(self) -> None:
        """The catalogue has changed, or there is more room: the next plan is made anew."""
        self._news += 1

    def judge(self, identifier: str, today: date) -> Sentence:
        """Why a listed bundle is liked here or not. Blocks.

        Raises:
            CatalogueError: `catalogue.unknown-bundle`.
        """
        candidate = self._candidate(self._catalogue.demand(identifier), {}, (), ())
        return judge(candidate, self._profile, is_ordered=False, today=today)[1]

    def plan(
        self,
        *,
        demanded: frozenset[str],
        held: Mapping[str, bytes],
        begun: Collection[str],
        in_place: Collection[bytes],
        today: date,
    ) -> Plan:
        """Decide about everything. Blocks.

        What was wanted and has come by now changes nothing: its room was taken already. So the whole
        catalogue is only read when something else has changed.

        Args:
            demanded: Bundles that places below need.
            held: Infohash of what is here and whole, by bundle id.
            begun: Bundles that are being brought.
            in_place: Infohashes of what lies on media and takes no room.
        """
        orders = self._catalogue.orders()
        basis = (self._news, orders, demanded, today)
        if basis == self._basis:
            return self._latest
        details: dict[str, Want] = {}
        licences: dict[str, date] = {}
        closed: set[bytes] = set()

        def candidates() -> Iterator[Candidate]:
            for entry in self._catalogue.bundles():
                candidate = self._candidate(entry, held, begun, in_place)
                if candidate.licence.kind == "restricted":
                    closed.add(entry.descriptor.infohash)
                is_liked, reason = judge(
                    candidate,
                    self._profile,
                    is_ordered=entry.id in orders,
                    is_needed_below=entry.id in demanded,
                    today=today,
                )
                if not is_liked and not candidate.is_held:
                    continue  # Nothing of it is kept: most of 10,000 bundles may be meant for others.
                if candidate.licence.until is not None:
                    licences[entry.id] = candidate.licence.until
                details[entry.id] = _want(entry.descriptor, reason, candidate.deadline)
                yield candidate

        decisions = select(
            candidates(),
            self._profile,
            orders,
            needed_below=demanded,
            quota_bytes=self._config.store.quota_bytes,
            today=today,
        )
        wants: dict[str, Want] = {}
        refusals: dict[str, Sentence] = {}
        short = 0
        for decision in decisions:
            want = details[decision.id]
            want.reason, want.order = decision.reason, decision.order
            if decision.wanted:
                wants[decision.id] = want
            else:
                refusals[decision.id] = decision.reason
                if decision.reason.code == "selection.no-room" and not short:
                    short = want.size
        self._basis = basis
        self._latest = Plan(wants, refusals, licences, short, frozenset(closed))
        return self._latest

    def _candidate(
        self,
        entry: Entry,
        held: Mapping[str, bytes],
        begun: Collection[str],
        in_place: Collection[bytes],
    ) -> Candidate:
        descriptor = entry.descriptor
        metadata = descriptor.metadata
        is_here = held.get(entry.id) == descriptor.infohash
        return Candidate(
            id=entry.id,
            publisher=descriptor.bundle_id.code,
            category=metadata.category,
            languages=tuple(metadata.languages),
            audience=metadata.audience,
            licence=metadata.licence,
            priority=metadata.priority,
            size_bytes=0 if descriptor.infohash in in_place else descriptor.payload_size,
            remaining_bytes=0 if is_here else descriptor.payload_size,
            deadline=deadline_of(descriptor, self._config.division),
            is_held=entry.id in held or entry.id in begun,
        )


def deadline_of(descriptor: Descriptor, place: Division) -> date | None:
    """The day by which a place of this tier should have the bundle, by its release."""
    release = descriptor.metadata.release
    if release is None:
        return None
    return next((day for tier, day in release.deadlines.items() if tier == place.tier.label), None)


def end_of_day(day: date) -> datetime:
    """The end of a day, UTC."""
    return datetime.combine(day + timedelta(days=1), time.min, UTC)


def _want(descriptor: Descriptor, reason: Sentence, deadline: date | None) -> Want:
    limit = torrent_size_limit(
        descriptor.payload_size,
        descriptor.piece_length,
        descriptor.file_count,
        hybrid=descriptor.metadata.build.hybrid,
    )
    return Want(
        descriptor.id,
        descriptor.revision,
        descriptor.infohash,
        descriptor.metadata.title,
        descriptor.payload_size,
        min(limit, MAX_OBJECT_BYTES),
        descriptor.metadata.licence.kind == "restricted",
        reason,
        descriptor.metadata.priority,
        deadline,
    )
