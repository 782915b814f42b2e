"""What a sender is made of: its memory, its symbols, its schedule, the ring between two of its processes, its objects."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_daemon.datacast.encoder import Encoded, EncodeJob, Stretch, encode, read_stretches
from cuntong_daemon.datacast.frames import (
    MAX_FRAME_BYTES,
    FrameDecoder,
    encode_frame,
    read_frames,
    write_frame,
)
from cuntong_daemon.datacast.lineup import cast_bundle, catalogue_delta, catalogue_snapshot
from cuntong_daemon.datacast.onair import OnAirState
from cuntong_daemon.datacast.pacer import BURST_PACKETS, LOST_S, Paced, Pacer
from cuntong_daemon.datacast.ring import Ring, make_memory
from cuntong_daemon.datacast.symbols import MAX_FAILURES, Symbols
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.errors import StoreError
from cuntong_daemon.store.torrents import keep_torrent, payload_folder
from cuntong_protocol.datacast.blocks import (
    BLOCK_BYTES,
    Layout,
    check_halves,
    esi_limit,
    is_right,
    pass_length,
    symbol_count,
)
from cuntong_protocol.datacast.objects import (
    MAX_FIRST_TOI,
    Item,
    catalogue_head,
    catalogue_items,
    decode_manifest,
)
from cuntong_protocol.datacast.packets import (
    MAX_SESSION,
    PACKET_BYTES,
    PAYLOAD_ID_BYTES,
    SYMBOL_BYTES,
    filler_packet,
)
from tests.support.datacast import RUN_SYMBOLS, needs_raptorq
from tests.support.payloads import random_bytes, some_files, torrent_of, write_payload

MINUTE = 60.0
NOW_S = 1_795_000_000.0

# What a sender remembers.


def test_toi_is_never_given_twice_in_a_session(tmp_path: Path) -> None:
    """Whatever comes and goes, is asked for again, forgotten, saved, and however often the process dies."""
    chance = random.Random(4)
    path = tmp_path / "sender.sqlite"
    state = OnAirState(path, now_s=NOW_S)
    session = state.session
    given_out: dict[int, tuple[str, bytes, int]] = {}
    held: dict[str, tuple[bytes, int, int]] = {}
    for step in range(600):
        key = f"item {chance.randrange(12)}"
        match chance.randrange(8):
            case 0:
                state.forget([key])
                held.pop(key, None)
            case 1:
                state.save([(chance.randrange(1, 200), step)], step)
            case 2:
                # The process is killed: nothing is closed in order.
                state = OnAirState(path, now_s=NOW_S + step * MINUTE)
                assert state.session == session
            case _:
                identity, blocks = bytes([chance.randrange(3)]), chance.randrange(1, 9)
                claimed = state.claim(key, identity, blocks)
                is_known = held.get(key) == (identity, blocks, claimed.toi)
                assert claimed.is_new is not is_known
                for number in range(blocks):
                    what = (key, identity, number)
                    assert given_out.setdefault(claimed.toi + number, what) == what
                    assert is_known or claimed.toi + number > 0
                held[key] = (identity, blocks, claimed.toi)
    assert set(state.keys()) == set(held)
    state.close()


def test_item_that_changed_and_changed_back_gets_new_numbers(tmp_path: Path) -> None:
    """Receivers may have gathered what was in between under the ones before."""
    state = OnAirState(tmp_path / "sender.sqlite", now_s=NOW_S)
    first = state.claim("programme", b"a", 2).toi
    second = state.claim("programme", b"b", 2).toi
    third = state.claim("programme", b"a", 2).toi
    assert len({first, second, third}) == 3
    assert {second - first, third - second} == {2}
    state.close()


def test_counters_are_where_they_were_saved_and_start_anew_with_other_content(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sender.sqlite"
    state = OnAirState(path, now_s=NOW_S)
    toi = state.claim("film", b"a", 3).toi
    other = state.claim("other", b"o", 2).toi
    state.save([(toi, 100), (toi + 2, 7), (other, 5)], 40)
    state.save([(toi, 132)], 41)
    state.close()
    state = OnAirState(path, now_s=NOW_S + MINUTE)
    assert state.beacon == 41
    assert state.claim("film", b"a", 3).counters == [132, 0, 7]
    assert state.claim("film", b"b", 3).counters == [0, 0, 0]
    assert state.claim("other", b"o", 2).counters == [5, 0]
    state.close()


CHILD = """
import os, sys
from pathlib import Path
from cuntong_daemon.datacast.onair import OnAirState
state = OnAirState(Path(sys.argv[1]), now_s=float(sys.argv[2]))
print("session", state.session, flush=True)
step = state.beacon
while True:
    step += 1
    toi = state.claim(f"item {step % 5}", b"%d %d" % (os.getpid(), step), step % 7 + 1).toi
    print("toi", toi, step % 7 + 1, flush=True)
    state.save([(toi, step)], step)
    print("beacon", step, toi, flush=True)
