"""What volumes bring gets in: catalogues to the verifier, content to the replicator (SPEC 12.4, 12.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from cuntong_daemon.catalogue import Catalogue, Database
from cuntong_daemon.control.media_messages import (
    ImportedBundle,
    ImportedCatalogue,
    ImportedVolume,
    ImportState,
    ImportStep,
)
from cuntong_daemon.logs import get_logger
from cuntong_daemon.metadata import MetadataKeeper
from cuntong_daemon.neighbours import Neighbours
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.replicator import Item, Replicator, told
from cuntong_daemon.store.pieces import PieceSet, bytes_of
from cuntong_daemon.store.store import Store
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_daemon.torrents import fetch_torrent
from cuntong_daemon.trust.view import View
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.link.messages import Announcement
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import CATALOGUE_FOLDER, STORE_FOLDER, VOLUME_FILE, again
from cuntong_protocol.media.papers import MAX_VOLUME_PAPER_BYTES, Volume, decode_volume
from cuntong_protocol.texts import N_, Sentence, sentence
from cuntong_protocol.trust.rules import Listing

from .content import Gained, VolumeContent
from .medium_source import (
    BothCopies,
    MediumSource,
    find_torrent,
    payload_names,
    read_torrent,
    torrent_names,
)
from .offers import Offers
from .receipts import Identity, check_exporter, signs_itself
from .records import MediaRecords
from .volume import VolumeFolder, gone, shown

log = get_logger("media")

_COPIES = (CATALOGUE_FOLDER, again(CATALOGUE_FOLDER))

Report = Callable[[ImportStep], None]


class ViewHolder(Protocol):
    """Who knows the verified view."""

    @property
    def view(self) -> View: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What an import needs of the node."""

    paths: DataPaths
    identity: Identity
    network: bytes
    holder: ViewHolder
    database: Database
    records: MediaRecords
    keeper: MetadataKeeper
    neighbours: Neighbours
    replicator: Replicator
    store: Store
    engine: SwarmEngine
    offers: Offers
    catalogue: Catalogue

    async def orders(self) -> tuple[str, ...]:
        """Bundles that were ordered here."""
        return tuple(await self.database.call(self.catalogue.orders))

    def titles(self, identifiers: list[str]) -> dict[str, str]:
        """Titles of bundles. Blocks; runs in the database's thread."""
        found = {identifier: self.catalogue.summary(identifier) for identifier in identifiers}
        return {identifier: it.title for identifier, it in found.items() if it is not None}


@dataclass(slots=True)
class VolumeResult:
    """What became of one volume."""

    volume: ImportedVolume
    paper: Volume | None = None
    catalogues: list[ImportedCatalogue] = field(default_factory=list)
    bundles: list[ImportedBundle] = field(default_factory=list)
    problems: list[Sentence] = field(default_factory=list)
    bytes_read: int = 0
    bytes_bad: int = 0
    is_gone: bool = False

    @property
    def bytes_taken(self) -> int:
        return sum(bundle.bytes_taken for bundle in self.bundles)


@dataclass(slots=True)
class _Work:
    """A payload on the volume that somebody here wants."""

    item: Item
    torrent: Torrent
    gained: Gained
    have: PieceSet
    reason: Sentence | None = None
    is_in_place: bool = False


