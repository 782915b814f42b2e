"""Hybrid torrents: v2 as ever, and beside it what clients of BitTorrent v1 read."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import libtorrent as lt
import msgspec
import pytest
import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_daemon.store.library import Library
from cuntong_daemon.store.store import Store
from cuntong_daemon.store.torrents import payload_folder
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_daemon.swarm.events import Completed, TorrentState, Unusable
from cuntong_protocol.bundle import bencode, torrent
from cuntong_protocol.bundle.bencode import Bencoded
from cuntong_protocol.bundle.descriptor import decode_descriptor, encode_descriptor
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.merkle import BLOCK, hash_file
from cuntong_protocol.bundle.metadata import Licence, Metadata, parse_metadata
from cuntong_protocol.bundle.torrent import (
    SHA1,
    HashedFile,
    Torrent,
    decode_torrent,
    make_hybrid,
    make_torrent,
    torrent_size_limit,
    v1_piece_hash,
)
from cuntong_protocol.divisions import Tier
from cuntong_tools.publish import build as build_module
from cuntong_tools.publish.build import BuiltBundle, build_bundle
from cuntong_tools.publish.scan import BuildError
from tests.support.bundles import (
    BUNDLE_ID,
    METADATA_TEXT,
    PUBLISHER,
    as_predecessor,
    noise,
    poems_file,
    read_folder,
    write_folder,
)
from tests.support.payloads import write_payload

PIECE = 2 * BLOCK
CONTENTS = {
    "files/b": noise(2, 2 * PIECE),
    "files/诗/a.bin": noise(1, 5 * PIECE + 3),
    "files/诗/zz": noise(3, PIECE + 1),
    "index": noise(4, 100),
    "packs/x": noise(5, PIECE + 7),
}
FOLDER = {
    "poems/春.json": poems_file(0, 600),
    "poems/夏.json": poems_file(600, 40),
    "picture.jpg": noise(7, 170_001),
    "film.mp4": noise(8, 400_000),
    "empty": b"",
}
HYBRID = METADATA_TEXT + "[build]\nhybrid = true\n"
_hosts = itertools.count(2)


def parse(text: str) -> Metadata:
    return parse_metadata(text, file="m.toml", publisher=PUBLISHER)


def v2_torrent(contents: dict[str, bytes]) -> Torrent:
    files = [
        HashedFile(path, len(data), *hash_file(data, PIECE)) for path, data in contents.items()
    ]
    return make_torrent("poems", PIECE, files)


def v1_hashes(plain: Torrent, contents: dict[str, bytes]) -> Iterator[bytes]:
    for piece in range(plain.piece_count):
        file, offset, length = plain.piece_place(piece)
        yield v1_piece_hash(plain, piece, contents[file.path][offset : offset + length])


def hybrid_torrent(contents: dict[str, bytes]) -> Torrent:
    plain = v2_torrent(contents)
    return make_hybrid(plain, v1_hashes(plain, contents))


@pytest.fixture(scope="module")
def good() -> Torrent:
    return hybrid_torrent(CONTENTS)


def build_hybrid(folder: Path, output: Path, *, threads: int | None = None) -> BuiltBundle:
    return build_bundle(
        folder, parse(HYBRID), bundle_id=BUNDLE_ID, revision=1, output=output, threads=threads
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    place = tmp_path_factory.mktemp("built")
    return build_hybrid(write_folder(place / "in", FOLDER), place / "out")


@contextmanager
def session() -> Iterator[lt.session]:
    """A stock client, on loopback and nothing else."""
    client = lt.session(
        {
            "listen_interfaces": f"127.0.72.{next(_hosts)}:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "dht_bootstrap_nodes": "",
            "webtorrent_stun_server": "",
            "alert_mask": lt.alert_category.status
            | lt.alert_category.error
            | lt.alert_category.storage,
        }
    )
    yield client
    client.pause()


def wait_for(client: lt.session, name: str) -> lt.alert:
    seen: list[str] = []
    while True:
        assert client.wait_for_alert(30_000) is not None, seen
        for alert in client.pop_alerts():
            seen.append(alert.message())
            assert not isinstance(alert, lt.torrent_error_alert), seen
            if alert.what() == name:
                return alert


# The format.


def test_libtorrent_makes_the_same_bytes(tmp_path: Path, good: Torrent) -> None:
    write_folder(tmp_path / "poems", CONTENTS)
    theirs = lt.create_torrent(lt.list_files(str(tmp_path / "poems")), PIECE)
    theirs.set_priv(True)
    lt.set_piece_hashes(theirs, str(tmp_path))
    entry = theirs.generate()
    del entry[b"creation date"]
    assert lt.bencode(entry) == good.encode()


def test_both_infohashes_stand_for_the_same_files(good: Torrent) -> None:
    data = good.encode()
    assert decode_torrent(data, infohash=good.infohash) == good
    assert good.is_hybrid
    info = lt.load_torrent_buffer(data).ti
    assert info is not None
    whole = bencode.decode(data)
    assert isinstance(whole, dict)
    assert info.info_hashes().v2.to_bytes() == good.infohash
    assert (
        info.info_hashes().v1.to_bytes()
        == hashlib.sha1(
            bencode.encode(whole[b"info"]),
            usedforsecurity=False,
        ).digest()
    )
    assert info.priv()
    assert info.num_pieces() == good.piece_count


def test_files_pieces_and_layers_are_those_of_the_v2_torrent(good: Torrent) -> None:
    plain = v2_torrent(CONTENTS)
    assert not plain.is_hybrid
    assert good.infohash != plain.infohash
    assert (good.files, good.layers, good.payload_size, good.piece_count) == (
        plain.files,
        plain.layers,
        plain.payload_size,
        plain.piece_count,
    )
    assert make_hybrid(plain, v1_hashes(plain, CONTENTS)) == good


def test_a_folder_sorts_before_a_file_with_a_longer_name_in_both_lists() -> None:
    """libtorrent's own maker sorts whole paths here, and then refuses what it made."""
    odd = hybrid_torrent({**CONTENTS, "files/诗.txt": b"1"})
    info = lt.load_torrent_buffer(odd.encode()).ti
    assert info is not None
    assert info.info_hashes().v2.to_bytes() == odd.infohash