"""


def test_killed_sender_neither_repeats_a_number_nor_forgets_what_it_has_sent(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sender.sqlite"
    sessions: set[str] = set()
    seen: set[int] = set()
    beacon = 0
    for lines in (40, 90, 25):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(NOW_S)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(lines):
                word, *numbers = child.stdout.readline().split()
                if word == "session":
                    sessions.add(numbers[0])
                elif word == "toi":
                    toi, blocks = map(int, numbers)
                    assert not seen & set(range(toi, toi + blocks))
                    seen |= set(range(toi, toi + blocks))
                else:
                    assert int(numbers[0]) > beacon
                    beacon, last = int(numbers[0]), int(numbers[1])
            child.send_signal(signal.SIGKILL)
            # What was in the pipe was said before it died.
            for line in child.stdout:
                word, *numbers = line.split()
                if word == "toi" and len(numbers) == 2:
                    toi, blocks = map(int, numbers)
                    seen |= set(range(toi, toi + blocks))
                elif word == "beacon" and len(numbers) == 2:
                    beacon, last = int(numbers[0]), int(numbers[1])
    assert len(sessions) == 1
    state = OnAirState(path, now_s=NOW_S)
    assert state.beacon >= beacon
    rows = dict(state._database.execute("SELECT toi, counter FROM counters"))
    assert rows.get(last, beacon) >= beacon
    state.close()


def test_what_was_claimed_survives_a_power_cut(tmp_path: Path) -> None:
    """Its symbols go on the air at once: SQLite's usual mode with a log may lose what was committed last."""
    state = OnAirState(tmp_path / "sender.sqlite", now_s=NOW_S)
    (synchronous,) = state._database.execute("PRAGMA synchronous").fetchone()
    assert synchronous >= 2, "FULL"
    state.close()


def filled_state(path: Path) -> int:
    state = OnAirState(path, now_s=NOW_S)
    for number in range(300):
        state.claim(f"item {number} {'x' * 60}", hashlib.sha256(bytes([number % 9])).digest(), 3)
    state.save([(toi, 50) for toi in range(1, 900)], 500)
    state._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    state.close()
    return state.session


@pytest.mark.parametrize("how", ["garbage", "empty page", "cut", "no header", "one table gone"])
@pytest.mark.parametrize("seed", range(4))
def test_damaged_memory_means_a_higher_session(tmp_path: Path, how: str, seed: int) -> None:
    """Within the same minute, too: the number follows from the clock."""
    path = tmp_path / "sender.sqlite"
    session = filled_state(path)
    chance = random.Random(f"{how} {seed}")
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    assert pages > 10
    match how:
        case "garbage":
            for page in chance.sample(range(1, pages), 4):
                data[page * 4096 : (page + 1) * 4096] = chance.randbytes(4096)
        case "empty page":
            for page in chance.sample(range(1, pages), 4):
                data[page * 4096 : (page + 1) * 4096] = bytes(4096)
        case "cut":
            del data[chance.randrange(4096, len(data) - 4096) :]
        case "no header":
            data[:100] = chance.randbytes(100)
        case _:
            database = sqlite3.connect(path)
            database.execute(f"DROP TABLE {('session', 'items', 'counters')[seed % 3]}")
            database.execute("CREATE TABLE IF NOT EXISTS items (x)")
            database.execute("CREATE TABLE IF NOT EXISTS counters (x)")
            database.execute("CREATE TABLE IF NOT EXISTS session (x)")
            database.commit()
            database.close()
            data = bytearray(path.read_bytes())
    path.write_bytes(data)
    state = OnAirState(path, now_s=NOW_S + 1)
    assert state.session > session
    assert state.claim("item", b"x", 3).toi == 1
    state.save([(1, 5)], 1)
    state.close()
    again = OnAirState(path, now_s=NOW_S + 2)
    assert again.session == state.session
    assert again.claim("item", b"x", 3).counters == [5, 0, 0]
    again.close()


