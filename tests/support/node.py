"""A node's local socket with simple handlers behind it: the real server, a real catalogue, no network."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cuntong_daemon.catalogue import Catalogue, Database
from cuntong_daemon.control.catalogue_methods import catalogue_methods
from cuntong_daemon.control.server import ControlServer, Handler, Stream
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_protocol.bundle.descriptor import Descriptor, encode_descriptor
from cuntong_protocol.bundle.metadata import Metadata
from cuntong_protocol.divisions import NATION

NOW = dt.datetime(2027, 3, 5, 12, 0, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Listing:
    """What the catalogue takes of a verified listing."""

    id: str
    sha256: str
    revision: int
    listed_by: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """A listing with its descriptor's bytes."""

    listing: Listing
    data: bytes


def published(
    title: str,
    slug: str,
    *,
    publisher: str = "000000000000",
    revision: int = 1,
    terms: Any = None,
    **metadata: Any,
) -> Published:
    """A bundle that needs no folder: only its descriptor exists."""
    identifier = f"{publisher}/202703/{slug}"
    descriptor = Descriptor(
        id=identifier,
        revision=revision,
        metadata=Metadata(
            title=title, slug=slug, date=dt.date(2027, 3, 1), terms=terms or {}, **metadata
        ),
        infohash=sha256(f"{identifier}{revision}".encode()).digest(),
        piece_length=1 << 20,
        payload_size=2_000_000,
        content_size=5_000_000,
        file_count=12,
        supersedes=None,
    )
    data = encode_descriptor(descriptor)
    return Published(Listing(identifier, sha256(data).hexdigest(), revision, (NATION,)), data)


def fill(catalogue: Catalogue, bundles: list[Published]) -> None:
    """Make a catalogue list exactly these bundles."""
    blobs = {bundle.listing.sha256: bundle.data for bundle in bundles}
    catalogue.replace_listings((bundle.listing for bundle in bundles), blobs.get)


@dataclass
class FakeNode:
    """A node that answers what its handlers say."""

    paths: DataPaths
    database: Database
    catalogue: Catalogue


@asynccontextmanager
async def fake_node(
    folder: Path,
    bundles: list[Published],
    handlers: dict[str, Handler] | None = None,
    streams: dict[str, Stream] | None = None,
    now: Callable[[], dt.datetime] = lambda: NOW,
) -> AsyncIterator[FakeNode]:
    """A node in `folder` that listens on its socket inside the block."""
    paths = DataPaths(folder)
    database = Database(paths.database)
    try:
        catalogue = Catalogue(database.connection)
        fill(catalogue, bundles)
        methods = catalogue_methods(catalogue, database, now=now) | (handlers or {})
        async with running(ControlServer(paths.socket, methods, streams)):
            yield FakeNode(paths, database, catalogue)
    finally:
        database.close()
