"""The node's SQLite database: one connection, used by one thread at a time.

`synchronous=FULL` in WAL mode: what was committed is there after a power cut (DESIGN 3, durable floors).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from cuntong_daemon.store.errors import database_error
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

CACHE_KIB = 256
"""Pages kept in memory; the rest is the system's cache, which isn't ours to pay for."""
WAL_LIMIT_BYTES = 4 * 1024 * 1024
BUSY_TIMEOUT_MS = 5000
"""Only backup tools besides us open the file."""

MAX_CHECKED_BYTES = 256 * 1024 * 1024
"""A database up to this size is read through at the start: some seconds on an old disk. Later damage of a larger
one is noticed where it is read."""

T = TypeVar("T")


class CatalogueError(CuntongError):
    """The database can't be used, or what is asked for isn't in the catalogue."""

    fault = Fault.SYSTEM


def open_database(path: Path) -> sqlite3.Connection:
    """Open or make the database. The caller closes it.

    The connection may be handed from thread to thread but never used by two at once.

    Raises:
        CatalogueError: `catalogue.no-database`.
        StoreError: `catalogue.damaged`, `store.disk-full`.
    """
    try:
        connection = sqlite3.connect(path, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
            connection.execute("SELECT count(*) FROM sqlite_schema")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        problem = database_error(error, str(path))
        if problem.code != "store.disk-error":
            raise problem from error
        raise CatalogueError(
            "catalogue.no-database",
            N_("The database {file} can't be opened: {reason}."),
            file=str(path),
            reason=str(error),
        ) from error
    return connection


def check_database(path: Path) -> None:
    """Read the whole database before anything relies on it; one that isn't there is fine.

    Raises:
        StoreError: `catalogue.damaged`, and as `open_database`.
    """
    if not path.exists():
        return
    connection = open_database(path)
    try:
        if path.stat().st_size > MAX_CHECKED_BYTES:
            return
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            # What it found is for experts, and has several lines.
            damage = sqlite3.DatabaseError(found.splitlines()[-1])
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
    except sqlite3.Error as error:
        raise database_error(error, str(path)) from error
    finally:
        connection.close()


class Database:
    """The connection and the right to use it: `await database.call(function)` runs in a thread, one at a time."""

    def __init__(self, path: Path) -> None:
        self.connection = open_database(path)
        self._file = str(path)
        self._turn = trio.CapacityLimiter(1)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function that uses the connection. It isn't abandoned when cancelled: writes are whole.

        Raises:
            StoreError: `store.disk-full`, `store.disk-error`, `catalogue.damaged`; nothing was changed.
        """
        try:
            return await trio.to_thread.run_sync(function, *arguments, limiter=self._turn)
        except sqlite3.Error as error:
            raise database_error(error, self._file) from error

    def close(self) -> None:
        self.connection.close()
