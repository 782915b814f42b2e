"""Keeps the verified view up to date from whoever has news (SPEC 6.4).

The verifier says what it needs; this service brings it, from the neighbour that announced it, and asks the
verifier again until nothing more is missing or nobody has the rest. It trusts nothing: what it brings lands
in the spool.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import trio

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.messages import Announcement
from cuntong_protocol.texts import Sentence
from cuntong_protocol.trust.names import parse_object_path

from .link.fetching import LinkLostError
from .logs import get_logger
from .memory import return_memory
from .reserve import Reserve
from .store.errors import StoreError, database_error, disk_error
from .trust.federation import Federation
from .trust.spool import MAX_BLOB_BYTES, Spool
from .trust.view import Missing, Refresh

log = get_logger("metadata")

LOOK_INTERVAL_S = 3600.0
"""Expiry passes without any news; a "stale since" is a matter of days."""
RETRY_S = 60.0
"""After the disk refused."""
MAX_ROUNDS = 200
"""Of fetching for one piece of news; each round must bring something. A chain of 256 roots comes one a round."""
FETCHES_AT_ONCE = 64
"""As many as a link lets wait for an answer."""
MAX_TIMESTAMP_BYTES = 16_384


class Source(Protocol):
    """A neighbour that may have objects."""

    async def fetch(
        self, path: str, max_bytes: int, base: tuple[bytes, bytes] | None = None
    ) -> bytes | None:
        """An object by its name, or None."""
        ...


class MetadataKeeper:
    """A service: verifies what is there at its start, then whatever neighbours announce.

    Args:
        federation: The verifier; used in one thread at a time.
        spool: Where what was fetched is put.
        on_refresh: Called with each outcome that changed the view or brought blobs, and with the first; told
            whether blobs came.
        others: Neighbours to ask for an object that nobody announced, best first.
    """

    def __init__(
        self,
        federation: Federation,
        spool: Spool,
        on_refresh: Callable[[Refresh, bool], Awaitable[None]],
        others: Callable[[], Sequence[Source]],
    ) -> None:
        self._federation = federation
        self._spool = spool
        self._on_refresh = on_refresh
        self._others = others
        self._turn = trio.CapacityLimiter(1)
        self._wake = trio.Event()
        self._announced: dict[Division, dict[Source, Announcement]] = {}
        self._unread: dict[tuple[Division, Source], Announcement] = {}
        self.problems: tuple[Sentence, ...] = ()
        self._has_news = True
        self._has_blobs = False
        self._must_retry = False
        self._reserve = Reserve(spool.paths)
        self._media: list[Source] = []
        self._at_work = trio.Lock()

    def heard(self, source: Source, entries: Sequence[Announcement]) -> None:
        """A neighbour has these timestamps."""
        for entry in entries:
            self._announced.setdefault(entry.authority, {})[source] = entry
            self._unread[entry.authority, source] = entry
        self.look()

    def forget(self, source: Source) -> None:
        """A neighbour is gone."""
        for sources in self._announced.values():
            sources.pop(source, None)
        for key in [key for key in self._unread if key[1] is source]:
            del self._unread[key]

    async def take_from(self, medium: Source, entries: Sequence[Announcement]) -> None:
        """Verify what a medium brings, by the tolerant profile (SPEC 12.4); returns when that is done.

        Args:
            medium: Answers until this returns.
            entries: The timestamps that lie on it.
        """
        async with self._at_work:
            self._media.append(medium)
            try:
                for entry in entries:
                    self._announced.setdefault(entry.authority, {})[medium] = entry
                    self._unread[entry.authority, medium] = entry
                await self._try(self._update)
            finally:
                self._media.remove(medium)
                self.forget(medium)

    def look(self) -> None:
        """Look again soon: something may have changed on this machine."""
        self._wake.set()

    async def announcements(self) -> list[Announcement]:
        """The newest verified timestamp of each authority."""
        found = await trio.to_thread.run_sync(self._federation.announcements, limiter=self._turn)
        return [
            Announcement(authority, version, bytes.fromhex(digest))
            for authority, version, digest in found
        ]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; usable once what this machine has was verified."""
        await self._try(self._refresh)
        task_status.started()
        while True:
            with trio.move_on_after(RETRY_S if self._must_retry else LOOK_INTERVAL_S):
                await self._wake.wait()
            self._wake = trio.Event()
            if self._must_retry:
                self._must_retry = False
                self._hear_again()
            async with self._at_work:
                await self._try(self._update)
            if self._must_retry:
                if await trio.to_thread.run_sync(self._reserve.give_up):
                    self.look()
            else:
                await trio.to_thread.run_sync(self._reserve.make)

    def _hear_again(self) -> None:
        """What was announced while the disk refused counts as unread."""
        for authority, sources in self._announced.items():
            self._unread.update({(authority, source): entry for source, entry in sources.items()})

    async def _try(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do it; a disk that is full or broken is told, and tried again."""
        try:
            await work()
        except (OSError, sqlite3.Error, StoreError) as error:
            self._disk_failed(error)

    def _disk_failed(self, error: OSError | sqlite3.Error | StoreError) -> None:
        if isinstance(error, sqlite3.Error):
            error = database_error(error, str(self._spool.paths.database))
        elif isinstance(error, OSError):
            error = disk_error(error)
        self._must_retry = self._has_news = True
        if error.sentence not in self.problems:
            log.warning("metadata.problem", code=error.code, text=str(error))
            self.problems = (*self.problems, error.sentence)

    async def _update(self) -> None:
        await self._fetch_timestamps()
        absent: set[str] = set()
        for _ in range(MAX_ROUNDS):
            refresh = await self._refresh()
            wanted = [item for item in refresh.missing if item.path not in absent]
            if not wanted:
                break
            before = len(absent)
            await self._fetch_all(wanted, absent)
            if len(absent) - before == len(wanted):
                break
        await trio.to_thread.run_sync(return_memory)

    async def _refresh(self) -> Refresh:
        refresh = await trio.to_thread.run_sync(
            partial(self._federation.refresh, is_tolerant=bool(self._media)), limiter=self._turn
        )
        if refresh.problems != self.problems:
            for problem in refresh.problems:
                log.warning("metadata.problem", code=problem.code, text=str(problem))
        self.problems = refresh.problems
        if any(problem.code == "trust.cannot-write" for problem in refresh.problems):
            self._must_retry = self._has_news = True
        if refresh.changed or self._has_news:
            self._has_news = True
            await self._on_refresh(refresh, self._has_blobs)
            self._has_news = self._has_blobs = False
        return refresh

    async def _fetch_timestamps(self) -> None:
        while self._unread:
            (authority, source), entry = self._unread.popitem()
            is_news = await trio.to_thread.run_sync(
                self._federation.wants,
                authority,
                entry.version,
                entry.sha256.hex(),
                limiter=self._turn,
            )
            if is_news:
                path = f"metadata/{authority}/timestamp.json"
                await self._fetch_from([source], Missing(path, MAX_TIMESTAMP_BYTES))

    async def _fetch_all(self, wanted: Sequence[Missing], absent: set[str]) -> None:
        # Each task takes the next one: a task for each of 10,000 descriptors would take 100 MiB.
        waiting = iter(wanted)

        async def fetch_some() -> None:
            for item in waiting:
                if not await self._fetch_from(self._sources(item.path), item):
                    absent.add(item.path)

        async with trio.open_nursery() as nursery:
            for _ in range(min(FETCHES_AT_ONCE, len(wanted))):
                nursery.start_soon(fetch_some)

    def _sources(self, path: str) -> list[Source]:
        """Who to ask: for metadata those who announced its authority, newest first; for blobs anybody."""
        authority = parse_object_path(path).authority
        if authority is None:
            return [*self._media, *self._others()]
        known = self._announced.get(authority, {})
        return sorted(known, key=lambda source: -known[source].version)

    async def _fetch_from(self, sources: Sequence[Source], item: Missing) -> bool:
        """Bring one object into the spool; False when nobody has it (in a usable form)."""
        for source in sources:
            try:
                base = None
                if item.path.startswith("metadata/"):
                    base = await trio.to_thread.run_sync(self._base, item.path)
                data = await source.fetch(item.path, item.max_bytes, base)
                if data is None:
                    continue
                await trio.to_thread.run_sync(self._store, item.path, data)
            except LinkLostError:
                continue
            except OSError as error:
                self._disk_failed(error)
                return False
            except CuntongError as error:
                if error.fault is Fault.SYSTEM:
                    self._must_retry = True
                log.warning("metadata.not-taken", path=item.path, code=error.code, text=str(error))
                continue
            return True
        return False

    def _base(self, path: str) -> tuple[bytes, bytes] | None:
        found = self._spool.base_for(path)
        return None if found is None else (bytes.fromhex(found[0]), found[1])

    def _store(self, path: str, data: bytes) -> None:
        name = parse_object_path(path)
        if name.authority is not None:
            self._spool.store_metadata(name.authority, name.file_name, data)
        elif len(data) <= MAX_BLOB_BYTES:
            self._spool.store_blob(name.role, data)
            # The view may know of it already; what waits for its bytes doesn't.
            self._has_news = self._has_blobs = True
