"""Makes the vectors of this folder: `python -m tests.vectors.bundle.make` (see README.md)."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from cuntong_protocol.bundle import bencode
from cuntong_protocol.bundle.descriptor import encode_descriptor
from cuntong_protocol.bundle.index import encode_index
from tests.support.bundles import as_predecessor, build, noise, poems_file, write_folder

HERE = Path(__file__).parent
SWARM_CA = (HERE / "swarm-ca.pem").read_bytes()
"""Made once with `make_swarm_ca`; its key is gone."""
FILES = {
    "poems/春.json": poems_file(0, 600),
    "poems/夏.json": poems_file(600, 40),
    "poems/copy.json": poems_file(600, 40),
    "picture.jpg": noise(7, 70_000),
    "empty": b"",
}


def vectors() -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files, and the manifest that says what each must give."""
    with tempfile.TemporaryDirectory() as place:
        first = build(write_folder(Path(place) / "in", FILES), Path(place) / "1")
        changed = {
            **FILES,
            "poems/春.json": FILES["poems/春.json"].replace(b'"author"', b'"by"', 1),
        }
        source = write_folder(Path(place) / "in", changed)
        second = build(source, Path(place) / "2", revision=2, predecessor=as_predecessor(first))
        delta = next(pack for pack in second.index.packs if pack.base is not None)
        assert delta.base is not None
        base = second.index.packs[delta.base]
        packs = second.payload_dir / "packs"
        delta_data, base_data = (packs / delta.name).read_bytes(), (packs / base.name).read_bytes()
    descriptor = encode_descriptor(second.descriptor)
    torrent = second.torrent.encode()
    index = encode_index(second.index)
    files = {
        "good.descriptor": descriptor,
        "good.torrent": torrent,
        "good.index": index,
        "base.pack": base_data,
        "delta.pack": delta_data,
        "unknown-field.descriptor": _map(descriptor, later=[1, {"a": None}]),
        "unknown-field.index": _index(index, later="x"),
        "truncated.descriptor": descriptor[:-1],
        "newer.descriptor": _map(descriptor, v=2),
        "no-predecessor.descriptor": _map(descriptor, supersedes=None),
        "other-slug.descriptor": _map(descriptor, id="440000000000/202703/other"),
        "bad-id.descriptor": _map(descriptor, id="440000000000/202703/../poems"),
        "truncated.torrent": torrent[:-1],
        "trailing.torrent": torrent + b"0:",
        "tracker.torrent": _torrent(torrent, {b"announce": b"udp://tracker.example:1/"}, {}),
        "public.torrent": _torrent(torrent, {}, {b"private": 0}),
        "closed.torrent": _torrent(torrent, {}, {b"ssl-cert": SWARM_CA}),
        "two-roots.torrent": _torrent(torrent, {}, {b"ssl-cert": SWARM_CA * 2}),
        "empty-root.torrent": _torrent(torrent, {}, {b"ssl-cert": b""}),
        "dot-dot.torrent": torrent.replace(b"11:picture.jpg", b"12:../../../jpg"),
        "truncated.index": index[:-1],
        "newer.index": _index(index, v=2),
        "climbing.index": _index(index, files=[["../x", 0, 0, bytes(32), None, 0, None]]),
        "bomb.index": zstandard.ZstdCompressor().compress(bytes(64 << 20)),
        "no-size.index": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(99)),
        "truncated.pack": base_data[:-1],
        "trailing.pack": base_data + b"\0",
    }
    expected = {
        "unknown-field.descriptor": "ok",
        "unknown-field.index": "ok",
        "truncated.descriptor": "bundle.bad-descriptor",
        "newer.descriptor": "bundle.newer-version",
        "no-predecessor.descriptor": "bundle.bad-descriptor",
        "other-slug.descriptor": "bundle.bad-descriptor",
        "bad-id.descriptor": "bundle.bad-id",
        "truncated.torrent": "bundle.bad-bencoding",
        "trailing.torrent": "bundle.bad-bencoding",
        "tracker.torrent": "bundle.bad-torrent",
        "public.torrent": "bundle.bad-torrent",
        "two-roots.torrent": "bundle.bad-torrent",
        "empty-root.torrent": "bundle.bad-torrent",
        "dot-dot.torrent": "bundle.bad-path",
        "truncated.index": "bundle.bad-frame",
        "newer.index": "bundle.newer-version",
        "climbing.index": "bundle.bad-index",
        "bomb.index": "bundle.bad-frame",
        "no-size.index": "bundle.bad-frame",
        "truncated.pack": "bundle.bad-frame",
        "trailing.pack": "bundle.bad-frame",
    }
    manifest = {
        "expected": {name: expected.get(name, "ok") for name in files},
        "infohash": second.descriptor.infohash.hex(),
        "closed_infohash": _infohash(files["closed.torrent"]),
        "content_size": second.descriptor.content_size,
        "file_count": second.descriptor.file_count,
        "pack_sizes": {"base.pack": base.size, "delta.pack": delta.size},
    }
    return files, manifest


def _infohash(torrent: bytes) -> str:
    whole = bencode.decode(torrent)
    assert isinstance(whole, dict)
    return hashlib.sha256(bencode.encode(whole[b"info"])).hexdigest()


def _map(data: bytes, **changes: object) -> bytes:
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(data), **changes})


def _index(data: bytes, **changes: object) -> bytes:
    raw = zstandard.ZstdDecompressor().decompress(data)
    return zstandard.ZstdCompressor().compress(_map(raw, **changes))


def _torrent(
    data: bytes, outer: dict[bytes, bencode.Bencoded], info: dict[bytes, bencode.Bencoded]
) -> bytes:
    whole = bencode.decode(data)
    assert isinstance(whole, dict)
    inner = whole[b"info"]
    assert isinstance(inner, dict)
    return bencode.encode({**whole, **outer, b"info": {**inner, **info}})


if __name__ == "__main__":
    made, listed = vectors()
    for file_name, content in made.items():
        (HERE / file_name).write_bytes(content)
    (HERE / "manifest.json").write_text(json.dumps(listed, indent=1, sort_keys=True) + "\n")
