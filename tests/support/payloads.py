"""Payloads for tests: real files, hashed with the project's own Merkle code."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.torrents import payload_folder
from cuntong_protocol.bundle.merkle import hash_file
from cuntong_protocol.bundle.torrent import HashedFile, Torrent, make_torrent

PIECE_LENGTH = 32 * 1024


def random_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that don't compress and are the same on every run."""
    return random.Random(seed).randbytes(size)


def torrent_of(
    files: Mapping[str, bytes],
    *,
    name: str = "bundle",
    piece_length: int = PIECE_LENGTH,
    root_certificate: bytes = b"",
) -> Torrent:
    """A torrent of these files."""
    hashed = []
    for path, data in files.items():
        root, layer = hash_file(data, piece_length)
        hashed.append(HashedFile(path, len(data), root, layer))
    return make_torrent(name, piece_length, hashed, root_certificate=root_certificate)


def write_payload(paths: DataPaths, torrent: Torrent, files: Mapping[str, bytes]) -> Path:
    """Put the files where the store has them."""
    folder = payload_folder(paths, torrent)
    write_files(folder, files)
    return folder


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def read_files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def copy_payload(source: DataPaths, target: DataPaths, torrent: Torrent) -> None:
    shutil.copytree(payload_folder(source, torrent), payload_folder(target, torrent))


def some_files(size: int = 400_000, seed: int = 1) -> dict[str, bytes]:
    """A payload of about this size: one big file, some small ones, Chinese names."""
    small = {
        "files/诗/春晓.txt": "春眠不觉晓，处处闻啼鸟。".encode(),
        "files/b/exact-piece.bin": random_bytes(PIECE_LENGTH, seed + 1),
        "files/b/block.bin": random_bytes(16_384, seed + 2),
        "files/b/odd.bin": random_bytes(PIECE_LENGTH + 1, seed + 3),
        "index": random_bytes(99, seed + 4),
    }
    rest = size - sum(len(data) for data in small.values())
    return {"files/a.mp4": random_bytes(rest, seed), **small}
