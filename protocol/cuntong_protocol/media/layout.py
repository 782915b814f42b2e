"""Where things lie on a volume, and which names every file system takes (SPEC 12.1, 12.2)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

PAYLOAD = PurePosixPath("data")
"""A bag's payload folder (RFC 8493, section 2.1.2)."""
VOLUME_FILE = PAYLOAD / "volume"
CATALOGUE_FOLDER = PAYLOAD / "catalogue"
TORRENT_FOLDER = PAYLOAD / "torrents"
STORE_FOLDER = PAYLOAD / "store"
PARTS_FOLDER = PAYLOAD / "parts"
AGAIN_FOLDER = PAYLOAD / "again"
"""Second copies of what everything else hangs on, under the same names."""

MAX_FAT_FILE_BYTES = 2**32 - 1
"""FAT has 32 bits for a file's length, ISO 9660 likewise."""
DISC_BYTES = {"dvd": 4_700_372_992, "bd": 25_025_314_816}
"""Of a DVD+R (ECMA-349) and of a single-layer BD-R."""
MAX_COMPONENT_UNITS = 255
"""UTF-16 units of a name on FAT, exFAT and NTFS."""

_FOREIGN = re.compile(r'["*:<>?|%]')
"""What Windows' file systems refuse; and the percent sign, which RFC 8493 and the tools for it write differently."""
_SERIAL = re.compile(r"[a-z2-7]{10}")
_FOLDER = re.compile(r"cuntong-([a-z2-7]{10})-([1-9][0-9]{0,3})")
_PART = re.compile(r"0|[1-9][0-9]{0,9}")


def volume_folder(serial: str, number: int) -> str:
    """The name of a volume's folder.

    Args:
        serial: Of the set.
        number: From 1.
    """
    if _SERIAL.fullmatch(serial) is None or not 1 <= number <= 9999:
        raise ValueError((serial, number))
    return f"cuntong-{serial}-{number}"


def parse_volume_folder(name: str) -> tuple[str, int] | None:
    """Serial and number that a folder's name states, or None."""
    match = _FOLDER.fullmatch(name)
    return None if match is None else (match[1], int(match[2]))


def torrent_file(infohash: bytes) -> PurePosixPath:
    return TORRENT_FOLDER / f"{infohash.hex()}.torrent"


def catalogue_file(authority: str) -> PurePosixPath:
    return CATALOGUE_FOLDER / authority


def store_file(infohash: bytes, name: str, path: str) -> PurePosixPath:
    """A whole file of a payload.

    Args:
        infohash: The payload's.
        name: The torrent's.
        path: The file's within the torrent.
    """
    return STORE_FOLDER / infohash.hex() / name / path


def part_file(infohash: bytes, file: int, piece: int) -> PurePosixPath:
    """A stretch of a file.

    Args:
        infohash: The payload's.
        file: Number of the file in the torrent.
        piece: Number, within the file, of the first piece that the stretch holds.
    """
    return PARTS_FOLDER / infohash.hex() / str(file) / str(piece)


def parse_part(file: str, piece: str) -> tuple[int, int] | None:
    """The two numbers in a part's path, or None when it is none."""
    if _PART.fullmatch(file) is None or _PART.fullmatch(piece) is None:
        return None
    return int(file), int(piece)


def again(path: PurePosixPath) -> PurePosixPath:
    """Where the second copy of a file below `data/` lies."""
    return AGAIN_FOLDER / path.relative_to(PAYLOAD)


def is_portable(path: str) -> bool:
    """Whether FAT, exFAT and NTFS, and every tool for bags, take a path that SPEC 3.6 allows."""
    return _FOREIGN.search(path) is None and all(
        len(component.encode("utf-16-le")) // 2 <= MAX_COMPONENT_UNITS
        for component in path.split("/")
    )
