"""The methods of the local socket (SPEC 8): what `cuntong` asks a running daemon."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_, Sentence, sentence
from cuntong_protocol.trust.custom import Listed

from . import __version__
from .catalogue import Event
from .control.bandwidth_methods import bandwidth_methods, bandwidth_status
from .control.catalogue_methods import catalogue_methods
from .control.datacast_methods import (
    Datacast,
    Held,
    datacast_methods,
    datacast_problems,
    datacast_status,
)
from .control.media_methods import media_methods, media_streams
from .control.messages import (
    AuthorityStatus,
    BundleStatus,
    ChildStatus,
    DatacastStatus,
    Happening,
    NodeStatus,
    ParentStatus,
    Status,
    StoreStatus,
    SwarmStatus,
    VerifyStep,
    Why,
)
from .control.server import Handler, Stream
from .planning import deadline_of, end_of_day
from .replicator import Item
from .store.errors import StoreError
from .store.store import Usage
from .swarm.events import TorrentStatus

if TYPE_CHECKING:
    from .app import Node

MAX_HAPPENINGS = 5
"""Repairs and notices in a status; `cuntong events` has them all."""
REMIND_BEFORE = timedelta(days=60)
"""Of the end of this node's certificate: time to send a new pack by post."""
STEP_S = 0.2
"""Between two items of a running verification."""


class ApiError(CuntongError):
    """A request that can't be answered."""

    fault = Fault.USAGE


class _Id(msgspec.Struct, forbid_unknown_fields=True):
    id: str


