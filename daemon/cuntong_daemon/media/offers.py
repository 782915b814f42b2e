"""Payloads that came by medium and that only candidates list: they wait until they are listed here (SPEC 12.4).

One that is whole lies in `incoming/`, as what `cuntong publish` builds does, and so gets into the store when it is
wanted. Those that aren't lie in `media/offers/`, as on a volume: the next one brings the rest, or it counts as
imported when the bundle is wanted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import trio

from cuntong_daemon.catalogue import Database
from cuntong_daemon.files import sync_folder, write_atomically
from cuntong_daemon.logs import get_logger
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.replicator import Replicator
from cuntong_daemon.store.errors import disk_error
from cuntong_daemon.store.pieces import PieceSet, bytes_of, present_pieces, sync_pieces
from cuntong_daemon.trust.view import View
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.media.layout import STORE_FOLDER, torrent_file
from cuntong_protocol.texts import N_, Sentence, sentence
from cuntong_protocol.trust.rules import Listing

from .content import VolumeContent
from .medium_source import read_torrent
from .records import MediaRecords
from .volume import VolumeFolder

log = get_logger("media")

SPARE_BYTES = 256 * 1024 * 1024
"""That are left free: what this place itself wants comes first."""


class Offers:
    """Keeps them."""

    def __init__(
        self, paths: DataPaths, database: Database, records: MediaRecords, replicator: Replicator
    ) -> None:
        self._top = paths.media / "offers"
        self._paths = paths
        self._database = database
        self._records = records
        self._replicator = replicator
        self._turn = trio.Lock()

    async def count(self) -> int:
        """How many wait."""
        return len(await self._database.call(self._records.offers))

    async def take(
        self,
        listing: Listing,
        infohash: bytes,
        volume: VolumeFolder,
        content: VolumeContent,
        report: Callable[[int], None],
    ) -> tuple[int, int, Sentence | None]:
        """Take what a volume has of a candidate's payload.

        Returns:
            Bytes taken, bytes that are missing afterwards, and what is wrong.
        """

        def work() -> tuple[int, int, Sentence | None]:
            torrent = read_torrent(volume, infohash)
            if torrent is None or torrent.payload_size != listing.payload_size:
                return (
                    0,
                    listing.payload_size,
                    sentence(
                        "media.bad-torrent", N_("Its torrent on this volume is missing or damaged.")
                    ),
                )
            try:
                return self._take(torrent, content, report)
            except OSError as error:
                return 0, listing.payload_size, disk_error(error).sentence

        async with self._turn:
            # Noted first: what is noted and isn't there is forgotten, what is there and isn't noted would stay for ever.
            await self._database.call(self._records.set_offer, infohash, listing.id)
            return await trio.to_thread.run_sync(work)

    async def look(self, view: View) -> None:
        """Hand over what is wanted now, and remove what isn't a candidate any more."""
        async with self._turn:
            await self._look(view)

    async def _look(self, view: View) -> None:
        known = {
            listing.infohash
            for listings in (view.listings, view.candidates)
            for listing in listings.values()
        }
        offers = await self._database.call(self._records.offers)
        if offers:
            await self._replicator.settle()
        wanted = {item.infohash: item.id for item in self._replicator.items.values()}
        for infohash in offers:
            is_part = self._folder(infohash).exists()
            is_taken = not is_part and not (self._paths.incoming / infohash.hex()).exists()
            if is_part and infohash in wanted:
                is_taken = await self._hand_over(wanted[infohash], infohash)
            if is_taken or (view.is_complete and infohash.hex() not in known):
                await trio.to_thread.run_sync(self._remove, infohash)
                await self._database.call(self._records.set_offer, infohash, None)

    async def _hand_over(self, identifier: str, infohash: bytes) -> bool:
        """Let a bundle that is being brought now have the part of it that lies here. False: not now."""
        with VolumeFolder(self._top) as folder:
            torrent = await trio.to_thread.run_sync(read_torrent, folder, infohash)
            if torrent is None:
                return True  # It is damaged.

            def fill(torrent: Torrent, place: Path, have: PieceSet) -> PieceSet:
                return (
                    VolumeContent(folder)
                    .take(torrent, place, have, _nobody, trio.from_thread.check_cancelled)
                    .pieces
                )

            try:
                have = await self._replicator.supply(identifier, torrent, fill)
                if have is not None and have.is_full:
                    await self._replicator.conclude(identifier)
            except (OSError, CuntongError) as error:
                log.warning("media.offer", id=identifier, text=str(error))
                return False
            return have is not None

    def _take(
        self, torrent: Torrent, content: VolumeContent, report: Callable[[int], None]
    ) -> tuple[int, int, Sentence | None]:
        infohash = torrent.infohash
        if (self._paths.incoming / infohash.hex() / torrent.name).is_dir():
            return 0, 0, None  # It was brought before.
        folder = self._folder(infohash) / torrent.name
        have = present_pieces(
            torrent,
            folder,
            believed=PieceSet(torrent.piece_count),
            checkpoint=trio.from_thread.check_cancelled,
        )
        missing = torrent.payload_size - bytes_of(torrent, have)
        room = os.statvfs(self._paths.media)
        if missing > room.f_bavail * room.f_frsize - SPARE_BYTES:
            return (
                0,
                missing,
                sentence(
                    "media.no-room-for-offer",
                    N_(
                        "The disk has no room to keep it until it is listed for this place. Make room and import again."
                    ),
                ),
            )
        kept = self._top / torrent_file(infohash)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, torrent.encode())
        folder.mkdir(parents=True, exist_ok=True)
        done = 0

        def add(count: int) -> None:
            nonlocal done
            done += count
            report(done)

        gained = content.take(torrent, folder, have, add, trio.from_thread.check_cancelled)
        have |= gained.pieces
        sync_pieces(torrent, folder, have)
        missing = torrent.payload_size - bytes_of(torrent, have)
        if not missing:
            # The torrent first: what has one and is whole is taken.
            incoming = self._paths.incoming
            write_atomically(incoming / f"{infohash.hex()}.torrent", torrent.encode())
            self._folder(infohash).replace(incoming / infohash.hex())
            sync_folder(incoming)
            (self._top / torrent_file(infohash)).unlink()
        return gained.bytes_taken, missing, None

    def _folder(self, infohash: bytes) -> Path:
        return self._top / STORE_FOLDER / infohash.hex()

    def _remove(self, infohash: bytes) -> None:
        (self._top / torrent_file(infohash)).unlink(missing_ok=True)
        shutil.rmtree(self._folder(infohash), ignore_errors=True)
        shutil.rmtree(self._paths.incoming / infohash.hex(), ignore_errors=True)
        (self._paths.incoming / f"{infohash.hex()}.torrent").unlink(missing_ok=True)


def _nobody(_count: int) -> None:
    """Nobody watches."""
