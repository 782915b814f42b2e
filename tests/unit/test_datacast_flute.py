"""The compatible mode is read by a FLUTE receiver that others wrote (SPEC 11.10)."""

from __future__ import annotations

import random
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.datacast.blocks import BLOCK_BYTES, symbol_count
from cuntong_protocol.datacast.errors import BadPacketError
from cuntong_protocol.datacast.flute import (
    FDT_TOI,
    MAX_FILE_BYTES,
    FluteFile,
    FluteObject,
    encode_fdt,
    flute_file,
)
from cuntong_protocol.datacast.packets import SYMBOL_BYTES, read_header
from tests.support.payloads import random_bytes, read_files

TSI = 0x2030_4053
FILES = {
    "one-byte": b"\xff",
    "one-symbol.bin": random_bytes(SYMBOL_BYTES, 1),
    "files/several.bin": random_bytes(3 * SYMBOL_BYTES + 1, 2),
    "files/300kB.bin": random_bytes(300_000, 3),
    "files/诗/春晓.mp4": random_bytes(70_000, 4),
    "just-over.bin": random_bytes(BLOCK_BYTES + 1, 5),
    # Beyond the 10 MiB of unfinished blocks at which flute-alc gives up.
    "four-blocks.bin": random_bytes(3 * BLOCK_BYTES + 99, 6),
}

Push = Callable[[bytes], None]


@pytest.fixture
def push(tmp_path: Path) -> Iterator[Push]:
    """A receiver by others, which writes to `tmp_path`."""
    flute = pytest.importorskip("flute", reason="flute-alc, the foreign receiver, isn't installed")
    endpoint = flute.receiver.UDPEndpoint("239.255.44.19", 3400)
    writer = flute.receiver.ObjectWriterBuilder(str(tmp_path))
    receiver = flute.receiver.Receiver(endpoint, TSI, writer, flute.receiver.Config())
    yield receiver.push
    # It removes what is unfinished when it ends.
    del receiver


def ample(symbols: int) -> int:
    """Repair symbols for a block that loses a fifth: four standard deviations more than it needs."""
    return symbols * 3 // 10 + 24


def none(_symbols: int) -> int:
    return 0


def encode(data: bytes, repair: Callable[[int], int]) -> Iterator[tuple[int, bytes]]:
    """Numbers and symbols of one block."""
    raptorq = pytest.importorskip("raptorq", reason="raptorq, which makes symbols, isn't installed")
    encoder = raptorq.Encoder.with_defaults(data, SYMBOL_BYTES)
    for packet in encoder.get_encoded_packets(repair(symbol_count(len(data)))):
        yield int.from_bytes(packet[:4], "big"), packet[4:]


def cast(
    data: bytes, toi: int, repair: Callable[[int], int], fdt_instance: int | None = None
) -> Iterator[bytes]:
    """An object's packets, block after block."""
    item = FluteObject(TSI, toi, len(data), fdt_instance=fdt_instance)
    start = 0
    for number, size in enumerate(item.block_sizes):
        for esi, symbol in encode(data[start : start + size], repair):
            yield item.packet(number, esi, symbol)
        start += size


def table(files: Mapping[str, bytes]) -> bytes:
    """An FDT instance that is valid now: flute-alc looks at the real clock."""
    entries = [flute_file(toi, name, data) for toi, (name, data) in enumerate(files.items(), 1)]
    return encode_fdt(entries, int(time.time()) + 3600)


def session(files: Mapping[str, bytes], repair: Callable[[int], int]) -> Iterator[bytes]:
    """The FDT, then all files."""
    yield from cast(table(files), FDT_TOI, repair, fdt_instance=1)
    for toi, data in enumerate(files.values(), 1):
        yield from cast(data, toi, repair)


def spoil(packets: Iterable[bytes], seed: int, loss: float = 0.2) -> Iterator[bytes]:
    chance = random.Random(seed)
    return (packet for packet in packets if chance.random() >= loss)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_foreign_receiver_rebuilds_every_file_though_a_fifth_is_lost(
    push: Push, tmp_path: Path, seed: int
) -> None:
    for packet in spoil(session(FILES, ample), seed):
        push(packet)
    assert read_files(tmp_path) == FILES


def test_foreign_receiver_needs_no_repair_symbols_when_nothing_is_lost(
    push: Push, tmp_path: Path
) -> None:
    for packet in session(FILES, none):
        push(packet)
    assert read_files(tmp_path) == FILES


