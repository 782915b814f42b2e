"""Volumes made by hand, what may happen to them in the post, and what is still on them then (SPEC 12.1)."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pytest
import trio

from cuntong_daemon.app import Node, node_running
from cuntong_daemon.config import load_config
from cuntong_daemon.control.client import ControlClient
from cuntong_daemon.control.media_messages import (
    ImportedBundle,
    ImportResult,
    ImportStep,
    Offer,
    OfferedBundle,
)
from cuntong_daemon.datacast.lineup import LineupCatalogue, catalogue_files, catalogue_snapshot
from cuntong_daemon.media import content as content_module
from cuntong_daemon.media.receipts import Identity, load_identity
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import network_digest
from cuntong_daemon.store.torrents import load_torrent, payload_folder
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.bundle.descriptor import encode_descriptor, parse_bundle_id
from cuntong_protocol.bundle.metadata import parse_metadata
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.datacast.objects import Item, catalogue_head, encode_catalogue, snapshot_frame
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.media import layout
from cuntong_protocol.media.papers import Volume, VolumeBundle, encode_volume
from cuntong_tools.demo.network import Place
from cuntong_tools.publish.build import BuiltBundle, build_bundle
from tests.support import pki, trust_repo
from tests.support.bundles import as_predecessor, read_folder, write_folder

SERIAL = "abcdefghij"
PART_PIECES = 3
"""Pieces of a stretch of a file that lies as parts."""


@dataclass(frozen=True)
class Lot:
    """A payload for a volume.

    Attributes:
        id: Of its bundle; empty where there is none.
        torrent: Of the payload.
        source: The folder with the torrent's name, every byte of it right.
        revision: Of the bundle.
    """

    id: str
    torrent: Torrent
    source: Path
    revision: int = 1

    @property
    def infohash(self) -> bytes:
        return self.torrent.infohash


# --- Making ---------------------------------------------------------------------------------------


def write_volume(
    top: Path,
    lots: Iterable[Lot],
    *,
    catalogues: Mapping[str, bytes] | None = None,
    paper: bytes = b"",
    parts: Collection[str] = (),
    serial: str = SERIAL,
    number: int = 1,
) -> Path:
    """Write a volume; returns its folder.

    Args:
        top: Where the volume's folder is made.
        lots: Payloads, whole.
        catalogues: Snapshots by authority.
        paper: What it says of itself; none if empty.
        parts: Files, by their paths in the torrents, that lie as parts of `PART_PIECES` pieces.
        serial: Of its set.
        number: Its own.
    """
    volume = top / layout.volume_folder(serial, number)
    (volume / layout.PAYLOAD).mkdir(parents=True)
    if paper:
        _put_twice(volume, layout.VOLUME_FILE, paper)
    for authority, data in (catalogues or {}).items():
        _put_twice(volume, layout.catalogue_file(authority), data)
    for lot in lots:
        torrent = lot.torrent
        _put_twice(volume, layout.torrent_file(lot.infohash), torrent.encode())
        for at, file in enumerate(torrent.files):
            data = (lot.source / file.path).read_bytes()
            if file.path not in parts:
                _put(volume, layout.store_file(lot.infohash, torrent.name, file.path), data)
                continue
            for first in range(0, len(torrent.pieces_of(file)), PART_PIECES):
                start = first * torrent.piece_length
                stretch = data[start : start + PART_PIECES * torrent.piece_length]
                _put(volume, layout.part_file(lot.infohash, at, first), stretch)
    close_bag(volume)
    return volume


def close_bag(volume: Path) -> None:
    """Write `bagit.txt` and the manifest over what lies below `data/` now."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(volume).as_posix()}\n"
        for path in sorted((volume / layout.PAYLOAD).rglob("*"))
        if path.is_file()
    ]
    (volume / "manifest-sha256.txt").write_text("".join(lines))
    (volume / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")


def volume_from(
    place: Place, top: Path, places: Sequence[str], *, parts: Collection[str] = ()
) -> tuple[Path, list[Lot]]:
    """Write what the running daemon of a place would export for other places."""
    offered: list[OfferedBundle] = []
    with ControlClient(place.paths.socket) as client:
        offer = client.follow(
            OfferedBundle, Offer, "media.offer", {"places": list(places)}, offered.append
        )
    spool = Spool(place.paths, place.code)
    catalogues = {}
    for it in offer.catalogues:
        wanted = LineupCatalogue(
            authority=it.authority, version=it.version, sha256=bytes.fromhex(it.sha256)
        )
        catalogues[it.authority] = catalogue_snapshot(it.authority, catalogue_files(spool, wanted))
    lots = []
    for bundle in offered:
        torrent = load_torrent(place.paths, bytes.fromhex(bundle.infohash))
        source = payload_folder(place.paths, torrent)
        lots.append(Lot(bundle.id, torrent, source, bundle.revision))
    paper = paper_of(
        load_identity(place.code, place.paths.keys), bytes.fromhex(offer.network), places, lots
    )
    return write_volume(top, lots, catalogues=catalogues, paper=paper, parts=parts), lots


def paper_of(
    identity: Identity,
    network: bytes,
    places: Sequence[str],
    lots: Iterable[Lot],
    *,
    number: int = 1,
    count: int = 1,
) -> bytes:
    """What a volume says of itself, signed."""
    bundles = tuple(
        VolumeBundle(
            id=lot.id,
            revision=lot.revision,
            infohash=lot.infohash,
            bytes=lot.torrent.payload_size,
            is_whole=True,
        )
        for lot in lots
    )
    volume = Volume(
        serial=SERIAL,
        number=number,
        count=count,
        made_at=1_795_000_000,
        by=str(identity.code),
        network=network,
        places=tuple(places),
        bundles=bundles,
    )
    return encode_volume(volume, identity.key, identity.chain_der)


def _put_twice(volume: Path, path: PurePosixPath, data: bytes) -> None:
    _put(volume, path, data)
    _put(volume, layout.again(path), data)


def _put(volume: Path, path: PurePosixPath, data: bytes) -> None:
    (volume / path).parent.mkdir(parents=True, exist_ok=True)
    (volume / path).write_bytes(data)


# --- What is on a volume, by its bytes alone ------------------------------------------------------


def pieces_on(volume: Path, lots: Iterable[Lot]) -> dict[bytes, set[int]]:
    """The pieces of each payload that lie on a volume: where they should, or at a piece's offset of any file.

    A shorter last piece must end its file, unless it lies where it should. Bytes are compared with the payloads'
    own; no Merkle tree is looked at.
    """
    lots = list(lots)
    found: dict[bytes, set[int]] = {lot.infohash: set() for lot in lots}
    known: dict[bytes, list[tuple[bytes, int]]] = {}
    for lot in lots:
        for piece, data in _pieces(lot):
            known.setdefault(hashlib.sha256(data).digest(), []).append((lot.infohash, piece))
            for path, offset in _right_places(volume, lot, piece):
                if path.is_file() and _slice(path, offset, len(data)) == data:
                    found[lot.infohash].add(piece)
    lengths = {lot.torrent.piece_length for lot in lots}
    for path in volume.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        for length in lengths:
            for start in range(0, len(data), length):
                digest = hashlib.sha256(data[start : start + length]).digest()
                for infohash, piece in known.get(digest, ()):
                    found[infohash].add(piece)
    return found


def bytes_in(torrent: Torrent, pieces: Iterable[int]) -> int:
    """How many bytes these pieces have."""
    return sum(torrent.piece_place(piece)[2] for piece in pieces)


def has_torrent(volume: Path, lot: Lot) -> bool:
    """Whether a right copy of a payload's torrent lies anywhere on a volume."""
    data = lot.torrent.encode()
    return any(
        path.stat().st_size == len(data) and path.read_bytes() == data
        for path in volume.rglob("*")
        if path.is_file()
    )


def has_catalogue(volume: Path, authority: str, original: bytes) -> bool:
    """Whether every file of a catalogue can be read from one of its two copies."""
    wanted = set(_items(original, authority))
    for path in (layout.catalogue_file(authority), layout.again(layout.catalogue_file(authority))):
        if (volume / path).is_file():
            wanted -= set(_items((volume / path).read_bytes(), authority))
    return not wanted


def _items(data: bytes, authority: str) -> list[Item]:
    found: list[Item] = []
    try:
        head = catalogue_head(data, authority)
    except CuntongError:
        return found
    for frame in range(len(head.frames)):
        try:
            found += snapshot_frame(data, head, frame)
        except CuntongError:
            continue
    return found


def _pieces(lot: Lot) -> Iterable[tuple[int, bytes]]:
    for file in lot.torrent.files:
        data = (lot.source / file.path).read_bytes()
        for piece in lot.torrent.pieces_of(file):
            _, offset, length = lot.torrent.piece_place(piece)
            yield piece, data[offset : offset + length]


def _right_places(volume: Path, lot: Lot, piece: int) -> Iterable[tuple[Path, int]]:
    torrent = lot.torrent
    file, offset, _ = torrent.piece_place(piece)
    yield volume / layout.store_file(lot.infohash, torrent.name, file.path), offset
    number = torrent.files.index(file)
    within = offset // torrent.piece_length
    for first in range(0, within + 1, PART_PIECES):
        path = volume / layout.part_file(lot.infohash, number, first)
        yield path, (within - first) * torrent.piece_length


def _slice(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


# --- Damage ---------------------------------------------------------------------------------------


def damage(volume: Path, randomness: random.Random) -> str:
    """Do one to three bad things to a volume; returns what they were."""
    count = randomness.choices((1, 2, 3), (6, 3, 1))[0]
    done = [chosen(volume, randomness) for chosen in randomness.sample(DAMAGES, count)]
    return "; ".join(it for it in done if it)


def flip_bits(volume: Path, randomness: random.Random) -> str:
    """1 to 50, in small files as often as in large ones."""
    count = randomness.randint(1, 50)
    files = _files(volume)
    sizes = [path.stat().st_size for path in files]
    for _ in range(count):
        path = randomness.choice(files) if randomness.random() < 0.5 else None
        path = path or randomness.choices(files, sizes)[0]
        data = bytearray(path.read_bytes())
        if data:
            data[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
            path.write_bytes(data)
    return f"{count} bits flipped"


def truncate(volume: Path, randomness: random.Random) -> str:
    """Files that end too early, as after a copy that was broken off."""
    chosen = _some(_files(volume), randomness, 4)
    for path in chosen:
        with path.open("r+b") as file:
            file.truncate(randomness.randrange(path.stat().st_size + 1))
    return f"truncated: {_names(volume, chosen)}"


def remove_files(volume: Path, randomness: random.Random) -> str:
    chosen = _some(_files(volume), randomness, 3)
    for path in chosen:
        path.unlink()
    return f"missing: {_names(volume, chosen)}"


def remove_folder(volume: Path, randomness: random.Random) -> str:
    """A folder below `data/` that can't be read any more."""
    folders = [path for path in sorted((volume / "data").rglob("*")) if path.is_dir()]
    if len(list((volume / "data").iterdir())) < 4 or not folders:
        return ""
    chosen = randomness.choice(folders)
    shutil.rmtree(chosen)
    return f"missing: {_names(volume, [chosen])}/"


def swap_files(volume: Path, randomness: random.Random) -> str:
    """Two files that have each other's content."""
    pairs = []
    for _ in range(randomness.randint(1, 3)):
        first, second = randomness.sample(_files(volume), 2)
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)
        pairs += [first, second]
    return f"swapped: {_names(volume, pairs)}"


def mangle_names(volume: Path, randomness: random.Random) -> str:
    """Names as an old tool leaves them: bytes of GBK, with or without those that FAT doesn't take."""
    paths = [path for path in _files(volume) if path.is_relative_to(volume / "data" / "store")]
    chosen = _some(paths, randomness, 5)
    for number, path in enumerate(chosen):
        name = f"{number}{path.name}".encode("gb18030", "ignore")
        if randomness.random() < 0.3:
            name = name.decode("ascii", "replace").encode("cp437", "replace").replace(b"?", b"_")
        path.rename(path.parent / _as_path(name))
    return f"renamed: {len(chosen)} files"


def capitals(volume: Path, randomness: random.Random) -> str:
    """Names in capitals below one folder, as on an ISO 9660 disc without extensions."""
    folders = [path for path in sorted((volume / "data").rglob("*")) if path.is_dir()]
    if not folders:
        return ""
    top = randomness.choice(folders)
    for path in sorted(top.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.upper()))
    return f"in capitals: {_names(volume, [top])}/"


def move_files(volume: Path, randomness: random.Random) -> str:
    """Files that were dragged somewhere else on the volume."""
    chosen = _some(_files(volume), randomness, 3)
    for number, path in enumerate(chosen):
        target = randomness.choice([volume, volume / "data", volume / "data" / "新建文件夹"])
        target.mkdir(exist_ok=True)
        path.rename(target / f"副本 {number} {path.name[:20]}")
    return f"moved: {_names(volume, chosen)}"


DAMAGES: tuple[Callable[[Path, random.Random], str], ...] = (
    flip_bits,
    truncate,
    remove_files,
    remove_folder,
    swap_files,
    mangle_names,
    capitals,
    move_files,
)


def _files(volume: Path) -> list[Path]:
    return sorted(path for path in volume.rglob("*") if path.is_file())


def _some(paths: Sequence[Path], randomness: random.Random, most: int) -> list[Path]:
    return randomness.sample(paths, min(len(paths), randomness.randint(1, most)))


def _names(volume: Path, paths: Iterable[Path]) -> str:
    return ", ".join(ascii(path.relative_to(volume).as_posix()[-60:]) for path in paths)


def _as_path(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


# --- Nodes in this process ------------------------------------------------------------------------

T = TypeVar("T")

_hosts = itertools.count(2)
_RUN = 100 + os.getpid() % 150
"""Other tests may run on this machine at the same time."""


@dataclass
class Post:
    """A network without links: three authorities, what they publish, and nodes that only media reach.

    Attributes:
        folder: Everything lies below.
    """

    folder: Path
    nation: trust_repo.Repository = field(init=False)
    province: trust_repo.Repository = field(init=False)
    county: trust_repo.Repository = field(init=False)
    cas: pki.World = field(init=False)
    _built: dict[str, BuiltBundle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        authorities = trust_repo.NATION, trust_repo.PROVINCE, trust_repo.COUNTY
        self.nation, self.province, self.county = map(trust_repo.Repository, authorities)
        self.nation.endorse(self.province)
        self.province.endorse(self.county)
        for repository in self.authorities:
            repository.publish()
        self.cas = pki.World("ed25519", self.folder / "cas")

    @property
    def authorities(self) -> tuple[trust_repo.Repository, ...]:
        return self.nation, self.province, self.county

    @property
    def network(self) -> bytes:
        anchor = self.cas.authorities[trust_repo.NATION].certificate
        return network_digest(hashlib.sha256(self.nation.anchor).digest(), anchor)

    def identity(self, code: Division = trust_repo.COUNTY) -> Identity:
        """Somebody who signs papers."""
        keys, _ = self.cas.node(code, _issuer(code))
        return load_identity(code, keys)

    def publish(
        self,
        slug: str,
        files: Mapping[str, bytes],
        *,
        repository: trust_repo.Repository | None = None,
        revision: int = 1,
    ) -> Lot:
        """Build a bundle (or its next revision), list it and sign."""
        repository = repository or self.county
        identifier = parse_bundle_id(f"{repository.code}/202611/{slug}")
        place = self.folder / "built" / str(identifier) / str(revision)
        metadata = parse_metadata(
            f'title = "{slug}"\nslug = "{slug}"\ndate = 2026-11-01\n',
            file=f"{slug}.toml",
            publisher=repository.code,
        )
        before = self._built.get(str(identifier))
        built = build_bundle(
            write_folder(place / "source", files),
            metadata,
            bundle_id=identifier,
            revision=revision,
            output=place / "payload",
            predecessor=None if before is None else as_predecessor(before),
        )
        self._built[str(identifier)] = built
        custom = {
            "rev": revision,
            "payload": built.torrent.payload_size,
            "infohash": built.torrent.infohash.hex(),
        }
        repository.month("202611")
        data = encode_descriptor(built.descriptor)
        repository.put("202611", str(identifier), data, custom)
        repository.publish()
        return Lot(str(identifier), built.torrent, built.payload_dir, revision)

    def catalogues(self, *repositories: trust_repo.Repository) -> dict[str, bytes]:
        """Snapshots as they are now; of all three, if none is named."""
        return {
            str(it.code): encode_catalogue(
                str(it.code),
                [Item(name, data) for name, data in sorted(it.files.items())]
                + [Item("", data) for _, data in sorted(it.blobs.items()) if data],
            )
            for it in repositories or self.authorities
        }

    def volume(
        self, top: Path, *lots: Lot, number: int = 1, count: int = 1, parts: Collection[str] = ()
    ) -> Path:
        """A right volume with the catalogues and these payloads."""
        return write_volume(
            top,
            lots,
            catalogues=self.catalogues(),
            paper=paper_of(self.identity(), self.network, (), lots, number=number, count=count),
            parts=parts,
            number=number,
        )

    def enrol(self, name: str, code: Division = trust_repo.VILLAGE, config: str = "") -> DataPaths:
        """A data directory; nothing runs in it yet."""
        paths = DataPaths(self.folder / name)
        node = trust_repo.Node(paths.root, code)
        node.bootstrap(self.nation)
        node.close()
        keys, _ = self.cas.node(code, _issuer(code))
        keys.rename(paths.keys)
        host = next(_hosts)
        paths.config.write_text(
            f'[node]\ncode = "{code}"\n\n[network]\nlisten = ""\n'
            f'swarm = "127.{_RUN}.{host // 250}.{host % 250 + 2}:7441"\nnetworks = ["127.0.0.0/8"]\n\n'
            + (config or "[media]\nwatch = []\n")
        )
        return paths


def _issuer(code: Division) -> Division:
    if code in (trust_repo.NATION, trust_repo.PROVINCE, trust_repo.COUNTY):
        return code
    return trust_repo.COUNTY


@asynccontextmanager
async def running_node(paths: DataPaths) -> AsyncIterator[Node]:
    """A whole node, without its process. What the block raises isn't wrapped; a node that goes down by itself fails it."""
    failure: Exception | None = None
    try:
        async with node_running(load_config(paths.config), paths) as node:
            try:
                yield node
            except Exception as error:  # noqa: BLE001  It is raised below, outside of the node's nurseries.
                failure = error
    except BaseExceptionGroup as group:
        raise AssertionError("the node went down") from _innermost(group)
    if failure is not None:
        raise failure


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def ask(node: Node, method: str, params: dict[str, Any], kind: type[T]) -> T:
    """What a command asks the daemon for, over its local socket.

    Raises:
        CuntongError: what the command would say.
    """

    def call() -> T:
        with ControlClient(node.paths.socket) as client:
            return client.call_as(kind, method, params)

    return await trio.to_thread.run_sync(call)


async def import_at(
    node: Node,
    path: Path,
    *,
    in_place: bool = False,
    report: Callable[[ImportStep], object] = lambda step: None,
) -> ImportResult:
    """`cuntong media import`, over the local socket; `report` is called in another thread.

    Raises:
        CuntongError: what the command would say.
    """

    def call() -> ImportResult:
        params = {"path": str(path), "in_place": in_place}
        with ControlClient(node.paths.socket) as client:
            return client.follow(ImportStep, ImportResult, "media.import", params, report)

    return await trio.to_thread.run_sync(call)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds; a bound for tests that hang."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110  There is no event for it.
            await trio.sleep(0.01)


def library(node: Node, lot: Lot) -> dict[str, bytes]:
    """What the reading room sees of a bundle."""
    folder = node.paths.library / lot.id
    return read_folder(folder) if folder.exists() else {}


def brought(result: ImportResult, lot: Lot) -> ImportedBundle:
    return next(it for it in result.bundles if it.infohash == lot.infohash.hex())


def state_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a node could change of what lies in a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[path.relative_to(folder).as_posix()] = (
            status.st_mode,
            status.st_nlink,
            status.st_mtime_ns,
            data,
        )
    return found


def open_below(folder: Path) -> list[str]:
    """What this process has open in a folder: as long as it has, the medium can't be unmounted."""
    found: list[str] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # Closed meanwhile.
            path = descriptor.readlink()
            if path.is_relative_to(folder):
                found.append(str(path))
    return found


def stored(node: Node) -> set[str]:
    """What lies in the store."""
    return {path.name for path in node.paths.store.iterdir()}


def problem_codes(result: ImportResult) -> list[str]:
    return [problem.code for problem in result.problems]


# --- A medium that is slow ------------------------------------------------------------------------


class SlowMedium:
    """Reads of content wait until the test lets them; it counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        self._may_read = threading.Semaphore(0)
        self._is_open = False
        self._preadv = os.preadv
        monkeypatch.setattr(content_module, "CHUNK_BYTES", 64 * 1024)
        monkeypatch.setattr(content_module.os, "preadv", self._read)

    def _read(self, source: int, buffers: list[memoryview], offset: int) -> int:
        is_medium = layout.STORE_FOLDER.as_posix() in str(
            Path(f"/proc/self/fd/{source}").readlink()
        )
        self.reads += is_medium
        if is_medium and not self._is_open:
            self._may_read.acquire()
        return self._preadv(source, buffers, offset)

    def let(self, count: int) -> None:
        """So many reads may go on."""
        self._may_read.release(count)

    async def go_on_slowly(self, scope: trio.CancelScope) -> None:
        """As fast as a scratched disc, until the scope is cancelled."""
        with scope:
            while True:
                self.let(1)
                await trio.sleep(0.05)

    def open(self) -> None:
        """As fast as it can be from now on."""
        self._is_open = True
        self._may_read.release(1_000)


def lengthen(volume: Path, lot: Lot) -> None:
    """Let files end with bytes that don't belong to them: then they are copied rather than linked."""
    for file in lot.torrent.files:
        with (volume / layout.store_file(lot.infohash, lot.torrent.name, file.path)).open(
            "ab"
        ) as it:
            it.write(b"\0")


@asynccontextmanager
async def beside(medium: SlowMedium) -> AsyncIterator[trio.Nursery]:
    """For imports that go on while the test does something; at the end the medium is as fast as it can be."""
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        finally:
            medium.open()


@contextmanager
def expecting(code: str) -> Iterator[None]:
    with pytest.raises(CuntongError) as caught:
        yield
    assert caught.value.code == code, caught.value
