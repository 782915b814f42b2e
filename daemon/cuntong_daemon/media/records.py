"""What is remembered of media: sets imported, what other places have, payloads that wait for their listing.

It lies in the node's database. Methods block: call them through `Database.call`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from cuntong_protocol.divisions import Division
from cuntong_protocol.media.papers import MAX_SETS, SHORT, Receipt, Volume

MAX_PLACES = 50_000
"""Every village of a province."""
MAX_KNOWN_SETS = 1_000
STATISTICS = ("by_satellite", "by_swarm", "by_medium", "sent")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS media_places (
  code TEXT PRIMARY KEY,
  how TEXT NOT NULL,
  at INTEGER NOT NULL,
  held BLOB NOT NULL,
  is_all INTEGER NOT NULL,
  number INTEGER NOT NULL,
  receipt BLOB,
  key BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS media_volumes (
  serial TEXT NOT NULL,
  number INTEGER NOT NULL,
  count INTEGER NOT NULL,
  made_by TEXT NOT NULL,
  made_at INTEGER NOT NULL,
  imported_at INTEGER NOT NULL,
  is_in_place INTEGER NOT NULL,
  PRIMARY KEY (serial, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS media_offers (
  infohash BLOB PRIMARY KEY, id TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS media_counters (
  name TEXT PRIMARY KEY, value INTEGER NOT NULL
) WITHOUT ROWID;
"""

How = Literal["link", "receipt"]


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a place's store.

    Attributes:
        how: By whose word.
        at: When that was, by this node's clock for a link and by the place's for a receipt; seconds since 1970.
        held: Shortened infohashes.
        is_all: There are no others.
        number: Of its last receipt; 0: none was taken.
        receipt: The last one.
    """

    code: Division
    how: How
    at: int
    held: frozenset[bytes]
    is_all: bool
    number: int
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A set of which volumes were imported; times in seconds since 1970."""

    serial: str
    count: int
    by: str
    made_at: int
    numbers: tuple[int, ...]


