"""Blocks, packets and objects of the datacast (SPEC 11.2 to 11.8)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
import pytest

from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.merkle import hash_file
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.datacast.blocks import (
    BLOCK_BYTES,
    Layout,
    Part,
    check_halves,
    esi_limit,
    is_right,
    object_blocks,
    pass_length,
    symbol_count,
)
from cuntong_protocol.datacast.errors import BadPacketError, DatacastError
from cuntong_protocol.datacast.objects import (
    FRAME_AIMED_AT,
    MAX_FRAME_BYTES,
    Item,
    Manifest,
    Programme,
    Ref,
    catalogue_head,
    catalogue_items,
    check_object,
    decode_manifest,
    decode_programme,
    encode_catalogue,
    encode_manifest,
    encode_programme,
)
from cuntong_protocol.datacast.packets import (
    MAX_CERTIFICATE_BYTES,
    MAX_ESI,
    MAX_SESSION,
    MAX_TOI,
    PACKET_BYTES,
    SYMBOL_BYTES,
    Beacon,
    Channel,
    Codepoint,
    Header,
    Segment,
    beacon_packet,
    check_beacon,
    digest,
    digest_packet,
    filler_packet,
    identity_packet,
    peek_beacon,
    read_digests,
    read_header,
    read_identity,
    symbol_packet,
)
from tests.support.payloads import PIECE_LENGTH, random_bytes, some_files, torrent_of
from tests.vectors.datacast.make import BEACON, MANIFEST, PROGRAMME, sign, verify

MIB = 1024 * 1024
LARGE_PIECE = 8 * MIB
LARGE_FILES = {
    # Two whole pieces and a last one beyond 4 MiB: six halves.
    "a.mp4": random_bytes(21 * MIB, 1),
    "b-short.mp4": random_bytes(12 * MIB - 7, 2),
    "c-half.bin": random_bytes(4 * MIB, 3),
    "d-more-than-half.bin": random_bytes(5 * MIB, 4),
    "e-whole.bin": random_bytes(8 * MIB, 5),
    "f-small.txt": random_bytes(1000, 6),
    "g-small.txt": random_bytes(2000, 7),
}
LARGE = torrent_of(LARGE_FILES, piece_length=LARGE_PIECE)
HALVES = {
    hash_file(data, LARGE_PIECE)[0]: hash_file(data, BLOCK_BYTES)[1]
    for data in LARGE_FILES.values()
    if len(data) > BLOCK_BYTES
}


def payload_bytes(torrent: Torrent, files: Mapping[str, bytes], part: Part) -> bytes:
    """What the publisher put where this part lies."""
    file, start, _ = torrent.piece_place(part.piece)
    return files[file.path][start + part.offset :][: part.length]


def blocks_with(layout: Layout, pieces: set[int]) -> list[int]:
    """The blocks of these pieces, found by looking into each."""
    return [
        number
        for number in range(len(layout.sizes))
        if pieces & {part.piece for part in layout.parts(number)}
    ]


# Symbols and blocks.


def test_last_symbol_of_a_block_may_be_short() -> None:
    assert [symbol_count(size) for size in (1, 1344, 1345, BLOCK_BYTES)] == [1, 1, 2, 3121]


def test_small_blocks_get_more_than_their_two_percent_of_repair() -> None:
    assert pass_length(1) == 1 + 4
    assert pass_length(200 * SYMBOL_BYTES) == 200 + 4
    assert pass_length(BLOCK_BYTES) == 3121 + 62


def test_symbol_numbers_begin_anew_after_sixteen_passes() -> None:
    assert esi_limit(1) == 80
    assert esi_limit(BLOCK_BYTES) == 16 * 3183 <= MAX_ESI


def test_object_is_cut_into_blocks_as_large_as_can_be() -> None:
    assert object_blocks(1) == [1]
    assert object_blocks(BLOCK_BYTES) == [BLOCK_BYTES]
    assert object_blocks(2 * BLOCK_BYTES + 5) == [BLOCK_BYTES, BLOCK_BYTES, 5]


# Layouts.


def test_tiny_files_share_a_block() -> None:
    torrent = torrent_of({f"files/{number:03}": bytes([number]) for number in range(200)})
    layout = Layout(torrent)
    assert layout.sizes == [200]
    assert layout.parts(0) == [Part(number, 0, 1, True, number) for number in range(200)]
    assert layout.blocks_of(iter([0])) == layout.blocks_of(iter([7, 199])) == [0]


def test_short_last_pieces_leave_no_gap_in_a_block() -> None:
    files = some_files()
    torrent = torrent_of(files)
    layout = Layout(torrent)
    assert layout.sizes == [torrent.payload_size]
    parts = layout.parts(0)
    assert [part.piece for part in parts] == list(range(torrent.piece_count))
    short = [part for part in parts if part.length < PIECE_LENGTH]
    assert len(short) == 5
    joined = b"".join(payload_bytes(torrent, files, part) for part in parts)
    assert joined == b"".join(files[file.path] for file in torrent.files)


def test_piece_that_does_not_fit_begins_the_next_block() -> None:
    files = {
        "a": random_bytes(3 * MIB, 1),
        "b": random_bytes(MIB - 1, 2),
        "c": b"x",
        "d": random_bytes(2 * MIB, 3),
    }
    torrent = torrent_of(files, piece_length=2 * MIB)
    layout = Layout(torrent)
    # 3 MiB + 1 MiB less one byte + one byte fill the first one exactly.
    assert layout.sizes == [BLOCK_BYTES, 2 * MIB]
    assert [part.piece for part in layout.parts(0)] == [0, 1, 2, 3]
    assert layout.parts(1) == [Part(4, 0, 2 * MIB, True, 0)]


def test_block_ends_before_a_piece_that_is_one_byte_too_long() -> None:
    files = {"a": random_bytes(2 * MIB, 1), "b": b"x", "c": random_bytes(2 * MIB, 2)}
    layout = Layout(torrent_of(files, piece_length=2 * MIB))
    assert layout.sizes == [2 * MIB + 1, 2 * MIB]


def test_pieces_of_four_mebibytes_are_not_halved() -> None:
    files = {"a": random_bytes(9 * MIB, 1), "b": b"x"}
    layout = Layout(torrent_of(files, piece_length=BLOCK_BYTES))
    assert layout.sizes == [BLOCK_BYTES, BLOCK_BYTES, MIB + 1]
    assert all(part.is_whole for number in range(3) for part in layout.parts(number))


def test_pieces_of_eight_mebibytes_go_in_halves() -> None:
    layout = Layout(LARGE)
    assert layout.sizes == [
        *[4 * MIB] * 5,
        # What is beyond the half of a piece shares its block with what follows.
        MIB,
        4 * MIB,
        4 * MIB,
        4 * MIB - 7,
        4 * MIB,
        4 * MIB,
        MIB,
        4 * MIB,
        4 * MIB,
        3000,
    ]
    assert layout.parts(0) == [Part(0, 0, 4 * MIB, False, 0)]
    assert layout.parts(1) == [Part(0, 4 * MIB, 4 * MIB, False, 0)]
    assert layout.parts(5) == [Part(2, 4 * MIB, MIB, False, 0)]
    # A piece of no more than 4 MiB is whole, whether or not its file is longer.
    assert layout.parts(8) == [Part(4, 0, 4 * MIB - 7, True, 0)]
    assert layout.parts(9) == [Part(5, 0, 4 * MIB, True, 0)]
    assert layout.parts(14) == [Part(8, 0, 1000, True, 0), Part(9, 0, 2000, True, 1000)]


def test_second_half_shares_its_block_with_small_files() -> None:
    files = {"a": random_bytes(5 * MIB, 1), "b": b"bb", "c": random_bytes(6 * MIB, 2)}
    layout = Layout(torrent_of(files, piece_length=LARGE_PIECE))
    assert layout.sizes == [4 * MIB, MIB + 2, 4 * MIB, 2 * MIB]
    assert layout.parts(1) == [Part(0, 4 * MIB, MIB, False, 0), Part(1, 0, 2, True, MIB)]
    assert layout.blocks_of(iter([0])) == [0, 1]
    assert layout.blocks_of(iter([1])) == [1]
    assert layout.blocks_of(iter([1, 2])) == [1, 2, 3]


@pytest.mark.parametrize("torrent", [LARGE, torrent_of(some_files(9 * MIB))])
def test_blocks_of_pieces_are_those_that_hold_them(torrent: Torrent) -> None:
    layout = Layout(torrent)
    everything = range(torrent.piece_count)
    assert layout.blocks_of(iter(everything)) == list(range(len(layout.sizes)))
    assert layout.blocks_of(iter([])) == []
    for piece in everything:
        assert layout.blocks_of(iter([piece])) == blocks_with(layout, {piece})
        last = torrent.piece_count - 1
        wanted = sorted({piece, last})
        assert layout.blocks_of(iter(wanted)) == blocks_with(layout, set(wanted))


# What is in a part.


@pytest.mark.parametrize(
    ("torrent", "files", "halves"),
    [(LARGE, LARGE_FILES, HALVES), (torrent_of(some_files()), some_files(), {})],
    ids=["halves", "whole"],
)
def test_only_the_publishers_bytes_are_right(
    torrent: Torrent, files: dict[str, bytes], halves: dict[bytes, bytes]
) -> None:
    check_halves(torrent, halves)
    layout = Layout(torrent)
    for number in range(len(layout.sizes)):
        for part in layout.parts(number):
            data = payload_bytes(torrent, files, part)
            wrong = bytes([data[0] ^ 1]) + data[1:]
            assert is_right(torrent, halves, part, memoryview(data))
            assert not is_right(torrent, halves, part, memoryview(wrong))
            assert not is_right(torrent, halves, part, memoryview(data)[:-1])
            assert not is_right(torrent, halves, part, memoryview(data + b"\0"))
            assert not is_right(torrent, halves, part, memoryview(b""))


def test_half_of_another_place_is_not_right() -> None:
    first, second = (Layout(LARGE).parts(number)[0] for number in (0, 1))
    data = memoryview(payload_bytes(LARGE, LARGE_FILES, second))
    assert is_right(LARGE, HALVES, second, data)
    assert not is_right(LARGE, HALVES, first, data)


ROOTS = sorted(HALVES)


@pytest.mark.parametrize(
    "halves",
    [
        {},
        {root: HALVES[root] for root in ROOTS[1:]},
        {**HALVES, bytes(32): bytes(64)},
        {**HALVES, ROOTS[0]: HALVES[ROOTS[0]][:-32]},
        {**HALVES, ROOTS[0]: HALVES[ROOTS[0]] + bytes(32)},
        {**HALVES, ROOTS[0]: HALVES[ROOTS[0]][:-1]},
        {**HALVES, ROOTS[0]: b""},
        {**HALVES, ROOTS[0]: bytes(len(HALVES[ROOTS[0]]))},
        {**HALVES, ROOTS[0]: HALVES[ROOTS[1]], ROOTS[1]: HALVES[ROOTS[0]]},
        # A file of 4 MiB is one part, so nobody needs its layer.
        {**HALVES, hash_file(LARGE_FILES["c-half.bin"], LARGE_PIECE)[0]: b""},
    ],
    ids=[
        "none",
        "one missing",
        "one extra",
        "short",
        "long",
        "cut",
        "empty",
        "zeros",
        "swapped",
        "whole",
    ],
)
def test_halves_that_are_not_those_of_the_files_are_refused(halves: dict[bytes, bytes]) -> None:
    with pytest.raises(BundleError) as caught:
        check_halves(LARGE, halves)
    assert caught.value.code == "bundle.bad-layer"


def test_torrent_with_smaller_pieces_has_no_halves() -> None:
    torrent = torrent_of(LARGE_FILES, piece_length=BLOCK_BYTES)
    check_halves(torrent, {})
    with pytest.raises(BundleError):
        check_halves(torrent, HALVES)


def test_files_with_the_same_content_have_one_layer() -> None:
    data = LARGE_FILES["d-more-than-half.bin"]
    torrent = torrent_of({"a": data, "b": data}, piece_length=LARGE_PIECE)
    root, _ = hash_file(data, LARGE_PIECE)
    check_halves(torrent, {root: HALVES[root]})
    assert Layout(torrent).sizes == [4 * MIB, MIB, 4 * MIB, MIB]


# Packets.


def test_no_packet_is_longer_than_one_with_a_symbol() -> None:
    segments = [
        Segment(Channel.CONTENT, number, 0, tuple(digest(b"%d" % n) for n in range(8)))
        for number in range(8)
    ]
    longest = [
        digest_packet(MAX_SESSION, segments, sign),
        beacon_packet(MAX_SESSION, BEACON, sign),
        identity_packet(MAX_SESSION, bytes(MAX_CERTIFICATE_BYTES)),
        filler_packet(MAX_SESSION),
        symbol_packet(MAX_SESSION, Channel.CONTENT, MAX_TOI, MAX_ESI, bytes(SYMBOL_BYTES)),
    ]
    for packet, kind in zip(
        longest,
        (Codepoint.DIGESTS, Codepoint.BEACON, Codepoint.IDENTITY, Codepoint.FILLER),
        strict=False,
    ):
        assert len(packet) <= PACKET_BYTES
        assert read_header(packet) == Header(kind, MAX_SESSION, Channel.CONTROL, 0)
    assert len(longest[-1]) == PACKET_BYTES
    assert read_header(longest[-1]) == Header(
        Codepoint.SYMBOL, MAX_SESSION, Channel.CONTENT, MAX_TOI
    )
    assert read_identity(longest[2]) == bytes(MAX_CERTIFICATE_BYTES)


def test_symbol_stands_at_the_end_of_its_packet() -> None:
    symbol = random_bytes(SYMBOL_BYTES)
    packet = symbol_packet(5, Channel.CONTENT, 6, 7, symbol)
    assert packet[PACKET_BYTES - SYMBOL_BYTES :] == symbol


def test_digest_stands_for_every_byte_of_a_packet() -> None:
    packet = symbol_packet(5, Channel.CONTENT, 6, 7, random_bytes(SYMBOL_BYTES))
    places = (0, 15, 19, 20, PACKET_BYTES - 1)
    changed = [packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :] for at in places]
    assert len({digest(packet), *map(digest, changed)}) == 1 + len(places)
    assert digest(memoryview(packet)) == digest(packet)


def test_beacon_of_one_session_is_not_taken_for_another_one() -> None:
    packet = bytearray(beacon_packet(5, BEACON, sign))
    packet[11] ^= 0x10
    assert read_header(bytes(packet)).session == 4
    with pytest.raises(BadPacketError) as caught:
        check_beacon(bytes(packet), verify)
    assert caught.value.reason == "bad-signature"


def test_signature_of_a_beacon_proves_no_digests() -> None:
    beacon = beacon_packet(5, BEACON, sign)
    segments = [Segment(Channel.CONTENT, 1, 0, (digest(b"x"),))]
    packet = digest_packet(5, segments, lambda _: beacon[-64:])
    with pytest.raises(BadPacketError) as caught:
        read_digests(packet, verify)
    assert caught.value.reason == "bad-signature"


def test_signature_is_only_checked_for_what_is_well_formed() -> None:
    def never(_data: bytes, _signature: bytes) -> bool:
        raise AssertionError

    packet = digest_packet(5, [Segment(Channel.CONTENT, 1, 0, (digest(b"x"),))], sign)
    for spoilt in (packet[:17] + b"\x00" + packet[18:], packet + b"\0", packet[:90]):
        with pytest.raises(BadPacketError):
            read_digests(spoilt, never)


def test_beacon_of_a_later_version_may_have_changed_its_fields() -> None:
    later = msgspec.msgpack.encode({"v": 2, "sender": 1, "key": "x"})
    packet = beacon_packet(5, BEACON, sign)[:16] + later + bytes(64)
    with pytest.raises(BadPacketError) as caught:
        peek_beacon(packet)
    assert caught.value.reason in {"wrong-version", "malformed"}


# Objects.


def test_object_is_the_one_that_was_named() -> None:
    data = random_bytes(5000)
    named = Ref(toi=1, size=5000, sha256=hashlib.sha256(data).digest())
    check_object(named, data)
    for wrong in (data[:-1], data + b"\0", b"", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(DatacastError) as caught:
            check_object(named, wrong)
        assert caught.value.code == "datacast.bad-object"


def test_programme_comes_back() -> None:
    assert decode_programme(encode_programme(PROGRAMME)) == PROGRAMME
    assert decode_programme(encode_programme(Programme())) == Programme()


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(torrent=b"d"),
        MANIFEST,
        Manifest(torrent=LARGE.encode(), halves=HALVES),
    ],
    ids=["small", "one file with halves", "many with halves"],
)
def test_manifest_comes_back(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_manifest_is_the_same_bytes_in_whatever_order_its_halves_were_found() -> None:
    manifests = (
        Manifest(torrent=b"d", halves=dict(items))
        for items in (HALVES.items(), reversed(HALVES.items()))
    )
    assert len({encode_manifest(manifest) for manifest in manifests}) == 1


AUTHORITY = "440000000000"


def catalogue(items: list[Item], bases: Mapping[str, bytes] | None = None) -> list[Item]:
    """A catalogue's files, after they were on the air."""
    known = dict(bases or {})
    data = encode_catalogue(AUTHORITY, items, known.items())
    return list(catalogue_items(data, catalogue_head(data, AUTHORITY), known))


