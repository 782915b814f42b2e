"""Which bundle, which file and which stretch of a file goes onto which volume (SPEC 12.2, 12.8).

Bundles come in the order in which they matter. Each goes whole onto the first volume that has room for it; one that is
larger than an empty volume is cut over several, and begins in what is left of the last volume only where that saves
one. A file that doesn't fit into the rest of a volume is cut at pieces.

Room is counted as the strictest file system takes it: each file in whole clusters, a folder's own clusters, and for
every file and folder what any file system writes beside it. What isn't counted one by one (indirect blocks, the
allocation table of an image whose size was named, checksums) has 1 % of the volume, and 2 % of a small one.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import (
    AGAIN_FOLDER,
    CATALOGUE_FOLDER,
    PARTS_FOLDER,
    PAYLOAD,
    STORE_FOLDER,
    TORRENT_FOLDER,
    again,
    catalogue_file,
    is_portable,
    part_file,
    store_file,
    torrent_file,
)
from cuntong_protocol.media.papers import MAX_SET_VOLUMES, MAX_VOLUME_BUNDLES
from cuntong_protocol.texts import N_

RESERVE_DIVISOR = 100
"""One hundredth stays free: ext2 with blocks of 1 KiB has an indirect block for each 256, the checksums of btrfs take
0.2 %."""
SMALL_RESERVE_BYTES = 4 * 1024 * 1024
"""Up to so much another hundredth: up to 260 MB FAT has clusters of 512 bytes and tables of up to 1.6 %."""
ENTRY_BYTES = 2048
"""Beside the content of a file or folder, without its name: UDF takes a block for it, NTFS 1,024 bytes, others less."""
NAME_BYTES = 4
"""For each byte of a name: FAT takes 32 bytes for 13 characters, ISO 9660 writes it three times."""
MANIFEST_LINE_BYTES = 67
"""A line of the manifest without its path: 64 digits, two spaces, a line feed."""
TAG_BYTES = 160 * 1024
"""Letter, `README.txt`, `bag-info.txt`, and the paper `volume` twice with 256 places and a long chain."""
BUNDLE_BYTES = 2048
"""What a bundle adds to them: 2 x 250 bytes in the papers, a row in the letter."""
CATALOGUE_GROWTH = 1.25
"""A set may take days to write, and each volume has the catalogue of its day."""
NO_LIMIT = 1 << 62

_SHARED = frozenset(
    str(folder)
    for folder in (
        PAYLOAD,
        CATALOGUE_FOLDER,
        TORRENT_FOLDER,
        STORE_FOLDER,
        PARTS_FOLDER,
        AGAIN_FOLDER,
        again(CATALOGUE_FOLDER),
        again(TORRENT_FOLDER),
    )
)
"""Folders that bundles have in common; a cluster for each is counted once."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What volumes are cut for.

    Attributes:
        volume_bytes: Of a volume, with all that its file system needs.
        cluster_bytes: What files are rounded up to.
        max_file_bytes: Of the longest file that it takes.
    """

    volume_bytes: int
    cluster_bytes: int
    max_file_bytes: int = NO_LIMIT

    @property
    def room_bytes(self) -> int:
        """What may be filled."""
        hundredth = self.volume_bytes // RESERVE_DIVISOR
        return self.volume_bytes - hundredth - min(hundredth, SMALL_RESERVE_BYTES)


class PayloadFile(NamedTuple):
    """A file that is to be written: its number in the torrent (from 0), its path there, its length in bytes."""

    number: int
    path: str
    length: int


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be written of a bundle.

    Attributes:
        infohash: Of its torrent.
        name: The torrent's.
        piece_length: In bytes.
        torrent_bytes: Length of the `.torrent` file.
        files: Those that are to be written, in the torrent's order.
    """

    infohash: bytes
    name: str
    piece_length: int
    torrent_bytes: int
    files: Sequence[PayloadFile]


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """A file, or whole pieces of one.

    Attributes:
        file: Its number in the torrent, from 0.
        piece: Number, within the file, of the first piece.
        length: In bytes.
        is_part: It lies under `parts/`, else as a whole file under its own name.
    """

    file: int
    piece: int
    length: int
    is_part: bool


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What a volume has of one bundle.

    Attributes:
        bundle: Its place in the order, from 0.
        stretches: In the order of writing.
        is_whole: Nothing of the bundle lies on another volume.
    """

    bundle: int
    stretches: list[Stretch]
    is_whole: bool

    @property
    def content_bytes(self) -> int:
        return sum(stretch.length for stretch in self.stretches)


class PlannedVolume(msgspec.Struct, frozen=True, array_like=True):
    """What a volume has; `needed_bytes` is what it takes on the medium that it was planned for."""

    shares: list[Share]
    needed_bytes: int

    @property
    def content_bytes(self) -> int:
        return sum(share.content_bytes for share in self.shares)


class Footprint:
    """What files and folders take on a medium, added up.

    Attributes:
        taken_bytes: In all.
        entries: Files and folders.
    """

    def __init__(self, cluster_bytes: int) -> None:
        """Count for files that take whole clusters."""
        self._cluster = cluster_bytes
        self._folders: dict[str, int] = {}
        self.taken_bytes = 0
        self.entries = 0

    def cost(self, path: str, length: int) -> int:
        """What a file would add, with the folders that it needs."""
        line = MANIFEST_LINE_BYTES + len(path.encode())
        return line + self._rounded(length) + sum(added for _, _, added in self._entering(path))

    def add(self, path: str, length: int) -> None:
        """Count a file."""
        self.taken_bytes += self.cost(path, length)
        for folder, filled, _ in list(self._entering(path)):
            self._folders[folder] = filled
            self.entries += 1

    def room_for(self, path: str, room_bytes: int) -> int:
        """How long a file may be at most if all shall take no more than `room_bytes`; negative when it can't be there."""
        free = room_bytes - self.taken_bytes - self.cost(path, 0)
        return free // self._cluster * self._cluster

    def _entering(self, path: str) -> Iterable[tuple[str, int, int]]:
        """For a new file's folder, and each folder above that is new: how full it is then, and what that adds."""
        is_new = True
        while is_new:
            path, slash, name = path.rpartition("/")
            entry = ENTRY_BYTES + NAME_BYTES * len(name.encode())
            if not slash or path in _SHARED:
                yield path, 0, entry
                return
            old = self._folders.get(path)
            is_new = old is None
            filled = (old or 0) + entry
            yield path, filled, self._rounded(filled) - self._rounded(old or 0)

    def _rounded(self, length: int) -> int:
        return -(-length // self._cluster) * self._cluster


def plan_volumes(
    payloads: Sequence[Payload], catalogues: Mapping[str, int], medium: Medium
) -> list[PlannedVolume]:
    """Cut an export into volumes.

    Args:
        payloads: In the order in which they matter.
        catalogues: Bytes of each authority's snapshot; all are on every volume.
        medium: What the volumes are for.

    Returns:
        At least one volume.

    Raises:
        MediaError: `media.volume-too-small`, `media.too-many-volumes`.
    """
    planner = _Planner(catalogues, medium)
    for number, payload in enumerate(payloads):
        planner.place(number, payload)
    return planner.volumes()


def needed(
    shares: Iterable[tuple[Payload, Sequence[Stretch]]],
    catalogues: Mapping[str, int],
    cluster_bytes: int,
) -> Footprint:
    """What a volume takes on a medium.

    Args:
        shares: What it has of each bundle.
        catalogues: As in `plan_volumes`.
        cluster_bytes: The medium's.
    """
    total = _common(catalogues, cluster_bytes)
    for payload, stretches in shares:
        found = _begun(payload, cluster_bytes)
        for stretch in stretches:
            found.add(stretch_path(payload, stretch), stretch.length)
        total.taken_bytes += found.taken_bytes
        total.entries += found.entries
    return total


def stretch_path(payload: Payload, stretch: Stretch) -> str:
    """Where a stretch lies on a volume."""
    if stretch.is_part:
        return str(part_file(payload.infohash, stretch.file, stretch.piece))
    place = bisect.bisect_left(payload.files, stretch.file, key=lambda file: file.number)
    return str(store_file(payload.infohash, payload.name, payload.files[place].path))


def as_parts(stretch: Stretch, piece_length: int, limit_bytes: int) -> list[Stretch]:
    """Cut a stretch at pieces into parts of at most `limit_bytes`, which is at least one piece."""
    step = max(limit_bytes // piece_length, 1)
    return [
        Stretch(
            stretch.file,
            stretch.piece + first,
            min(step * piece_length, stretch.length - first * piece_length),
            is_part=True,
        )
        for first in range(0, -(-stretch.length // piece_length), step)
    ]


class _Planner:
    def __init__(self, catalogues: Mapping[str, int], medium: Medium) -> None:
        self._medium = medium
        self._common_bytes = _common(catalogues, medium.cluster_bytes).taken_bytes
        self._room = medium.room_bytes - self._common_bytes
        self._rooms: list[int] = []
        self._shares: list[list[Share]] = []

    def volumes(self) -> list[PlannedVolume]:
        if not self._shares:
            if self._room < 0:
                raise self._too_small(0)
            self._open()
        return [
            PlannedVolume(shares, self._common_bytes + self._room - left)
            for shares, left in zip(self._shares, self._rooms, strict=True)
        ]

    def place(self, number: int, payload: Payload) -> None:
        found = _begun(payload, self._medium.cluster_bytes)
        stretches = list(self._stretches(payload))
        for stretch in stretches:
            found.add(stretch_path(payload, stretch), stretch.length)
        if found.taken_bytes > self._room:
            self._spread(number, payload, stretches)
            return
        volume = next(
            (
                volume
                for volume, left in enumerate(self._rooms)
                if left >= found.taken_bytes and len(self._shares[volume]) < MAX_VOLUME_BUNDLES
            ),
            None,
        )
        if volume is None:
            volume = self._open()
        self._put(volume, Share(number, stretches, is_whole=True), found.taken_bytes)

    def _spread(self, number: int, payload: Payload, stretches: list[Stretch]) -> None:
        """Put a bundle that no volume has room for onto several."""
        anew = self._cut(payload, stretches, self._room)
        if anew is None:
            smallest = _begun(payload, self._medium.cluster_bytes)
            smallest.add(str(part_file(payload.infohash, 0, 0)), payload.piece_length)
            raise self._too_small(smallest.taken_bytes)
        last = len(self._rooms) - 1
        cuts, volume = anew, None
        if last >= 0 and len(self._shares[last]) < MAX_VOLUME_BUNDLES:
            after_last = self._cut(payload, stretches, self._rooms[last])
            if after_last is not None and len(after_last) <= len(anew):
                cuts, volume = after_last, last
        for taken, used in cuts:
            share = Share(number, taken, is_whole=len(cuts) == 1)
            self._put(self._open() if volume is None else volume, share, used)
            volume = None

    def _cut(
        self, payload: Payload, stretches: list[Stretch], room: int
    ) -> list[tuple[list[Stretch], int]] | None:
        """Stretches for a volume with `room`, then for empty ones, with what they take; None: not a piece fits."""
        cuts: list[tuple[list[Stretch], int]] = []
        taken: list[Stretch] = []
        here = _begun(payload, self._medium.cluster_bytes)
        for stretch in stretches:
            rest: Stretch | None = stretch
            while rest is not None:
                fitting, rest = _fit(payload, rest, here, room)
                if fitting is not None:
                    here.add(stretch_path(payload, fitting), fitting.length)
                    taken.append(fitting)
                if rest is not None:
                    if not taken:
                        return None
                    cuts.append((taken, here.taken_bytes))
                    taken, room = [], self._room
                    here = _begun(payload, self._medium.cluster_bytes)
        if here.taken_bytes > room:
            return None
        return [*cuts, (taken, here.taken_bytes)]

    def _stretches(self, payload: Payload) -> Iterable[Stretch]:
        """The files, those as parts that the medium wouldn't take whole (SPEC 12.2)."""
        limit = self._medium.max_file_bytes
        for number, path, length in payload.files:
            whole = Stretch(number, 0, length, is_part=False)
            if is_portable(path) and length <= limit:
                yield whole
            else:
                yield from as_parts(whole, payload.piece_length, limit)

    def _open(self) -> int:
        if len(self._rooms) == MAX_SET_VOLUMES:
            raise MediaError(
                "media.too-many-volumes",
                N_("It would take more than {limit} volumes: choose a larger medium."),
                limit=MAX_SET_VOLUMES,
                fault=Fault.USAGE,
            )
        self._rooms.append(self._room)
        self._shares.append([])
        return len(self._rooms) - 1

    def _put(self, volume: int, share: Share, used: int) -> None:
        self._shares[volume].append(share)
        self._rooms[volume] -= used

    def _too_small(self, more_bytes: int) -> MediaError:
        least = self._common_bytes + more_bytes
        return MediaError(
            "media.volume-too-small",
            N_(
                "A volume of {size} kB is too small: with the catalogue and one piece of content it needs {needed} kB."
            ),
            size=self._medium.volume_bytes // 1000,
            needed=math.ceil(least * RESERVE_DIVISOR / (RESERVE_DIVISOR - 2) / 1000),
            fault=Fault.USAGE,
        )


def _fit(
    payload: Payload, stretch: Stretch, here: Footprint, room: int
) -> tuple[Stretch | None, Stretch | None]:
    """What of a stretch fits, and what is left of it."""
    if stretch.length <= here.room_for(stretch_path(payload, stretch), room):
        return stretch, None
    path = str(part_file(payload.infohash, stretch.file, stretch.piece))
    pieces = here.room_for(path, room) // payload.piece_length
    if pieces < 1:
        return None, stretch
    length = min(pieces * payload.piece_length, stretch.length)
    fitting = Stretch(stretch.file, stretch.piece, length, is_part=True)
    if length == stretch.length:
        return fitting, None
    rest = Stretch(stretch.file, stretch.piece + pieces, stretch.length - length, is_part=True)
    return fitting, rest


def _common(catalogues: Mapping[str, int], cluster_bytes: int) -> Footprint:
    """What every volume has."""
    found = Footprint(cluster_bytes)
    found.taken_bytes = TAG_BYTES + (len(_SHARED) + 8) * cluster_bytes
    for authority, length in catalogues.items():
        path = catalogue_file(authority)
        for place in (path, again(path)):
            found.add(str(place), math.ceil(length * CATALOGUE_GROWTH))
    return found


def _begun(payload: Payload, cluster_bytes: int) -> Footprint:
    """What a volume has of a bundle beside content."""
    found = Footprint(cluster_bytes)
    found.taken_bytes = BUNDLE_BYTES
    path = torrent_file(payload.infohash)
    for place in (path, again(path)):
        found.add(str(place), payload.torrent_bytes)
    return found