def test_repair_symbols_alone_are_enough(push: Push, tmp_path: Path) -> None:
    data = FILES["files/300kB.bin"]
    for packet in cast(table({"x": data}), FDT_TOI, ample, fdt_instance=1):
        push(packet)
    count = symbol_count(len(data))
    for packet in list(cast(data, 1, lambda symbols: symbols + 3))[count:]:
        push(packet)
    assert read_files(tmp_path) == {"x": data}


def test_files_of_a_table_that_comes_last_are_rebuilt_all_the_same(
    push: Push, tmp_path: Path
) -> None:
    files = {name: data for name, data in FILES.items() if len(data) <= BLOCK_BYTES}
    packets = list(session(files, none))
    first = -(-len(table(files)) // SYMBOL_BYTES)
    for packet in packets[first:] + packets[:first]:
        push(packet)
    assert read_files(tmp_path) == files


def test_table_of_a_thousand_files_gets_through_at_once(push: Push, tmp_path: Path) -> None:
    files = {f"files/{number:04}.txt": b"%d" % number for number in range(1000)}
    xml = table(files)
    assert symbol_count(len(xml)) > 90
    for packet in spoil(cast(xml, FDT_TOI, ample, fdt_instance=7), 4):
        push(packet)
    for packet in cast(files["files/0999.txt"], 1000, none):
        push(packet)
    assert read_files(tmp_path) == {"files/0999.txt": b"999"}


def test_file_of_a_later_table_is_rebuilt(push: Push, tmp_path: Path) -> None:
    for packet in session({"old": b"old"}, none):
        push(packet)
    later = encode_fdt([flute_file(2, "new", b"new")], int(time.time()) + 3600)
    for packet in (*cast(later, FDT_TOI, none, fdt_instance=2), *cast(b"new", 2, none)):
        push(packet)
    assert read_files(tmp_path) == {"old": b"old", "new": b"new"}


@pytest.mark.parametrize("name", FILES)
def test_truncated_stream_is_not_rebuilt(push: Push, tmp_path: Path, name: str) -> None:
    data = FILES[name]
    # One symbol less than the last block has source symbols.
    for packet in list(session({name: data}, none))[:-1]:
        push(packet)
    assert read_files(tmp_path).get(name, b"") != data


def test_stream_without_its_table_is_not_rebuilt(push: Push, tmp_path: Path) -> None:
    for packet in cast(FILES["files/300kB.bin"], 1, ample):
        push(packet)
    assert read_files(tmp_path) == {}


def test_spoilt_symbol_is_found_by_the_digest(push: Push, tmp_path: Path) -> None:
    packets = list(session({"x": FILES["files/several.bin"]}, none))
    packets[-2] = packets[-2][:-1] + bytes([packets[-2][-1] ^ 1])
    for packet in packets:
        push(packet)
    assert read_files(tmp_path) == {}


def test_file_that_fits_one_block_has_the_symbols_of_the_native_mode() -> None:
    data = FILES["files/300kB.bin"]
    native = [symbol for _, symbol in encode(data, ample)]
    compatible = list(cast(data, 1, ample))
    assert [packet[-SYMBOL_BYTES:] for packet in compatible] == native
    assert native[0] == data[:SYMBOL_BYTES]


def test_packet_is_the_one_that_the_standards_describe() -> None:
    symbol = random_bytes(SYMBOL_BYTES)
    packet = FluteObject(TSI, 5, BLOCK_BYTES + 1).packet(1, 0x012345, symbol)
    assert packet == (
        # RFC 5651: version 1, 32 bits of TSI and TOI, eight words; FEC encoding 6.
        bytes.fromhex("10a00806 00000000 20304053 00000005")
        # EXT_FTI: 4,194,305 bytes in symbols of 1,344; Z 2, N 1, Al 8.
        + bytes.fromhex("4004 0000400001 00 0540 02 0001 08 0000")
        # Source block 1, and the symbol's number.
        + bytes.fromhex("01012345")
        + symbol
    )
    table_packet = FluteObject(TSI, FDT_TOI, 1000, fdt_instance=0x98765).packet(0, 0, symbol)
    assert table_packet[:36] == bytes.fromhex(
        # EXT_FDT: FLUTE version 2.
        "10a00906 00000000 20304053 00000000 c0298765 4004 00000003e8 00 0540 01 0001 08 0000"
    )


def test_native_receiver_takes_nothing_of_it() -> None:
    with pytest.raises(BadPacketError) as caught:
        read_header(FluteObject(TSI, 5, 1000).packet(0, 0, bytes(SYMBOL_BYTES)))
    assert caught.value.reason == "oversized"


@pytest.mark.parametrize(
    "size",
    [
        1,
        SYMBOL_BYTES,
        SYMBOL_BYTES + 1,
        BLOCK_BYTES - 1,
        BLOCK_BYTES,
        BLOCK_BYTES + 1,
        2 * BLOCK_BYTES,
        2 * BLOCK_BYTES + 1,
        100 * BLOCK_BYTES + 12_345,
        MAX_FILE_BYTES,
    ],
)
def test_no_source_block_is_longer_than_a_native_one(size: int) -> None:
    sizes = FluteObject(TSI, 1, size).block_sizes
    assert sum(sizes) == size
    assert len(sizes) == -(-size // BLOCK_BYTES) <= 255
    counts = [symbol_count(block) for block in sizes]
    assert max(counts) <= symbol_count(BLOCK_BYTES)
    # The longer ones come first, by one symbol; only the very last symbol may be short.
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1
    assert not any(block % SYMBOL_BYTES for block in sizes[:-1])


def test_names_are_escaped_where_they_would_mean_something_else() -> None:
    names = ["诗/春 晓.txt", 'a&b\'<c>"d".txt', "50%.txt", "what?#.txt", "http:/x", "ok-~_.(1).txt"]
    entries = [FluteFile(toi, name, 1, bytes(16)) for toi, name in enumerate(names, 1)]
    xml = encode_fdt(entries, 2_000_000_000)
    # Expires is in NTP's seconds.
    root: Any = ET.fromstring(xml)  # noqa: S314  # We have just made it.
    assert root.tag == "{urn:ietf:params:xml:ns:fdt}FDT-Instance"
    assert root.attrib == {"Expires": "4208988800"}
    assert [file.get("Content-Location") for file in root] == [
        "诗/春%20晓.txt",
        "a&b'%3Cc%3E%22d%22.txt",
        "50%25.txt",
        "what%3F%23.txt",
        "http%3A/x",
        "ok-~_.(1).txt",
    ]
    assert root[0].attrib == {
        "TOI": "1",
        "Content-Location": "诗/春%20晓.txt",
        "Content-Length": "1",
        "Transfer-Length": "1",
        "Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA==",
    }


def test_expiry_after_2036_stays_within_its_32_bits() -> None:
    root = ET.fromstring(encode_fdt([], 2_085_978_496 + 5))  # noqa: S314  # We have just made it.
    assert root.get("Expires") == "5"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "", "a\nb", "a\\b", "\ud800"])
