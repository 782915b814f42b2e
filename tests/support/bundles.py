"""Folders to publish, and what a reader makes of a payload."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cuntong_protocol.bundle.descriptor import BundleId, encode_descriptor, parse_bundle_id
from cuntong_protocol.bundle.index import Index, decode_index
from cuntong_protocol.bundle.merkle import hash_file
from cuntong_protocol.bundle.metadata import Metadata, parse_metadata
from cuntong_protocol.bundle.packing import unpack_pack
from cuntong_protocol.divisions import Division
from cuntong_tools.publish.build import BuildProgress, BuiltBundle, Predecessor, build_bundle

PUBLISHER = Division("440000000000")
BUNDLE_ID = parse_bundle_id("440000000000/202703/poems")
METADATA_TEXT = """\
title = "Poems"
slug = "poems"
date = 2027-03-01
"""
_VOCABULARY = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"


def metadata(**changes: str) -> Metadata:
    """The metadata of the test bundle; `changes` replace keys by TOML values."""
    lines = {"title": '"Poems"', "slug": '"poems"', "date": "2027-03-01", **changes}
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    return parse_metadata(text, file="poems.toml", publisher=PUBLISHER)


def poem(seed: int) -> dict[str, object]:
    """A poem of no merit, always the same for a seed."""
    chance = random.Random(seed)  # Reproducible content.
    lines = ["".join(chance.choices(_VOCABULARY, k=7)) for _ in range(8)]
    return {"title": f"{lines[0][:3]} {seed}", "author": f"诗人{seed % 97}", "paragraphs": lines}


def poems_file(first: int, count: int) -> bytes:
    """A JSON file with `count` poems; about 330 bytes each."""
    poems = [poem(number) for number in range(first, first + count)]
    return json.dumps(poems, ensure_ascii=False, indent=1).encode()


def noise(seed: int, size: int) -> bytes:
    """Bytes that don't compress."""
    return random.Random(seed).randbytes(size)  # Reproducible content.


def poetry() -> dict[str, bytes]:
    """Like a real collection: large and small JSON files in several folders, pictures, an empty file."""
    files = {f"songci/ci.song.{n}000.json": poems_file(n * 1000, 500) for n in range(8)}
    files |= {f"huajianji/{n}-juan.json": poems_file(20_000 + n * 100, 70) for n in range(10)}
    files |= {f"蒙学/第{n}篇.json": poems_file(30_000 + n * 10, 5 + n) for n in range(20)}
    files |= {f"pictures/{n}.jpg": noise(n, 40_000 + n) for n in range(4)}
    return {**files, "README.md": b"# Poems\n", "LICENSE": b"MIT\n", "empty.txt": b""}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Make a folder with these files."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def build(
    folder: Path,
    output: Path,
    *,
    revision: int = 1,
    predecessor: Predecessor | None = None,
    others: tuple[Predecessor, ...] = (),
    threads: int | None = None,
    bundle_id: BundleId = BUNDLE_ID,
    progress: Callable[[BuildProgress], None] | None = None,
) -> BuiltBundle:
    """Build the test bundle."""
    return build_bundle(
        folder,
        metadata(slug=f'"{bundle_id.slug}"'),
        bundle_id=bundle_id,
        revision=revision,
        output=output,
        predecessor=predecessor,
        others=others,
        threads=threads,
        progress=progress,
    )


def as_predecessor(built: BuiltBundle) -> Predecessor:
    """A built bundle as the one before the next."""
    sha256 = hashlib.sha256(encode_descriptor(built.descriptor)).digest()
    return Predecessor(built.descriptor, built.index, built.torrent, built.payload_dir, sha256)


def new_bytes(built: BuiltBundle, *known: BuiltBundle) -> int:
    """Bytes of the payload's files that are in none of the known bundles."""
    roots = {file.root for bundle in known for file in bundle.torrent.files}
    return sum(file.length for file in built.torrent.files if file.root not in roots)


def read_payload(built: BuiltBundle) -> dict[str, bytes]:
    """The files as the public sees them, rebuilt from the payload and the descriptor alone."""
    payload = built.payload_dir
    index = decode_index(
        (payload / "index").read_bytes(),
        content_size=built.descriptor.content_size,
        file_count=built.descriptor.file_count,
    )
    unpacked = [_unpack(payload, index, number) for number in range(len(index.packs))]
    files: dict[str, bytes] = {}
    for file in index.files:
        if file.pack is not None:
            data = unpacked[file.pack][file.offset : file.offset + file.size]
        else:
            data = (payload / "files" / file.stored).read_bytes() if file.stored else b""
        assert hash_file(data, 32_768)[0] == file.root
        files[file.path] = data
    return files


def _unpack(payload: Path, index: Index, number: int) -> bytes:
    pack = index.packs[number]
    base = None if pack.base is None else _unpack(payload, index, pack.base)
    return unpack_pack((payload / "packs" / pack.name).read_bytes(), pack.size, base)


def real_poetry() -> Path:
    """A real collection, which isn't part of the repository."""
    place = os.environ.get("CUNTONG_POETRY")
    if place is None:
        pytest.skip("CUNTONG_POETRY names no folder with the poetry collection")
    return Path(place)
