"""What holds for any packet, any object and any payload on the air.

The fuzz invariant: whatever the bytes, a reader of packets raises `BadPacketError`, a reader of objects
`DatacastError`, or each returns a value within its limits. Nothing else escapes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuntong_protocol.bundle.torrent import Torrent, TorrentFile
from cuntong_protocol.datacast.blocks import (
    BLOCK_BYTES,
    Layout,
    esi_limit,
    object_blocks,
    pass_length,
    symbol_count,
)
from cuntong_protocol.datacast.errors import BadPacketError, DatacastError
from cuntong_protocol.datacast.flute import MAX_FILE_BYTES, FluteObject
from cuntong_protocol.datacast.objects import (
    MAX_FIRST_TOI,
    MAX_OBJECT_BYTES,
    BundleEntry,
    CatalogueEntry,
    Item,
    Manifest,
    Programme,
    Ref,
    catalogue_head,
    catalogue_items,
    decode_manifest,
    decode_programme,
    encode_catalogue,
    encode_manifest,
    encode_programme,
)
from cuntong_protocol.datacast.packets import (
    DIGEST_BYTES,
    DIGESTS_AT_ONCE,
    MAX_CERTIFICATE_BYTES,
    MAX_ESI,
    MAX_SEGMENTS,
    MAX_SESSION,
    MAX_TOI,
    PACKET_BYTES,
    SYMBOL_BYTES,
    Beacon,
    Channel,
    Codepoint,
    Header,
    Segment,
    Symbol,
    beacon_packet,
    check_beacon,
    digest_packet,
    identity_packet,
    peek_beacon,
    read_digests,
    read_header,
    read_identity,
    read_symbol,
    symbol_packet,
)
from tests.vectors.datacast.make import (
    AUTHORITY,
    BASES,
    good_objects,
    good_packets,
    head,
    sign,
    verify,
)

SESSIONS = st.integers(0, MAX_SESSION)
CHANNELS = st.sampled_from([Channel.CATALOGUE, Channel.MANIFEST, Channel.CONTENT])
TOIS = st.integers(0, MAX_TOI)
ESIS = st.integers(0, MAX_ESI)
SYMBOLS = st.binary(min_size=1, max_size=4).map(lambda seed: (seed * SYMBOL_BYTES)[:SYMBOL_BYTES])
HASHES = st.binary(min_size=32, max_size=32)
TIMES = st.integers(0, 1 << 40)
CODES = st.integers(0, 10**12 - 1).map(lambda number: f"{number:012}")
REFS = st.builds(
    Ref, toi=st.integers(1, MAX_FIRST_TOI), size=st.integers(1, MAX_OBJECT_BYTES), sha256=HASHES
)


def segments_of(counts: list[int]) -> st.SearchStrategy[list[Segment]]:
    """Segments with so many symbols each."""
    return st.tuples(
        *(
            st.builds(
                Segment,
                CHANNELS,
                TOIS,
                st.integers(0, MAX_ESI - count + 1),
                st.tuples(*[st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)] * count),
            )
            for count in counts
        )
    ).map(list)


SEGMENTS = (
    st.lists(st.integers(1, DIGESTS_AT_ONCE // MAX_SEGMENTS), min_size=1, max_size=MAX_SEGMENTS)
    | st.lists(st.integers(1, DIGESTS_AT_ONCE), min_size=1, max_size=1)
).flatmap(segments_of)
BEACONS = st.builds(
    Beacon,
    sender=CODES,
    number=st.integers(0, 1 << 53),
    time=TIMES,
    key=st.binary(min_size=8, max_size=8),
    rate_bytes_s=st.integers(1, 1 << 40),
    catalogue=st.integers(0, 1 << 53),
    programme=st.none() | REFS,
)
CATALOGUES = st.builds(
    CatalogueEntry,
    authority=CODES,
    version=st.integers(1, 1 << 53),
    snapshot=REFS,
    delta=st.none() | REFS,
)
BUNDLES = st.builds(
    BundleEntry,
    id=st.text(max_size=90),
    infohash=HASHES,
    size=st.integers(1, 1 << 50),
    toi=st.integers(1, MAX_FIRST_TOI),
    manifest=REFS,
    passes=TIMES,
    begins=TIMES,
    ends=TIMES,
    next=TIMES,
)
PROGRAMMES = st.builds(
    Programme,
    made_at=TIMES,
    catalogues=st.lists(CATALOGUES, max_size=3).map(tuple),
    bundles=st.lists(BUNDLES, max_size=3).map(tuple),
)
MANIFESTS = st.builds(
    Manifest,
    torrent=st.binary(max_size=200),
    halves=st.dictionaries(HASHES, st.binary(max_size=96), max_size=3),
)
ITEMS = st.lists(st.builds(Item, st.text(max_size=60), st.binary(max_size=300)), max_size=12)


# Round trips.


@given(SESSIONS, CHANNELS, TOIS, ESIS, SYMBOLS)
def test_symbol_comes_back(
    session: int, channel: Channel, toi: int, esi: int, symbol: bytes
) -> None:
    packet = symbol_packet(session, channel, toi, esi, symbol)
    assert len(packet) == PACKET_BYTES
    assert read_header(packet) == Header(Codepoint.SYMBOL, session, channel, toi)
    assert read_symbol(memoryview(packet)) == Symbol(channel, toi, esi)
    assert packet.endswith(symbol)


@given(SESSIONS, SEGMENTS)
def test_digests_come_back(session: int, segments: list[Segment]) -> None:
    packet = digest_packet(session, segments, sign)
    assert read_header(packet) == Header(Codepoint.DIGESTS, session, Channel.CONTROL, 0)
    assert read_digests(packet, verify) == segments


@given(SESSIONS, BEACONS)
def test_beacon_comes_back(session: int, beacon: Beacon) -> None:
    packet = beacon_packet(session, beacon, sign)
    assert read_header(packet) == Header(Codepoint.BEACON, session, Channel.CONTROL, 0)
    assert peek_beacon(packet) == beacon
    check_beacon(packet, verify)


@given(SESSIONS, st.binary(min_size=1, max_size=MAX_CERTIFICATE_BYTES))
def test_certificate_comes_back(session: int, certificate: bytes) -> None:
    packet = identity_packet(session, certificate)
    assert read_header(packet) == Header(Codepoint.IDENTITY, session, Channel.CONTROL, 0)
    assert read_identity(packet) == certificate


@given(SESSIONS, SEGMENTS, BEACONS, st.data())
@settings(max_examples=50)
def test_signed_packet_with_one_bit_changed_is_never_taken(
    session: int, segments: list[Segment], beacon: Beacon, data: st.DataObject
) -> None:
    for packet in (digest_packet(session, segments, sign), beacon_packet(session, beacon, sign)):
        bit = data.draw(st.integers(0, len(packet) * 8 - 1))
        spoilt = bytearray(packet)
        spoilt[bit // 8] ^= 1 << bit % 8
        taken = True
        try:
            header = read_header(bytes(spoilt))
            if header.codepoint is Codepoint.DIGESTS:
                read_digests(bytes(spoilt), verify)
            elif header.codepoint is Codepoint.BEACON:
                peek_beacon(bytes(spoilt))
                check_beacon(bytes(spoilt), verify)
            else:
                # A bit of the codepoint makes a filler or an identity of it; neither is believed.
                assert header.codepoint in {Codepoint.FILLER, Codepoint.IDENTITY}
                taken = False
        except BadPacketError:
            taken = False
        assert not taken


@given(PROGRAMMES)
def test_programme_comes_back(programme: Programme) -> None:
    data = encode_programme(programme)
    assert decode_programme(data) == programme
    assert encode_programme(decode_programme(data)) == data


@given(MANIFESTS)
def test_manifest_comes_back(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    assert decode_manifest(data) == manifest
    assert encode_manifest(decode_manifest(data)) == data


@given(ITEMS, st.dictionaries(st.text(max_size=60), st.binary(max_size=500), max_size=4))
def test_catalogue_comes_back(items: list[Item], bases: dict[str, bytes]) -> None:
    data = encode_catalogue(AUTHORITY, items, bases.items())
    found = catalogue_head(data, AUTHORITY)
    assert [base.name for base in found.bases] == list(bases)
    assert list(catalogue_items(data, found, bases)) == items


# Anything at all.


def read_all_packets(data: bytes) -> None:
    """Give the bytes to every reader of packets."""
    with contextlib.suppress(BadPacketError):
        header = read_header(data)
        assert len(data) <= PACKET_BYTES
        assert header.session <= MAX_SESSION
        if header.codepoint is Codepoint.SYMBOL:
            assert len(data) == PACKET_BYTES
            assert read_symbol(data).esi <= MAX_ESI
        else:
            assert (header.channel, header.toi) == (Channel.CONTROL, 0)
    # No reader relies on the codepoint being its own.
    with contextlib.suppress(BadPacketError):
        segments = read_digests(data, lambda _data, _signature: True)
        assert 1 <= len(segments) <= MAX_SEGMENTS
        assert 1 <= sum(len(segment.digests) for segment in segments) <= DIGESTS_AT_ONCE
        for segment in segments:
            assert segment.channel is not Channel.CONTROL
            assert segment.first_esi + len(segment.digests) - 1 <= MAX_ESI
            assert {len(each) for each in segment.digests} == {DIGEST_BYTES}
    with contextlib.suppress(BadPacketError):
        assert peek_beacon(data).symbol_bytes == SYMBOL_BYTES
    with contextlib.suppress(BadPacketError):
        check_beacon(data, verify)
    with contextlib.suppress(BadPacketError):
        assert 1 <= len(read_identity(data)) <= MAX_CERTIFICATE_BYTES


def read_all_objects(data: bytes) -> None:
    """Give the bytes to every reader of objects."""
    readers: tuple[Callable[[bytes], object], ...] = (
        decode_programme,
        decode_manifest,
        read_catalogue,
    )
    for read in readers:
        try:
            read(data)
        except DatacastError as error:
            # Whatever the detail quotes, it can be shown and logged.
            str(error).encode()


def read_catalogue(data: bytes) -> None:
    """All of a catalogue; the receiver has each base that it names."""
    found = catalogue_head(data, AUTHORITY)
    known = dict(BASES)
    bases = {base.name: known.get(base.name, b"") for base in found.bases}
    for item in catalogue_items(data, found, bases):
        assert len(item.name) <= 60


def spoil(data: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    """Replace stretches: place, what comes there, how much goes."""
    spoilt = bytearray(data)
    for place, new, gone in changes:
        at = place % (len(spoilt) + 1)
        spoilt[at : at + gone] = new
    return bytes(spoilt)


CHANGES = st.lists(
    st.tuples(st.integers(0, 5000), st.binary(max_size=4), st.integers(0, 6)), max_size=5
)
GOOD_PACKETS = st.sampled_from([data for data, _ in good_packets().values()])
GOOD_OBJECTS = st.sampled_from([data for data, _ in good_objects().values()])
PLAIN = st.sampled_from(
    [
        zstandard.ZstdDecompressor().decompress(data)
        for name, (data, _) in good_objects().items()
        if name.startswith(("programme", "manifest"))
    ]
    + [msgspec.msgpack.encode([Item("timestamp.json", b"{}"), Item("", b"x" * 40)])]
)
MESSAGES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
    | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["v", "torrent", "halves", "bundles", "catalogues", "frames", "authority"])
        | st.text(max_size=5),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.binary(max_size=PACKET_BYTES + 20))
@settings(max_examples=300)
def test_garbage_raises_nothing_but_bad_packet_errors(data: bytes) -> None:
    read_all_packets(data)


@given(
    st.sampled_from(Codepoint),
    st.integers(0, 5),
    st.binary(max_size=300) | MESSAGES.map(msgspec.msgpack.encode),
    st.sampled_from([b"", bytes(64)]),
)
@settings(max_examples=300)
def test_good_header_before_garbage_raises_nothing_but_bad_packet_errors(
    codepoint: Codepoint, channel: int, body: bytes, tail: bytes
) -> None:
    data = head(codepoint, channel=channel) + body + tail
    read_all_packets(data)
    if codepoint is Codepoint.SYMBOL:
        read_all_packets(data + bytes(max(0, PACKET_BYTES - len(data))))


@given(GOOD_PACKETS, CHANGES)
@settings(max_examples=500)
def test_spoilt_packets_raise_nothing_but_bad_packet_errors(
    data: bytes, changes: list[tuple[int, bytes, int]]
) -> None:
    read_all_packets(spoil(data, changes))


@given(st.binary(max_size=400))
def test_garbage_raises_nothing_but_datacast_errors(data: bytes) -> None:
    read_all_objects(data)


@given(GOOD_OBJECTS, CHANGES)
@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_spoilt_objects_raise_nothing_but_datacast_errors(
    data: bytes, changes: list[tuple[int, bytes, int]]
) -> None:
    read_all_objects(spoil(data, changes))


@given(st.builds(spoil, PLAIN, CHANGES) | MESSAGES.map(msgspec.msgpack.encode))
@settings(max_examples=500, deadline=None)
def test_well_packed_garbage_raises_nothing_but_datacast_errors(plain: bytes) -> None:
    frame = zstandard.ZstdCompressor(level=1).compress(plain)
    read_all_objects(frame)
    # As a frame of a catalogue, and as its head.
    heads = (
        msgspec.msgpack.encode({"v": 1, "authority": AUTHORITY, "frames": [len(frame)]}),
        plain,
    )
    for first in heads:
        read_all_objects(len(first).to_bytes(4, "big") + first + frame)


# Blocks.


def torrent_with(piece_length: int, lengths: list[int]) -> Torrent:
    """A torrent of files with these lengths; what they hold doesn't matter here."""
    files = tuple(
        TorrentFile(f"{number:03}", length, bytes(32)) for number, length in enumerate(lengths)
    )
    return Torrent("x", piece_length, files, bytes(32), {})


