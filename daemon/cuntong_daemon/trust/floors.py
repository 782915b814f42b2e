"""Durable floors: what was verified once is never gone below (SPEC 4.6).

Floors are the documents themselves. python-tuf finds rollbacks by comparing with the last timestamp and
snapshot, and knows when a new root makes them void (TUF 5.3.11); kept here, in SQLite with
`synchronous=FULL`, neither a power cut nor a truncated cache makes it forget. The same transaction that
accepts a catalogue raises its floors.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import TrustError

from .verifier import Documents

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trust_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trust_authority (
    code TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    anchor TEXT NOT NULL,
    proven_time INTEGER NOT NULL,
    root BLOB,
    timestamp BLOB,
    snapshot BLOB,
    accepted_timestamp BLOB,
    accepted_epoch INTEGER,
    members TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS trust_role (
    code TEXT NOT NULL,
    role TEXT NOT NULL,
    version INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (code, role)
) STRICT;
CREATE TABLE IF NOT EXISTS trust_equivocation (
    code TEXT NOT NULL,
    version INTEGER NOT NULL,
    first_sha256 TEXT NOT NULL,
    second_sha256 TEXT NOT NULL,
    second BLOB NOT NULL,
    PRIMARY KEY (code, version, second_sha256)
) STRICT;
"""

MAX_EQUIVOCATIONS = 16
"""Kept of one authority; one is proof enough, and a thief of the online key can make any number."""


@dataclass(frozen=True, slots=True)
class RoleFile:
    """An accepted file: `trusted/<code>/<version>.<role>.json` with this SHA-256."""

    version: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The last complete catalogue of an authority: its timestamp, and every role's file by role."""

    timestamp: bytes
    epoch: int
    roles: Mapping[str, RoleFile]


@dataclass(frozen=True, slots=True)
class Floor:
    """What is known for good about one authority.

    Attributes:
        code: The authority.
        epoch: Highest endorsed epoch seen.
        anchor: SHA-256 of that epoch's first root.
        proven_time: The highest signed time seen from it in this epoch, or when this node was enrolled.
        documents: Highest verified documents; None before the first root was seen.
        accepted: The last complete catalogue, perhaps of an earlier epoch.
        members: SHA-256 of the last members list that could be read.
    """

    code: Division
    epoch: int
    anchor: str
    proven_time: datetime
    documents: Documents | None
    accepted: Accepted | None
    members: str | None


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two signed timestamps of one version (SPEC 4.9). `second`: the later one's bytes, as evidence."""

    code: Division
    version: int
    first_sha256: str
    second_sha256: str
    second: bytes


