"""Merkle trees, bencoding and torrents."""

from __future__ import annotations

from dataclasses import replace

import libtorrent as lt
import pytest

from cuntong_protocol.bundle import bencode, torrent
from cuntong_protocol.bundle.bencode import Bencoded
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.merkle import (
    BLOCK,
    EMPTY_ROOT,
    FileHasher,
    hash_file,
    leaf_hashes,
    merkle_root,
    verify_layer,
)
from cuntong_protocol.bundle.torrent import (
    HashedFile,
    Torrent,
    decode_torrent,
    make_torrent,
    piece_length_for,
    torrent_size_limit,
)
from tests.support.bundles import noise

PIECE = 2 * BLOCK
CONTENTS = {
    "files/诗/a.bin": noise(1, 5 * PIECE + 3),
    "files/诗.txt": b"1",
    "files/b": noise(2, 2 * PIECE),
    "files/诗/zz": noise(3, PIECE + 1),
    "index": noise(4, 100),
    "packs/x": noise(5, PIECE),
}


def hashed(contents: dict[str, bytes], piece_length: int = PIECE) -> list[HashedFile]:
    return [
        HashedFile(path, len(data), *hash_file(data, piece_length))
        for path, data in contents.items()
    ]


@pytest.fixture
def good() -> Torrent:
    return make_torrent("poems", PIECE, hashed(CONTENTS))


def test_root_does_not_depend_on_the_piece_length() -> None:
    data = noise(9, 11 * BLOCK + 5)
    roots = {hash_file(data, BLOCK << shift)[0] for shift in range(6)}
    assert roots == {merkle_root(leaf_hashes(data))}
    assert hash_file(b"", BLOCK) == (EMPTY_ROOT, b"")


@pytest.mark.parametrize("size", [1, BLOCK, BLOCK + 1, PIECE, PIECE + 1, 3 * PIECE, 7 * PIECE - 9])
def test_bytes_in_any_chunks_hash_alike(size: int) -> None:
    data = noise(size, size)
    for step in (1000, BLOCK, 3 * BLOCK + 7, size):
        hasher = FileHasher(PIECE)
        for start in range(0, size, step):
            hasher.update(data[start : start + step])
        assert hasher.length == size
        assert hasher.finish() == hash_file(data, PIECE)


def test_layer_of_another_file_is_refused() -> None:
    root, layer = hash_file(noise(1, 5 * PIECE), PIECE)
    verify_layer(root, layer, 5 * PIECE, PIECE)
    verify_layer(root, b"", PIECE, PIECE)
    other = hash_file(noise(2, 5 * PIECE), PIECE)[1]
    for bad, length in (
        (other, 5),
        (layer[:-32], 5),
        (layer + layer[:32], 5),
        (b"", 5),
        (layer, 4),
        (layer, 1),
    ):
        with pytest.raises(BundleError) as caught:
            verify_layer(root, bad, length * PIECE, PIECE)
        assert caught.value.code == "bundle.bad-layer"


def test_libtorrent_agrees_on_infohash_files_and_pieces(good: Torrent) -> None:
    data = good.encode()
    assert decode_torrent(data, infohash=good.infohash) == good
    info = lt.load_torrent_buffer(data).ti
    assert info is not None
    assert info.info_hashes().v2.to_bytes() == good.infohash
    assert info.num_pieces() == good.piece_count
    layout = info.layout()
    found = [
        (layout.file_path(number), layout.file_size(number), layout.root(number).to_bytes())
        for number in range(layout.num_files())
        if not layout.file_flags(number) & lt.file_flags_t.flag_pad_file
    ]
    assert found == [(f"poems/{file.path}", file.length, file.root) for file in good.files]


def test_each_piece_is_found_and_checked(good: Torrent) -> None:
    assert good.payload_size == sum(map(len, CONTENTS.values()))
    covered: list[int] = []
    for file in good.files:
        covered += good.pieces_of(file)
    assert covered == list(range(good.piece_count))
    for piece in range(good.piece_count):
        file, offset, length = good.piece_place(piece)
        assert good.file(file.path) == file
        data = CONTENTS[file.path][offset : offset + length]
        good.check_piece(piece, data)
        for bad in (data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:]):
            with pytest.raises(BundleError) as caught:
                good.check_piece(piece, bad)
            assert caught.value.code == "bundle.bad-piece"
    assert good.file("nothing") is None
    with pytest.raises(IndexError):
        good.piece_place(good.piece_count)


def test_piece_length_keeps_pieces_few() -> None:
    assert piece_length_for(1) == 32 * 1024
    assert piece_length_for(4000 * 32 * 1024) == 32 * 1024
    assert piece_length_for(4000 * 32 * 1024 + 1) == 64 * 1024
    assert piece_length_for(20 * 10**9) == 8 * 1024 * 1024
    assert piece_length_for(4 * 10**12) == 8 * 1024 * 1024


def test_size_limit_holds_for_ordinary_torrents(good: Torrent) -> None:
    assert len(good.encode()) < torrent_size_limit(good.payload_size, PIECE, 5)
    assert torrent_size_limit(10**12, 8 << 20, 1_000_000) < 140_000_000


def _info(good: Torrent) -> dict[bytes, Bencoded]:
    decoded = bencode.decode(good.encode())
    assert isinstance(decoded, dict)
    return decoded


def _changed(good: Torrent, *path: bytes, value: Bencoded | None = None) -> bytes:
    decoded = _info(good)
    node = decoded
    for part in path[:-1]:
        node = node[part]  # type: ignore[assignment]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return bencode.encode(decoded)