class MediaRecords:
    """The tables; the connection is the database's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._database = connection
        with connection:
            connection.executescript(_SCHEMA)

    # Other places.

    def place(self, code: str) -> Place | None:
        """What is known of a place."""
        row = self._database.execute(
            "SELECT code, how, at, held, is_all, number, receipt FROM media_places WHERE code = ?",
            (code,),
        ).fetchone()
        return None if row is None else _place(row)

    def places(self, limit: int) -> list[Place]:
        """Those heard of last first."""
        rows = self._database.execute(
            "SELECT code, how, at, held, is_all, number, receipt FROM media_places"
            " ORDER BY at DESC, code LIMIT ?",
            (limit,),
        )
        return [_place(row) for row in rows]

    def orders(self) -> set[str]:
        """What other places have ordered, by their last receipts."""
        rows = self._database.execute("SELECT receipt FROM media_places WHERE receipt IS NOT NULL")
        return {
            identifier
            for (body,) in rows
            for identifier in msgspec.msgpack.decode(body, type=Receipt).orders
        }

    def heard(self, code: str, held: Iterable[bytes], at: int) -> None:
        """A place has said on its link what it has; this is all of it."""
        self._database.execute(
            "INSERT INTO media_places VALUES (?, 'link', ?, ?, 1, 0, NULL, NULL)"
            " ON CONFLICT (code) DO UPDATE SET how = 'link', at = excluded.at, held = excluded.held, is_all = 1",
            (code, at, _joined(held)),
        )
        self._database.commit()

    def take_receipt(self, receipt: Receipt, body: bytes, key: bytes = b"") -> bool:
        """Note what a checked receipt says.

        Args:
            receipt: It.
            body: The same as it is kept.
            key: SHA-256 of the key that signed it. With another key than before the place is a new one, whose
                numbers begin anew.

        Returns:
            False: one that is as new, or newer, was taken before.
        """
        known = self.place(receipt.code)
        if known is not None and not self._is_news(known, receipt, key):
            return False
        held, is_all, how, at = receipt.holdings, receipt.is_all, "receipt", receipt.made_at
        if known is not None and not is_all:
            held, is_all = held | known.held, known.is_all
        if known is not None and known.how == "link" and known.at > at:
            # It was long in the post: what the place has said since counts.
            held, is_all, how, at = known.held, known.is_all, known.how, known.at
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO media_places VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (receipt.code, how, at, _joined(held), is_all, receipt.number, body, key),
            )
            self._database.execute(
                "DELETE FROM media_places WHERE code NOT IN"
                " (SELECT code FROM media_places ORDER BY at DESC LIMIT ?)",
                (MAX_PLACES,),
            )
        return True

    def _is_news(self, known: Place, receipt: Receipt, key: bytes) -> bool:
        row = self._database.execute(
            "SELECT key FROM media_places WHERE code = ?", (receipt.code,)
        ).fetchone()
        if row is not None and row[0] and row[0] != key:
            return True
        if known.number == receipt.number and known.receipt is not None:
            # A QR code may hold less than the file of the same receipt.
            return receipt.is_all and not known.receipt.is_all
        return known.number < receipt.number

    # Volumes.

    def imported(self, volume: Volume, at: int, *, is_in_place: bool) -> None:
        """A volume was read through."""
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO media_volumes VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    volume.serial,
                    volume.number,
                    volume.count,
                    volume.by,
                    volume.made_at,
                    at,
                    is_in_place,
                ),
            )
            self._database.execute(
                "DELETE FROM media_volumes WHERE serial NOT IN (SELECT serial FROM media_volumes"
                " GROUP BY serial ORDER BY max(imported_at) DESC LIMIT ?)",
                (MAX_KNOWN_SETS,),
            )

    def was_in_place(self, serial: str, number: int) -> bool:
        """Whether a volume was imported to be held where it is."""
        row = self._database.execute(
            "SELECT is_in_place FROM media_volumes WHERE serial = ? AND number = ?",
            (serial, number),
        ).fetchone()
        return row is not None and bool(row[0])

    def sets(self, limit: int = MAX_SETS) -> list[KnownSet]:
        """The sets imported last."""
        rows = self._database.execute(
            "SELECT serial, max(count), min(made_by), min(made_at), group_concat(number)"
            " FROM media_volumes GROUP BY serial ORDER BY max(imported_at) DESC, serial LIMIT ?",
            (limit,),
        )
        return [
            KnownSet(serial, count, by, at, tuple(sorted(int(it) for it in numbers.split(","))))
            for serial, count, by, at, numbers in rows
        ]

    # Payloads that wait for their listing.

    def offers(self) -> dict[bytes, str]:
        """Bundle by infohash."""
        return dict(self._database.execute("SELECT infohash, id FROM media_offers").fetchall())

    def set_offer(self, infohash: bytes, identifier: str | None) -> None:
        """Note that a payload waits, or (None) that it doesn't any more."""
        with self._database:
            if identifier is None:
                self._database.execute("DELETE FROM media_offers WHERE infohash = ?", (infohash,))
            else:
                self._database.execute(
                    "INSERT OR REPLACE INTO media_offers VALUES (?, ?)", (infohash, identifier)
                )

    # Counting.

    def next_number(self) -> int:
        """The number of the next receipt."""
        self.count({"receipts": 1})
        return self.counters()["receipts"]

    def count(self, more: Mapping[str, int]) -> None:
        """Add to counters that outlive the daemon."""
        with self._database:
            self._database.executemany(
                "INSERT INTO media_counters VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                more.items(),
            )

    def begin_counting(self, at: int) -> None:
        """Note since when is counted, unless it is known."""
        with self._database:
            self._database.execute(
                "INSERT OR IGNORE INTO media_counters VALUES ('since', ?)", (at,)
            )

    def counters(self) -> dict[str, int]:
        """All of them."""
        return dict(self._database.execute("SELECT name, value FROM media_counters").fetchall())


def _joined(held: Iterable[bytes]) -> bytes:
    return b"".join(sorted({infohash[:SHORT] for infohash in held}))


def _place(row: tuple[str, How, int, bytes, int, int, bytes | None]) -> Place:
    code, how, at, held, is_all, number, body = row
    receipt = None if body is None else msgspec.msgpack.decode(body, type=Receipt)
    shortened = frozenset(held[start : start + SHORT] for start in range(0, len(held), SHORT))
    return Place(Division(code), how, at, shortened, bool(is_all), number, receipt)