@pytest.mark.parametrize("last", [1, PIECE - 1, PIECE, PIECE + 1])
def test_the_last_file_is_padded_like_the_others(last: int) -> None:
    contents = {**CONTENTS, "packs/x": noise(9, last)}
    made = hybrid_torrent(contents)
    assert decode_torrent(made.encode()) == made
    padding = -last % PIECE
    found = _v1_list(made.encode())
    if padding:
        pad = found.pop()
        assert pad == {b"attr": b"p", b"length": padding, b"path": [b".pad", b"%d" % padding]}
    assert found[-1] == {b"length": last, b"path": [b"packs", b"x"]}
    info = lt.load_torrent_buffer(made.encode()).ti
    assert info is not None
    assert info.info_hashes().v2.to_bytes() == made.infohash


def _v1_list(data: bytes) -> list[dict[bytes, Bencoded]]:
    whole = bencode.decode(data)
    assert isinstance(whole, dict)
    info = whole[b"info"]
    assert isinstance(info, dict)
    files = info[b"files"]
    assert isinstance(files, list)
    return files  # type: ignore[return-value]


def _changed(good: Torrent, **changes: Bencoded | None) -> bytes:
    whole = bencode.decode(good.encode())
    assert isinstance(whole, dict)
    info = whole[b"info"]
    assert isinstance(info, dict)
    for key, value in changes.items():
        if value is None:
            del info[key.encode()]
        else:
            info[key.encode()] = value
    return bencode.encode(whole)