class Floors:
    """The floors in SQLite. One owner; every change is one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take over `connection` (in autocommit, not used by anyone else) and make the tables.

        Raises:
            TrustError: `trust.newer-state`: a later version of this program wrote here.
            sqlite3.Error: the database can't be used.
        """
        self._db = connection
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        found = self._meta("version")
        if found is None:
            connection.execute("INSERT INTO trust_meta VALUES ('version', ?)", (SCHEMA_VERSION,))
        elif found > SCHEMA_VERSION:
            raise TrustError(
                "trust.newer-state",
                N_(
                    "The trust database was written by a newer version of Cuntong: install that version again."
                ),
            )

    def _meta(self, name: str) -> int | None:
        row = self._db.execute("SELECT value FROM trust_meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    @property
    def enrolled(self) -> datetime | None:
        """When this node was enrolled, by the clock of whoever enrolled it."""
        value = self._meta("enrolled")
        return None if value is None else _moment(value)

    def bootstrap(self, code: Division, anchor: str, root: bytes, proven_time: datetime) -> None:
        """Set the anchor of all trust, once, and the time that is proven from the start."""
        with self._transaction():
            seconds = int(proven_time.timestamp())
            self._db.execute("INSERT INTO trust_meta VALUES ('enrolled', ?)", (seconds,))
            self._db.execute(
                "INSERT INTO trust_authority (code, epoch, anchor, proven_time, root)"
                " VALUES (?, 1, ?, ?, ?)",
                (code, anchor, seconds, root),
            )

    def load(self, code: Division) -> Floor | None:
        """What is known of one authority."""
        row = self._db.execute(
            "SELECT epoch, anchor, proven_time, root, timestamp, snapshot,"
            " accepted_timestamp, accepted_epoch, members FROM trust_authority WHERE code = ?",
            (code,),
        ).fetchone()
        if row is None:
            return None
        roles = {
            role: RoleFile(version, sha256)
            for role, version, sha256 in self._db.execute(
                "SELECT role, version, sha256 FROM trust_role WHERE code = ?", (code,)
            )
        }
        return Floor(
            code,
            row[0],
            row[1],
            _moment(row[2]),
            None if row[3] is None else Documents(row[3], row[4], row[5]),
            None if row[6] is None else Accepted(row[6], row[7], roles),
            row[8],
        )

    def begin_epoch(self, code: Division, epoch: int, anchor: str, proven_time: datetime) -> None:
        """Start an authority (afresh): its floors are void, the last accepted catalogue stays readable."""
        self._db.execute(
            "INSERT INTO trust_authority (code, epoch, anchor, proven_time) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (code) DO UPDATE SET epoch = excluded.epoch, anchor = excluded.anchor,"
            " proven_time = excluded.proven_time, root = NULL, timestamp = NULL, snapshot = NULL",
            (code, epoch, anchor, int(proven_time.timestamp())),
        )

    def raise_epoch(self, code: Division, epoch: int) -> None:
        """The same root was endorsed with a higher epoch: remember that, keep the rest."""
        self._db.execute("UPDATE trust_authority SET epoch = ? WHERE code = ?", (epoch, code))

    def set_root(self, code: Division, root: bytes) -> None:
        """The first root of the present epoch has arrived."""
        self._db.execute(
            "UPDATE trust_authority SET root = ? WHERE code = ? AND root IS NULL", (root, code)
        )

    def raise_floor(
        self,
        code: Division,
        documents: Documents,
        proven_time: datetime,
        accepted: Accepted | None,
    ) -> None:
        """Record what a run has verified, and the complete catalogue when it has one: one transaction.

        `proven_time` is taken as it is: it falls back when a new root has made void the timestamps that
        it came from (TUF 5.3.11), so that a stolen online key can't move a subtree into the far future.
        """
        with self._transaction():
            self._db.execute(
                "UPDATE trust_authority SET root = ?, timestamp = ?, snapshot = ?,"
                " proven_time = ? WHERE code = ?",
                (
                    documents.root,
                    documents.timestamp,
                    documents.snapshot,
                    int(proven_time.timestamp()),
                    code,
                ),
            )
            if accepted is None:
                return
            self._db.execute(
                "UPDATE trust_authority SET accepted_timestamp = ?, accepted_epoch = ?"
                " WHERE code = ?",
                (accepted.timestamp, accepted.epoch, code),
            )
            self._db.execute("DELETE FROM trust_role WHERE code = ?", (code,))
            self._db.executemany(
                "INSERT INTO trust_role VALUES (?, ?, ?, ?)",
                [(code, role, file.version, file.sha256) for role, file in accepted.roles.items()],
            )

    def set_members(self, code: Division, sha256: str) -> None:
        """Remember the last members list that could be read, for while the next one is on its way."""
        self._db.execute("UPDATE trust_authority SET members = ? WHERE code = ?", (sha256, code))

    def record_equivocation(self, found: Equivocation) -> None:
        """Keep the evidence."""
        with self._transaction():
            (count,) = self._db.execute(
                "SELECT count(*) FROM trust_equivocation WHERE code = ?", (found.code,)
            ).fetchone()
            if count < MAX_EQUIVOCATIONS:
                self._db.execute(
                    "INSERT OR IGNORE INTO trust_equivocation VALUES (?, ?, ?, ?, ?)",
                    (
                        found.code,
                        found.version,
                        found.first_sha256,
                        found.second_sha256,
                        found.second,
                    ),
                )

    def equivocations(self) -> tuple[Equivocation, ...]:
        """All evidence."""
        return tuple(
            Equivocation(Division(code), version, first, second, data)
            for code, version, first, second, data in self._db.execute(
                "SELECT code, version, first_sha256, second_sha256, second"
                " FROM trust_equivocation ORDER BY code, version, second_sha256"
            )
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._rollback()
                raise
        else:
            self._rollback()

    def _rollback(self) -> None:
        # SQLite has already rolled back by itself after a full disk.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
