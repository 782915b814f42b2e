"""Objects that are rightly signed by the sender and hostile all the same, or just wrong.

Invariant: whatever a sender with a good certificate puts on the air, the receiver counts a problem and goes on. It writes
nowhere but into its own folder, the trust layer's spool and the blobs; it takes no torrent but the one that was
listed; the engine gets no piece but right ones; and the next honest programme is received as if nothing had been.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import trio
import zstandard

from cuntong_daemon.datacast import receiver as receiver_module
from cuntong_daemon.datacast.blockspool import BlockSpool
from cuntong_daemon.datacast.reader import Again, Open, ReadOrder, Ready, _ready
from cuntong_daemon.datacast.receiver import DatacastReceiver, _Content
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.planning import Want
from cuntong_daemon.replicator import Item as Wanted
from cuntong_daemon.store.pieces import PieceSet
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.datacast.blocks import BLOCK_BYTES, Layout, object_blocks
from cuntong_protocol.datacast.objects import (
    MAX_FIRST_TOI,
    MAX_FRAME_BYTES,
    MAX_OBJECT_BYTES,
    BundleEntry,
    CatalogueEntry,
    Item,
    Manifest,
    Programme,
    Ref,
    encode_catalogue,
    encode_manifest,
    encode_programme,
)
from cuntong_protocol.datacast.packets import Beacon, Channel, symbol_packet
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.texts import N_, sentence
from tests.support.datacast import needs_raptorq, on_air
from tests.support.payloads import random_bytes, some_files, torrent_of

SESSION = 77
VILLAGE = Division("441900003005")
PROVINCE = Division("440000000000")
ELSEWHERE = Division("650000000000")
CATALOGUE, MANIFEST, CONTENT = Channel.CATALOGUE, Channel.MANIFEST, Channel.CONTENT
MIB = 1024 * 1024


class Engine:
    """Takes pieces as libtorrent does: of a torrent that was added, and if the hash is right."""

    link_down_bytes_s = 0

    def __init__(self) -> None:
        self.torrents: dict[bytes, Torrent] = {}
        self.have: dict[bytes, set[int]] = {}
        self.wrong = 0

    def add(self, torrent: Torrent) -> None:
        self.torrents[torrent.infohash] = torrent
        self.have[torrent.infohash] = set()

    def status(self, infohash: bytes) -> object | None:
        return self.torrents.get(infohash)

    def durable(self, infohash: bytes) -> PieceSet | None:
        torrent = self.torrents.get(infohash)
        return None if torrent is None else PieceSet.of(torrent.piece_count, self.have[infohash])

    def add_piece(self, infohash: bytes, piece: int, data: bytes) -> bool:
        torrent = self.torrents.get(infohash)
        if torrent is None:
            return False
        try:
            torrent.check_piece(piece, data)
        except Exception:
            self.wrong += 1
            raise
        self.have[infohash].add(piece)
        return True


class Replicator:
    """Knows what is wanted."""

    def __init__(self) -> None:
        self.items: dict[str, Wanted] = {}
        self.on_air: frozenset[bytes] = frozenset()

    def want(self, torrent: Torrent, number: int = 0, *, size: int | None = None) -> None:
        identifier = f"{PROVINCE}/202611/bundle-{number}"
        self.items[identifier] = Wanted(
            Want(
                id=identifier,
                revision=1,
                infohash=torrent.infohash,
                title="A bundle",
                size=torrent.payload_size if size is None else size,
                torrent_limit=1 << 20,
                is_restricted=False,
                reason=sentence("test", N_("It comes by satellite.")),
                order=number,
            )
        )

    def set_on_air(self, sources: Mapping[bytes, object], ready: frozenset[bytes]) -> None:
        self.on_air = ready

    def has_neighbours(self, infohash: bytes) -> bool:
        return False


@dataclass
class Air:
    """A sender's objects, and a receiver that gets whole blocks of them."""

    root: Path
    session: int = SESSION
    number: int = 0
    next_toi: int = 1
    blocks: dict[tuple[int, int], bytes] = field(default_factory=dict)
    looks: int = 0

    def __post_init__(self) -> None:
        self.paths = DataPaths(self.root)
        self.folder = self.paths.datacast / "receiver"
        (self.folder / "received").mkdir(parents=True)
        order = ReadOrder(
            folder=str(self.folder), anchor=b"", sender=str(NATION), address="232.20.1.1",
            port=7450, interface="lo", source="", quota_bytes=1_000_000_000,
        )  # fmt: skip
        self.engine, self.replicator = Engine(), Replicator()
        self.receiver = DatacastReceiver(
            order,
            self.paths,
            VILLAGE,
            spool=Spool(self.paths),
            engine=self.engine,  # type: ignore[arg-type]
            replicator=self.replicator,  # type: ignore[arg-type]
            look=self._look_at_spool,
            has_parents=False,
        )

    def _look_at_spool(self) -> None:
        self.looks += 1

    # Sending.

    def put(
        self, channel: Channel, data: bytes, *, toi: int | None = None, size: int | None = None
    ) -> Ref:
        """An object on the air; `toi` and `size` may lie."""
        first = self.next_toi if toi is None else toi
        sizes = object_blocks(len(data))
        at = 0
        for number, length in enumerate(sizes):
            self.blocks[int(channel), first + number] = data[at : at + length]
            at += length
        self.next_toi = max(self.next_toi, first + len(sizes))
        return Ref(
            toi=first,
            size=len(data) if size is None else size,
            sha256=hashlib.sha256(data).digest(),
        )

    def put_bundle(
        self, torrent: Torrent, files: Mapping[str, bytes], manifest: Ref | None = None
    ) -> BundleEntry:
        """A bundle's manifest and content."""
        if manifest is None:
            plain = Manifest(torrent=torrent.encode())
            manifest = self.put(MANIFEST, encode_manifest(plain))
        first = self.next_toi
        layout = Layout(torrent)
        for number in range(len(layout.sizes)):
            data = b"".join(
                files[torrent.piece_place(part.piece)[0].path][
                    torrent.piece_place(part.piece)[1] + part.offset :
                ][: part.length]
                for part in layout.parts(number)
            )
            self.blocks[int(CONTENT), first + number] = data
        self.next_toi += len(layout.sizes)
        return self.entry(torrent, manifest, first)

    def entry(
        self, torrent: Torrent, manifest: Ref, toi: int, size: int | None = None
    ) -> BundleEntry:
        return BundleEntry(
            id=f"{PROVINCE}/202611/bundle",
            infohash=torrent.infohash,
            size=torrent.payload_size if size is None else size,
            toi=toi,
            manifest=manifest,
        )

    def cast(self, programme: Programme) -> None:
        """From the next beacon on."""
        ref = self.put(CATALOGUE, encode_programme(programme))
        self.beacon(ref)

    def beacon(self, ref: Ref | None) -> None:
        self.number += 1
        self.receiver._on_beacon(
            self.session,
            Beacon(
                sender=str(NATION), number=self.number, time=1, key=bytes(8), rate_bytes_s=1,
                programme=ref,
            ),
        )  # fmt: skip

    def new_session(self) -> None:
        self.session += 1
        self.next_toi = 1
        self.blocks.clear()

    # Receiving.

    async def receive(self, rounds: int = 6) -> None:
        """Let every block come that is asked for, and look, a few times."""
        receiver = self.receiver
        for _ in range(rounds):
            for key in list(receiver._open):
                await self.give(key)
            if receiver.programme is not None:
                await receiver._look(receiver.programme)
            receiver._outbox.clear()

    async def give(self, key: tuple[int, int]) -> None:
        """The block that the decoder would make, of the size that was asked for."""
        receiver = self.receiver
        owner, size = receiver._owners.get(key), receiver._open.get(key)
        if owner is None or size is None:
            return
        data = self.blocks.get(key, b"")[:size].ljust(size, b"\0")
        holder, number = owner
        if isinstance(holder, _Content):
            ready = Ready(
                session=self.session, channel=key[0], toi=key[1], size=size, offset=0,
                source=b"", repairs=[],
            )  # fmt: skip
            await receiver._take_content(holder, number, data, ready)
        else:
            await receiver._take_block(holder, number, data)

    # Judging.

    @property
    def codes(self) -> set[str]:
        return {problem.code for problem in self.receiver._problems.values()}

    def written(self) -> set[str]:
        """Everything on the disk, below the receiver's own folder left out."""
        return {
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file() and not path.is_relative_to(self.folder)
        }

    async def assert_works(self) -> None:
        """The next honest programme is received."""
        files = some_files(100_000, seed=99)
        torrent = torrent_of(files, name="honest")
        self.replicator.items = {}
        self.replicator.want(torrent)
        self.engine.add(torrent)
        catalogue = encode_catalogue(str(NATION), [Item("timestamp.json", b"{honest}")])
        entry = CatalogueEntry(
            authority=str(NATION), version=1 << 40, snapshot=self.put(CATALOGUE, catalogue)
        )
        self.cast(Programme(catalogues=(entry,), bundles=(self.put_bundle(torrent, files),)))
        await self.receive()
        assert self.engine.have[torrent.infohash] == set(range(torrent.piece_count))
        assert self.engine.wrong == 0
        assert (self.paths.spool / NATION / "timestamp.json").read_bytes() == b"{honest}"


