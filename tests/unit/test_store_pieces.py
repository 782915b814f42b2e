"""Which pieces are believed, and which are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.pieces import (
    PieceSet,
    bytes_of,
    checked_pieces,
    open_plain,
    present_pieces,
    verified_pieces,
)
from tests.support.payloads import PIECE_LENGTH, some_files, torrent_of, write_payload

COUNTS = st.integers(0, 70)


@given(COUNTS.flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(-3, n + 3)))))
def test_a_set_of_pieces_is_what_was_put_in(case: tuple[int, set[int]]) -> None:
    count, numbers = case
    inside = {number for number in numbers if 0 <= number < count}
    pieces = PieceSet.of(count, numbers)
    assert set(pieces) == inside
    assert len(pieces) == len(inside)
    assert bool(pieces) == bool(inside)
    assert pieces.as_bools() == [i in inside for i in range(count)]
    assert all((number in pieces) == (number in inside) for number in range(-2, count + 3))
    assert PieceSet.from_bytes(count, pieces.to_bytes()) == pieces
    assert set(pieces.missing()) == set(range(count)) - inside
    assert pieces | pieces.missing() == PieceSet.full(count)
    assert not (pieces - pieces)
    assert (pieces | pieces.missing()).is_full


def test_bits_beyond_the_last_piece_are_dropped() -> None:
    assert PieceSet.from_bytes(3, b"\xff\xff") == PieceSet.full(3)


def test_every_piece_of_a_good_payload_is_found(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    folder = write_payload(DataPaths(tmp_path), torrent, files)
    assert verified_pieces(torrent, folder).is_full
    assert present_pieces(torrent, folder, believed=PieceSet(torrent.piece_count)).is_full
    assert bytes_of(torrent, PieceSet.full(torrent.piece_count)) == torrent.payload_size
    assert bytes_of(torrent, PieceSet(torrent.piece_count)) == 0
    assert (
        sum(
            bytes_of(torrent, PieceSet.of(torrent.piece_count, [i]))
            for i in range(torrent.piece_count)
        )
        == torrent.payload_size
    )


def test_a_flipped_bit_costs_exactly_its_piece(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    folder = write_payload(DataPaths(tmp_path), torrent, files)
    for piece in range(torrent.piece_count):
        file, offset, length = torrent.piece_place(piece)
        path = folder / file.path
        before = path.read_bytes()
        for position in (offset, offset + length - 1):
            path.write_bytes(
                before[:position] + bytes([before[position] ^ 4]) + before[position + 1 :]
            )
            assert list(verified_pieces(torrent, folder).missing()) == [piece]
            assert checked_pieces(torrent, folder, PieceSet.full(torrent.piece_count)) == (
                PieceSet.full(torrent.piece_count) - PieceSet.of(torrent.piece_count, [piece])
            )
        path.write_bytes(before)


def test_a_believed_piece_is_not_read_but_must_lie_within_its_file(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    folder = write_payload(DataPaths(tmp_path), torrent, files)
    big = folder / "files/a.mp4"
    big.write_bytes(bytes(PIECE_LENGTH * 2 + 5))
    numbers = torrent.pieces_of(torrent.files[0])
    assert torrent.files[0].path == "files/a.mp4"
    found = present_pieces(torrent, folder, believed=PieceSet.full(torrent.piece_count))
    assert list(found.missing()) == list(numbers)[2:]


def test_a_vanished_file_has_no_pieces_whatever_was_believed(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    folder = write_payload(DataPaths(tmp_path), torrent, files)
    (folder / "index").unlink()
    found = present_pieces(torrent, folder, believed=PieceSet.full(torrent.piece_count))
    assert len(found.missing()) == 1


def test_holes_of_a_reserved_file_are_skipped(tmp_path: Path) -> None:
    # A piece of zeros is the one that a hole could be taken for.
    files = {"files/z": bytes(PIECE_LENGTH * 8), "index": b"i"}
    torrent = torrent_of(files)
    folder = write_payload(DataPaths(tmp_path), torrent, files)
    os.truncate(folder / "files/z", 0)
    os.truncate(folder / "files/z", PIECE_LENGTH * 8)
    none = PieceSet(torrent.piece_count)
    assert len(present_pieces(torrent, folder, believed=none)) == 1
    assert verified_pieces(torrent, folder).is_full


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_only_plain_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "link":
        (tmp_path / "target").write_bytes(b"secret")
        path.symlink_to("target")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(OSError):
        open_plain(path)


def test_checking_can_be_stopped(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    folder = write_payload(DataPaths(tmp_path), torrent, files)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verified_pieces(torrent, folder, checkpoint=stop)