BAD: list[tuple[tuple[bytes, ...], Bencoded | None]] = [
    ((b"announce",), b"udp://tracker.example/"),
    ((b"url-list",), [b"http://seed.example/"]),
    ((b"nodes",), [[b"router.example", 6881]]),
    ((b"creation date",), 1),
    ((b"piece layers",), None),
    ((b"piece layers",), 1),
    ((b"piece layers",), {}),
    ((b"piece layers", bytes(32)), bytes(32)),
    ((b"piece layers", bytes(32)), 1),
    ((b"info",), None),
    ((b"info",), []),
    ((b"info", b"private"), None),
    ((b"info", b"private"), 0),
    ((b"info", b"source"), b"x"),
    ((b"info", b"pieces"), bytes(20)),
    ((b"info", b"meta version"), 1),
    ((b"info", b"name"), b".."),
    ((b"info", b"name"), b"a/b"),
    ((b"info", b"name"), 1),
    ((b"info", b"piece length"), 0),
    ((b"info", b"piece length"), 3 * BLOCK),
    ((b"info", b"piece length"), 16 << 20),
    ((b"info", b"file tree"), {}),
    ((b"info", b"file tree"), []),
    ((b"info", b"file tree", b"index"), {b"": {b"length": 5}}),
    ((b"info", b"file tree", b"index"), {b"": {b"length": 0, b"pieces root": bytes(32)}}),
    ((b"info", b"file tree", b"index"), {b"": {b"length": -1, b"pieces root": bytes(32)}}),
    ((b"info", b"file tree", b"index"), {b"": {b"length": 1 << 50, b"pieces root": bytes(32)}}),
    ((b"info", b"file tree", b"index"), {b"": {b"length": 1, b"pieces root": bytes(31)}}),
    (
        (b"info", b"file tree", b"index"),
        {b"": {b"attr": b"x", b"length": 1, b"pieces root": bytes(32)}},
    ),
    ((b"info", b"file tree", b"index"), {}),
    ((b"info", b"file tree", b"index"), {b"": {b"length": 1, b"pieces root": bytes(32)}, b"x": {}}),
    ((b"info", b"file tree", b"index"), 1),
    ((b"info", b"file tree", b"\xff"), {b"": {b"length": 1, b"pieces root": bytes(32)}}),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_torrent_with_anything_else_in_it_is_refused(
    good: Torrent, path: tuple[bytes, ...], value: Bencoded | None
) -> None:
    with pytest.raises(BundleError) as caught:
        decode_torrent(_changed(good, *path, value=value))
    assert caught.value.code == "bundle.bad-torrent"


def test_torrent_with_harmful_paths_is_refused(good: Torrent) -> None:
    file: Bencoded = {b"": {b"length": 1, b"pieces root": bytes(32)}}
    for path, code in ((b"..", "bad-path"), (b"CON", "bad-path"), (b"a/b", "bad-torrent")):
        with pytest.raises(BundleError) as caught:
            decode_torrent(_changed(good, b"info", b"file tree", path, value=file))
        assert caught.value.code == f"bundle.{code}"


def test_torrent_with_wrong_hashes_is_refused(good: Torrent) -> None:
    root = next(iter(good.layers))
    layer = bytearray(good.layers[root])
    layer[0] ^= 1
    with pytest.raises(BundleError) as caught:
        decode_torrent(_changed(good, b"piece layers", root, value=bytes(layer)))
    assert caught.value.code == "bundle.bad-layer"
    with pytest.raises(BundleError) as caught:
        decode_torrent(good.encode(), infohash=bytes(32))
    assert caught.value.code == "bundle.wrong-infohash"


def test_single_file_torrent_is_refused() -> None:
    with pytest.raises(BundleError) as caught:
        make_torrent("poems", PIECE, hashed({"index": b"1"}))
    assert caught.value.code == "bundle.bad-torrent"


def test_too_many_pieces_or_files_are_refused(
    good: Torrent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torrent, "MAX_PIECES", good.piece_count - 1)
    with pytest.raises(BundleError) as caught:
        decode_torrent(good.encode())
    assert caught.value.code == "bundle.bad-torrent"
    monkeypatch.setattr(torrent, "MAX_TORRENT_FILES", 5)
    with pytest.raises(BundleError) as caught:
        make_torrent("poems", PIECE, hashed(CONTENTS))
    assert caught.value.code == "bundle.bad-torrent"


def test_layer_without_its_file_is_refused(good: Torrent) -> None:
    files = [replace(file, layer=file.layer or bytes(32)) for file in hashed(CONTENTS)]
    with pytest.raises(BundleError) as caught:
        make_torrent("poems", PIECE, files)
    assert caught.value.code == "bundle.bad-torrent"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"i", b"i1", b"i01e", b"i-0e", b"ie", b"i+1e", b"i 1e", b"i" + b"9" * 19 + b"e", b"1", b"1:", b"01:a",
        b"5:abcd", b"-1:a", b"l", b"li1e", b"d", b"d1:ai1e", b"di1ei2ee", b"d1:bi1e1:ai1ee", b"d1:ai1e1:ai1ee",
        b"i1ei2e", b"x", b"l" * 100 + b"e" * 100, b"1" * 5000 + b":", b"d1:ae",
    ],
)  # fmt: skip
def test_bencoding_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        bencode.decode(data)
    assert caught.value.code == "bundle.bad-bencoding"


def test_bencoding_round_trip() -> None:
    value: Bencoded = {b"a": [1, -2, 0, b"", [b"x", {}]], b"": 10**17, b"\xff": b"\xff"}
    assert bencode.decode(bencode.encode(value)) == value