def test_catalogue_comes_back_in_its_order() -> None:
    items = [Item(f"{number}.json", random_bytes(number * 1000, number)) for number in range(30)]
    assert catalogue(items) == items
    assert catalogue(items[::-1]) == items[::-1]
    assert catalogue([]) == []


def test_receiver_has_one_frame_of_a_catalogue_in_memory_at_once() -> None:
    items = [Item("", random_bytes(300_000, number)) for number in range(12)]
    data = encode_catalogue(AUTHORITY, items)
    head = catalogue_head(data, AUTHORITY)
    assert len(head.frames) == 4
    # What comes before a damaged frame is still read.
    found = catalogue_items(data[:-1] + b"\0", head, {})
    assert [next(found) for _ in range(9)] == items[:9]


def test_catalogue_of_tiny_files_has_frames_that_can_be_read() -> None:
    items = [Item(f"{number:058}", b"x") for number in range(150_000)]
    assert sum(len(item.name) + len(item.data) for item in items) > MAX_FRAME_BYTES
    assert sum(len(item.data) for item in items) < FRAME_AIMED_AT
    assert catalogue(items) == items


def test_delta_against_an_earlier_role_is_small() -> None:
    bundles = [f"440000000000/{number:06}/poems-{number * 7919 % 1000}" for number in range(3000)]
    old = "\n".join(bundles).encode()
    new = "\n".join([*bundles, "440000000000/202703/new"]).encode()
    items = [Item("targets.json", new)]
    bases = {"1.targets.json": old, "1.timestamp.json": b"{}"}
    assert catalogue(items, bases) == items
    delta, snapshot = (encode_catalogue(AUTHORITY, items, given) for given in (bases.items(), ()))
    assert len(delta) * 10 < len(snapshot)
    assert [base.name for base in catalogue_head(delta, AUTHORITY).bases] == list(bases)
    assert [base.sha256 for base in catalogue_head(delta, AUTHORITY).bases] == [
        hashlib.sha256(data).digest() for data in bases.values()
    ]


def test_delta_read_with_another_base_is_refused_or_at_least_other_files() -> None:
    items = [Item("targets.json", random_bytes(3000, 1))]
    data = encode_catalogue(AUTHORITY, items, [("old", random_bytes(2900, 1))])
    head = catalogue_head(data, AUTHORITY)
    try:
        found = list(catalogue_items(data, head, {"old": random_bytes(2900, 2)}))
    except DatacastError as error:
        assert error.code == "datacast.bad-object"  # noqa: PT017  # Whatever comes out isn't believed.
    else:
        assert found != items


def test_catalogue_of_another_authority_is_refused() -> None:
    data = encode_catalogue(AUTHORITY, [])
    with pytest.raises(DatacastError):
        catalogue_head(data, "441900000000")


def test_beacon_says_the_same_after_it_was_on_the_air() -> None:
    plain = Beacon(sender=AUTHORITY, number=0, time=0, key=bytes(8), rate_bytes_s=1)
    for beacon in (BEACON, plain):
        packet = beacon_packet(5, beacon, sign)
        assert peek_beacon(packet) == beacon
        check_beacon(packet, verify)