class VolumeImport:
    """One volume being imported."""

    def __init__(
        self, services: Services, folder: VolumeFolder, report: Report, *, in_place: bool
    ) -> None:
        self._services = services
        self._volume = folder
        self._content = VolumeContent(folder)
        self._report = report
        self._in_place = in_place
        self._result = VolumeResult(ImportedVolume(folder=shown(folder.path)))
        self._step = ImportStep(phase="looking", folder=shown(folder.path))

    async def run(self) -> VolumeResult:
        """Take what it brings; what can't be used is told in the result."""
        await trio.to_thread.run_sync(self._read_paper)
        if self._result.volume.is_refused:
            return self._result
        await self._take_catalogues()
        await self._services.replicator.settle()
        infohashes = await trio.to_thread.run_sync(
            lambda: sorted({*torrent_names(self._volume), *payload_names(self._volume)})
        )
        await self._take_payloads(infohashes)
        result = self._result
        result.bytes_read = self._content.bytes_read
        result.is_gone = self._content.is_gone or await trio.to_thread.run_sync(self._is_gone)
        if result.is_gone:
            # First, as a long list is cut off at its end.
            result.problems.insert(0, gone(self._volume.path).sentence)
        return result

    def _is_gone(self) -> bool:
        """Whether the medium was pulled out while something other than content was read: that looks like damage."""
        try:
            self._volume.check()
        except MediaError:
            return True
        return False

    # What it says of itself.

    def _read_paper(self) -> None:
        folder = shown(self._volume.path)
        problem: MediaError | None = None
        for place in (VOLUME_FILE, again(VOLUME_FILE)):
            data = self._volume.read(place, MAX_VOLUME_PAPER_BYTES + 65_536)
            try:
                paper, signed = decode_volume(data or b"")
                if paper.network != self._services.network and signs_itself(signed):
                    self._result.volume = ImportedVolume(
                        folder=folder,
                        is_refused=True,
                        problem=sentence(
                            "media.other-network",
                            N_("This volume belongs to another network: nothing is taken from it."),
                        ),
                    )
                    return
                check_exporter(paper, signed, self._services.identity.anchor)
            except MediaError as error:
                problem = problem or error
                continue
            self._result.paper = paper
            self._result.volume = ImportedVolume(
                folder=folder,
                serial=paper.serial,
                number=paper.number,
                count=paper.count,
                by=paper.by,
                made_at=paper.made_at,
                places=list(paper.places),
            )
            self._step = ImportStep(
                phase="looking", folder=folder, number=paper.number, count=paper.count
            )
            self._report(self._step)
            return
        self._result.volume = ImportedVolume(
            folder=folder, problem=problem.sentence if problem is not None else None
        )

    # Catalogues.

    async def _take_catalogues(self) -> None:
        services = self._services
        self._tell("catalogue")
        before = _versions(services.holder.view)
        found: dict[Division, Announcement] = {}
        damaged: set[Division] | None = None
        for folder in _COPIES:
            source = MediumSource(self._volume, folder)
            await trio.to_thread.run_sync(source.look)
            fresh = {
                authority: announced
                for authority, announced in source.announcements.items()
                if found.get(authority) != announced
            }
            if fresh or damaged:
                await services.keeper.take_from(source, list(fresh.values()))
            damaged = source.damaged if damaged is None else damaged & source.damaged
            for authority, announced in fresh.items():
                known = found.get(authority)
                here = _versions(services.holder.view).get(authority, 0)
                if known is None or announced.version <= here:
                    found[authority] = announced
        after = _versions(services.holder.view)
        if any(
            announced.version > after.get(authority, announced.version)
            for authority, announced in found.items()
        ):
            # Neither copy was enough by itself.
            copies = [MediumSource(self._volume, folder) for folder in _COPIES]
            for copy in copies:
                await trio.to_thread.run_sync(copy.look)
            for announcing, other in (copies, reversed(copies)):
                entries = list(announcing.announcements.values())
                await services.keeper.take_from(BothCopies(announcing, other), entries)
        view = services.holder.view
        after = _versions(view)
        for authority, announced in sorted(found.items()):
            here = after.get(authority, 0)
            state = view.authorities.get(authority)
            problem = None
            if authority not in view.authorities:
                became = "foreign"
            elif announced.version < before.get(authority, 0):
                became = "older"
            elif here >= announced.version:
                became = "known" if before.get(authority, 0) == here else "taken"
            else:
                became, problem = "refused", state.problem if state is not None else None
            self._result.catalogues.append(
                ImportedCatalogue(
                    authority=authority,
                    version=announced.version,
                    version_here=here,
                    state=became,  # type: ignore[arg-type]
                    problem=problem,
                )
            )
        self._result.problems += [
            sentence(
                "media.damaged-catalogue",
                N_(
                    "The catalogue of {authority} on this volume is damaged; what can be read of it counts."
                ),
                authority=authority,
            )
            for authority in sorted(damaged or ())
        ]

    # Payloads.

    async def _take_payloads(self, infohashes: list[bytes]) -> None:
        replicator, view = self._services.replicator, self._services.holder.view
        listed = {bytes.fromhex(it.infohash): it for it in view.listings.values()}
        offered = {bytes.fromhex(it.infohash): it for it in view.candidates.values()}
        items = {item.infohash: item for item in replicator.items.values()}
        wanted = sorted(
            (items[it] for it in infohashes if it in items), key=lambda item: item.want.order
        )
        async with trio.open_nursery() as nursery:
            # What is complete is read back and shown while the next one comes.
            turn = trio.CapacityLimiter(1)
            works: list[_Work] = []
            for item in wanted:
                work = await self._take(item)
                if work is not None:
                    works.append(work)
                    nursery.start_soon(self._conclude, work, turn)
        await self._take_misplaced(works)
        self._tell("checking")
        self._result.bundles += [self._outcome(work) for work in works]
        for infohash in infohashes:
            if infohash in items:
                continue
            listing = listed.get(infohash)
            if listing is not None:
                self._result.bundles.append(self._not_brought(listing, infohash))
            elif infohash in offered:
                self._result.bundles.append(await self._keep_offer(offered[infohash], infohash))
            else:
                self._result.bundles.append(
                    ImportedBundle(infohash=infohash.hex(), state="unknown")
                )

    async def _take(self, item: Item) -> _Work | None:
        """What lies where it should."""
        services, volume = self._services, self._volume
        torrent = await trio.to_thread.run_sync(read_torrent, volume, item.infohash)
        if torrent is None:
            torrent = await self._other_torrent(item)
        if torrent is None or torrent.payload_size != item.want.size:
            self._result.bundles.append(
                _bundle(
                    item,
                    "partial",
                    bytes_missing=item.want.size,
                    reason=sentence(
                        "media.no-torrent",
                        N_(
                            "Its torrent on this volume is damaged, and no neighbour has it. It comes another way, or from this volume when that is imported again later."
                        ),
                    ),
                )
            )
            return None
        nothing = PieceSet(torrent.piece_count)
        work = _Work(item, torrent, Gained(nothing), nothing)
        self._tell("reading", item, 0)
        try:
            if self._in_place:
                place = volume.path / STORE_FOLDER / item.infohash.hex()
                work.is_in_place = await services.replicator.hold_in_place(item.id, torrent, place)
            if not work.is_in_place:
                await self._supply(work, self._content.take)
        except (OSError, CuntongError) as error:
            work.reason = told(error)
        return work

    async def _supply(self, work: _Work, take: Callable[..., Gained]) -> None:
        have = await self._services.replicator.supply(
            work.item.id, work.torrent, partial(self._fill, work, take)
        )
        work.have = have or work.have

    async def _other_torrent(self, item: Item) -> Torrent | None:
        with suppress(CuntongError):
            return await trio.to_thread.run_sync(self._services.store.torrent, item.infohash)
        moved = await trio.to_thread.run_sync(find_torrent, self._volume, item.infohash)
        return moved or await fetch_torrent(
            self._services.neighbours.sessions(),
            item.infohash,
            size=item.want.size,
            limit=item.want.torrent_limit,
        )

    def _fill(
        self,
        work: _Work,
        take: Callable[..., Gained],
        torrent: Torrent,
        folder: Path,
        have: PieceSet,
    ) -> PieceSet:
        """In a worker thread: let a payload's files take what the volume has."""
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            self._tell("reading", work.item, done)

        gained = take(torrent, folder, have, report, trio.from_thread.check_cancelled)
        work.gained.pieces |= gained.pieces
        work.gained.bytes_taken += gained.bytes_taken
        work.gained.bytes_wrong += gained.bytes_wrong
        return gained.pieces

    async def _conclude(self, work: _Work, turn: trio.CapacityLimiter) -> None:
        async with turn:
            if not work.have.is_full:
                return
            try:
                await self._services.replicator.conclude(work.item.id)
            except (OSError, CuntongError) as error:
                work.reason = told(error)

    async def _take_misplaced(self, works: list[_Work]) -> None:
        """What lies anywhere else, for payloads that aren't whole."""
        lacking = [
            work
            for work in works
            if not (work.have.is_full or work.is_in_place) and work.reason is None
        ]
        if not lacking or self._content.is_gone:
            return
        wanted = [(work.torrent, work.have.missing()) for work in lacking]
        found = await trio.to_thread.run_sync(
            lambda: self._content.search(wanted, trio.from_thread.check_cancelled)
        )
        if not found:
            return
        for work in lacking:
            try:
                await self._supply(work, self._content.take_misplaced)
                if work.have.is_full:
                    await self._services.replicator.conclude(work.item.id)
            except (OSError, CuntongError) as error:
                work.reason = told(error)

    def _outcome(self, work: _Work) -> ImportedBundle:
        item, rows = work.item, self._services.replicator.rows
        row = rows.get(item.id)
        is_held = row is not None and row.infohash == item.infohash
        missing = 0 if is_held else bytes_of(work.torrent, work.have.missing())
        state: ImportState = "complete" if is_held else "partial"
        if item.state == "refused":
            state = "refused"
        self._result.bytes_bad += max(0, work.gained.bytes_wrong)
        return _bundle(
            item,
            state,
            bytes_taken=work.gained.bytes_taken,
            bytes_missing=missing,
            is_in_place=work.is_in_place,
            reason=work.reason or (None if is_held else item.problem),
        )

    def _not_brought(self, listing: Listing, infohash: bytes) -> ImportedBundle:
        """It is listed, and isn't being brought: it is here, or nobody wants it."""
        replicator = self._services.replicator
        row = replicator.rows.get(listing.id)
        if row is not None and row.infohash == infohash:
            state: ImportState = "here"
            reason = None
        elif replicator.problem is not None:
            # What should be here couldn't be compared with what is, for a full or broken disk.
            state, reason = "partial", replicator.problem
        else:
            state = "unwanted"
            reason = replicator.plan.refusals.get(listing.id) or sentence(
                "media.unwanted",
                N_(
                    "This place hasn't chosen it. To have it: cuntong order {id}, then import again."
                ),
                id=listing.id,
            )
        return ImportedBundle(
            id=listing.id,
            revision=listing.revision,
            infohash=infohash.hex(),
            state=state,
            bytes_total=listing.payload_size,
            bytes_missing=listing.payload_size if state == "partial" else 0,
            reason=reason,
        )

    async def _keep_offer(self, listing: Listing, infohash: bytes) -> ImportedBundle:
        """What may be listed for this place one day waits for it."""
        taken, missing, reason = await self._services.offers.take(
            listing,
            infohash,
            self._volume,
            self._content,
            lambda done: self._tell_offer(listing, done),
        )
        return ImportedBundle(
            id=listing.id,
            revision=listing.revision,
            infohash=infohash.hex(),
            state="offered" if not missing else "partial",
            bytes_total=listing.payload_size,
            bytes_taken=taken,
            bytes_missing=missing,
            reason=reason,
        )

    # Telling.

    def _tell(self, phase: str, item: Item | None = None, done: int = 0) -> None:
        step = self._step
        self._report(
            ImportStep(
                phase=phase,  # type: ignore[arg-type]
                folder=step.folder,
                number=step.number,
                count=step.count,
                id=item.id if item is not None else "",
                title=item.want.title if item is not None else "",
                bytes_done=done,
                bytes_total=item.want.size if item is not None else 0,
            )
        )

    def _tell_offer(self, listing: Listing, done: int) -> None:
        step = self._step
        self._report(
            ImportStep(
                phase="reading",
                folder=step.folder,
                number=step.number,
                count=step.count,
                id=listing.id,
                bytes_done=done,
                bytes_total=listing.payload_size,
            )
        )


def _bundle(
    item: Item,
    state: ImportState,
    *,
    bytes_taken: int = 0,
    bytes_missing: int = 0,
    is_in_place: bool = False,
    reason: Sentence | None = None,
) -> ImportedBundle:
    return ImportedBundle(
        id=item.id,
        title=item.want.title,
        revision=item.want.revision,
        infohash=item.infohash.hex(),
        state=state,
        bytes_total=item.want.size,
        bytes_taken=bytes_taken,
        bytes_missing=bytes_missing,
        is_in_place=is_in_place,
        reason=reason,
    )


def _versions(view: View) -> Mapping[str, int]:
    return {code: state.versions.get("timestamp", 0) for code, state in view.authorities.items()}
