"""A volume as a neighbour: it announces its catalogues and serves what the verifier asks for (SPEC 12.4)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

import trio

from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent, decode_torrent
from cuntong_protocol.datacast.objects import (
    MAX_UNPACKED_FACTOR,
    MIN_UNPACKED_BYTES,
    CatalogueHead,
    Item,
    catalogue_head,
    snapshot_frame,
)
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.link.messages import Announcement
from cuntong_protocol.media.layout import (
    CATALOGUE_FOLDER,
    PARTS_FOLDER,
    STORE_FOLDER,
    TORRENT_FOLDER,
    again,
    torrent_file,
)
from cuntong_protocol.trust.names import (
    blob_path,
    is_version,
    metadata_path,
    parse_metadata_name,
    timestamp_path,
)

from .volume import VolumeFolder

MAX_CATALOGUE_BYTES = 128 * 1024 * 1024
"""Of one authority, packed: as much as the datacast takes."""
MAX_CATALOGUES = 5_000
"""The authorities that one node follows at most, with those above it."""
MAX_INDEXED = 500_000
"""Files in all catalogues of a volume: 100 bytes of memory each."""
MAX_TORRENT_BYTES = 32 * 1024 * 1024
MAX_TORRENTS = 20_000
UNPACKED_KEPT = 2
"""Frames of some MiB in memory: what belongs together was packed together."""
TIMESTAMP_FILE = "timestamp.json"
_TORRENT_HEAD = b"d4:infod"
_INFOHASH = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an object lies: file on the volume, number of the frame, index within it."""

    file: PurePosixPath
    frame: int
    item: int