def test_a_v1_list_that_is_not_the_v2_tree_is_refused(good: Torrent) -> None:
    listed = _v1_list(good.encode())
    pad = next(number for number, file in enumerate(listed) if b"attr" in file)
    padding = listed[pad][b"length"]
    assert isinstance(padding, int)
    plain = [file for file in listed if b"attr" not in file]
    pieces = good.v1_pieces
    longer: dict[bytes, Bencoded] = {**listed[0], b"length": 2 * PIECE + 1}
    wrong: list[dict[str, Bencoded | None]] = [
        {"files": None},
        {"pieces": None},
        {"files": None, "pieces": None, "length": good.payload_size},
        {"length": good.payload_size},
        {"files": []},
        {"files": 1},
        {"files": [*listed[1:], listed[0]]},
        {"files": [*listed[:-1]]},
        {"files": [*listed, listed[-1]]},
        {"files": list(plain)},
        {"files": [longer, *listed[1:]]},
        {"files": [{**listed[0], b"path": [b"files", b"c"]}, *listed[1:]]},
        {"files": [{**listed[0], b"path": [b"..", b"b"]}, *listed[1:]]},
        {"files": [{**listed[0], b"attr": b"x"}, *listed[1:]]},
        {"files": [{**listed[0], b"md5sum": b"0" * 32}, *listed[1:]]},
        {"files": [{**listed[0], b"path.utf-8": [b"files", b"b"]}, *listed[1:]]},
        {"files": [*listed[:pad], {**listed[pad], b"length": padding - 1}, *listed[pad + 1 :]]},
        {"files": [*listed[:pad], {**listed[pad], b"path": [b"p"]}, *listed[pad + 1 :]]},
        {"files": [*listed[:pad], {**listed[pad], b"attr": b"h"}, *listed[pad + 1 :]]},
        {"files": [*listed, {b"attr": b"p", b"length": 9, b"path": [b".pad", b"9"]}]},
        {"pieces": b""},
        {"pieces": 1},
        {"pieces": pieces[:-1]},
        {"pieces": pieces[:-SHA1]},
        {"pieces": pieces + bytes(SHA1)},
    ]
    for changes in wrong:
        with pytest.raises(BundleError) as caught:
            decode_torrent(_changed(good, **changes))
        assert caught.value.code == "bundle.bad-torrent", changes


def test_a_file_among_the_pad_files_is_refused() -> None:
    with pytest.raises(BundleError) as caught:
        hybrid_torrent({**CONTENTS, ".pad/1": b"x"})
    assert caught.value.code == "bundle.bad-torrent"


def test_too_many_files_are_refused(good: Torrent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torrent, "MAX_HYBRID_FILES", len(good.files) - 1)
    with pytest.raises(BundleError) as caught:
        decode_torrent(good.encode())
    assert caught.value.code == "bundle.bad-torrent"
    decode_torrent(v2_torrent(CONTENTS).encode())


def test_a_v1_hash_is_only_made_of_content_that_passes_v2() -> None:
    plain = v2_torrent(CONTENTS)
    data = CONTENTS["files/b"][:PIECE]
    assert v1_piece_hash(plain, 0, data) == hashlib.sha1(data, usedforsecurity=False).digest()
    for bad in (data[:-1], b"\0" + data[1:]):
        with pytest.raises(BundleError) as caught:
            v1_piece_hash(plain, 0, bad)
        assert caught.value.code == "bundle.bad-piece"


def test_the_size_limit_holds_for_hybrid_torrents(good: Torrent) -> None:
    assert len(good.encode()) < torrent_size_limit(good.payload_size, PIECE, 5, hybrid=True)
    assert torrent_size_limit(10**12, 8 << 20, 1_000_000, hybrid=True) < 256 << 20


# What a publisher says.


def test_nothing_is_hybrid_unless_its_publisher_asks() -> None:
    assert not parse(METADATA_TEXT).build.hybrid
    assert not parse(METADATA_TEXT + "[build]\nhybrid = false\n").build.hybrid
    assert parse(HYBRID).build.hybrid