def test_name_that_leads_outside_is_not_announced(name: str) -> None:
    with pytest.raises(BundleError):
        encode_fdt([FluteFile(1, name, 1, bytes(16))], 2_000_000_000)


@pytest.mark.parametrize(
    ("tsi", "toi", "size", "instance"),
    [
        (-1, 1, 1, None),
        (1 << 32, 1, 1, None),
        (TSI, 1 << 32, 1, None),
        (TSI, -1, 1, None),
        (TSI, 1, 0, None),
        (TSI, 1, MAX_FILE_BYTES + 1, None),
        (TSI, 1, 1, 1),
        (TSI, FDT_TOI, 1, None),
        (TSI, FDT_TOI, 1, 1 << 20),
        (TSI, FDT_TOI, 1, -1),
    ],
)
def test_object_that_no_packet_can_describe_is_refused(
    tsi: int, toi: int, size: int, instance: int | None
) -> None:
    with pytest.raises(ValueError):
        FluteObject(tsi, toi, size, fdt_instance=instance)


@pytest.mark.parametrize(
    ("block", "esi", "length"),
    [(-1, 0, 1344), (2, 0, 1344), (0, -1, 1344), (0, 1 << 24, 1344), (0, 0, 1343), (0, 0, 1345)],
)
def test_symbol_that_has_no_place_in_its_object_is_refused(
    block: int, esi: int, length: int
) -> None:
    with pytest.raises(ValueError):
        FluteObject(TSI, 1, BLOCK_BYTES + 1).packet(block, esi, bytes(length))