class _Verify(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None


class Api:
    """Handlers for `ControlServer`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._catalogue = catalogue_methods(
            node.catalogue,
            node.database,
            now=node.clock.now,
            working=lambda: {item.id: item.state for item in node.replicator.items.values()},
            on_order=self._on_order,
        )
        self._bandwidth = bandwidth_methods(
            node.bandwidth, now=node.clock.now, record=partial(node.record, "bandwidth")
        )
        self._datacast = Datacast(
            cast=node.config.cast,
            dish=node.config.dish,
            sender=node.sender,
            receiver=node.receiver,
            held=self._held,
            catalogue_version=self._catalogue_version,
        )
        self._datacast_methods = datacast_methods(self._datacast, node.catalogue, node.database)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        return {
            **self._catalogue,
            **self._bandwidth,
            **self._datacast_methods,
            **media_methods(self._node.media),
            "status": self._status,
            "why": self._why,
            "order": self._order,
            "authority.changed": self._authority_changed,
            "review.candidates": self._candidates,
            "traffic": self._traffic,
        }

    @property
    def streams(self) -> Mapping[str, Stream]:
        return {"verify": self._verify, **media_streams(self._node.media, self._node.start)}

    # Status.

    async def _status(self, params: dict[str, Any]) -> Status:
        node = self._node
        totals = node.engine.totals
        problems = self.problems()
        try:
            usage = await trio.to_thread.run_sync(node.store.usage)
        except StoreError as error:  # The store has vanished; the rest may be told all the same.
            usage = Usage(0, 0)
            problems.append(error.sentence)
        repairs = await node.database.call(
            lambda: node.catalogue.events(MAX_HAPPENINGS, kind="repaired")
        )
        notices = await node.database.call(
            lambda: node.catalogue.events(MAX_HAPPENINGS, kind="notice")
        )
        return Status(
            node=NodeStatus(
                code=node.code,
                name=node.config.node.name,
                tier=node.code.tier.label,
                version=__version__,
                uptime_s=int(time.monotonic() - node.started_at),
            ),
            parent=self._parent(),
            authorities=[
                AuthorityStatus(
                    code=state.code,
                    state=state.state,
                    stale_since=_seconds(state.stale_since),
                    signed_at=_seconds(state.signed_at),
                    problem=state.problem,
                )
                for state in node.view.authorities.values()
            ],
            bundles=await node.database.call(self._bundles, self._gathered()),
            children=[
                ChildStatus(
                    code=child.code,
                    connected=True,
                    bundles_done=child.bundles_done,
                )
                for child in node.neighbours.children.values()
            ],
            store=StoreStatus(
                used=usage.used, quota=node.config.store.quota_bytes, free=usage.free
            ),
            swarm=SwarmStatus(
                down_total=totals.down,
                up_total=totals.up,
                down_rate=totals.down_bytes_s,
                up_rate=totals.up_bytes_s,
            ),
            bandwidth=bandwidth_status(node.bandwidth, node.clock.now()),
            repairs=[_happening(event) for event in repairs],
            notices=[_happening(event) for event in notices],
            problems=problems,
            datacast=self._datacast_status(),
        )

    def _datacast_status(self) -> DatacastStatus | None:
        if self._node.receiver is None and self._node.sender is None:
            return None
        # Its problems are among the others.
        return msgspec.structs.replace(datacast_status(self._datacast), problems=[])

    def _held(self, identifier: str, infohash: bytes) -> Held:
        replicator = self._node.replicator
        item, row = replicator.items.get(identifier), replicator.rows.get(identifier)
        if item is not None and item.infohash == infohash:
            return "wanted"
        return "complete" if row is not None and row.infohash == infohash else ""

    def _catalogue_version(self, authority: str) -> int:
        state = self._node.view.authorities.get(Division(authority))
        return 0 if state is None else state.versions.get("timestamp", 0)

    def problems(self) -> list[Sentence]:
        """What is wrong now, for people."""
        node = self._node
        found = list(node.keeper.problems)
        if node.centre.problem is not None:
            found.append(node.centre.problem)
        ends = node.certificate_ends
        if ends is not None and ends - node.clock.now() < REMIND_BEFORE:
            found.append(
                sentence(
                    "app.certificate-ends",
                    N_(
                        "This node's certificate ends on {day}. Ask the authority above to renew it: cuntong node renew {code}"
                    ),
                    day=ends.date().isoformat(),
                    code=node.code,
                )
            )
        error = node.clock.error
        if error is not None:
            found.append(
                sentence(
                    "clock.wrong",
                    N_(
                        "This machine's clock is wrong by {hours} hours; set it. The parent's time is used until then."
                    ),
                    hours=round(error.total_seconds() / 3600),
                )
            )
        parent_error = node.clock.parent_error
        if parent_error is not None:
            found.append(
                sentence(
                    "clock.parent-wrong",
                    N_(
                        "The parent's clock is wrong by {hours} hours; it isn't believed. Tell its administrator."
                    ),
                    hours=round(parent_error.total_seconds() / 3600),
                )
            )
        if node.replicator.problem is not None:
            found.append(node.replicator.problem)
        found += [item.problem for item in node.replicator.items.values() if item.problem]
        found += [
            status.problem
            for infohash, status in node.engine.statuses().items()
            if status.problem is not None
            and not any(item.infohash == infohash for item in node.replicator.items.values())
        ]
        return found + datacast_problems(self._datacast)

    def _parent(self) -> ParentStatus:
        link = self._node.parent_link
        if link is None or not self._node.config.network.parents:
            return ParentStatus()
        status = link.status()
        since = int(time.time() - (trio.current_time() - status.since))
        return ParentStatus(
            code=status.parent.code if status.parent else "",
            address=str(status.parent) if status.parent else "",
            state={"up": "connected", "refused": "refused", "down": "unreachable"}[status.state],  # type: ignore[arg-type]
            since=since,
            fallback=status.is_fallback,
            refusal=status.problem,
        )

    def _gathered(self) -> Mapping[bytes, float]:
        """How far bundles are that come by satellite, 0 to 1: symbols count long before there are pieces."""
        receiver = self._node.receiver
        found = {} if receiver is None else receiver.gathered
        return {infohash: part.progress for infohash, part in found.items()}

    def _bundles(self, gathered: Mapping[bytes, float]) -> list[BundleStatus]:
        """What is brought, in order, then what is held. Blocks; runs in the database's thread."""
        node = self._node
        torrents = node.engine.statuses()
        items = sorted(node.replicator.items.values(), key=lambda item: item.want.order)
        found = [
            self._item_status(item, torrents.get(item.infohash), gathered.get(item.infohash, 0.0))
            for item in items
        ]
        known = {item.id for item in items}
        for row in node.replicator.rows.values():
            if row.id in known:
                continue
            torrent = torrents.get(row.infohash)
            summary = node.catalogue.summary(row.id)
            size = node.replicator.size_of(row.infohash)
            found.append(
                BundleStatus(
                    id=row.id,
                    title=summary.title if summary is not None else "",
                    revision=row.revision,
                    state="complete",
                    progress=1.0,
                    bytes_done=size,
                    bytes_total=size,
                    up_bytes_s=torrent.up_bytes_s if torrent is not None else 0,
                    peers=torrent.peers if torrent is not None else 0,
                    reason=row.reason,
                )
            )
        return found

    def _item_status(
        self, item: Item, torrent: TorrentStatus | None, gathered: float
    ) -> BundleStatus:
        entry = self._node.catalogue.bundle(item.id)
        deadline = deadline_of(entry.descriptor, self._node.code) if entry is not None else None
        return BundleStatus(
            id=item.id,
            title=item.want.title,
            revision=item.want.revision,
            state="paused" if item.state == "refused" else item.state,
            progress=max(torrent.progress if torrent is not None else 0.0, gathered),
            bytes_done=max(
                torrent.bytes_done if torrent is not None else 0, int(gathered * item.want.size)
            ),
            bytes_total=item.want.size,
            down_bytes_s=torrent.down_bytes_s if torrent is not None else 0,
            up_bytes_s=torrent.up_bytes_s if torrent is not None else 0,
            peers=torrent.peers if torrent is not None else 0,
            reason=item.problem or item.want.reason,
            deadline=int(end_of_day(deadline).timestamp()) if deadline is not None else None,
        )

    async def _traffic(self, params: dict[str, Any]) -> dict[str, Any]:
        """Bytes over each link since the start, payload and wire, for reports."""
        totals = await self._node.engine.count()
        return {
            "down": totals.down,
            "up": totals.up,
            "down_wire": totals.down_wire,
            "up_wire": totals.up_wire,
            "down_bytes_s": totals.down_bytes_s,
            "up_bytes_s": totals.up_bytes_s,
            "peers": {
                address: {"down": peer.down, "up": peer.up}
                for address, peer in totals.peers.items()
            },
        }

    # Why.

    async def _why(self, params: dict[str, Any]) -> Why:
        identifier = msgspec.convert(params, _Id).id
        node = self._node
        plan = node.replicator.plan
        summary = await node.database.call(node.catalogue.summary, identifier)
        tombstone = node.view.withdrawn.get(identifier)
        item = node.replicator.items.get(identifier)
        row = node.replicator.rows.get(identifier)
        reasons: list[Sentence] = []
        if tombstone is not None:
            reasons.append(
                sentence(
                    "why.withdrawn",
                    N_("{authority} withdrew it: {reason}"),
                    authority=tombstone.by,
                    reason=tombstone.reason,
                )
            )
        elif summary is None:
            raise ApiError(
                "why.unknown",
                N_("{id} isn't in this node's catalogue. Search it with: cuntong catalogue search"),
                id=identifier,
            )
        if item is not None and item.problem is not None:
            reasons.append(item.problem)
        want = plan.wants.get(identifier)
        if want is not None:
            reasons.append(want.reason)
            if item is not None and item.state == "waiting" and item.problem is None:
                reasons.append(
                    sentence(
                        "why.queue", N_("It is number {place} in the queue."), place=want.order + 1
                    )
                )
            if item is not None and node.receiver is not None:
                source = node.receiver.reason_of(item.infohash)
                if source is not None:
                    reasons.append(source)
        elif identifier in plan.refusals:
            reasons.append(plan.refusals[identifier])
        elif tombstone is None:
            reasons.append(await node.database.call(node.replicator.judge, identifier))
        return Why(
            id=identifier,
            title=summary.title if summary is not None else "",
            wanted=want is not None,
            state=item.state if item is not None else "complete" if row is not None else "",
            reasons=reasons,
        )

    # Steering.

    async def _order(self, params: dict[str, Any]) -> object:
        node = self._node
        tombstone = node.view.withdrawn.get(str(params.get("id")))
        if tombstone is not None and not params.get("cancel"):
            raise ApiError(
                "order.withdrawn",
                N_("{id} was withdrawn by {authority}: {reason}"),
                id=tombstone.id,
                authority=tombstone.by,
                reason=tombstone.reason,
            )
        return await self._catalogue["order"](params)

    async def _on_order(self, identifier: str, is_placed: bool) -> None:
        self._node.replicator.look()
        if is_placed and identifier not in self._node.replicator.rows:
            self._node.start(self._node.pass_orders_on)

    async def _verify(self, params: dict[str, Any]) -> AsyncIterator[VerifyStep]:
        asked = msgspec.convert(params, _Verify)
        node = self._node
        if asked.id is not None and asked.id not in node.replicator.rows:
            raise ApiError("verify.not-held", N_("{id} isn't complete on this node."), id=asked.id)
        chosen = [asked.id] if asked.id is not None else list(node.replicator.rows)
        for identifier in chosen:
            row = node.replicator.rows.get(identifier)
            if row is None or identifier in node.replicator.items:
                continue  # Removed, or being repaired, since we began.
            size = node.replicator.size_of(row.infohash)
            summary = await node.database.call(node.catalogue.summary, identifier)
            title = summary.title if summary is not None else ""
            # It runs beside the request: a client that leaves doesn't stop it half-way.
            check = _Check(node, identifier)
            node.start(check.run)
            while not check.finished.is_set():
                yield VerifyStep(
                    id=identifier,
                    title=title,
                    bytes_done=min(check.bytes_read, size),
                    bytes_total=size,
                )
                with trio.move_on_after(STEP_S):
                    await check.finished.wait()
            if check.failure is not None:
                raise check.failure
            yield VerifyStep(
                id=identifier,
                title=title,
                bytes_done=size,
                bytes_total=size,
                bad_pieces=check.bad,
                is_done=True,
            )

    async def _authority_changed(self, params: dict[str, Any]) -> bool:
        self._node.keeper.look()
        for child in self._node.neighbours.children.values():
            await self._node.centre.deliver_certificate(child.session)
        return True

    async def _candidates(self, params: dict[str, Any]) -> list[Listed]:
        return [
            Listed(
                listing.id,
                listing.sha256,
                listing.length,
                listing.revision,
                listing.payload_size,
                listing.infohash,
            )
            for listing in self._node.view.candidates.values()
        ]


class _Check:
    """One bundle being verified."""

    def __init__(self, node: Node, identifier: str) -> None:
        self._node = node
        self._identifier = identifier
        self.bytes_read = 0
        self.bad = 0
        self.failure: CuntongError | None = None
        self.finished = trio.Event()

    async def run(self) -> None:
        try:
            pieces, files = await self._node.replicator.verify(self._identifier, self._progress)
            self.bad = pieces + files
        except CuntongError as error:
            self.failure = error
        finally:
            self.finished.set()

    def _progress(self, bytes_read: int) -> None:
        self.bytes_read = bytes_read


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.astimezone(UTC).timestamp())


def _happening(event: Event) -> Happening:
    return Happening(at=event.at, kind=event.kind, text=event.sentence)
