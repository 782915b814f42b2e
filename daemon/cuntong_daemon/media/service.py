"""The service for disks and discs by post: one import at a time, media that are mounted, receipts, counting (SPEC 12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from cuntong_daemon.config import Config
from cuntong_daemon.control.media_messages import (
    ImportedBundle,
    ImportedCatalogue,
    ImportedVolume,
    ImportResult,
    ImportStep,
    InPlace,
    MediaStatus,
    SetSeen,
    TakenReceipt,
)
from cuntong_daemon.logs import get_logger
from cuntong_daemon.store.errors import StoreError
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import parse_volume_folder
from cuntong_protocol.media.papers import MAX_ORDERS
from cuntong_protocol.texts import N_, Sentence, sentence

from .accounts import Accounts, place_known
from .arrivals import Arrivals
from .importing import Report, Services, VolumeImport, VolumeResult
from .records import KnownSet
from .volume import (
    VolumeFolder,
    find_receipts,
    find_volumes,
    gone,
    shown,
)

log = get_logger("media")

WATCH_INTERVAL_S = 5.0
"""How soon a medium that was put in is noticed, and one that was pulled out."""
MAX_SHOWN_PLACES = 500
MAX_SHOWN = 1_000
"""Bundles in an answer: those with something to say come first."""

_WEIGHT = ("refused", "taken", "older", "known", "foreign")
_TROUBLE = ("partial", "refused", "unwanted", "unknown", "offered", "complete", "here")


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """An import that runs or waits for its turn."""

    path: Path
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class Media:
    """A service; see the module."""

    def __init__(
        self,
        config: Config,
        services: Services,
        accounts: Accounts,
        *,
        record: Callable[[str, Sentence], Awaitable[None]],
    ) -> None:
        """Prepare; `record` remembers something for the operator."""
        self._config = config
        self._services = services
        self._record = record
        self.accounts = accounts
        self._turn = trio.Lock()
        self._running: ImportStep | None = None
        self._path: Path | None = None
        self._jobs: list[_Job] = []
        self._is_ending = False
        self._arrivals = Arrivals(config.media.watch)
        self._wake = trio.Event()

    # The service.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        await self.accounts.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._watch_places)
            nursery.start_soon(self.accounts.run)
            nursery.start_soon(self._look_at_offers)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                # Imports run in the node's nursery, which ends after the replicator that they need.
                self._is_ending = True
                with trio.CancelScope(shield=True):
                    await self._stop(self._jobs)
                with trio.move_on_after(2.0, shield=True):
                    await self.accounts.count()

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
        path = await trio.to_thread.run_sync(_resolved, path)
        if path.is_relative_to(self._services.paths.root.resolve()):
            raise MediaError(
                "media.own-data",
                N_("{path} is the node's own data directory: there is nothing to import."),
                fault=Fault.USAGE,
                path=shown(path),
            )

        def tell(step: ImportStep) -> None:
            self._running = step
            report(step)

        job = _Job(path)
        if self._is_ending:
            job.scope.cancel()
        self._jobs.append(job)
        try:
            with job.scope:
                if self._turn.locked():
                    report(ImportStep(phase="waiting", folder=shown(self._path or "")))
                async with self._turn:
                    self._path = path
                    try:
                        tell(ImportStep(phase="looking", folder=shown(path)))
                        return await self._import(path, in_place=in_place, report=tell)
                    finally:
                        self._path = self._running = None
        finally:
            self._jobs.remove(job)
            job.ended.set()
        raise MediaError(
            "media.stopped",
            N_(
                "The import from {path} was stopped. What came so far is kept; repeat the command to go on."
            ),
            fault=Fault.USAGE,
            path=shown(path),
        )

    async def eject(self, path: Path) -> int:
        """Stop what is done with a medium, so that it can be unmounted. Returns how much that was."""
        path = await trio.to_thread.run_sync(_resolved, path)
        await trio.to_thread.run_sync(self._arrivals.eject, path)
        jobs = [job for job in self._jobs if _overlap(job.path, path)]
        await self._stop(jobs)
        return len(jobs) + await self._services.replicator.lose_places(path)

    async def _stop(self, jobs: Sequence[_Job]) -> None:
        """Stop imports, those that wait too; returns when they have ended."""
        jobs = list(jobs)
        for job in jobs:
            job.scope.cancel()
        for job in jobs:
            await job.ended.wait()

    async def _import(self, path: Path, *, in_place: bool, report: Report) -> ImportResult:
        volumes = await trio.to_thread.run_sync(find_volumes, path)
        receipts = await trio.to_thread.run_sync(find_receipts, path, volumes)
        if not volumes and not receipts:
            raise MediaError(
                "media.nothing-found",
                N_(
                    "There is no volume in {path}. A volume is a folder called “cuntong-…” with a folder “data” in it; give that folder, or the medium it lies on."
                ),
                path=shown(path),
            )
        taken = [await self.accounts.take_file(file) for file in receipts]
        done: list[VolumeResult] = []
        for place in volumes:
            done.append(await self._import_volume(place, report, in_place=in_place))
            if done[-1].is_gone:
                break
        receipt_file, problem = "", None
        if volumes and not done[-1].is_gone and any(not it.volume.is_refused for it in done):
            top = path if path not in volumes else path.parent
            receipt_file, problem = await self.accounts.leave_receipt(top)
            await trio.to_thread.run_sync(self._arrivals.know, top)
        return await self._conclude(
            done, [it for it in taken if it is not None], receipt_file, problem
        )

    async def _import_volume(self, place: Path, report: Report, *, in_place: bool) -> VolumeResult:
        folder = VolumeFolder(place)
        try:
            await trio.to_thread.run_sync(folder.__enter__)
        except OSError:
            result = VolumeResult(ImportedVolume(folder=shown(place)))
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
            paper, now = result.paper, self.accounts.now()
            await database.call(lambda: records.imported(paper, now, is_in_place=in_place))
        await self._record(
            "medium",
            sentence(
                "media.imported",
                N_("{folder} was imported: {count} bundles came from it, {bytes} bytes."),
                folder=shown(place.name),
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
            # The last one may have been pulled out: that comes first, and isn't cut off.
            problems=[one for it in reversed(done) for one in it.problems][:MAX_SHOWN],
        )

    # Media that come and go.

    async def _watch_places(self) -> None:
        while True:
            try:
                await self._services.replicator.lose_places()
            except (OSError, StoreError) as error:
                log.warning("media.places", text=str(error))
            await trio.sleep(WATCH_INTERVAL_S)

    async def _watch(self) -> None:
        while True:
            for place in await trio.to_thread.run_sync(self._arrivals.look):
                if not self._arrivals.is_ejected(place):  # While the one before was imported.
                    await self._import_by_itself(place)
            await trio.sleep(WATCH_INTERVAL_S)

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
                    path=shown(place),
                    reason=str(error),
                )
            )
            log.warning("media.not-imported", path=shown(place), text=str(text))
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
                    folder=shown(place),
                    size=services.replicator.size_of(infohash),
                )
                for infohash, place in held.items()
                if infohash in by_infohash
            ],
            offers=await services.offers.count(),
            places=[
                place_known(place, most_orders=MAX_ORDERS if code is not None else 0)
                for place in places
            ],
            watched=list(self._config.media.watch),
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


def _resolved(path: Path) -> Path:
    """The one name of a place, whatever links lead to it."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # A link to itself.
        return path


def _overlap(first: Path, second: Path) -> bool:
    return first.is_relative_to(second) or second.is_relative_to(first)