@pytest.fixture
def air(tmp_path: Path) -> Air:
    return Air(tmp_path / "data")


FILES = some_files(100_000)
TORRENT = torrent_of(FILES)


async def test_honest_sender_is_received(air: Air) -> None:
    air.engine.add(TORRENT)
    air.replicator.want(TORRENT)
    air.cast(Programme(bundles=(air.put_bundle(TORRENT, FILES),)))
    await air.receive()
    assert air.engine.have[TORRENT.infohash] == set(range(TORRENT.piece_count))
    assert air.codes == set()
    await air.assert_works()


# Catalogues.


def catalogue_entry(air: Air, data: bytes, authority: Division = NATION) -> CatalogueEntry:
    return CatalogueEntry(authority=str(authority), version=5, snapshot=air.put(CATALOGUE, data))


HOSTILE_NAMES = [
    "../../../etc/passwd",
    "../timestamp.json",
    "/etc/passwd",
    "..",
    ".",
    "0.root.json",
    "1.root.json/x",
    "1.root.json\0",
    "99999999999999999999.targets.json",
    "-1.snapshot.json",
    "1.TARGETS.json",
    "1.evil.json",
    "timestamp.json ",
    "１.root.json",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
async def test_catalogue_with_a_path_that_is_no_metadata_name_writes_nothing(
    air: Air, name: str
) -> None:
    """It is refused once, and not looked at again each second with an error that ends the daemon."""
    data = encode_catalogue(str(NATION), [Item(name, b"owned")])
    air.cast(Programme(catalogues=(catalogue_entry(air, data),)))
    await air.receive()
    assert air.written() == set()
    assert air.codes == {"trust.bad-object"}
    await air.assert_works()


async def test_catalogue_that_is_more_than_the_spool_takes_does_not_end_the_daemon(
    air: Air,
) -> None:
    folder = air.paths.spool / NATION
    folder.mkdir(parents=True)
    for number in range(13):
        (folder / f"{number + 1}.targets.json").touch()
        os.truncate(folder / f"{number + 1}.targets.json", 5_000_000)
    data = encode_catalogue(str(NATION), [Item("50.targets.json", bytes(3_000_000))])
    air.cast(Programme(catalogues=(catalogue_entry(air, data),)))
    await air.receive()
    assert air.codes == {"trust.spool-full"}
    for path in folder.iterdir():
        path.unlink()
    await air.assert_works()


async def test_file_of_a_catalogue_that_is_too_large_is_refused(air: Air) -> None:
    data = encode_catalogue(str(NATION), [Item("timestamp.json", bytes(20_000))])
    air.cast(Programme(catalogues=(catalogue_entry(air, data),)))
    await air.receive()
    assert air.codes == {"trust.too-large"}
    assert air.written() == set()
    await air.assert_works()


async def test_catalogue_of_another_authority_than_the_programme_says_is_refused(air: Air) -> None:
    data = encode_catalogue(str(PROVINCE), [Item("timestamp.json", b"{}")])
    air.cast(Programme(catalogues=(catalogue_entry(air, data, NATION),)))
    await air.receive()
    assert air.codes == {"datacast.bad-object"}
    assert air.written() == set()
    await air.assert_works()


async def test_catalogue_of_an_authority_that_is_not_followed_is_not_asked_for(air: Air) -> None:
    data = encode_catalogue(str(ELSEWHERE), [Item("timestamp.json", b"{}")])
    air.cast(Programme(catalogues=(catalogue_entry(air, data, ELSEWHERE),)))
    await air.receive()
    assert air.codes == set()
    assert air.written() == set()
    await air.assert_works()


async def test_authority_that_is_named_twice_does_no_harm(air: Air) -> None:
    entries = tuple(
        catalogue_entry(air, encode_catalogue(str(NATION), [Item("timestamp.json", data)]))
        for data in (b"{1}", b"{2}")
    )
    air.cast(Programme(catalogues=entries * 3))
    await air.receive(rounds=10)
    await air.assert_works()


def with_head(**changes: object) -> bytes:
    """A catalogue whose head lies."""
    frame = zstandard.ZstdCompressor().compress(msgspec.msgpack.encode([["timestamp.json", b"{}"]]))
    head = msgspec.msgpack.encode(
        {"v": 1, "authority": str(NATION), "bases": [], "frames": [len(frame)]} | changes
    )
    return len(head).to_bytes(4, "big") + head + frame


BAD_CATALOGUES = {
    "empty head": b"\0\0\0\0",
    "head beyond its end": b"\xff\xff\xff\xff{}",
    "frames beyond its end": with_head(frames=[5000]),
    "frames before its end": with_head(frames=[3]),
    "4,097 frames": with_head(frames=[1] * 4097),
    "negative frame": with_head(frames=[-1, 2]),
    "65 bases": with_head(bases=[["1.root.json", bytes(32)]] * 65),
    "no authority": with_head(authority=""),
    "garbage": random_bytes(5000),
    "cut head": encode_catalogue(str(NATION), [])[:-1],
}


@pytest.mark.parametrize("name", BAD_CATALOGUES)
async def test_catalogue_that_contradicts_itself_is_refused(air: Air, name: str) -> None:
    air.cast(Programme(catalogues=(catalogue_entry(air, BAD_CATALOGUES[name]),)))
    await air.receive()
    assert air.codes == {"datacast.bad-object"}
    assert air.written() == set()
    await air.assert_works()


def bomb_frame(size: int) -> bytes:
    """Valid zstd of so many zeros; some kilobytes."""
    return zstandard.ZstdCompressor(level=3).compress(bytes(size))


async def test_catalogue_whose_frame_unpacks_to_too_much_is_refused(air: Air) -> None:
    frame = bomb_frame(MAX_FRAME_BYTES + 1)
    head = msgspec.msgpack.encode(
        {"v": 1, "authority": str(NATION), "bases": [], "frames": [len(frame)]}
    )
    data = len(head).to_bytes(4, "big") + head + frame
    air.cast(Programme(catalogues=(catalogue_entry(air, data),)))
    await air.receive()
    assert air.codes == {"datacast.bad-object"}
    assert air.written() == set()
    await air.assert_works()


async def test_small_catalogue_does_not_fill_the_disk_with_files(air: Air) -> None:
    """Each of its frames is within the limit: 200 KB on the air would be 160 MiB of blobs."""
    items = [Item("", number.to_bytes(4, "big") * (MIB // 4)) for number in range(160)]
    data = encode_catalogue(str(NATION), items)
    assert len(data) < 200_000
    air.cast(Programme(catalogues=(catalogue_entry(air, data),)))
    await air.receive(rounds=3)
    used = sum(path.stat().st_size for path in air.paths.root.rglob("*") if path.is_file())
    assert used < 100 * MIB
    assert "datacast.bad-object" in air.codes
    await air.assert_works()


BASE = Item("3.202611.json", b"{an earlier version of a month}" * 100)
TIMESTAMP = Item("timestamp.json", b"{1}")


async def cast_delta(air: Air, delta: bytes, snapshot: bytes | None = None) -> None:
    if snapshot is None:
        snapshot = encode_catalogue(str(NATION), [TIMESTAMP, BASE])
    entry = CatalogueEntry(
        authority=str(NATION),
        version=5,
        snapshot=air.put(CATALOGUE, snapshot),
        delta=air.put(CATALOGUE, delta),
    )
    air.cast(Programme(catalogues=(entry,)))
    await air.receive()


async def test_delta_is_read_with_the_snapshot_before_it(air: Air) -> None:
    fresh = Item("4.202611.json", BASE.data + b" and more")
    await cast_delta(air, encode_catalogue(str(NATION), [fresh], [(BASE.name, BASE.data)]))
    assert air.codes == set()
    assert (air.paths.spool / NATION / fresh.name).read_bytes() == fresh.data
    assert air.looks == 2
    await air.assert_works()


@pytest.mark.parametrize(
    "bases",
    [
        [("9.202611.json", BASE.data)],
        [(BASE.name, b"another content")],
        [(BASE.name, BASE.data), ("9.202611.json", b"x")],
        [("../../etc/passwd", b"x")],
        [("", b"x")],
    ],
    ids=["unknown", "other content", "one of two", "a path", "no name"],
)
async def test_delta_with_bases_that_are_not_here_is_refused(
    air: Air, bases: list[tuple[str, bytes]]
) -> None:
    await cast_delta(air, encode_catalogue(str(NATION), [Item("4.202611.json", b"{}")], bases))
    assert air.codes == {"datacast.no-base"}
    allowed = {f"spool/{NATION}/{name}" for name in (TIMESTAMP.name, BASE.name)}
    assert air.written() <= allowed, "something of the delta"
    await air.assert_works()


async def test_delta_whose_snapshot_is_refused_is_not_asked_for(air: Air) -> None:
    delta = encode_catalogue(str(NATION), [Item("4.202611.json", b"{}")], [(BASE.name, BASE.data)])
    snapshot = encode_catalogue(str(NATION), [Item("../x", b"")])
    await cast_delta(air, delta, snapshot)
    assert air.codes == {"trust.bad-object"}
    assert air.written() == set()
    await air.assert_works()


async def test_delta_with_the_same_base_64_times_needs_no_more_than_its_limit(air: Air) -> None:
    """The dictionary is joined of all of them."""
    large = Item("3.targets.json", random_bytes(2 * MIB))
    head = {
        "v": 1,
        "authority": str(NATION),
        "bases": [[large.name, hashlib.sha256(large.data).digest()]] * 64,
        "frames": [],
    }
    packed = msgspec.msgpack.encode(head)
    delta = len(packed).to_bytes(4, "big") + packed
    await cast_delta(air, delta, encode_catalogue(str(NATION), [TIMESTAMP, large]))
    await air.assert_works()


# Manifests.

OTHER = torrent_of(some_files(100_000, seed=5), name="other")
LARGE_FILES = {"film.mp4": random_bytes(9 * MIB, 1), "small.txt": b"small"}
LARGE = torrent_of(LARGE_FILES, piece_length=2 * BLOCK_BYTES)


def manifests() -> dict[str, tuple[bytes, str]]:
    good = TORRENT.encode()
    return {
        "another torrent": (encode_manifest(Manifest(torrent=OTHER.encode())), "bundle."),
        "no torrent": (encode_manifest(Manifest(torrent=b"")), "bundle."),
        "garbage": (encode_manifest(Manifest(torrent=random_bytes(5000))), "bundle."),
        "torrent with something behind": (
            encode_manifest(Manifest(torrent=good + b"x")),
            "bundle.",
        ),
        "halves of nothing": (
            encode_manifest(Manifest(torrent=good, halves={bytes(32): bytes(64)})),
            "bundle.bad-layer",
        ),
        "halves of a small file": (
            encode_manifest(Manifest(torrent=good, halves={TORRENT.files[0].root: bytes(32)})),
            "bundle.bad-layer",
        ),
        "not a manifest": (random_bytes(500), "datacast.bad-object"),
        "bomb": (bomb_frame(49 * MIB), "datacast.bad-object"),
        "newer": (
            zstandard.ZstdCompressor().compress(msgspec.msgpack.encode({"v": 2})),
            "datacast.newer-version",
        ),
    }


@pytest.mark.parametrize("name", manifests())
async def test_manifest_that_does_not_fit_what_was_listed_is_refused(air: Air, name: str) -> None:
    data, code = manifests()[name]
    air.engine.add(TORRENT)
    air.replicator.want(TORRENT)
    air.cast(Programme(bundles=(air.put_bundle(TORRENT, FILES, manifest=air.put(MANIFEST, data)),)))
    await air.receive()
    assert len(air.codes) == 1
    assert next(iter(air.codes)).startswith(code)
    assert air.engine.have[TORRENT.infohash] == set()
    assert air.written() == set(), "no torrent is kept"
    assert not list((air.folder / "manifests").iterdir())
    assert (int(CONTENT), 2) not in air.receiver._open
    await air.assert_works()


async def test_bundle_of_another_size_than_was_listed_is_refused(air: Air) -> None:
    air.replicator.want(TORRENT, size=TORRENT.payload_size + 1)
    air.cast(Programme(bundles=(air.put_bundle(TORRENT, FILES),)))
    await air.receive()
    assert air.codes == {"bundle.payload-mismatch"}
    assert air.written() == set()
    await air.assert_works()


@pytest.mark.parametrize(
    "halves",
    [
        {},
        {LARGE.files[0].root: bytes(96)},
        {LARGE.files[0].root: b""},
        {LARGE.files[0].root: bytes(95)},
        {LARGE.files[1].root: bytes(96)},
    ],
    ids=["none", "wrong", "empty", "short", "of another file"],
)
async def test_wrong_hashes_of_half_pieces_are_refused(
    air: Air, halves: dict[bytes, bytes]
) -> None:
    air.engine.add(LARGE)
    air.replicator.want(LARGE)
    data = encode_manifest(Manifest(torrent=LARGE.encode(), halves=halves))
    air.cast(
        Programme(bundles=(air.put_bundle(LARGE, LARGE_FILES, manifest=air.put(MANIFEST, data)),))
    )
    await air.receive(rounds=3)
    assert air.codes == {"bundle.bad-layer"}
    assert air.engine.have[LARGE.infohash] == set()
    await air.assert_works()


async def test_refused_bundle_is_looked_at_again_in_the_next_session(air: Air) -> None:
    """The sender was mended meanwhile, and nobody has to go to the villages."""
    air.engine.add(TORRENT)
    air.replicator.want(TORRENT)
    wrong = air.put(MANIFEST, encode_manifest(Manifest(torrent=OTHER.encode())))
    air.cast(Programme(bundles=(air.put_bundle(TORRENT, FILES, manifest=wrong),)))
    await air.receive()
    assert air.codes
    air.new_session()
    air.cast(Programme(bundles=(air.put_bundle(TORRENT, FILES),)))
    await air.receive()
    assert air.engine.have[TORRENT.infohash] == set(range(TORRENT.piece_count))
    assert air.codes == set()


# Programmes.


async def test_programme_of_20000_bundles_in_the_same_place_is_survived(air: Air) -> None:
    """Three of them are wanted; only one can be there."""
    payloads = [some_files(100_000, seed=seed) for seed in range(3)]
    torrents = [torrent_of(files, name=f"t{at}") for at, files in enumerate(payloads)]
    for at, torrent in enumerate(torrents):
        air.engine.add(torrent)
        air.replicator.want(torrent, at)
    first = air.put_bundle(torrents[0], payloads[0])
    refs = [
        air.put(MANIFEST, encode_manifest(Manifest(torrent=torrent.encode())))
        for torrent in torrents
    ]
    wanted = [
        air.entry(torrent, ref, first.toi) for torrent, ref in zip(torrents, refs, strict=True)
    ]
    others = [
        msgspec.structs.replace(first, infohash=number.to_bytes(32, "big"), id=str(number))
        for number in range(20_000 - 3)
    ]
    air.cast(Programme(bundles=(*others, *wanted)))
    await air.receive()
    assert air.engine.wrong == 0
    assert len(air.receiver._open) <= 3
    await air.assert_works()


async def test_objects_that_overlap_are_survived(air: Air) -> None:
    """Manifest, catalogue and content at the same numbers, some reaching into the next."""
    air.engine.add(TORRENT)
    air.replicator.want(TORRENT)
    manifest = encode_manifest(Manifest(torrent=TORRENT.encode()))
    catalogue = encode_catalogue(str(NATION), [TIMESTAMP])
    delta = encode_catalogue(str(NATION), [Item("4.202611.json", b"{}")])
    entry = air.put_bundle(TORRENT, FILES, manifest=air.put(MANIFEST, manifest, toi=3))
    hostile = CatalogueEntry(
        authority=str(NATION),
        version=9,
        snapshot=air.put(CATALOGUE, catalogue, toi=3, size=9 * MIB),
        delta=air.put(CATALOGUE, delta, toi=4),
    )
    second = CatalogueEntry(
        authority=str(PROVINCE),
        version=9,
        snapshot=air.put(CATALOGUE, encode_catalogue(str(PROVINCE), [TIMESTAMP]), toi=4),
    )
    air.next_toi = 5
    air.cast(
        Programme(
            catalogues=(hostile, second),
            bundles=(entry, msgspec.structs.replace(entry, infohash=bytes(32), toi=entry.toi + 1)),
        )
    )
    await air.receive()
    assert air.engine.wrong == 0
    assert not any(name.startswith("store/") for name in air.written())
    await air.assert_works()


@pytest.mark.parametrize("toi", [1, MAX_FIRST_TOI], ids=["first", "last"])
async def test_sizes_without_end_are_survived(air: Air, toi: int) -> None:
    """Objects of the largest size at any place; a bundle of a petabyte whose torrent has 100 KB."""
    air.engine.add(TORRENT)
    air.replicator.want(TORRENT)
    huge = Ref(toi=toi, size=MAX_OBJECT_BYTES, sha256=bytes(32))
    entries = (
        BundleEntry(
            id="x", infohash=TORRENT.infohash, size=1 << 50, toi=toi, manifest=huge,
            passes=1 << 40, begins=1 << 40, ends=0, next=1,
        ),
    )  # fmt: skip
    catalogues = (
        CatalogueEntry(authority=str(NATION), version=1 << 53, snapshot=huge, delta=huge),
    )
    air.next_toi = 1000
    air.cast(Programme(catalogues=catalogues, bundles=entries))
    await air.receive(rounds=1)
    asked = [order for order in air.receiver._outbox if isinstance(order, Open)]
    assert sum(len(order.blocks) for order in asked) <= 2 * MAX_OBJECT_BYTES // BLOCK_BYTES
    assert air.written() == set()
    await air.assert_works()


async def test_object_that_is_not_what_the_programme_says_is_gathered_anew_and_no_more(
    air: Air,
) -> None:
    """Its size and its hash lie. What was gathered goes; nothing of it is read."""
    manifest = encode_manifest(Manifest(torrent=TORRENT.encode()))
    for size in (len(manifest) - 1, len(manifest) + 1, 5 * MIB, 1):
        air.engine.add(TORRENT)
        air.replicator.want(TORRENT)
        ref = air.put(MANIFEST, manifest, size=size)
        air.cast(Programme(bundles=(air.entry(TORRENT, ref, 50),)))
        await air.receive(rounds=3)
        for key in list(air.receiver._open):
            await air.give(key)
        wrong = [it for it in air.receiver._outbox if isinstance(it, Again)]
        assert wrong
        assert all(it.is_wrong for it in wrong)
        assert not air.paths.torrents.exists()
    await air.assert_works()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        random_bytes(1000),
        bomb_frame(9 * MIB),
        zstandard.ZstdCompressor().compress(b"\x91" * 10_000),
        zstandard.ZstdCompressor().compress(msgspec.msgpack.encode({"v": 1, "bundles": 5})),
        zstandard.ZstdCompressor().compress(msgspec.msgpack.encode({"v": 99})),
    ],
    ids=["nothing", "garbage", "bomb", "deep", "other kind", "newer"],
)
async def test_programme_that_cannot_be_read_is_told_and_the_last_one_goes_on(
    air: Air, data: bytes
) -> None:
    air.replicator.want(TORRENT)
    air.engine.add(TORRENT)
    air.cast(Programme(bundles=(air.put_bundle(TORRENT, FILES),)))
    await air.receive(rounds=1)
    known = air.receiver.programme
    assert known is not None
    if data:
        air.beacon(air.put(CATALOGUE, data))
        await air.receive(rounds=2)
        assert air.codes & {"datacast.bad-object", "datacast.newer-version"}
        assert air.receiver.programme == known
    await air.receive()
    assert air.engine.have[TORRENT.infohash] == set(range(TORRENT.piece_count))
    await air.assert_works()


async def test_programme_that_changes_with_every_beacon_leaves_nothing_behind(air: Air) -> None:
    for number in range(200):
        air.cast(Programme(made_at=number))
        if number % 10 == 0:
            await air.receive(rounds=1)
    await air.receive(rounds=1)
    assert len(air.receiver._objects) == 0
    assert len(air.receiver._open) == 0
    assert list((air.folder / "received").iterdir()) == []
    await air.assert_works()


async def test_longer_object_of_the_old_session_does_not_spoil_the_new_ones(air: Air) -> None:
    """It had half come under the very same number; sessions begin with the same ones."""
    large = random_bytes(9 * MIB)
    air.beacon(air.put(CATALOGUE, large))
    for key in [(int(CATALOGUE), 2), (int(CATALOGUE), 3)]:
        await air.give(key)
    air.new_session()
    await air.assert_works()


async def test_longer_object_that_a_dead_daemon_left_does_not_spoil_the_next_ones(
    air: Air,
) -> None:
    for toi in range(1, 8):
        for channel in (CATALOGUE, MANIFEST):
            (air.folder / "received" / f"{channel}.{toi}").write_bytes(bytes(5 * MIB))
    await air.assert_works()


async def test_content_that_is_another_bundles_is_never_handed_over(air: Air) -> None:
    """Blocks of the right size with somebody else's bytes, and with one piece of them right."""
    air.engine.add(TORRENT)
    air.replicator.want(TORRENT)
    entry = air.put_bundle(TORRENT, FILES)
    key = (int(CONTENT), entry.toi)
    right = air.blocks[key]
    air.blocks[key] = right[: TORRENT.piece_length] + random_bytes(len(right))
    air.cast(Programme(bundles=(entry,)))
    await air.receive()
    assert air.engine.wrong == 0
    assert air.engine.have[TORRENT.infohash] == {0}
    air.blocks[key] = right
    await air.receive()
    assert air.engine.have[TORRENT.infohash] == set(range(TORRENT.piece_count))


# The daemon's own side, with the real decoder.


def fill(air: Air, spool: BlockSpool, channel: Channel, toi: int, data: bytes) -> None:
    """All symbols of a block but its first, and a repair symbol: it must be decoded."""
    block = on_air(data, toi, channel)
    for esi in range(1, block.symbols.source + 1):
        packet = symbol_packet(air.session, channel, toi, esi, block.symbols[esi])
        spool.take(channel, toi, esi, packet, is_verified=True)


@needs_raptorq
async def test_blocks_that_are_ready_all_at_once_are_all_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of a bundle that was spread over time come to their end together: more than are remembered."""
    monkeypatch.setattr(receiver_module, "LOOK_S", 0.05)
    monkeypatch.setattr(receiver_module, "MAX_WAITING", 16)
    air = Air(tmp_path / "data")
    count = 50
    torrents = [
        torrent_of({"a": number.to_bytes(4, "big") * 50, "b": b"b"}) for number in range(count)
    ]
    entries = []
    for number, torrent in enumerate(torrents):
        air.replicator.want(torrent, number)
        ref = air.put(MANIFEST, encode_manifest(Manifest(torrent=torrent.encode())))
        entries.append(air.entry(torrent, ref, 10_000 + number))
    air.cast(Programme(bundles=tuple(entries)))
    spool = BlockSpool(air.folder, quota_bytes=10**9)
    spool.begin_session(air.session)
    receiver = air.receiver
    for key in list(receiver._open):
        await air.give(key)
    assert receiver.programme is not None

    def read() -> None:
        """What the reader does with what it is told, and with what came meanwhile."""
        orders, receiver._outbox = receiver._outbox, []
        for order in orders:
            if isinstance(order, Open):
                spool.open_blocks_of(order.blocks)
            elif isinstance(order, Again):
                spool.again(order.channel, order.toi, is_wrong=order.is_wrong)
        for block in spool.ready():
            receiver._hear(_ready(spool.session, block))

    await receiver._look(receiver.programme)
    read()
    for entry in entries:
        data = air.blocks[int(MANIFEST), entry.manifest.toi]
        packet = symbol_packet(
            air.session, MANIFEST, entry.manifest.toi, 0, data.ljust(1344, b"\0")
        )
        spool.take(MANIFEST, entry.manifest.toi, 0, packet, is_verified=True)
    read()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver._run_decoder)
        nursery.start_soon(receiver._look_often)
        with trio.move_on_after(30):
            while len(receiver._contents) < count:
                await trio.sleep(0.02)
                read()
        nursery.cancel_scope.cancel()
    assert len(receiver._contents) == count
    spool.close()


@needs_raptorq
async def test_block_after_the_one_that_ended_the_decoder_loses_nothing(air: Air) -> None:
    """RaptorQ panics at one block; the next one hasn't even been tried."""
    spool = BlockSpool(air.folder, quota_bytes=10**9)
    spool.begin_session(air.session)
    data = encode_programme(Programme(made_at=123_456))
    manifests_data = random_bytes(20_000)
    air.beacon(None)
    receiver = air.receiver
    first = air.put(MANIFEST, manifests_data, toi=5)
    second = air.put(CATALOGUE, data, toi=6)
    receiver._receive("manifest/" + bytes(32).hex(), MANIFEST, first)
    receiver._receive("programme", CATALOGUE, second)
    spool.open_blocks_of([(MANIFEST, 5, 20_000), (CATALOGUE, 6, len(data))])
    fill(air, spool, MANIFEST, 5, manifests_data)
    fill(air, spool, CATALOGUE, 6, data)
    bad, good = sorted(
        (_ready(spool.session, block) for block in spool.ready()), key=lambda ready: ready.toi
    )
    # A symbol that lies nowhere, as after a damaged database: the decoder ends.
    bad = msgspec.structs.replace(bad, offset=1 << 40)
    receiver._outbox.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver._run_decoder)
        receiver._hear(bad)
        receiver._hear(good)
        with trio.move_on_after(30):
            while receiver.programme is None and not any(  # noqa: ASYNC110 - it has no event for that.
                isinstance(order, Again) and order.toi == 6 for order in receiver._outbox
            ):
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    again = [(order.toi, order.is_wrong) for order in receiver._outbox if isinstance(order, Again)]
    assert again == [(5, True)]
    assert receiver.programme == Programme(made_at=123_456)
    spool.close()