@pytest.mark.parametrize(
    ("text", "code", "start"),
    [
        ("[build]\nhybrid = 1", "metadata.bad-value", "m.toml, line 5: build.hybrid must be true"),
        ("build = true", "metadata.bad-value", "m.toml, line 4: build must be a table"),
        ("[build]\nhybird = true", "metadata.unknown-key", "m.toml, line 5: unknown key build.hybird"),
        (
            "[build]\nhybrid = true\n[licence]\nkind = 'restricted'\nscope = ['44']",
            "metadata.restricted-hybrid",
            "m.toml, line 5: a hybrid torrent is for other people's programs",
        ),
    ],
)  # fmt: skip
def test_mistake_is_named_with_its_line(text: str, code: str, start: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(METADATA_TEXT + text)
    assert (caught.value.code, str(caught.value)[: len(start)]) == (code, start)


def test_a_restricted_hybrid_bundle_is_refused_from_other_publishers_too(
    built: BuiltBundle,
) -> None:
    assert decode_descriptor(encode_descriptor(built.descriptor)) == built.descriptor
    restricted = msgspec.structs.replace(
        built.descriptor.metadata, licence=Licence(kind="restricted", scope=("44",))
    )
    data = msgspec.msgpack.encode(msgspec.structs.replace(built.descriptor, metadata=restricted))
    with pytest.raises(BundleError) as caught:
        decode_descriptor(data)
    assert caught.value.code == "metadata.restricted-hybrid"


# Building.


def test_any_number_of_threads_gives_the_same_bytes(tmp_path: Path, built: BuiltBundle) -> None:
    assert built.torrent.is_hybrid
    folder = write_folder(tmp_path / "in", dict(reversed(FOLDER.items())))
    for threads in (1, 5):
        other = build_hybrid(folder, tmp_path / str(threads), threads=threads)
        assert other.descriptor == built.descriptor
        assert other.torrent.encode() == built.torrent.encode()
        assert read_folder(other.payload_dir) == read_folder(built.payload_dir)


def test_the_payload_is_that_of_the_bundle_without_v1(tmp_path: Path, built: BuiltBundle) -> None:
    plain = build_bundle(
        write_folder(tmp_path / "in", FOLDER),
        parse(METADATA_TEXT),
        bundle_id=BUNDLE_ID,
        revision=1,
        output=tmp_path / "out",
    )
    assert not plain.torrent.is_hybrid
    assert plain.torrent.infohash != built.torrent.infohash
    assert plain.torrent.files == built.torrent.files
    assert read_folder(plain.payload_dir) == read_folder(built.payload_dir)


def test_a_revision_may_change_its_mind(tmp_path: Path, built: BuiltBundle) -> None:
    again = build_bundle(
        write_folder(tmp_path / "in", FOLDER),
        parse(METADATA_TEXT),
        bundle_id=BUNDLE_ID,
        revision=2,
        output=tmp_path / "out",
        predecessor=as_predecessor(built),
    )
    assert not again.torrent.is_hybrid
    assert again.torrent.files == built.torrent.files


def test_a_folder_with_too_many_files_for_a_torrent_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "MAX_HYBRID_FILES", 3)
    with pytest.raises(BuildError) as caught:
        build_hybrid(write_folder(tmp_path / "in", FOLDER), tmp_path / "out")
    assert caught.value.code == "build.too-many-files"
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


# On the wire.


def _stock_params(made: Torrent, place: Path) -> lt.add_torrent_params:
    params = lt.load_torrent_buffer(made.encode())
    params.save_path = str(place)
    return params


def test_stock_clients_pass_it_on(tmp_path: Path, built: BuiltBundle) -> None:
    with session() as seed, session() as leech:
        seeding = seed.add_torrent(_stock_params(built.torrent, built.payload_dir.parent))
        wait_for(seed, "torrent_checked")
        assert seeding.status().is_seeding
        fetching = leech.add_torrent(_stock_params(built.torrent, tmp_path))
        wait_for(leech, "torrent_checked")
        fetching.connect_peer((_address(seed), seed.listen_port()))
        wait_for(leech, "torrent_finished")
        fetching.flush_cache()
        wait_for(leech, "cache_flushed")
        assert read_folder(tmp_path / "poems") == read_folder(built.payload_dir)


def _address(client: lt.session) -> str:
    return str(client.get_settings()["listen_interfaces"]).rpartition(":")[0]


def make_engine(root: Path, tier: Tier) -> SwarmEngine:
    return SwarmEngine(
        DataPaths(root),
        listen=f"127.0.72.{next(_hosts)}:0",
        networks=[ipaddress.ip_network("127.0.0.0/8")],
        down_bytes_s=0,
        up_bytes_s=0,
        tier=tier,
    )


async def completed(engine: SwarmEngine, made: Torrent) -> None:
    with trio.fail_after(120):
        while await engine.wait_event() != Completed(made.infohash):
            pass


@pytest.fixture
def store_of_b(tmp_path: Path) -> Iterator[Store]:
    paths = DataPaths(tmp_path / "b")
    paths.root.mkdir()
    with closing(sqlite3.connect(paths.database, check_same_thread=False)) as connection:
        yield Store(paths, connection)