def test_lost_memory_means_a_higher_session_though_the_clock_went_back(tmp_path: Path) -> None:
    """A machine without a battery begins in 1970; receivers would take nothing of a lower session."""
    path = tmp_path / "sender.sqlite"
    session = filled_state(path)
    path.write_bytes(b"not a database at all" * 1000)
    state = OnAirState(path, now_s=1000.0)
    assert session < state.session <= MAX_SESSION
    state.close()


def test_log_of_a_lost_database_is_not_played_into_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "sender.sqlite"
    state = OnAirState(path, now_s=NOW_S)
    for number in range(50):
        state.claim(f"item {number}", b"x", 3)
    log = Path(f"{path}-wal").read_bytes()
    session = state.session
    state.close()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)
    fresh = OnAirState(path, now_s=NOW_S)
    assert fresh.session > session
    assert fresh.keys() == []
    assert fresh.claim("item", b"x", 3).toi == 1
    fresh.close()


def test_session_ends_before_its_numbers_do(tmp_path: Path) -> None:
    path = tmp_path / "sender.sqlite"
    state = OnAirState(path, now_s=NOW_S)
    state.close()
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE session SET next_toi = ?", (MAX_FIRST_TOI + 5,))
    database.close()
    # The clock has gone back meanwhile.
    following = OnAirState(path, now_s=NOW_S - 10 * MINUTE)
    assert following.session == state.session + 1
    assert following.keys() == []
    assert following.claim("all", b"x", 1).toi == 1
    following.close()


