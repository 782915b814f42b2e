"""The service for disks and discs by post: one import at a time, media that are mounted, receipts, counting (SPEC 12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec
import trio

from cuntong_daemon.clock import NodeClock
from cuntong_daemon.config import Config
from cuntong_daemon.control.media_messages import (
    ImportedBundle,
    ImportedCatalogue,
    ImportedVolume,
    ImportResult,
    ImportStep,
    InPlace,
    MadeReceipt,
    MediaStatus,
    Offer,
    OfferedBundle,
    PlaceKnown,
    SetSeen,
    TakenReceipt,
)
from cuntong_daemon.files import write_atomically
from cuntong_daemon.logs import get_logger
from cuntong_daemon.policy.selection import NodeProfile
from cuntong_daemon.store.errors import StoreError
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import parse_volume_folder
from cuntong_protocol.media.papers import (
    MAX_ORDERS,
    MAX_PROBLEMS,
    MAX_RECEIPT_BYTES,
    SHORT,
    Receipt,
    Statistics,
    Subscriptions,
    receipt_text,
    shortened,
    sign_receipt,
)
from cuntong_protocol.texts import N_, Sentence, sentence

from .importing import Report, Services, VolumeImport, VolumeResult
from .offering import (
    Destination,
    Wish,
    catalogues_for,
    check_places,
    offered,
    present_at_all,
)
from .receipts import checked_receipt, qr_of
from .records import KnownSet, Place
from .volume import (
    RECEIPT_SUFFIX,
    VolumeFolder,
    find_receipts,
    find_volumes,
    folders_in,
    gone,
    is_volume,
)

log = get_logger("media")

WATCH_INTERVAL_S = 5.0
"""How soon a medium that was put in is noticed, and one that was pulled out."""
COUNT_INTERVAL_S = 600.0
"""What a power cut takes from the statistics."""
MAX_WATCHED_PLACES = 256
MAX_SHOWN_PLACES = 500
MAX_RECEIPT_FILE_BYTES = 2 * MAX_RECEIPT_BYTES
MAX_SHOWN = 1_000
"""Bundles in an answer: those with something to say come first."""

_WEIGHT = ("refused", "taken", "older", "known", "foreign")
_TROUBLE = ("partial", "refused", "unwanted", "unknown", "offered", "complete", "here")


@dataclass(slots=True)
class _Counted:
    """What was counted when it was written down last."""

    values: dict[str, int] = field(default_factory=dict)
    holdings: dict[Division, int] = field(default_factory=dict)


class Media:
    """A service; see the module."""

    def __init__(
        self,
        config: Config,
        services: Services,
        *,
        clock: NodeClock,
        satellite_bytes: Callable[[], int],
        problems: Callable[[], list[Sentence]],
        record: Callable[[str, Sentence], Awaitable[None]],
    ) -> None:
        """Prepare.

        Args:
            satellite_bytes: Content that came by satellite since the start.
            problems: What is wrong now.
            record: Remembers something for the operator.
        """
        self._config = config
        self._services = services
        self._clock = clock
        self._satellite_bytes = satellite_bytes
        self._problems = problems
        self._record = record
        self._turn = trio.Lock()
        self._running: ImportStep | None = None
        self._path: Path | None = None
        self._scope: trio.CancelScope | None = None
        self._known: dict[Path, object] = {}
        self._counted = _Counted()
        self._wake = trio.Event()

    # The service.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        records, database = self._services.records, self._services.database
        await database.call(records.begin_counting, self._now())
        for identifier in await database.call(records.orders):
            self._services.replicator.demand(identifier)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._watch_places)
            nursery.start_soon(self._count_now_and_then)
            nursery.start_soon(self._look_at_offers)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(2.0, shield=True):
                    await self._count()

    def look(self) -> None:
        """What is listed, or what is held, has changed."""
        self._wake.set()

    async def _look_at_offers(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._services.offers.look(self._services.holder.view)
            except (OSError, StoreError) as error:
                log.warning("media.offers", text=str(error))

    # Importing.

    async def import_from(self, path: Path, *, in_place: bool, report: Report) -> ImportResult:
        """Import everything that lies at a path, after whatever is imported now.

        Raises:
            MediaError: `media.no-such-path`, `media.cannot-read`, `media.nothing-found`, `media.own-data`,
                `media.stopped`.
        """
        resolved = await trio.to_thread.run_sync(path.resolve)
        if resolved.is_relative_to(self._services.paths.root.resolve()):
            raise MediaError(
                "media.own-data",
                N_("{path} is the node's own data directory: there is nothing to import."),
                fault=Fault.USAGE,
                path=str(path),
            )

        def tell(step: ImportStep) -> None:
            self._running = step
            report(step)

        if self._turn.locked():
            report(ImportStep(phase="waiting", folder=str(self._path or "")))
        async with self._turn:
            self._path = path
            self._scope = trio.CancelScope()
            try:
                with self._scope:
                    tell(ImportStep(phase="looking", folder=str(path)))
                    return await self._import(path, in_place=in_place, report=tell)
            finally:
                self._path = self._running = self._scope = None
        raise MediaError(
            "media.stopped",
            N_(
                "The import from {path} was stopped. What came so far is kept; repeat the command to go on."
            ),
            fault=Fault.USAGE,
            path=str(path),
        )

    async def eject(self, path: Path) -> int:
        """Stop what is done with a medium, so that it can be unmounted. Returns how much that was."""
        stopped = 0
        if self._path is not None and self._scope is not None and _overlap(self._path, path):
            self._scope.cancel()
            stopped += 1
        stopped += await self._services.replicator.lose_places(path)
        for known in [known for known in self._known if _overlap(known, path)]:
            self._known[known] = _EJECTED
        async with self._turn:
            return stopped

    async def _import(self, path: Path, *, in_place: bool, report: Report) -> ImportResult:
        volumes = await trio.to_thread.run_sync(find_volumes, path)
        receipts = await trio.to_thread.run_sync(find_receipts, path, volumes)
        if not volumes and not receipts:
            raise MediaError(
                "media.nothing-found",
                N_(
                    "There is no volume in {path}. A volume is a folder called “cuntong-…” with a folder “data” in it; give that folder, or the medium it lies on."
                ),
                path=str(path),
            )
        taken = [await self._take_file(file) for file in receipts]
        done: list[VolumeResult] = []
        for place in volumes:
            done.append(await self._import_volume(place, report, in_place=in_place))
            if done[-1].is_gone:
                break
        receipt_file, problem = "", None
        if volumes and not done[-1].is_gone and any(not it.volume.is_refused for it in done):
            receipt_file, problem = await self._leave_receipt(path, volumes)
        return await self._conclude(
            done, [it for it in taken if it is not None], receipt_file, problem
        )

    async def _import_volume(self, place: Path, report: Report, *, in_place: bool) -> VolumeResult:
        folder = VolumeFolder(place)
        try:
            await trio.to_thread.run_sync(folder.__enter__)
        except OSError:
            result = VolumeResult(ImportedVolume(folder=str(place)))
            result.is_gone = True
            result.problems.append(gone(place).sentence)
            return result
        try:
            result = await VolumeImport(self._services, folder, report, in_place=in_place).run()
        finally:
            folder.__exit__(None, None, None)
        records, database = self._services.records, self._services.database
        await database.call(records.count, {"by_medium": result.bytes_taken})
        if result.paper is not None and not result.is_gone:
            paper, now = result.paper, self._now()
            await database.call(lambda: records.imported(paper, now, is_in_place=in_place))
        await self._record(
            "medium",
            sentence(
                "media.imported",
                N_("{folder} was imported: {count} bundles came from it, {bytes} bytes."),
                folder=place.name,
                count=sum(bundle.bytes_taken > 0 for bundle in result.bundles),
                bytes=result.bytes_taken,
            ),
        )
        return result

    async def _conclude(
        self,
        done: list[VolumeResult],
        receipts: list[TakenReceipt],
        receipt_file: str,
        problem: Sentence | None,
    ) -> ImportResult:
        serials = {it.volume.serial for it in done if it.volume.serial}
        sets = await self._services.database.call(self._services.records.sets)
        bundles: dict[str, ImportedBundle] = {}
        for result in done:
            for bundle in result.bundles:
                # A bundle that lies on several volumes: the last word counts, what came adds up.
                before = bundles.get(bundle.infohash)
                bundles[bundle.infohash] = (
                    bundle
                    if before is None
                    else msgspec.structs.replace(
                        bundle,
                        state=before.state if bundle.state == "here" else bundle.state,
                        bytes_taken=before.bytes_taken + bundle.bytes_taken,
                    )
                )
        shown = sorted(bundles.values(), key=lambda it: _TROUBLE.index(it.state))
        nameless = [it.id for it in shown[:MAX_SHOWN] if it.id and not it.title]
        titles = await self._services.database.call(self._services.titles, nameless)
        shown = [
            it if it.title else msgspec.structs.replace(it, title=titles.get(it.id, ""))
            for it in shown
        ]
        return ImportResult(
            volumes=[it.volume for it in done],
            catalogues=_merged([it for result in done for it in result.catalogues])[:MAX_SHOWN],
            bundles=shown[:MAX_SHOWN],
            bundles_total=len(shown),
            receipts=receipts,
            sets=[_set_seen(known) for known in sets if known.serial in serials],
            receipt_file=receipt_file,
            receipt_problem=problem,
            bytes_read=sum(it.bytes_read for it in done),
            bytes_bad=sum(it.bytes_bad for it in done),
            problems=[one for it in done for one in it.problems][:MAX_SHOWN],
        )

    # Receipts.

    async def take_receipt(self, text: str, file: str = "") -> TakenReceipt:
        """Note what a place has, by its receipt.

        Raises:
            MediaError: as `checked_receipt`, and `media.old-receipt`.
            EnrolmentError: `node.removed`.
        """
        services = self._services
        receipt = await trio.to_thread.run_sync(
            lambda: checked_receipt(
                text,
                identity=services.identity,
                network=services.network,
                members=services.holder.view.members,
            )
        )
        for identifier in receipt.orders:
            services.replicator.demand(identifier)
        body = msgspec.msgpack.encode(receipt)
        if not await services.database.call(services.records.take_receipt, receipt, body):
            raise MediaError(
                "media.old-receipt",
                N_(
                    "A receipt of {code} that is as new as this one, or newer, was taken before: nothing has changed."
                ),
                fault=Fault.USAGE,
                code=receipt.code,
            )
        await self._record(
            "medium",
            sentence(
                "media.receipt-taken",
                N_("Receipt {number} of {code} was taken: it has {count} bundles."),
                number=receipt.number,
                code=receipt.code,
                count=len(receipt.holdings),
            ),
        )
        return TakenReceipt(
            code=receipt.code,
            number=receipt.number,
            payloads=len(receipt.holdings),
            is_all=receipt.is_all,
            orders=list(receipt.orders),
            made_at=receipt.made_at,
            file=file,
        )

    async def make_receipt(self) -> MadeReceipt:
        """A new receipt of this place."""
        services = self._services
        await self._count()
        receipt = await self._receipt()
        identity = services.identity
        fresh = [
            row.infohash
            for row in sorted(
                services.replicator.rows.values(), key=lambda row: row.changed_at, reverse=True
            )[:MAX_SHOWN]
        ]

        def sign() -> tuple[str, str]:
            text = receipt_text(sign_receipt(receipt, identity.key, identity.chain_der))
            return text, qr_of(receipt, identity, fresh)

        text, qr = await trio.to_thread.run_sync(sign)
        return MadeReceipt(
            code=receipt.code,
            number=receipt.number,
            file=f"{receipt.code}{RECEIPT_SUFFIX}",
            text=text,
            qr=qr,
        )

    async def _receipt(self) -> Receipt:
        services, config = self._services, self._config
        records, database = services.records, services.database
        number = await database.call(records.next_number)
        counters = await database.call(records.counters)
        sets = await database.call(records.sets)
        rows = services.replicator.rows
        usage = await trio.to_thread.run_sync(services.store.usage)
        orders = [identifier for identifier in await services.orders() if identifier not in rows]
        view = services.holder.view
        quota = config.store.quota_bytes
        free = usage.free if not quota else max(0, min(usage.free, quota - usage.used))
        return Receipt(
            code=str(config.division),
            number=number,
            made_at=self._now(),
            proven_time=max(0, int(view.proven_time.timestamp())),
            network=services.network,
            is_all=True,
            held=shortened({row.infohash for row in rows.values()}),
            orders=tuple(orders[:MAX_ORDERS]),
            catalogues={
                str(code): state.versions.get("timestamp", 0)
                for code, state in view.authorities.items()
            },
            sets={known.serial: known.numbers for known in sets},
            subscriptions=Subscriptions(
                categories=config.subscriptions.categories,
                languages=config.subscriptions.languages,
                publishers=config.subscriptions.publishers,
                groups=config.subscriptions.groups,
            ),
            free=free,
            used=usage.used,
            statistics=self._statistics(counters, len(rows)),
        )

    def _statistics(self, counters: Mapping[str, int], bundles: int) -> Statistics:
        return Statistics(
            since=counters.get("since", 0),
            until=self._now(),
            bundles=bundles,
            by_satellite=counters.get("by_satellite", 0),
            by_swarm=counters.get("by_swarm", 0),
            by_medium=counters.get("by_medium", 0),
            sent=counters.get("sent", 0),
            problems=tuple(dict.fromkeys(it.code for it in self._problems()))[:MAX_PROBLEMS],
        )

    async def _leave_receipt(self, path: Path, volumes: list[Path]) -> tuple[str, Sentence | None]:
        """Put a receipt onto the medium, beside the volumes."""
        top = path if path not in volumes else path.parent
        made = await self.make_receipt()
        file = top / made.file
        try:
            await trio.to_thread.run_sync(write_atomically, file, made.text.encode())
        except OSError as error:
            return "", sentence(
                "media.no-receipt",
                N_("The receipt couldn't be written onto the medium: {reason}."),
                reason=error.strerror or str(error),
            )
        self._known[file.parent] = await trio.to_thread.run_sync(_fingerprint, file.parent)
        return str(file), None

    async def _take_file(self, file: Path) -> TakenReceipt | None:
        """A receipt that lies on a medium; None: it is this place's own, or was taken before."""

        def read() -> str:
            with VolumeFolder(file.parent) as folder:
                data = folder.read(PurePosixPath(file.name), MAX_RECEIPT_FILE_BYTES)
            return (data or b"").decode("utf-8", "replace")

        try:
            text = await trio.to_thread.run_sync(read)
            if file.name == f"{self._config.division}{RECEIPT_SUFFIX}":
                return None
            return await self.take_receipt(text, str(file))
        except OSError as error:
            problem = sentence(
                "media.receipt-unreadable",
                N_("{file} can't be read: {reason}."),
                file=str(file),
                reason=error.strerror or str(error),
            )
        except CuntongError as error:
            if error.code == "media.old-receipt":
                return None
            problem = error.sentence
        return TakenReceipt(file=str(file), problem=problem)

    # Offering.

    async def offer(
        self,
        codes: list[Division],
        bundles: frozenset[str],
        release: str,
        *,
        is_catalogue_only: bool,
    ) -> tuple[list[OfferedBundle], Offer]:
        """What a volume for these places should hold.

        Raises:
            MediaError: as `check_places` and `offered`.
        """
        services, own = self._services, self._config.division
        check_places(own, codes)
        await self._count()
        places = [await self._destination(code) for code in codes]
        wish = Wish(places, bundles, release, is_catalogue_only)
        view = services.holder.view
        now = self._clock.now() if view.is_clock_trusted else view.time
        found = await services.database.call(
            lambda: offered(
                services.catalogue, own, services.replicator.rows, wish, max(now, view.time).date()
            )
        )
        present = await trio.to_thread.run_sync(present_at_all, services.paths, places)
        end = Offer(
            code=own,
            name=self._config.node.name,
            network=services.network.hex(),
            places=[place.known for place in places],
            catalogues=catalogues_for(own, codes, await services.keeper.announcements()),
            present=present,
            had=found.had,
            not_for=found.not_for,
            not_here=found.not_here,
        )
        return found.bundles, end

    async def _destination(self, code: Division) -> Destination:
        services = self._services
        place = await services.database.call(services.records.place, code)
        known = PlaceKnown(code=code) if place is None else place_known(place)
        held = place.held if place is not None else frozenset()
        connected = services.neighbours.held_by(code)
        if connected is not None:
            held = frozenset(infohash[:SHORT] for infohash in connected)
            known = msgspec.structs.replace(
                known, how="link", at=self._now(), payloads=len(held), is_all=True
            )
        said = place.receipt if place is not None else None
        profile = NodeProfile(code)
        if said is not None:
            profile = NodeProfile(
                code,
                tuple(said.subscriptions.categories),
                tuple(said.subscriptions.languages),
                tuple(said.subscriptions.groups),
                tuple(said.subscriptions.publishers),
            )
        orders = frozenset(said.orders) if said is not None else frozenset()
        return Destination(known, held, profile, orders)

    # Counting.

    async def _count_now_and_then(self) -> None:
        while True:
            await trio.sleep(COUNT_INTERVAL_S)
            await self._count()

    async def _count(self) -> None:
        """Write down what has come since the last time, and what the children have."""
        services, counted = self._services, self._counted
        totals = services.engine.totals
        now = {
            "by_swarm": totals.down,
            "sent": totals.up,
            "by_satellite": self._satellite_bytes(),
        }
        more = {name: value - counted.values.get(name, 0) for name, value in now.items()}
        holdings = services.neighbours.holdings()
        try:
            if any(more.values()):
                await services.database.call(services.records.count, more)
                counted.values = now
            for code, held in holdings.items():
                infohashes = services.neighbours.held_by(code)
                if infohashes is not None and counted.holdings.get(code) != held:
                    await services.database.call(
                        services.records.heard, code, infohashes, self._now()
                    )
                    counted.holdings[code] = held
        except StoreError as error:
            log.warning("media.not-counted", code=error.code)

    # Media that come and go.

    async def _watch_places(self) -> None:
        while True:
            await self._services.replicator.lose_places()
            await trio.sleep(WATCH_INTERVAL_S)

    async def _watch(self) -> None:
        while True:
            for place in await trio.to_thread.run_sync(self._arrived):
                await self._import_by_itself(place)
            await trio.sleep(WATCH_INTERVAL_S)

    def _arrived(self) -> list[Path]:
        """Places below the watched folders where something new lies to be imported."""
        found: dict[Path, object] = {}
        for folder in self._config.media.watch:
            top = folders_in(Path(folder))[:MAX_WATCHED_PLACES]
            for place in [*top, *(deeper for it in top for deeper in folders_in(it)[:16])]:
                if is_volume(place) and place.parent != Path(folder):
                    continue  # The medium that it lies on is looked at.
                mark = _fingerprint(place)
                if mark is not None:
                    found[place] = mark
        for place in [place for place in self._known if place not in found]:
            del self._known[place]  # It was taken out; should it come again, it is looked at again.
        fresh = [
            place
            for place, mark in found.items()
            if self._known.get(place) != mark and self._known.get(place) is not _EJECTED
        ]
        self._known.update({place: found[place] for place in fresh})
        return fresh

    async def _import_by_itself(self, place: Path) -> None:
        try:
            in_place = await self._was_in_place(place)
            await self.import_from(place, in_place=in_place, report=lambda step: None)
        except (CuntongError, OSError) as error:
            text = (
                error.sentence
                if isinstance(error, CuntongError)
                else sentence(
                    "media.failed",
                    N_("{path} couldn't be imported: {reason}."),
                    path=str(place),
                    reason=str(error),
                )
            )
            log.warning("media.not-imported", path=str(place), text=str(text))
            await self._record("medium", text)

    async def _was_in_place(self, place: Path) -> bool:
        for volume in await trio.to_thread.run_sync(find_volumes, place):
            named = parse_volume_folder(volume.name)
            if named is not None and await self._services.database.call(
                self._services.records.was_in_place, *named
            ):
                return True
        return False

    # Telling.

    async def status(self, code: Division | None = None) -> MediaStatus:
        """What an operator sees; with a code, of other places this one only."""
        services = self._services
        sets = await services.database.call(services.records.sets)
        if code is None:
            places = await services.database.call(services.records.places, MAX_SHOWN_PLACES)
        else:
            place = await services.database.call(services.records.place, code)
            places = [] if place is None else [place]
        held = await trio.to_thread.run_sync(services.store.places)
        by_infohash = {row.infohash: row for row in services.replicator.rows.values()}
        titles = await services.database.call(
            services.titles, [row.id for row in by_infohash.values() if row.infohash in held]
        )
        return MediaStatus(
            running=self._running,
            sets=[_set_seen(known) for known in sets],
            in_place=[
                InPlace(
                    id=by_infohash[infohash].id,
                    title=titles.get(by_infohash[infohash].id, ""),
                    folder=str(place),
                    size=services.replicator.size_of(infohash),
                )
                for infohash, place in held.items()
                if infohash in by_infohash
            ],
            offers=await services.offers.count(),
            places=[place_known(place) for place in places],
            watched=list(self._config.media.watch),
        )

    def _now(self) -> int:
        return max(0, int(self._clock.now().timestamp()))