class MediumSource:
    """Implements `cuntong_daemon.metadata.Source` over one of the two copies that an open volume has of its catalogues.

    Each copy is a neighbour of its own: a damaged or forged one doesn't hide the other.
    """

    def __init__(self, volume: VolumeFolder, folder: PurePosixPath = CATALOGUE_FOLDER) -> None:
        """Use the catalogues in a folder; `look` must be called before anything else."""
        self._volume = volume
        self._folder = folder
        self._places: dict[str, _Place] = {}
        self._frames: OrderedDict[tuple[PurePosixPath, int], list[Item]] = OrderedDict()
        self._turn = trio.CapacityLimiter(
            1
        )  # Who asks at the same time doesn't unpack at the same time.
        self.announcements: dict[Division, Announcement] = {}
        self.damaged: set[Division] = set()

    def look(self) -> None:
        """Read the catalogues through. Blocks.

        `announcements` are the timestamps that lie there, not verified; `damaged` names authorities of which
        something can't be read.
        """
        for name in self._volume.names(self._folder)[:MAX_CATALOGUES]:
            with suppress(CuntongError):
                authority = Division(name)
                if not self._index(authority, self._folder / name):
                    self.damaged.add(authority)

    async def fetch(
        self, path: str, max_bytes: int, base: tuple[bytes, bytes] | None = None
    ) -> bytes | None:
        """An object, or None."""
        return await trio.to_thread.run_sync(self.read, path, max_bytes, limiter=self._turn)

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """An object, or None. Blocks. Each is given once: who asks again has found it to be no good."""
        place = self._places.pop(path, None)
        data = None if place is None else self._read(place)
        return data if data is not None and len(data) <= max_bytes else None

    def _index(self, authority: Division, file: PurePosixPath) -> bool:
        """Note where what is. False: some of it can't be read."""
        try:
            data, head = self._open(authority, file)
        except (CuntongError, OSError):
            return False
        is_whole = not head.bases
        room = max(MIN_UNPACKED_BYTES, MAX_UNPACKED_FACTOR * len(data))
        for frame in range(len(head.frames)):
            try:
                items = snapshot_frame(data, head, frame, max_bytes=room)
            except CuntongError:
                is_whole = False
                continue
            room -= sum(len(item.data) for item in items)
            if room <= 0:
                return False
            for number, item in enumerate(items):
                path = _object_path(authority, item)
                if path is None or len(self._places) >= MAX_INDEXED:
                    continue
                if item.name == TIMESTAMP_FILE:
                    self._note_timestamp(authority, item.data)
                self._places.setdefault(path, _Place(file, frame, number))
        return is_whole

    def _note_timestamp(self, authority: Division, data: bytes) -> None:
        try:
            version = json.loads(data)["signed"]["version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if is_version(version) and authority not in self.announcements:
            digest = hashlib.sha256(data).digest()
            self.announcements[authority] = Announcement(authority, version, digest)

    def _open(self, authority: Division, file: PurePosixPath) -> tuple[bytes, CatalogueHead]:
        data = self._volume.read(file, MAX_CATALOGUE_BYTES)
        if data is None:
            raise OSError(str(file))
        return data, catalogue_head(data, authority)

    def _read(self, place: _Place) -> bytes | None:
        key = (place.file, place.frame)
        items = self._frames.get(key)
        if items is None:
            try:
                data, head = self._open(Division(place.file.name), place.file)
                items = snapshot_frame(data, head, place.frame, max_bytes=MAX_CATALOGUE_BYTES)
            except (CuntongError, OSError, IndexError):
                return None
            self._frames[key] = items
            if len(self._frames) > UNPACKED_KEPT:
                self._frames.popitem(last=False)
        else:
            self._frames.move_to_end(key)
        return items[place.item].data if place.item < len(items) else None


class BothCopies:
    """Two sources as one: of each object the first one's, and the other's when that was no good."""

    def __init__(self, first: MediumSource, second: MediumSource) -> None:
        self._copies = (first, second)

    async def fetch(
        self, path: str, max_bytes: int, base: tuple[bytes, bytes] | None = None
    ) -> bytes | None:
        """An object, or None."""
        for copy in self._copies:
            data = await copy.fetch(path, max_bytes, base)
            if data is not None:
                return data
        return None


def _object_path(authority: Division, item: Item) -> str | None:
    if not item.name:
        return blob_path(hashlib.sha256(item.data).hexdigest())
    try:
        role, version = parse_metadata_name(item.name)
    except CuntongError:
        return None
    return timestamp_path(authority) if version is None else metadata_path(authority, role, version)


def torrent_names(volume: VolumeFolder) -> list[bytes]:
    """The infohashes of the torrents that lie where they should, in either copy. At most `MAX_TORRENTS`.

    One with another name, as an old tool or a disc without long names leaves it, is read to know whose it is.
    """
    found: set[bytes] = set()
    for folder in (TORRENT_FOLDER, again(TORRENT_FOLDER)):
        for name in volume.names(folder)[:MAX_TORRENTS]:
            infohash = _infohash(name.lower().removesuffix(".torrent"))
            if infohash is None:
                infohash = _infohash_of(volume, folder / name)
            if infohash is not None:
                found.add(infohash)
    return sorted(found)[:MAX_TORRENTS]


def _infohash_of(volume: VolumeFolder, path: PurePosixPath) -> bytes | None:
    data = volume.read(path, MAX_TORRENT_BYTES)
    with suppress(BundleError):
        return decode_torrent(data or b"").infohash
    return None


def payload_names(volume: VolumeFolder) -> list[bytes]:
    """The infohashes below `data/store` and `data/parts`."""
    names = {name for folder in (STORE_FOLDER, PARTS_FOLDER) for name in volume.names(folder)}
    return sorted(found for name in names if (found := _infohash(name)) is not None)


def read_torrent(volume: VolumeFolder, infohash: bytes) -> Torrent | None:
    """A torrent of the volume, checked; None when neither copy is right."""
    path = torrent_file(infohash)
    for place in (path, again(path)):
        data = volume.read(place, MAX_TORRENT_BYTES)
        if data is None:
            continue
        try:
            return decode_torrent(data, infohash=infohash)
        except BundleError:
            continue
    return None


def find_torrent(volume: VolumeFolder, infohash: bytes) -> Torrent | None:
    """A torrent that lies anywhere on a volume, under any name."""
    for found in volume.files():
        if (
            found.size > MAX_TORRENT_BYTES
            or volume.head(found.path, len(_TORRENT_HEAD)) != _TORRENT_HEAD
        ):
            continue
        data = volume.read(found.path, MAX_TORRENT_BYTES)
        with suppress(BundleError):
            return decode_torrent(data or b"", infohash=infohash)
    return None


def _infohash(name: str) -> bytes | None:
    return bytes.fromhex(name) if _INFOHASH.fullmatch(name) else None
