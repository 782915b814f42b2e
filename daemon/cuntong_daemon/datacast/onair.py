"""What a sender remembers: its session, which TOIs stand for what, and how far each block is (SPEC 11.10).

A TOI is never used twice in a session, and a block's counter never goes back by more than what hadn't been sent yet: so a
symbol's number always means the same bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuntong_daemon.files import write_atomically
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.datacast.objects import MAX_FIRST_TOI
from cuntong_protocol.datacast.packets import MAX_SESSION
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (number INTEGER NOT NULL, next_toi INTEGER NOT NULL, beacon INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    key TEXT PRIMARY KEY,
    identity BLOB NOT NULL,
    toi INTEGER NOT NULL,
    blocks INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (toi INTEGER PRIMARY KEY, counter INTEGER NOT NULL);
"""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Claimed:
    """What an item has on the air.

    Attributes:
        toi: Of its first block.
        counters: Symbols of each block that were sent.
        is_new: Nothing was known of it.
    """

    toi: int
    counters: list[int]
    is_new: bool


class OnAirState:
    """The sender's database. Blocks; used by one thread at a time."""

    def __init__(self, path: Path, *, now_s: float) -> None:
        """Open it, or begin a new session.

        Args:
            path: Its folder must exist.
            now_s: Wall time, seconds since 1970: a new session's number follows from it, so that it is higher than any
                one that was lost.

        Raises:
            DatacastError: `datacast.sender-state`.
        """
        self._path = path
        try:
            self._database = _open(path)
            row = self._read_session()
        except (sqlite3.Error, OSError) as error:
            raise DatacastError(
                "datacast.sender-state",
                N_("{file} can't be used: {reason}. Look at the disk."),
                fault=Fault.SYSTEM,
                file=str(path),
                reason=str(error),
            ) from error
        last = max(_last_session(path), row[0] if row is not None else 0)
        if row is None or row[0] < last or row[1] > MAX_FIRST_TOI // 2:
            row = self._begin_session(max(int(now_s // 60), last + 1) & MAX_SESSION)
        self.session: int = row[0]
        self._next_toi: int = row[1]
        self.beacon: int = row[2]

    def _read_session(self) -> tuple[int, int, int] | None:
        row: tuple[int, int, int] | None = self._database.execute(
            "SELECT number, next_toi, beacon FROM session"
        ).fetchone()
        return row

    def _begin_session(self, number: int) -> tuple[int, int, int]:
        """Forget everything; what receivers have of earlier sessions can't be confused with this one."""
        write_atomically(_number_path(self._path), str(number).encode())
        with self._database:
            for table in ("session", "items", "counters"):
                self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours.
            self._database.execute("INSERT INTO session VALUES (?, 1, 0)", (number,))
        return number, 1, 0

    def close(self) -> None:
        self._database.close()

    def claim(self, key: str, identity: bytes, blocks: int) -> Claimed:
        """The TOIs of an item; new ones when its key stands for something else now.

        Args:
            key: Its place: a bundle's infohash, `programme` and so on.
            identity: What it is: the same bytes have the same.
            blocks: How many it has.
        """
        row = self._database.execute(
            "SELECT identity, toi, blocks FROM items WHERE key = ?", (key,)
        ).fetchone()
        if row is not None and row[0] == identity and row[2] == blocks:
            counters = [0] * blocks
            for toi, counter in self._database.execute(
                "SELECT toi, counter FROM counters WHERE toi >= ? AND toi < ?",
                (row[1], row[1] + blocks),
            ):
                counters[toi - row[1]] = counter
            return Claimed(row[1], counters, is_new=False)
        toi = self._next_toi
        self._next_toi += blocks
        with self._database:
            self._forget(key)
            self._database.execute("UPDATE session SET next_toi = ?", (self._next_toi,))
            self._database.execute(
                "INSERT INTO items VALUES (?, ?, ?, ?)", (key, identity, toi, blocks)
            )
        return Claimed(toi, [0] * blocks, is_new=True)

    def forget(self, keys: Iterable[str]) -> None:
        """These are off the air; their TOIs aren't used again."""
        with self._database:
            for key in keys:
                self._forget(key)

    def keys(self) -> list[str]:
        """Everything that has TOIs."""
        return [key for (key,) in self._database.execute("SELECT key FROM items")]

    def save(self, counters: Sequence[tuple[int, int]], beacon: int) -> None:
        """Remember how far blocks are: (TOI, counter), and the number of the last beacon."""
        with self._database:
            self._database.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (toi) DO UPDATE SET counter = excluded.counter",
                counters,
            )
            self._database.execute("UPDATE session SET beacon = ?", (beacon,))
        self.beacon = beacon

    def _forget(self, key: str) -> None:
        row = self._database.execute(
            "SELECT toi, blocks FROM items WHERE key = ?", (key,)
        ).fetchone()
        if row is not None:
            self._database.execute("DELETE FROM items WHERE key = ?", (key,))
            self._database.execute(
                "DELETE FROM counters WHERE toi >= ? AND toi < ?", (row[0], row[0] + row[1])
            )


def _open(path: Path) -> sqlite3.Connection:
    """The database, whole; what is damaged is put aside."""
    if not path.exists():
        _drop_logs(path)  # Of a database that is gone.
    try:
        return _connect(path)
    except sqlite3.DatabaseError:
        path.replace(path.with_suffix(".damaged"))
        _drop_logs(path)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {_FORMAT}")
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        for query in _QUERIES:
            database.execute(query).fetchall()
        _demand_sound(found)
    except BaseException:
        database.close()
        raise
    return database


_QUERIES = (
    "SELECT number, next_toi, beacon FROM session",
    "SELECT key, identity, toi, blocks FROM items LIMIT 1",
    "SELECT toi, counter FROM counters LIMIT 1",
)
"""Read at the start, so that tables of another shape count as damage."""


def _demand_sound(found: str) -> None:
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _drop_logs(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _number_path(path: Path) -> Path:
    return path.with_suffix(".session")


def _last_session(path: Path) -> int:
    """The number of the last session, which is also kept outside of the database; 0 when nothing is known."""
    try:
        return int(_number_path(path).read_bytes()[:12])
    except (OSError, ValueError):
        return 0
