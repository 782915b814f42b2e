"""What should be on the air, and the objects that tell of it: manifests and catalogues (SPEC 11.6 to 11.8)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cuntong_daemon.catalogue import BundleState, Catalogue
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.planning import end_of_day
from cuntong_daemon.store.torrents import load_torrent, payload_folder
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.bundle.merkle import FileHasher
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.datacast.blocks import BLOCK_BYTES, Layout
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.datacast.objects import (
    MAX_BUNDLES,
    Item,
    Manifest,
    encode_catalogue,
    encode_manifest,
)
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.link.messages import Announcement
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import blob_path, metadata_path, timestamp_path

from .encoder import Stretch

MAX_ROOTS = 256
"""python-tuf follows no longer chain."""
_HASHED_AT_ONCE = 1024 * 1024


class LineupBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle to be cast.

    Attributes:
        deadline: The end of the day by which it should be everywhere, seconds since 1970; 0: none.
        order: Place among first passes.
    """

    id: str
    infohash: bytes
    size: int
    priority: int
    deadline: int = 0
    order: int = 0


class LineupCatalogue(msgspec.Struct, frozen=True, kw_only=True):
    """An authority's verified catalogue to be cast; `sha256` is its timestamp's."""

    authority: str
    version: int
    sha256: bytes


