"""The catalogue: what is listed for this node, what was ordered, what became of it, and what happened.

All of it lies in SQLite and is read page by page, so that 10,000 bundles cost a village's PC no memory.
Methods block: call them through `Database.call`, one at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from cuntong_protocol.bundle.descriptor import Descriptor, decode_descriptor
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_, Sentence

from .database import CatalogueError
from .words import Folder

VERSION = 1
PAGE = 200
"""Rows read at a time: about 300 kB of descriptors."""
MAX_ORDERS = 10_000
"""As many as a national catalogue has bundles."""
MAX_EVENTS = 10_000
"""Months of a busy node; about 3 MB."""
EVENT_SLACK = 500
"""Old events are removed in batches, not one by one."""
MAX_RESULTS = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS catalogue_version (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bundles (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  sha256 TEXT NOT NULL,
  revision INTEGER NOT NULL,
  listed_by TEXT NOT NULL,
  infohash BLOB NOT NULL,
  title TEXT NOT NULL,
  category TEXT NOT NULL,
  languages TEXT NOT NULL,
  date TEXT NOT NULL,
  payload_size INTEGER NOT NULL,
  content_size INTEGER NOT NULL,
  descriptor BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS bundles_by_infohash ON bundles (infohash);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(title, rest, tokenize = 'ascii');
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS states (
  id TEXT PRIMARY KEY,
  revision INTEGER NOT NULL,
  infohash BLOB NOT NULL,
  state TEXT NOT NULL,
  reason BLOB,
  changed_at INTEGER NOT NULL,
  used_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  sentence BLOB NOT NULL
);
"""
# The column order of _entry.
_ENTRY = "id, sha256, revision, listed_by, descriptor"
_SUMMARY = (
    "bundles.id, revision, bundles.title, category, languages, date, payload_size, content_size,"
    " (SELECT state FROM states WHERE states.id = bundles.id),"
    " EXISTS (SELECT 1 FROM orders WHERE orders.id = bundles.id)"
)