def lengths_for(piece_length: int) -> st.SearchStrategy[list[int]]:
    """Lengths of files, many of them near the places where something changes."""
    edges = st.builds(
        lambda pieces, part, off: max(1, pieces * piece_length + part + off),
        st.integers(0, 20),
        st.sampled_from([0, piece_length // 2, BLOCK_BYTES]),
        st.integers(-2, 2),
    )
    lengths = edges | st.integers(1, 2000) | st.integers(1, 24 * 1024 * 1024)
    return st.lists(lengths, min_size=2, max_size=8).map(
        # No more than a few thousand pieces.
        lambda found: [min(length, 400 * piece_length) for length in found]
    )


TORRENTS = (
    st.sampled_from([1 << bits for bits in range(14, 24)])
    .flatmap(lambda piece_length: st.tuples(st.just(piece_length), lengths_for(piece_length)))
    .map(lambda pair: torrent_with(*pair))
)


@given(TORRENTS)
@settings(deadline=None)
def test_every_byte_of_a_payload_lies_in_exactly_one_part_in_order(torrent: Torrent) -> None:
    layout = Layout(torrent)
    place = (0, 0)
    for number, size in enumerate(layout.sizes):
        parts = layout.parts(number)
        filled = 0
        for part in parts:
            length = torrent.piece_place(part.piece)[2]
            assert (part.piece, part.offset) == place
            assert part.start == filled
            assert 1 <= part.length <= length - part.offset
            assert part.is_whole == (part.length == length)
            filled += part.length
            end = part.offset + part.length
            place = (part.piece + 1, 0) if end == length else (part.piece, end)
        assert filled == size <= BLOCK_BYTES
        if number:
            # It would have been longer than a block can be.
            assert layout.sizes[number - 1] + parts[0].length > BLOCK_BYTES
    assert place == (torrent.piece_count, 0)
    assert sum(layout.sizes) == torrent.payload_size


@given(TORRENTS, st.data())
@settings(deadline=None)
def test_blocks_of_pieces_are_those_that_hold_them(torrent: Torrent, data: st.DataObject) -> None:
    layout = Layout(torrent)
    numbers = st.integers(0, torrent.piece_count - 1)
    pieces = data.draw(st.sets(numbers, max_size=6))
    assert layout.blocks_of(iter(sorted(pieces))) == [
        number
        for number in range(len(layout.sizes))
        if any(part.piece in pieces for part in layout.parts(number))
    ]


@given(st.integers(1, MAX_OBJECT_BYTES))
def test_blocks_of_an_object_are_all_of_it(size: int) -> None:
    sizes = object_blocks(size)
    assert sum(sizes) == size
    assert set(sizes[:-1]) <= {BLOCK_BYTES}
    assert 1 <= sizes[-1] <= BLOCK_BYTES


@given(st.integers(1, BLOCK_BYTES))
def test_sixteen_passes_have_numbers_of_their_own(size: int) -> None:
    assert symbol_count(size) < pass_length(size) <= esi_limit(size) // 16 <= MAX_ESI // 16


@given(st.integers(1, MAX_FILE_BYTES))
def test_source_blocks_of_a_file_are_all_of_it(size: int) -> None:
    sizes = FluteObject(1, 1, size).block_sizes
    counts = [symbol_count(block) for block in sizes]
    assert sum(sizes) == size
    assert sum(counts) == symbol_count(size)
    assert max(counts) <= symbol_count(BLOCK_BYTES)
    assert max(counts) - min(counts) <= 1