def test_numbers_that_could_not_be_written_down_are_not_given_to_anybody_else(
    tmp_path: Path,
) -> None:
    """The disk is full: the claim fails, and whoever is next gets others or the same, but both are never used."""
    state = OnAirState(tmp_path / "sender.sqlite", now_s=NOW_S)
    first = state.claim("first", b"1", 4).toi
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(sqlite3.Error):
            state.claim("refused", b"x" * 100_000, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    toi = state.claim("second", b"2", 4).toi
    assert toi >= first + 4
    known = set(state._database.execute("SELECT toi, blocks FROM items"))
    taken = [number for start, blocks in known for number in range(start, start + blocks)]
    assert len(taken) == len(set(taken))
    state.close()


# Where symbols come from.


class Encoders:
    """Does the encoders' jobs when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[EncodeJob] = []

    def ask(self, job: EncodeJob) -> None:
        self.jobs.append(job)

    def work(self, symbols: Symbols) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            data = encode(read_stretches(job.source), job.first, job.count)
            Path(job.output).write_bytes(data)
            symbols.encoded(Encoded(id=job.id))

    def die(self, symbols: Symbols) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            symbols.encoded(Encoded(id=job.id, error="the encoder ended"))


@pytest.fixture
def encoders() -> Encoders:
    return Encoders()


@pytest.fixture
def symbols(tmp_path: Path, encoders: Encoders) -> Iterator[Symbols]:
    symbols = Symbols(tmp_path / "symbols", encoders.ask)
    yield symbols
    symbols.close()


def right_symbols(data: bytes, count: int) -> list[bytes]:
    """Straight from the library."""
    from raptorq import Encoder

    encoder = Encoder.with_defaults(data, SYMBOL_BYTES)
    packets = encoder.get_encoded_packets(max(0, count - symbol_count(len(data))))
    assert [int.from_bytes(packet[:PAYLOAD_ID_BYTES], "big") for packet in packets[:count]] == list(
        range(min(count, len(packets)))
    )
    return [packet[PAYLOAD_ID_BYTES:] for packet in packets]


def scattered(folder: Path, data: bytes, seed: int) -> list[Stretch]:
    """The same bytes, in stretches of several files with other things between them."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    stretches: list[Stretch] = []
    at = 0
    while at < len(data):
        size = min(len(data) - at, chance.choice((1, 700, 1344, 5000, 2_000_000)))
        path, offset = folder / f"{seed}-{len(stretches)}", chance.randrange(3000)
        path.write_bytes(bytes(offset) + data[at : at + size] + b"behind")
        stretches.append(Stretch(str(path), offset, size))
        at += size
    return stretches


def ready(
    symbols: Symbols, encoders: Encoders, key: str, block: int, first: int, count: int
) -> None:
    """Wait, as the caster does, until a run can be read."""
    for _ in range(5):
        if symbols.is_ready(key, block, first, count):
            return
        encoders.work(symbols)
    raise AssertionError("it never gets ready")


@needs_raptorq
@pytest.mark.parametrize("size", [1, 1344, 1345, 60_000, 1_000_000, BLOCK_BYTES])
def test_any_run_has_the_bytes_that_the_library_gives(
    symbols: Symbols, encoders: Encoders, tmp_path: Path, size: int
) -> None:
    data = random_bytes(size, size)
    symbols.add("film", [(size, scattered(tmp_path / "files", data, size))])
    count, limit = symbol_count(size), esi_limit(size)
    right = right_symbols(data, min(limit, count + 600))
    chance = random.Random(size)
    borders = [count - 1, max(0, count - 16), max(0, count - 31), count, count + 480, count + 510]
    for _ in range(40):
        length = chance.randint(1, RUN_SYMBOLS)
        # Backwards too: after a crash a little is sent again.
        first = chance.choice([chance.randrange(count + 500), *borders])
        first = max(0, min(first, len(right) - length, limit - length))
        length = min(length, limit - first)
        ready(symbols, encoders, "film", 0, first, length)
        assert symbols.read("film", 0, first, length) == (first, right[first : first + length])


@needs_raptorq
def test_sixteen_passes_bring_every_number_once_in_order_and_then_the_first_again(
    symbols: Symbols, encoders: Encoders, tmp_path: Path
) -> None:
    """In the caster's runs: none goes beyond its pass, so none goes beyond the last number."""
    size = 50_000
    data = random_bytes(size, 7)
    symbols.add("film", [(size, scattered(tmp_path / "files", data, 1))])
    limit, length = esi_limit(size), pass_length(size)
    right = right_symbols(data, limit)
    counter = 0
    while counter < limit + length:
        count = min(RUN_SYMBOLS, length - counter % length)
        ready(symbols, encoders, "film", 0, counter, count)
        first, found = symbols.read("film", 0, counter, count)
        assert first == counter % limit
        assert found == right[first : first + count]
        counter += count
    # What was made and read lies nowhere any more.
    assert len(list((tmp_path / "symbols").iterdir())) <= 1


@needs_raptorq
def test_encoder_that_dies_once_is_asked_again_and_one_that_dies_often_is_told(
    symbols: Symbols, encoders: Encoders, tmp_path: Path
) -> None:
    data = random_bytes(60_000, 1)
    symbols.add("film", [(60_000, scattered(tmp_path / "files", data, 1))])
    assert not symbols.is_ready("film", 0, 45, 4)
    encoders.die(symbols)
    assert not symbols.is_ready("film", 0, 45, 4)
    encoders.work(symbols)
    assert symbols.is_ready("film", 0, 45, 4)
    assert symbols.unreadable == {}
    counter = 45 + 512
    for _ in range(MAX_FAILURES):
        assert not symbols.is_ready("film", 0, counter, 4)
        encoders.die(symbols)
    assert symbols.unreadable == {"film": "the encoder ended"}
    assert not symbols.is_ready("film", 0, 0, 4)
    symbols.remove("film")
    assert symbols.unreadable == {}


@needs_raptorq
def test_answer_for_what_is_off_the_air_is_thrown_away(
    symbols: Symbols, encoders: Encoders, tmp_path: Path
) -> None:
    """A catalogue of two blocks is replaced by one of a single block while the second is being encoded."""
    data = random_bytes(20_000, 1)
    source = scattered(tmp_path / "files", data, 1)
    symbols.add("catalogue", [(20_000, source), (20_000, source)])
    assert not symbols.is_ready("catalogue", 1, 15, 4)
    symbols.add("catalogue", [(20_000, source)])
    encoders.work(symbols)
    assert list((tmp_path / "symbols").iterdir()) == []
    # Taken off wholly, and put on again with as many blocks.
    assert not symbols.is_ready("catalogue", 0, 15, 4)
    symbols.remove("catalogue")
    symbols.add("catalogue", [(20_000, source)])
    assert not symbols.is_ready("catalogue", 0, 15, 4)
    assert len(encoders.jobs) == 2
    encoders.work(symbols)
    assert symbols.is_ready("catalogue", 0, 15, 4)
    assert len(list((tmp_path / "symbols").iterdir())) == 1


@needs_raptorq
def test_files_of_what_is_off_the_air_are_not_kept_open(
    symbols: Symbols, encoders: Encoders, tmp_path: Path
) -> None:
    """A deleted file that somebody has open takes its room on the disk all the same."""
    data = random_bytes(20_000, 1)
    source = scattered(tmp_path / "files", data, 1)
    symbols.add("film", [(20_000, source)])
    ready(symbols, encoders, "film", 0, 10, 20)
    symbols.read("film", 0, 10, 20)
    assert any(str(tmp_path) in name for name in open_files())
    symbols.remove("film")
    assert not [name for name in open_files() if str(tmp_path) in name]
    assert list((tmp_path / "symbols").iterdir()) == []


def open_files() -> list[str]:
    names: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            names.append(str(entry.readlink()))
    return names


def test_symbols_of_an_earlier_run_are_removed(tmp_path: Path, encoders: Encoders) -> None:
    (tmp_path / "symbols").mkdir()
    (tmp_path / "symbols" / "7").write_bytes(b"x")
    Symbols(tmp_path / "symbols", encoders.ask).close()
    assert list((tmp_path / "symbols").iterdir()) == []


def test_file_that_became_shorter_is_told(symbols: Symbols, tmp_path: Path) -> None:
    data = random_bytes(20_000, 1)
    (stretch, *rest) = scattered(tmp_path / "files", data, 9)
    symbols.add("film", [(20_000, [stretch, *rest])])
    Path(stretch.path).write_bytes(b"")
    with pytest.raises(OSError, match="shorter"):
        symbols.read("film", 0, 0, 8)
    with pytest.raises(OSError, match="shorter"):
        read_stretches([stretch])


# The schedule.


class Wire:
    """What was sent, and when, by a clock that only the test moves."""

    def __init__(self, packets: int = 0, seed: int = 1) -> None:
        chance = random.Random(seed)
        self.waiting = [
            bytes([7]) * chance.choice((200, 900, PACKET_BYTES)) for _ in range(packets)
        ]
        self.now = 0.0
        self.sent: list[tuple[float, int, bool]] = []
        self.broken = False

    def peek(self) -> memoryview | None:
        return memoryview(self.waiting[0]) if self.waiting else None

    def drop(self) -> None:
        del self.waiting[0]

    def send(self, packet: bytes | memoryview) -> None:
        if self.broken:
            raise OSError("network is down")
        self.sent.append((self.now, len(packet) + 28, packet[0] == 7))


RATE = 2_500_000
PACKET_S = (PACKET_BYTES + 28) / RATE
BURST_S = BURST_PACKETS * PACKET_S


def make_pacer(wire: Wire, rate: int = RATE) -> Pacer:
    return Pacer(wire, wire.send, rate_bytes_s=rate, session=5, headers=28, now=wire.now)


def assert_never_too_much(wire: Wire, rate: int = RATE) -> None:
    """At no time more than the rate allows, and the packet that is just due."""
    total = 0
    for at, size, _ in wire.sent:
        assert total <= at * rate + 1e-3
        total += size


@pytest.mark.parametrize("rate", [8_000, RATE, 12_500_000])
def test_schedule_is_kept_to_the_byte(rate: int) -> None:
    wire = Wire(packets=500)
    pacer = make_pacer(wire, rate)
    seconds = 3000 * (PACKET_BYTES + 28) / rate
    steps = 0
    while wire.now < seconds:
        wire.now = pacer.step(wire.now)
        steps += 1
    assert_never_too_much(wire, rate)
    sent = sum(size for _, size, _ in wire.sent)
    assert abs(sent - rate * wire.now) <= (BURST_PACKETS + 1) * (PACKET_BYTES + 28)
    assert steps <= len(wire.sent) / BURST_PACKETS * 1.5, "it wakes up for each packet"
    report = pacer.report()
    assert (report.packets, report.bytes, report.failed) == (len(wire.sent), sent, 0)
    assert report.lost_ms == 0
    assert not wire.waiting


def test_late_wake_ups_do_not_add_up() -> None:
    """The schedule is absolute: each is late by up to 2 ms, and after an hour nothing is missing."""
    chance = random.Random(2)
    wire = Wire()
    pacer = make_pacer(wire, 250_000)
    while wire.now < 600.0:
        wire.now = pacer.step(wire.now) + chance.random() * 0.002
    assert_never_too_much(wire, 250_000)
    sent = sum(size for _, size, _ in wire.sent)
    assert abs(sent - 250_000 * wire.now) <= (BURST_PACKETS + 1) * (PACKET_BYTES + 28)


def test_after_a_stall_it_catches_up_in_bursts_at_twice_the_rate() -> None:
    wire = Wire(packets=4000)
    pacer = make_pacer(wire)
    while wire.now < 0.2:
        wire.now = pacer.step(wire.now)
    stall = 0.3
    wire.now += stall
    stalled_at, before = wire.now, len(wire.sent)
    while wire.now < stalled_at + stall * 1.2:
        count = len(wire.sent)
        wire.now = pacer.step(wire.now)
        assert len(wire.sent) - count <= BURST_PACKETS
    assert_never_too_much(wire)
    catching_up = [it for it in wire.sent[before:] if it[0] <= stalled_at + stall * 0.9]
    rate = sum(size for _, size, _ in catching_up) / (stall * 0.9)
    # Packets are of several sizes, so bursts of the longest would be exactly twice.
    assert RATE < rate <= 2 * RATE * 1.05
    assert pacer.report().behind_ms >= stall * 1000 - 1
    while wire.now < 3.0:
        wire.now = pacer.step(wire.now)
    sent = sum(size for _, size, _ in wire.sent)
    assert abs(sent - RATE * wire.now) <= (BURST_PACKETS + 1) * (PACKET_BYTES + 28)
    assert pacer.report().lost_ms == 0


def test_after_a_long_sleep_nothing_is_caught_up() -> None:
    wire = Wire()
    pacer = make_pacer(wire)
    wire.now = pacer.step(wire.now)
    wire.now += 3600.0
    woke, before = wire.now, len(wire.sent)
    while wire.now < woke + 1.0:
        wire.now = pacer.step(wire.now)
    sent = sum(size for _, size, _ in wire.sent[before:])
    assert abs(sent - RATE) <= (BURST_PACKETS + 1) * (PACKET_BYTES + 28)
    assert pacer.report().lost_ms == pytest.approx(3_600_000, abs=10)
    assert LOST_S < 3600


def test_empty_ring_sends_fillers_and_what_comes_goes_out_at_once() -> None:
    wire = Wire()
    pacer = make_pacer(wire)
    while wire.now < 0.1:
        wire.now = pacer.step(wire.now)
    assert wire.sent
    assert not any(is_content for _, _, is_content in wire.sent)
    wire.waiting = [bytes([7]) * PACKET_BYTES] * 10
    before, began = len(wire.sent), wire.now
    while wire.now < began + 0.1:
        wire.now = pacer.step(wire.now)
    assert [it[2] for it in wire.sent[before:]] == [True] * 10 + [False] * (
        len(wire.sent) - before - 10
    )
    assert pacer.report().fillers == len(wire.sent) - 10
    assert filler_packet(5)[0] != 7


def test_interface_that_is_down_costs_its_packets_and_not_the_schedule() -> None:
    wire = Wire(packets=3000)
    pacer = make_pacer(wire)
    wire.broken = True
    while wire.now < 0.5:
        wire.now = pacer.step(wire.now)
    assert pacer.report().failed > 800
    assert wire.sent == []
    wire.broken = False
    up = wire.now
    while wire.now < up + 0.5:
        wire.now = pacer.step(wire.now)
    sent = sum(size for _, size, _ in wire.sent)
    assert abs(sent - RATE * 0.5) <= (2 * BURST_PACKETS) * (PACKET_BYTES + 28)


def test_report_can_be_told() -> None:
    pacer = make_pacer(Wire())
    (report,) = FrameDecoder(Paced).feed(encode_frame(pacer.report()))
    assert report == Paced()


# The ring between two processes.

READER = """
import sys, hashlib
from cuntong_daemon.datacast.ring import Ring
ring = Ring(int(sys.argv[1]), int(sys.argv[2]), 1364)
left, digest = int(sys.argv[3]), hashlib.sha256()
while left:
    packet = ring.peek()
    if packet is None:
        continue
    digest.update(len(packet).to_bytes(2, "big"))
    digest.update(packet)
    packet.release()
    ring.drop()
    left -= 1
assert ring.peek() is None
print(digest.hexdigest(), ring.taken)
ring.close()
"""


@pytest.mark.parametrize("slots", [1, 7, 512])
def test_ring_hands_every_packet_over_whole_and_in_order(slots: int) -> None:
    """The other process takes them while they are put in."""
    count = 6000 if slots > 1 else 600
    memory = make_memory(slots, PACKET_BYTES)
    ring = Ring(memory, slots, PACKET_BYTES)
    chance = random.Random(slots)
    digest = hashlib.sha256()
    command = [sys.executable, "-c", READER, str(memory), str(slots), str(count)]
    with subprocess.Popen(command, pass_fds=[memory], stdout=subprocess.PIPE, text=True) as reader:
        for number in range(count):
            packet = number.to_bytes(4, "big") * chance.randint(0, PACKET_BYTES // 4)
            digest.update(len(packet).to_bytes(2, "big") + packet)
            while not ring.room:
                assert reader.poll() is None
            ring.put(packet)
            assert 0 <= ring.room < slots + 1
        output, _ = reader.communicate(timeout=60)
    assert output.split() == [digest.hexdigest(), str(count)]
    assert (ring.written, ring.taken, ring.room) == (count, count, slots)
    ring.close()
    os.close(memory)


def test_what_the_dead_pacer_had_not_sent_is_there_for_the_next_one() -> None:
    memory = make_memory(8, PACKET_BYTES)
    writer, first = Ring(memory, 8, PACKET_BYTES), Ring(memory, 8, PACKET_BYTES)
    for number in range(5):
        writer.put(bytes([number]) * 100)
    for _ in range(2):
        packet = first.peek()
        assert packet is not None
        packet.release()
        first.drop()
    first.close()
    second = Ring(memory, 8, PACKET_BYTES)
    left: list[int] = []
    while (packet := second.peek()) is not None:
        left.append(packet[0])
        packet.release()
        second.drop()
    assert left == [2, 3, 4]
    second.close()
    writer.close()
    os.close(memory)


# Messages between processes.


class Note(msgspec.Struct, frozen=True):
    text: str
    data: bytes = b""


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    notes=st.lists(st.builds(Note, st.text(max_size=20), st.binary(max_size=200)), max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_messages_come_whole_in_whatever_chunks(notes: list[Note], cuts: list[int]) -> None:
    data = b"".join(map(encode_frame, notes))
    decoder = FrameDecoder(Note)
    found: list[Note] = []
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        found += decoder.feed(data[start:end])
    assert found == notes


@pytest.mark.parametrize(
    "data",
    [
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        b"\0\0\0\0",
        encode_frame([1, 2]),
        encode_frame({"text": 5}),
    ],
)
def test_nonsense_of_a_child_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        list(FrameDecoder(Note).feed(data))


def test_messages_end_where_the_pipe_ends_also_in_the_middle_of_one() -> None:
    source, target = os.pipe()
    notes = [Note("a", bytes(10_000)), Note("b")]
    for note in notes:
        write_frame(target, note)
    os.write(target, encode_frame(Note("c"))[:-1])
    os.close(target)
    assert list(read_frames(source, Note)) == notes
    os.close(source)


# What goes on the air.


def test_blocks_of_a_bundle_lie_where_its_files_are(tmp_path: Path) -> None:
    paths = DataPaths(tmp_path)
    files = some_files(900_000)
    torrent = torrent_of(files)
    keep_torrent(paths, torrent)
    write_payload(paths, torrent, files)
    cast = cast_bundle(paths, torrent.infohash)
    manifest = decode_manifest(cast.manifest)
    assert manifest.torrent == torrent.encode()
    assert manifest.halves == {}
    layout = Layout(torrent)
    assert [size for size, _ in cast.blocks] == layout.sizes
    for number, (size, stretches) in enumerate(cast.blocks):
        data = read_stretches(stretches)
        assert len(data) == size
        for part in layout.parts(number):
            piece = memoryview(data)[part.start : part.start + part.length]
            assert is_right(torrent, {}, part, piece)


def test_half_pieces_are_named_in_the_manifest(tmp_path: Path) -> None:
    paths = DataPaths(tmp_path)
    files = {"film.mp4": random_bytes(9 * 1024 * 1024, 1), "small.txt": b"small"}
    torrent = torrent_of(files, piece_length=2 * BLOCK_BYTES)
    keep_torrent(paths, torrent)
    folder = write_payload(paths, torrent, files)
    manifest = decode_manifest(cast_bundle(paths, torrent.infohash).manifest)
    check_halves(torrent, manifest.halves)
    # The file isn't what it was: its halves would be of no use to anybody.
    with (folder / "film.mp4").open("r+b") as film:
        film.seek(5_000_000)
        film.write(b"spoilt")
    with pytest.raises(OSError, match="isn't what it was"):
        cast_bundle(paths, torrent.infohash)


def test_bundle_that_is_not_here_is_not_cast(tmp_path: Path) -> None:
    paths = DataPaths(tmp_path)
    torrent = torrent_of(some_files(200_000))
    with pytest.raises(StoreError):
        cast_bundle(paths, torrent.infohash)
    keep_torrent(paths, torrent)
    cast = cast_bundle(paths, torrent.infohash)
    assert not payload_folder(paths, torrent).exists()
    with pytest.raises(OSError):
        read_stretches(cast.blocks[0][1])


def role(version: int, name: str, entries: int) -> Item:
    signed = {"signed": {"version": version, "targets": {str(it): it for it in range(entries)}}}
    return Item(f"{version}.{name}.json", json.dumps(signed).encode())


def test_delta_and_snapshot_give_the_newest_catalogue() -> None:
    old = [
        Item("timestamp.json", b"{1}"),
        role(1, "root", 3),
        role(4, "202611", 3000),
        Item("", b"b"),
    ]
    new = [
        Item("timestamp.json", b"{2}"),
        role(1, "root", 3),
        role(5, "202611", 3001),
        Item("", b"c"),
    ]
    authority = "440000000000"
    snapshot = catalogue_snapshot(authority, old)
    delta = catalogue_delta(authority, old, new)
    assert len(delta) < 400
    head = catalogue_head(delta, authority)
    bases = {item.name: item.data for item in old}
    assert {base.name for base in head.bases} == {"timestamp.json", "4.202611.json"}
    found = list(catalogue_items(snapshot, catalogue_head(snapshot, authority), {}))
    assert found == old
    fresh = list(catalogue_items(delta, head, bases))
    assert fresh == [it for it in new if it not in old]
    assert catalogue_delta(authority, new, new) == b""