class Listed(Protocol):
    """What the catalogue takes from a verified listing (SPEC 4.8)."""

    @property
    def id(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def listed_by(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed bundle with its descriptor; `sha256` is the descriptor's, in hex."""

    id: str
    sha256: str
    revision: int
    listed_by: tuple[str, ...]
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Summary:
    """A line of the catalogue. `state` is empty when this node does nothing about the bundle."""

    id: str
    revision: int
    title: str
    category: str
    languages: tuple[str, ...]
    date: str
    payload_size: int
    content_size: int
    state: str
    is_ordered: bool


@dataclass(frozen=True, slots=True)
class BundleState:
    """What this node does about one bundle; times in seconds since 1970.

    Attributes:
        revision: The one that is held or fetched; perhaps older than the listed one.
        used_at: When somebody last read from it, as far as is known (for eviction).
    """

    id: str
    revision: int
    infohash: bytes
    state: str
    reason: Sentence | None
    changed_at: int
    used_at: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `at` is seconds since 1970."""

    number: int
    at: int
    kind: str
    sentence: Sentence


@dataclass(frozen=True, slots=True)
class Changes:
    """What `replace_listings` did, by bundle id. `skipped` have no usable descriptor (yet)."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[str, ...]


class Catalogue:
    """The catalogue's tables in the node's database.

    Args:
        connection: From `open_database`; stays the caller's to close.

    Raises:
        CatalogueError: `catalogue.newer` when a newer program made the tables.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_SCHEMA)
        with connection:
            row = connection.execute("SELECT version FROM catalogue_version").fetchone()
            if row is None:
                connection.execute("INSERT INTO catalogue_version VALUES (?)", (VERSION,))
            elif row[0] > VERSION:
                raise CatalogueError(
                    "catalogue.newer",
                    N_("A newer version of Cuntong made this node's database; update this one."),
                )

    # Listings

    def replace_listings(
        self, listings: Iterable[Listed], read_descriptor: Callable[[str], bytes | None]
    ) -> Changes:
        """Make the catalogue equal to a verified view, in one transaction.

        Args:
            listings: All that is listed and not withdrawn. Each id once.
            read_descriptor: The descriptor's verified bytes by SHA-256 in hex; None when it isn't here yet, and
                then what the catalogue says about that bundle stays as it is. Asked only for what is
                new or changed.
        """
        added: list[str] = []
        changed: list[str] = []
        skipped: list[str] = []
        connection = self._connection
        with connection, Folder() as folder:
            connection.execute("DROP TABLE IF EXISTS temp.kept")
            connection.execute("CREATE TEMP TABLE kept (id TEXT PRIMARY KEY) WITHOUT ROWID")
            for listing in listings:
                connection.execute("INSERT OR IGNORE INTO kept VALUES (?)", (listing.id,))
                listed_by = " ".join(listing.listed_by)
                row = connection.execute(
                    "SELECT number, sha256, listed_by FROM bundles WHERE id = ?", (listing.id,)
                ).fetchone()
                if row is not None and row[1] == listing.sha256:
                    if row[2] != listed_by:
                        connection.execute(
                            "UPDATE bundles SET listed_by = ? WHERE number = ?", (listed_by, row[0])
                        )
                    continue
                descriptor = _read(listing, read_descriptor)
                if descriptor is None:
                    skipped.append(listing.id)
                    continue
                if row is not None:
                    self._delete(row[0])
                self._insert(listing, listed_by, *descriptor, folder)
                (added if row is None else changed).append(listing.id)
            gone = connection.execute(
                "SELECT number, id FROM bundles WHERE id NOT IN (SELECT id FROM kept)"
            ).fetchall()
            for number, _id in gone:
                self._delete(number)
            connection.execute("DROP TABLE kept")
        return Changes(
            tuple(added),
            tuple(changed),
            tuple(identifier for _number, identifier in gone),
            tuple(skipped),
        )

    def _insert(
        self, listing: Listed, listed_by: str, data: bytes, descriptor: Descriptor, folder: Folder
    ) -> None:
        metadata = descriptor.metadata
        number = self._connection.execute(
            "INSERT INTO bundles (id, sha256, revision, listed_by, infohash, title, category, languages,"
            " date, payload_size, content_size, descriptor) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                listing.id,
                listing.sha256,
                listing.revision,
                listed_by,
                descriptor.infohash,
                metadata.title,
                metadata.category,
                " ".join(metadata.languages),
                metadata.date.isoformat(),
                descriptor.payload_size,
                descriptor.content_size,
                data,
            ),
        ).lastrowid
        rest = [metadata.slug, metadata.category, listing.id, *metadata.languages]
        rest += [text for texts in metadata.terms.values() for text in texts]
        if metadata.release is not None:
            rest.append(metadata.release.name)
        self._connection.execute(
            "INSERT INTO words (rowid, title, rest) VALUES (?, ?, ?)",
            (number, folder.indexed(metadata.title), folder.indexed("\n".join(rest))),
        )

    def _delete(self, number: int) -> None:
        self._connection.execute("DELETE FROM words WHERE rowid = ?", (number,))
        self._connection.execute("DELETE FROM bundles WHERE number = ?", (number,))

    def count(self) -> int:
        """How many bundles are listed."""
        count: int = self._connection.execute("SELECT count(*) FROM bundles").fetchone()[0]
        return count

    def bundles(self) -> Iterator[Entry]:
        """All listed bundles in the order of their ids, read a page at a time."""
        after = ""
        while True:
            rows = self._connection.execute(
                f"SELECT {_ENTRY} FROM bundles WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - a constant.
                (after, PAGE),
            ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield from map(_entry, rows)

    def bundle(self, identifier: str) -> Entry | None:
        """One listed bundle."""
        row = self._connection.execute(
            f"SELECT {_ENTRY} FROM bundles WHERE id = ?",  # noqa: S608 - a constant.
            (identifier,),
        ).fetchone()
        return None if row is None else _entry(row)

    def demand(self, identifier: str) -> Entry:
        """`bundle`, or an error for the person who asked.

        Raises:
            CatalogueError: `catalogue.unknown-bundle`.
        """
        entry = self.bundle(identifier)
        if entry is None:
            raise CatalogueError(
                "catalogue.unknown-bundle",
                N_("{id} isn't in the catalogue; look for it with: cuntong catalogue search WORDS"),
                fault=Fault.USAGE,
                id=identifier,
            )
        return entry

    def summaries(self, *, prefix: str = "", after: str = "", limit: int = 100) -> list[Summary]:
        """A page of the catalogue by id: ids that begin with `prefix` and come after `after`."""
        rows = self._connection.execute(
            f"SELECT {_SUMMARY} FROM bundles WHERE id > ? AND substr(id, 1, ?) = ?"  # noqa: S608 - a constant.
            " ORDER BY id LIMIT ?",
            (after, len(prefix), prefix, min(limit, MAX_RESULTS)),
        )
        return [_summary(row) for row in rows]

    def summary(self, identifier: str) -> Summary | None:
        rows = self._connection.execute(
            f"SELECT {_SUMMARY} FROM bundles WHERE id = ?",  # noqa: S608 - a constant.
            (identifier,),
        )
        return next(map(_summary, rows), None)

    def search(self, text: str, limit: int = 50) -> list[Summary]:
        """Bundles that hold every word of `text`, the best first. Nothing in `text` is an error."""
        with Folder() as folder:
            expression = folder.expression(text)
        if not expression:
            return []
        rows = self._connection.execute(
            f"SELECT {_SUMMARY} FROM words JOIN bundles ON bundles.number = words.rowid"  # noqa: S608 - a constant.
            " WHERE words MATCH ? ORDER BY bm25(words, 8.0, 1.0), bundles.id LIMIT ?",
            (expression, min(limit, MAX_RESULTS)),
        )
        return [_summary(row) for row in rows]

    # Orders

    def add_order(self, identifier: str, at: datetime) -> bool:
        """Order a listed bundle; True when it wasn't ordered before.

        Raises:
            CatalogueError: `catalogue.unknown-bundle`, `catalogue.too-many-orders`.
        """
        self.demand(identifier)
        with self._connection as connection:
            if connection.execute("SELECT count(*) FROM orders").fetchone()[0] >= MAX_ORDERS:
                raise CatalogueError(
                    "catalogue.too-many-orders",
                    N_("There are {count} orders already; remove some first."),
                    fault=Fault.USAGE,
                    count=MAX_ORDERS,
                )
            done = connection.execute(
                "INSERT OR IGNORE INTO orders VALUES (?, ?)", (identifier, int(at.timestamp()))
            )
        return done.rowcount > 0

    def remove_order(self, identifier: str) -> bool:
        """Take an order back; True when there was one."""
        with self._connection as connection:
            return connection.execute("DELETE FROM orders WHERE id = ?", (identifier,)).rowcount > 0

    def orders(self) -> frozenset[str]:
        """The ids of all ordered bundles, listed or not (any more)."""
        return frozenset(row[0] for row in self._connection.execute("SELECT id FROM orders"))

    # States

    def set_state(
        self,
        identifier: str,
        *,
        revision: int,
        infohash: bytes,
        state: str,
        at: datetime,
        reason: Sentence | None = None,
    ) -> None:
        """Remember what this node does about a bundle."""
        now = int(at.timestamp())
        with self._connection as connection:
            connection.execute(
                "INSERT INTO states VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                " changed_at = iif(state = excluded.state AND revision = excluded.revision,"
                " changed_at, excluded.changed_at), revision = excluded.revision,"
                " infohash = excluded.infohash, state = excluded.state, reason = excluded.reason",
                (
                    identifier,
                    revision,
                    infohash,
                    state,
                    None if reason is None else msgspec.msgpack.encode(reason),
                    now,
                    now,
                ),
            )

    def touch(self, identifier: str, at: datetime) -> None:
        """Remember that somebody used a bundle."""
        with self._connection as connection:
            connection.execute(
                "UPDATE states SET used_at = ? WHERE id = ?", (int(at.timestamp()), identifier)
            )

    def remove_state(self, identifier: str) -> None:
        """Forget a bundle that this node holds no more."""
        with self._connection as connection:
            connection.execute("DELETE FROM states WHERE id = ?", (identifier,))

    def state(self, identifier: str) -> BundleState | None:
        row = self._connection.execute(
            "SELECT * FROM states WHERE id = ?", (identifier,)
        ).fetchone()
        return None if row is None else _state(row)

    def states(self) -> list[BundleState]:
        """Of all bundles that this node holds or fetches."""
        return [_state(row) for row in self._connection.execute("SELECT * FROM states ORDER BY id")]

    # Events

    def record_event(self, kind: str, sentence: Sentence, at: datetime) -> None:
        """Remember something for the operator. The oldest events make room."""
        with self._connection as connection:
            number = connection.execute(
                "INSERT INTO events (at, kind, sentence) VALUES (?, ?, ?)",
                (int(at.timestamp()), kind, msgspec.msgpack.encode(sentence)),
            ).lastrowid
            if number is not None and number % EVENT_SLACK == 0:
                connection.execute("DELETE FROM events WHERE number <= ?", (number - MAX_EVENTS,))

    def events(self, limit: int = 50, *, kind: str | None = None) -> list[Event]:
        """The latest events, newest first."""
        rows = self._connection.execute(
            "SELECT number, at, kind, sentence FROM events WHERE ?1 IS NULL OR kind = ?1"
            " ORDER BY number DESC LIMIT ?2",
            (kind, min(limit, MAX_RESULTS)),
        )
        return [
            Event(number, at, kind, msgspec.msgpack.decode(data, type=Sentence))
            for number, at, kind, data in rows
        ]


def _read(
    listing: Listed, read_descriptor: Callable[[str], bytes | None]
) -> tuple[bytes, Descriptor] | None:
    data = read_descriptor(listing.sha256)
    if data is None:
        return None
    try:
        return data, decode_descriptor(data, expected_id=listing.id)
    except BundleError:
        # Signed, and yet wrong: that entry alone is left out (SPEC 4.2); the trust layer reports it.
        return None


def _entry(row: tuple[str, str, int, str, bytes]) -> Entry:
    identifier, sha256, revision, listed_by, data = row
    return Entry(identifier, sha256, revision, tuple(listed_by.split()), decode_descriptor(data))


def _summary(row: Sequence[object]) -> Summary:
    identifier, revision, title, category, languages, date, payload, content, state, ordered = row
    return Summary(
        str(identifier),
        int(str(revision)),
        str(title),
        str(category),
        tuple(str(languages).split()),
        str(date),
        int(str(payload)),
        int(str(content)),
        "" if state is None else str(state),
        bool(ordered),
    )


def _state(row: tuple[str, int, bytes, str, bytes | None, int, int]) -> BundleState:
    identifier, revision, infohash, state, reason, changed_at, used_at = row
    return BundleState(
        identifier,
        revision,
        infohash,
        state,
        None if reason is None else msgspec.msgpack.decode(reason, type=Sentence),
        changed_at,
        used_at,
    )