_EJECTED = object()


def place_known(place: Place) -> PlaceKnown:
    """What is known of a place, as an operator sees it."""
    receipt = place.receipt
    return PlaceKnown(
        code=place.code,
        how=place.how,
        at=place.at,
        payloads=len(place.held),
        number=place.number,
        is_all=place.is_all,
        free=receipt.free if receipt is not None else 0,
        used=receipt.used if receipt is not None else 0,
        orders=list(receipt.orders) if receipt is not None else [],
        statistics=receipt.statistics if receipt is not None else None,
    )


def _set_seen(known: KnownSet) -> SetSeen:
    imported = set(known.numbers)
    return SetSeen(
        serial=known.serial,
        by=known.by,
        made_at=known.made_at,
        count=known.count,
        imported=sorted(imported),
        missing=[number for number in range(1, known.count + 1) if number not in imported],
    )


def _merged(catalogues: list[ImportedCatalogue]) -> list[ImportedCatalogue]:
    """One of each authority: of several volumes, what mattered most."""
    found: dict[str, ImportedCatalogue] = {}
    for catalogue in catalogues:
        known = found.get(catalogue.authority)
        if known is None or _WEIGHT.index(catalogue.state) < _WEIGHT.index(known.state):
            found[catalogue.authority] = catalogue
    return list(found.values())


def _overlap(first: Path, second: Path) -> bool:
    return first.is_relative_to(second) or second.is_relative_to(first)


def _fingerprint(place: Path) -> object:
    """Something that changes when other volumes or receipts lie at a place; None when there are none."""
    try:
        volumes = find_volumes(place)
        receipts = find_receipts(place, volumes)
        if not volumes and not receipts:
            return None
        return tuple(
            (str(path), status.st_dev, status.st_ino, status.st_mtime_ns)
            for path in (*volumes, *receipts)
            for status in [path.stat()]
        )
    except (OSError, CuntongError):
        return None