async def test_a_village_shows_what_its_county_seeds(
    tmp_path: Path, built: BuiltBundle, store_of_b: Store
) -> None:
    made = built.torrent
    county_paths, paths = DataPaths(tmp_path / "a"), DataPaths(tmp_path / "b")
    write_payload(county_paths, made, read_folder(built.payload_dir))
    async with (
        running(make_engine(tmp_path / "a", Tier.COUNTY)) as county,
        running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await county.add(made)
        await completed(county, made)
        store_of_b.prepare(made)
        await village.add(made)
        village.connect_peers(made.infohash, [county.address])
        await completed(village, made)
    assert read_folder(payload_folder(paths, made)) == read_folder(built.payload_dir)
    assert not store_of_b.complete(made.infohash)
    library = Library(paths)
    shown = library.materialise(built.descriptor.id, made.infohash, built.index)
    assert read_folder(shown) == FOLDER
    assert not library.check(built.descriptor.id, built.index)


async def test_a_village_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, built: BuiltBundle
) -> None:
    made = built.torrent
    content = read_folder(built.payload_dir)
    write_payload(DataPaths(tmp_path / "a"), made, content)
    film = made.file("files/film.mp4")
    assert film is not None
    some = {**content, film.path: content[film.path][: 3 * made.piece_length] + bytes(99)}
    write_payload(DataPaths(tmp_path / "b"), made, some)
    async with running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village:
        await village.add(made)
        found = village.statuses()[made.infohash].durable_pieces
        assert found == made.piece_count - len(made.pieces_of(film)) + 3
    async with (
        running(make_engine(tmp_path / "a", Tier.COUNTY)) as county,
        running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await county.add(made)
        await village.add(made)
        assert village.statuses()[made.infohash].durable_pieces == found
        village.connect_peers(made.infohash, [county.address])
        await completed(village, made)
        assert read_folder(payload_folder(DataPaths(tmp_path / "b"), made)) == content


async def test_a_client_that_knows_only_v1_reads_every_piece(
    tmp_path: Path, built: BuiltBundle
) -> None:
    """A client of 2008, by hand: BEP 3's handshake and messages, SHA-1, no extension."""
    made = built.torrent
    whole = bencode.decode(made.encode())
    assert isinstance(whole, dict)
    v1 = hashlib.sha1(bencode.encode(whole[b"info"]), usedforsecurity=False).digest()
    write_payload(DataPaths(tmp_path), made, read_folder(built.payload_dir))
    async with running(make_engine(tmp_path, Tier.COUNTY)) as county:
        await county.add(made)
        await completed(county, made)
        with trio.fail_after(60):
            stream = await trio.open_tcp_stream(*county.address)
            async with stream:
                reader = _Reader(stream)
                await stream.send_all(b"\x13BitTorrent protocol" + bytes(8) + v1 + b"-OLD001-" * 2)
                await stream.send_all(b"....")  # The peer id has 20 bytes.
                assert (await reader.take(68))[28:48] == v1
                await stream.send_all(struct.pack(">IB", 1, 2))  # Interested.
                while (await reader.message())[:1] != b"\x01":  # Unchoked.
                    pass
                for piece in range(made.piece_count):
                    data = b""
                    while len(data) < made.piece_length:
                        await stream.send_all(struct.pack(">IBIII", 13, 6, piece, len(data), BLOCK))
                        while (found := await reader.message())[:1] != b"\x07":
                            pass
                        data += found[9:]
                    expected = made.v1_pieces[piece * SHA1 : (piece + 1) * SHA1]
                    assert hashlib.sha1(data, usedforsecurity=False).digest() == expected


async def test_a_publisher_whose_v1_hashes_are_wrong_is_found_out(tmp_path: Path) -> None:
    """Nodes that have the content can't tell: v2 is right. The first that downloads it can."""
    contents = {f"files/{number}": noise(number, PIECE) for number in range(9)}
    plain = v2_torrent(contents)
    made = make_hybrid(plain, (bytes(SHA1) for _ in range(plain.piece_count)))
    assert decode_torrent(made.encode()) == made
    write_payload(DataPaths(tmp_path / "a"), made, contents)
    async with (
        running(make_engine(tmp_path / "a", Tier.COUNTY)) as county,
        running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await county.add(made)
        await completed(county, made)
        await village.add(made)
        village.connect_peers(made.infohash, [county.address])
        with trio.fail_after(60):
            event = await village.wait_event()
        assert isinstance(event, Unusable)
        status = village.statuses()[made.infohash]
        assert status.state is TorrentState.ERROR
        assert status.problem == event.problem
        assert event.problem.code == "swarm.inconsistent-hashes"
        await village.remove(made.infohash)
        assert not village.statuses()


class _Reader:
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._data = b""

    async def take(self, count: int) -> bytes:
        while len(self._data) < count:
            more = await self._stream.receive_some()
            assert more, "the engine hung up"
            self._data += more
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    async def message(self) -> bytes:
        return await self.take(int.from_bytes(await self.take(4), "big"))