class Lineup(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that should be on the air."""

    bundles: list[LineupBundle] = []
    catalogues: list[LineupCatalogue] = []


def lineup_of(
    catalogue: Catalogue,
    code: Division,
    held: Mapping[str, BundleState],
    announcements: Iterable[Announcement],
) -> Lineup:
    """All that may be cast of what a node has. Blocks; runs in the database's thread.

    Args:
        catalogue: What is listed.
        code: This node.
        held: What is here and whole, by bundle id.
        announcements: The verified catalogues of the authorities that this node follows.
    """
    found: list[tuple[tuple[int, float, int], LineupBundle]] = []
    for entry in catalogue.bundles():
        descriptor = entry.descriptor
        state = held.get(entry.id)
        if state is None or state.infohash != descriptor.infohash:
            continue
        metadata = descriptor.metadata
        if metadata.licence.kind != "open":
            continue  # Whoever has a dish could receive it.
        deadlines = metadata.release.deadlines.values() if metadata.release is not None else ()
        deadline = int(end_of_day(min(deadlines)).timestamp()) if deadlines else 0
        bundle = LineupBundle(
            id=entry.id,
            infohash=descriptor.infohash,
            size=descriptor.payload_size,
            priority=metadata.priority,
            deadline=deadline,
        )
        order = (-metadata.priority, deadline or math.inf, descriptor.payload_size)
        found.append((order, bundle))
    found.sort(key=lambda pair: (pair[0], pair[1].id))
    return Lineup(
        bundles=[
            msgspec.structs.replace(bundle, order=place)
            for place, (_, bundle) in enumerate(found[:MAX_BUNDLES])
        ],
        catalogues=[
            LineupCatalogue(authority=str(it.authority), version=it.version, sha256=it.sha256)
            for it in announcements
            if it.authority.is_within(code) or it.authority in code.ancestors
        ],
    )


class CastBundle(msgspec.Struct, frozen=True, kw_only=True):
    """How a bundle is cast: its manifest, and each block's size and place."""

    manifest: bytes
    blocks: list[tuple[int, list[Stretch]]]


def cast_bundle(paths: DataPaths, infohash: bytes) -> CastBundle:
    """Work out a bundle's blocks and manifest. With pieces of 8 MiB it reads the whole payload.

    Raises:
        StoreError: `store.no-torrent`.
        OSError: the payload can't be read.
    """
    torrent = load_torrent(paths, infohash)
    folder = payload_folder(paths, torrent)
    layout = Layout(torrent)
    blocks: list[tuple[int, list[Stretch]]] = []
    for number, size in enumerate(layout.sizes):
        stretches: list[Stretch] = []
        for part in layout.parts(number):
            file, start, _ = torrent.piece_place(part.piece)
            path, offset = str(folder / file.path), start + part.offset
            last = stretches[-1] if stretches else None
            if last is not None and (last.path, last.offset + last.length) == (path, offset):
                stretches[-1] = Stretch(path, last.offset, last.length + part.length)
            else:
                stretches.append(Stretch(path, offset, part.length))
        blocks.append((size, stretches))
    manifest = Manifest(torrent=torrent.encode(), halves=_halves(torrent, folder))
    return CastBundle(manifest=encode_manifest(manifest), blocks=blocks)


def _halves(torrent: Torrent, folder: Path) -> dict[bytes, bytes]:
    """The hashes of half pieces, where a piece doesn't fit into a block."""
    if torrent.piece_length <= BLOCK_BYTES:
        return {}
    found: dict[bytes, bytes] = {}
    for file in torrent.files:
        if file.length > BLOCK_BYTES and file.root not in found:
            hasher = FileHasher(BLOCK_BYTES)
            with (folder / file.path).open("rb") as content:
                while data := content.read(_HASHED_AT_ONCE):
                    hasher.update(data)
            root, layer = hasher.finish()
            if root != file.root:
                raise OSError(f"{folder / file.path} isn't what it was")
            found[root] = layer
    return found


def catalogue_files(spool: Spool, wanted: LineupCatalogue) -> list[Item]:
    """All files of an authority's verified catalogue, those first without which others are of no use.

    Raises:
        DatacastError: `datacast.catalogue-changing`: it isn't all there, or another version is by now.
    """
    authority = Division(wanted.authority)
    found: dict[str, Item] = {}

    def take(path: str, name: str) -> dict[str, Any]:
        data = spool.read(path) or b"{}"
        found[name] = Item(name, data)
        signed: dict[str, Any] = json.loads(data)["signed"]
        return signed

    try:
        timestamp = take(timestamp_path(authority), "timestamp.json")
        for number in range(1, MAX_ROOTS + 1):
            path = metadata_path(authority, "root", number)
            data = spool.read(path)
            if data is None and number > 1:
                break
            take(path, f"{number}.root.json")
        version = int(timestamp["meta"]["snapshot.json"]["version"])
        snapshot = take(metadata_path(authority, "snapshot", version), f"{version}.snapshot.json")
        blobs: list[Item] = []
        for role, meta in snapshot["meta"].items():
            name = f"{int(meta['version'])}.{role}"
            path = metadata_path(authority, role.removesuffix(".json"), int(meta["version"]))
            for entry in take(path, name)["targets"].values():
                if entry["length"]:
                    blobs += _blob(spool, entry["hashes"]["sha256"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _changing(wanted.authority) from error
    if hashlib.sha256(found["timestamp.json"].data).digest() != wanted.sha256:
        raise _changing(wanted.authority)
    return [*found.values(), *blobs]


def _blob(spool: Spool, sha256: str) -> Iterator[Item]:
    data = spool.read(blob_path(sha256))
    if data is not None:
        yield Item("", data)


def catalogue_snapshot(authority: str, files: list[Item]) -> bytes:
    """All of a catalogue."""
    return encode_catalogue(authority, files)


def catalogue_delta(authority: str, old: list[Item], files: list[Item]) -> bytes:
    """What a catalogue has that an older one hasn't; packed against the older versions of the same roles.

    Returns:
        An object; empty when there is nothing new.
    """
    known = {(item.name, hashlib.sha256(item.data).digest()) for item in old}
    fresh = [item for item in files if (item.name, hashlib.sha256(item.data).digest()) not in known]
    roles = {_role(item.name) for item in fresh if item.name}
    bases = [
        (item.name, item.data)
        for item in old
        if item.name and _role(item.name) in roles and _role(item.name) != "root"
    ]
    return encode_catalogue(authority, fresh, bases) if fresh else b""


def _role(name: str) -> str:
    """`3.targets.json` and `timestamp.json` are versions of `targets` and `timestamp`."""
    return name.split(".")[-2]


def _changing(authority: str) -> DatacastError:
    return DatacastError(
        "datacast.catalogue-changing",
        N_("The catalogue of {authority} is being replaced; it is cast a little later."),
        fault=Fault.SYSTEM,
        authority=authority,
    )
