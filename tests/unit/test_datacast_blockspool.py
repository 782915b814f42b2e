"""Symbols on the disk (SPEC 11.9): what a mark says is there, whatever fails, and nothing else takes room."""

from __future__ import annotations

import copy
import errno
import functools
import os
import random
import resource
import shutil
import socket
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cuntong_daemon.datacast import blockspool as blockspool_module
from cuntong_daemon.datacast.blockspool import SLOT_BYTES, BlockSpool, OpenBlock
from cuntong_daemon.datacast.reader import Reader, ReadOrder
from cuntong_daemon.pki.certificates import certificate_der
from cuntong_protocol.datacast.blocks import BLOCK_BYTES, esi_limit, symbol_count
from cuntong_protocol.datacast.packets import (
    MAX_ESI,
    MAX_TOI,
    PACKET_BYTES,
    SYMBOL_BYTES,
    Channel,
    digest,
    symbol_packet,
)
from cuntong_protocol.divisions import NATION
from tests.support.datacast import OnAir, abandon, made_whole, needs_raptorq, on_air
from tests.support.payloads import random_bytes
from tests.support.pki import World

SESSION = 12
CHANNEL = Channel.CONTENT
VERIFIED, UNVERIFIED = 2, 1
QUOTA = 1_000_000_000
RING_SLOT = 16 + PACKET_BYTES


@functools.cache
def symbol_of(toi: int, esi: int, variant: int = 0) -> bytes:
    """Each variant has other bytes, 0 is the genuine one."""
    return random.Random(f"{toi} {esi} {variant}").randbytes(SYMBOL_BYTES)


def packet_of(toi: int, esi: int, variant: int = 0, *, session: int = SESSION) -> bytes:
    """A symbol's packet."""
    return symbol_packet(session, CHANNEL, toi, esi, symbol_of(toi, esi, variant))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[BlockSpool]:
    spool = open_spool(tmp_path)
    yield spool
    spool.close()


def open_spool(folder: Path, quota: int = QUOTA) -> BlockSpool:
    spool = BlockSpool(folder, quota_bytes=quota)
    spool.begin_session(SESSION)
    return spool


def put(
    spool: BlockSpool, toi: int, *numbers: int, variant: int = 0, is_verified: bool = True
) -> list[str | None]:
    return [
        spool.take(CHANNEL, toi, esi, packet_of(toi, esi, variant), is_verified=is_verified)
        for esi in numbers
    ]


def commit(spool: BlockSpool) -> None:
    rows = spool.prepare()
    spool.sync()
    spool.commit(rows)


def found(spool: BlockSpool, toi: int) -> OpenBlock:
    block = spool.block(CHANNEL, toi)
    assert block is not None
    return block


def marks(block: OpenBlock) -> dict[int, tuple[int, int]]:
    """For each symbol that a block says it has: where it lies in the file, and its flag."""
    count = len(block.source)
    places = {esi: (esi, flag) for esi, flag in enumerate(block.source) if flag}
    places |= {
        esi: (count + at, flag)
        for at, (esi, flag) in enumerate(zip(block.repairs, block.flags, strict=True))
        if flag
    }
    return {
        esi: (block.offset + place * SYMBOL_BYTES, flag) for esi, (place, flag) in places.items()
    }


def on_disk(spool: BlockSpool, toi: int) -> dict[int, tuple[bytes, int]]:
    """Every symbol that a block says it has, as it lies there, and its flag."""
    spool.flush()
    return {
        esi: (os.pread(spool._data, SYMBOL_BYTES, at), flag)
        for esi, (at, flag) in marks(found(spool, toi)).items()
    }


def assert_sound(spool: BlockSpool) -> None:
    """Sums are right, and no two blocks share room."""
    spool.flush()
    blocks = [spool._blocks[key] for key in sorted(spool.keys())]
    assert len({block.slot for block in blocks}) == len(blocks)
    assert not {block.slot for block in blocks} & set(spool._free)
    assert len(set(spool._free)) == len(spool._free)
    for block in blocks:
        assert block.count == len(marks(block))
        assert set(block.known) == {esi for esi in marks(block) if esi >= len(block.source)}
        assert all(at < block.offset + SLOT_BYTES for at, _ in marks(block).values())
        assert not block.is_ready or block.count >= symbol_count(block.size)
    assert spool.used_bytes == sum(block.count for block in blocks) * SYMBOL_BYTES


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file can be written beyond this: what is within is written, the rest refused, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Whole blocks, with real symbols.


def gather(spool: BlockSpool, block: OnAir, numbers: list[int], session: int = SESSION) -> None:
    for esi in numbers:
        packet = symbol_packet(session, block.channel, block.toi, esi, block.symbols[esi])
        spool.take(*block.key, esi, packet, is_verified=True)


@needs_raptorq
@pytest.mark.parametrize("size", [1, 2, 1343, 1344, 1345, 40_000, BLOCK_BYTES - 1, BLOCK_BYTES])
def test_block_of_any_size_comes_out_as_it_was(spool: BlockSpool, size: int) -> None:
    """Of its source symbols, with some of them lost, and of repair symbols alone."""
    block = on_air(random_bytes(size, size))
    count = symbol_count(size)
    chance = random.Random(size)
    lost = set(chance.sample(range(count), max(1, count // 20)))
    ways = [
        list(range(count)),
        [esi for esi in range(count + len(lost) + 2) if esi not in lost],
        list(range(count, 2 * count)),
    ]
    for numbers in ways if size < BLOCK_BYTES else ways[:2]:
        spool.open_blocks_of([block.opening])
        gather(spool, block, numbers)
        (ready,) = spool.ready()
        assert made_whole(spool, ready) == block.symbols.data
        spool.close_blocks([block.key])
        assert spool.used_bytes == 0
    commit(spool)


@needs_raptorq
def test_two_blocks_whose_symbols_come_in_turns_are_both_right(spool: BlockSpool) -> None:
    first = on_air(random_bytes(300_000, 1), toi=5)
    second = on_air(random_bytes(290_000, 2), toi=6, channel=Channel.MANIFEST)
    spool.open_blocks_of([first.opening, second.opening])
    numbers = list(range(10, 260))
    for start in range(0, len(numbers), 3):
        gather(spool, first, numbers[start : start + 3])
        gather(spool, second, numbers[start : start + 3])
    assert {(it.channel, it.toi): made_whole(spool, it) for it in spool.ready()} == {
        first.key: first.symbols.data,
        second.key: second.symbols.data,
    }


@needs_raptorq
def test_block_that_lacks_a_symbol_more_asks_for_one_more(spool: BlockSpool) -> None:
    """In one of 256 cases K symbols don't suffice."""
    block = on_air(random_bytes(40_000, 1))
    spool.open_blocks_of([block.opening])
    gather(spool, block, list(range(1, 31)))
    assert spool.ready()
    spool.again(*block.key, is_wrong=False)
    assert spool.ready() == []
    gather(spool, block, [31])
    (ready,) = spool.ready()
    assert made_whole(spool, ready) == block.symbols.data


# Verified and not.


def test_verified_symbol_replaces_an_unverified_one_and_never_the_other_way(
    spool: BlockSpool,
) -> None:
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    for esi in (3, 40):
        assert put(spool, 5, esi, variant=1, is_verified=False) == [None]
        assert put(spool, 5, esi, variant=2, is_verified=False) == ["duplicate"]
        assert put(spool, 5, esi) == [None]
        assert put(spool, 5, esi, variant=3) == ["duplicate"]
        assert put(spool, 5, esi, variant=3, is_verified=False) == ["duplicate"]
    assert on_disk(spool, 5) == {esi: (symbol_of(5, esi), VERIFIED) for esi in (3, 40)}


def test_symbol_that_replaces_another_takes_no_room_of_its_own(spool: BlockSpool) -> None:
    """Or a forger fills the quota with symbols that aren't there, until the reader starts again."""
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    for esi in (0, 1, 40, 41):
        put(spool, 5, esi, variant=1, is_verified=False)
        put(spool, 5, esi)
    assert spool.used_bytes == 4 * SYMBOL_BYTES
    spool.close_blocks([(CHANNEL, 5)])
    assert spool.used_bytes == 0


def test_wrong_block_loses_its_unverified_symbols_only(spool: BlockSpool) -> None:
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 0, 2, 50, 53)
    put(spool, 5, 1, 51, 52, 54, variant=1, is_verified=False)
    spool.ready()
    spool.again(CHANNEL, 5, is_wrong=True)
    assert on_disk(spool, 5) == {esi: (symbol_of(5, esi), VERIFIED) for esi in (0, 2, 50, 53)}
    assert spool.used_bytes == 4 * SYMBOL_BYTES
    # The room is used again, and the genuine ones are taken now.
    assert put(spool, 5, 1, 51, 52, 54) == [None] * 4
    assert on_disk(spool, 5) == {
        esi: (symbol_of(5, esi), VERIFIED) for esi in (0, 1, 2, 50, 51, 52, 53, 54)
    }
    assert len(spool.ready()) == 1
    assert_sound(spool)


def test_wrong_block_of_verified_symbols_begins_anew(spool: BlockSpool) -> None:
    """A power cut has spoilt one of them, and nobody knows which."""
    spool.open_blocks_of([(CHANNEL, 5, 4_000)])
    put(spool, 5, 0, 1, 2)
    assert len(spool.ready()) == 1
    spool.again(CHANNEL, 5, is_wrong=True)
    assert found(spool, 5).count == 0
    assert spool.used_bytes == 0
    assert put(spool, 5, 2, 1, 0) == [None] * 3
    assert len(spool.ready()) == 1


def test_forged_symbol_cannot_keep_the_genuine_one_out_of_a_small_block(
    spool: BlockSpool,
) -> None:
    """Each forged one makes the block ready, and until it is judged to be wrong nothing else is taken."""
    spool.open_blocks_of([(CHANNEL, 5, 1_000)])
    put(spool, 5, 0, variant=1, is_verified=False)
    assert len(spool.ready()) == 1
    put(spool, 5, 0)
    put(spool, 5, 1, variant=1, is_verified=False)
    spool.again(CHANNEL, 5, is_wrong=True)
    assert len(spool.ready()) == 1
    assert on_disk(spool, 5) == {0: (symbol_of(5, 0), VERIFIED)}
    assert_sound(spool)


def test_forged_repair_symbols_do_not_keep_verified_ones_out(spool: BlockSpool) -> None:
    """There is room for as many of them as there are source symbols, and one more is needed."""
    spool.open_blocks_of([(CHANNEL, 5, 4_000)])
    put(spool, 5, 10, 11, 12, variant=1, is_verified=False)
    assert len(spool.ready()) == 1
    spool.again(CHANNEL, 5, is_wrong=False)
    assert put(spool, 5, 13, is_verified=False) == ["not-needed"]
    assert put(spool, 5, 13, 14, 15) == [None] * 3
    assert on_disk(spool, 5) == {esi: (symbol_of(5, esi), VERIFIED) for esi in (13, 14, 15)}
    assert_sound(spool)


def test_nothing_is_asked_again_of_a_block_that_is_closed(spool: BlockSpool) -> None:
    for is_wrong in (True, False):
        spool.again(CHANNEL, 5, is_wrong=is_wrong)
    assert spool.open_blocks == 0


def test_symbol_that_was_vouched_for_is_so_after_a_restart(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 1, 40, is_verified=False)
    commit(spool)
    for esi in (1, 40):
        assert spool.vouch(CHANNEL, 5, esi, digest(packet_of(5, esi)))
    commit(spool)
    abandon(spool)
    spool = open_spool(tmp_path)
    assert {flag for _, flag in on_disk(spool, 5).values()} == {VERIFIED}
    spool.close()


def test_nothing_is_vouched_for_that_is_not_there(spool: BlockSpool) -> None:
    right = digest(packet_of(5, 1))
    assert not spool.vouch(CHANNEL, 5, 1, right)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    for esi in (1, 40, MAX_ESI):
        assert not spool.vouch(CHANNEL, 5, esi, right)
    put(spool, 5, 1)
    assert not spool.vouch(CHANNEL, 5, 1, right), "it counts already"


def test_block_that_was_closed_is_not_announced_any_more(spool: BlockSpool) -> None:
    """Its place may be another block's by the time when somebody reads it."""
    spool.open_blocks_of([(CHANNEL, 5, 2_000)])
    put(spool, 5, 0, 1)
    spool.close_blocks([(CHANNEL, 5)])
    spool.open_blocks_of([(CHANNEL, 5, 2_000)])
    assert spool.ready() == []


# Numbers that nobody should send.


@pytest.mark.parametrize("size", [1, 1344, 100_000, BLOCK_BYTES])
def test_symbol_with_a_number_that_its_block_cannot_have_is_refused(
    spool: BlockSpool, size: int
) -> None:
    spool.open_blocks_of([(CHANNEL, 5, size)])
    limit = esi_limit(size)
    assert put(spool, 5, limit, limit + 1, MAX_ESI) == ["bad-symbol"] * 3
    assert put(spool, 5, limit - 1) == [None]
    assert_sound(spool)


@pytest.mark.parametrize("size", [0, -1, BLOCK_BYTES + 1, 1 << 50])
def test_block_of_an_impossible_size_is_not_opened(spool: BlockSpool, size: int) -> None:
    spool.open_blocks_of([(CHANNEL, 5, size), (CHANNEL, 6, 2_000)])
    assert spool.keys() == {(CHANNEL, 6)}


def test_block_with_the_largest_toi_is_like_any_other(spool: BlockSpool) -> None:
    put(spool, MAX_TOI, 0)
    spool.open_blocks_of([(CHANNEL, MAX_TOI, 2_000)])
    put(spool, MAX_TOI, 1)
    assert len(spool.ready()) == 1


def test_block_is_announced_again_when_it_is_asked_for_again(spool: BlockSpool) -> None:
    spool.open_blocks_of([(CHANNEL, 5, 2_000)])
    put(spool, 5, 0, 1)
    assert len(spool.ready()) == 1
    assert put(spool, 5, 7) == ["not-needed"]
    assert spool.ready() == []
    spool.open_blocks_of([(CHANNEL, 5, 2_000)])
    assert len(spool.ready()) == 1


def test_block_that_is_asked_for_with_another_size_begins_anew(spool: BlockSpool) -> None:
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 0, 1, 2)
    spool.open_blocks_of([(CHANNEL, 5, 9_000)])
    assert found(spool, 5).count == 0
    assert spool.used_bytes == 0


# Restarts.


def test_restart_without_a_word_loses_what_came_since_the_last_commit_and_nothing_else(
    tmp_path: Path,
) -> None:
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 10_000), (CHANNEL, 6, 8_000)])
    put(spool, 5, 0, 1, 50)
    put(spool, 6, 3, is_verified=False)
    spool.number = 17
    commit(spool)
    put(spool, 5, 2, 51)
    spool.open_blocks_of([(CHANNEL, 7, 8_000)])
    put(spool, 7, 0)
    abandon(spool)
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    assert (spool.session, spool.number) == (SESSION, 17)
    assert spool.keys() == {(CHANNEL, 5), (CHANNEL, 6)}
    assert on_disk(spool, 5) == {esi: (symbol_of(5, esi), VERIFIED) for esi in (0, 1, 50)}
    assert on_disk(spool, 6) == {3: (symbol_of(6, 3), UNVERIFIED)}
    assert_sound(spool)
    put(spool, 5, 2, 51)
    assert on_disk(spool, 5).keys() == {0, 1, 2, 50, 51}
    spool.close()


def test_orderly_end_loses_nothing(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 0, 1, 50, 51)
    spool.close()
    spool = open_spool(tmp_path)
    assert on_disk(spool, 5) == {esi: (symbol_of(5, esi), VERIFIED) for esi in (0, 1, 50, 51)}
    spool.close()


def test_block_that_was_whole_before_the_restart_is_announced_after_it(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 2_000)])
    put(spool, 5, 0, 1)
    commit(spool)
    abandon(spool)
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 2_000)])
    assert len(spool.ready()) == 1
    spool.close()


def test_what_is_prepared_for_a_block_is_not_written_down_for_its_successor(
    tmp_path: Path,
) -> None:
    """While the disk syncs, the block is closed and one with the same numbers opened, for something else."""
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 0, 1, 2)
    rows = spool.prepare()
    spool.close_blocks([(CHANNEL, 5)])
    spool.open_blocks_of([(CHANNEL, 6, 10_000), (CHANNEL, 5, 10_000)])
    spool.commit(rows)
    abandon(spool)
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    if spool.block(CHANNEL, 5) is not None:
        assert on_disk(spool, 5) == {}
    assert_sound(spool)
    spool.close()


def test_new_session_is_not_given_what_was_prepared_in_the_old_one(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 0, 1, 2)
    rows = spool.prepare()
    spool.begin_session(SESSION + 1)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    spool.commit(rows)
    abandon(spool)
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    assert spool.session == SESSION + 1
    assert spool.block(CHANNEL, 5) is None or not marks(found(spool, 5))
    spool.close()


def test_closed_block_that_comes_back_after_a_crash_has_its_own_bytes(tmp_path: Path) -> None:
    """It was closed after the last commit, and its place was given to another."""
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 0, 1, 2)
    commit(spool)
    spool.close_blocks([(CHANNEL, 5)])
    spool.open_blocks_of([(CHANNEL, 6, 10_000)])
    put(spool, 6, 0, 1, 2)
    spool.flush()
    abandon(spool)
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    if spool.block(CHANNEL, 5) is not None:
        for esi, (data, _) in on_disk(spool, 5).items():
            assert data == symbol_of(5, esi)
    spool.close()


def test_crash_after_a_wrong_block_leaves_no_symbol_under_another_ones_number(
    tmp_path: Path,
) -> None:
    """The unverified ones were dropped and their room used, but that wasn't written down yet."""
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 50, 52, 53)
    put(spool, 5, 51, 54, is_verified=False)
    put(spool, 5, 55, 56)
    commit(spool)
    spool.again(CHANNEL, 5, is_wrong=True)
    put(spool, 5, 57, 58, 59)
    spool.flush()
    abandon(spool)
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    for esi, (data, flag) in on_disk(spool, 5).items():
        assert data == symbol_of(5, esi) or flag == UNVERIFIED, esi
    assert {50, 52, 53, 55, 56} <= on_disk(spool, 5).keys()
    spool.close()


# A disk that refuses.


def test_symbols_that_the_disk_refused_never_came(spool: BlockSpool) -> None:
    spool.open_blocks_of([(CHANNEL, 5, 200_000)])
    put(spool, 5, *range(10))
    spool.flush()
    at = found(spool, 5).offset + 20 * SYMBOL_BYTES + 100
    with files_end_at(at):
        put(spool, 5, *range(15, 25))  # Partly within what can be written.
        put(spool, 5, 100, 101)
        spool.flush()
    assert spool.write_errors >= 7
    for esi, (data, _) in on_disk(spool, 5).items():
        assert data == symbol_of(5, esi)
    assert set(on_disk(spool, 5)) >= set(range(10))
    assert not set(on_disk(spool, 5)) & {20, 21, 22, 23, 24, 100, 101}
    assert_sound(spool)
    assert put(spool, 5, *range(20, 25), 100, 101) == [None] * 7
    assert on_disk(spool, 5)[101] == (symbol_of(5, 101), VERIFIED)


def test_long_run_of_repair_symbols_on_a_full_disk_leaves_no_mark_and_no_error(
    spool: BlockSpool,
) -> None:
    """More than are written at once, so that writing fails while the next one is being taken."""
    spool.open_blocks_of([(CHANNEL, 5, 400_000)])
    put(spool, 5, 300, 301, 302)
    spool.flush()
    with files_end_at(found(spool, 5).offset + 300 * SYMBOL_BYTES):
        for esi in range(310, 500):
            assert put(spool, 5, esi) in ([None], ["spool-full"])
        spool.flush()
    kept = on_disk(spool, 5)
    assert {esi: data for esi, (data, _) in kept.items()} == {
        esi: symbol_of(5, esi) for esi in kept
    }
    assert_sound(spool)
    put(spool, 5, *range(310, 500))
    assert on_disk(spool, 5) == {
        esi: (symbol_of(5, esi), VERIFIED) for esi in (300, 301, 302, *range(310, 500))
    }


def test_refused_replacement_leaves_the_others_where_they_are(spool: BlockSpool) -> None:
    """A verified repair symbol is to take the place of an unverified one, and can't be written."""
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 50)
    put(spool, 5, 51, variant=1, is_verified=False)
    put(spool, 5, 52, 53)
    spool.flush()
    with files_end_at(found(spool, 5).offset):
        put(spool, 5, 51)
        spool.flush()
    kept = on_disk(spool, 5)
    assert {esi: data for esi, (data, flag) in kept.items() if flag == VERIFIED} == {
        esi: symbol_of(5, esi) for esi in (50, 52, 53)
    }
    assert_sound(spool)


def test_block_is_not_ready_when_its_last_symbol_could_not_be_written(spool: BlockSpool) -> None:
    spool.open_blocks_of([(CHANNEL, 5, 2_000)])
    with files_end_at(SYMBOL_BYTES):
        put(spool, 5, 0, 1)
        assert spool.ready() == []
    put(spool, 5, 0, 1)
    assert len(spool.ready()) == 1
    assert_sound(spool)


def test_ring_keeps_no_packet_that_the_disk_took_half_of(tmp_path: Path) -> None:
    """What lies behind it in its slot is an older packet's."""
    spool = open_spool(tmp_path, quota=4 * 3 * RING_SLOT)  # A ring of three slots.
    for toi in (1, 2, 3):
        put(spool, toi, 0)
    with files_end_at(RING_SLOT + 200):
        put(spool, 4, 0)
        assert put(spool, 5, 0) == ["spool-full"]
    for _ in range(2):
        spool.open_blocks_of([(CHANNEL, toi, 5_000) for toi in (1, 2, 3, 4, 5)])
        for toi in (1, 2, 3, 4, 5):
            for esi, (data, _) in on_disk(spool, toi).items():
                assert data == symbol_of(toi, esi), toi
        abandon(spool)
        spool = open_spool(tmp_path, quota=4 * 3 * RING_SLOT)
    spool.close()


def test_full_quota_refuses_symbols_and_blocks_that_are_done_make_room(tmp_path: Path) -> None:
    """A quota of one block."""
    spool = open_spool(tmp_path, quota=10 * SYMBOL_BYTES)
    spool.open_blocks_of([(CHANNEL, 5, 10_000), (CHANNEL, 6, 10_000)])
    put(spool, 5, *range(6))
    assert put(spool, 6, *range(6)) == [None] * 4 + ["spool-full"] * 2
    assert spool.used_bytes == 10 * SYMBOL_BYTES
    spool.close_blocks([(CHANNEL, 6)])
    assert put(spool, 5, 6, 7) == [None] * 2
    assert len(spool.ready()) == 1
    assert_sound(spool)
    spool.close()


def test_content_that_fills_the_quota_does_not_keep_programmes_out(tmp_path: Path) -> None:
    """Neither would ever be complete: all blocks lack a few symbols, and the sender has taken the bundle off the air."""
    spool = open_spool(tmp_path, quota=10 * SYMBOL_BYTES)
    spool.open_blocks_of(
        [(CHANNEL, 5, 10_000), (CHANNEL, 6, 10_000), (Channel.CATALOGUE, 7, 2_000)]
    )
    put(spool, 5, *range(5))
    put(spool, 6, *range(5))
    assert put(spool, 5, 5) == ["spool-full"]
    for esi in (0, 1):
        assert spool.take(Channel.CATALOGUE, 7, esi, packet_of(7, esi), is_verified=True) is None
    assert [block.toi for block in spool.ready()] == [7]
    spool.close()


def test_unreadable_symbol_is_not_vouched_for(
    spool: BlockSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    put(spool, 5, 0, is_verified=False)

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(os, "pread", broken)
        assert not spool.vouch(CHANNEL, 5, 0, digest(packet_of(5, 0)))


def test_what_the_disk_did_not_sync_is_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error the kernel may have thrown the pages away; the reader ends, and begins with what is sure."""
    anchor = World("ed25519", tmp_path / "world").authorities[NATION].certificate
    folder = tmp_path / "spool"
    folder.mkdir()
    order = ReadOrder(
        folder=str(folder), anchor=certificate_der(anchor), sender=str(NATION), address="",
        port=0, interface="", source="", quota_bytes=QUOTA,
    )  # fmt: skip
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    reader = Reader(order, ours)
    reader._spool.begin_session(SESSION)
    reader._spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    commit(reader._spool)
    put(reader._spool, 5, 0, 1, 2)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        keep_once(reader)
    abandon(reader._spool)
    spool = BlockSpool(folder, quota_bytes=QUOTA)
    assert marks(found(spool, 5)) == {}
    spool.close()
    ours.close()
    theirs.close()


def keep_once(reader: Reader) -> None:
    """From the beginning of writing down to its end."""
    reader.keep()
    while reader.is_keeping:
        assert reader._sync is not None
        reader._sync.join()
        reader.keep()


# Room.


def blocks_on_disk(folder: Path) -> int:
    return (folder / "blocks").stat().st_blocks * 512


def test_room_of_closed_blocks_is_given_back_and_used_again(
    spool: BlockSpool, tmp_path: Path
) -> None:
    for round_number in range(3):
        first = 10 * round_number
        spool.open_blocks_of([(CHANNEL, first + at, BLOCK_BYTES) for at in range(3)])
        for at in range(3):
            put(spool, first + at, *range(400))
        commit(spool)
        assert blocks_on_disk(tmp_path) >= 1200 * SYMBOL_BYTES
        spool.close_blocks([(CHANNEL, first + at) for at in range(3)])
        commit(spool)
        assert blocks_on_disk(tmp_path) < 100_000
    assert (tmp_path / "blocks").stat().st_size <= 6 * SLOT_BYTES


def test_lost_database_does_not_leave_its_symbols_on_the_disk(tmp_path: Path) -> None:
    """Nobody knows any more what they are."""
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, toi, BLOCK_BYTES) for toi in range(4)])
    for toi in range(4):
        put(spool, toi, *range(300))
    spool.close()
    for path in tmp_path.glob("spool.sqlite*"):
        path.unlink()
    spool = open_spool(tmp_path)
    assert blocks_on_disk(tmp_path) < 100_000
    spool.close()


# The ring.


def test_symbols_that_came_before_anybody_asked_are_there_when_somebody_does(
    spool: BlockSpool,
) -> None:
    put(spool, 5, 0, 1, 40)
    put(spool, 5, 2, is_verified=False)
    put(spool, 6, 0)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    assert on_disk(spool, 5) == {
        esi: (symbol_of(5, esi), UNVERIFIED if esi == 2 else VERIFIED) for esi in (0, 1, 2, 40)
    }


def test_verified_symbols_in_the_ring_come_before_forged_ones_of_their_numbers(
    spool: BlockSpool,
) -> None:
    put(spool, 5, 0, 1, 2, variant=1, is_verified=False)
    put(spool, 5, 0, 1)
    spool.open_blocks_of([(CHANNEL, 5, 10_000)])
    assert on_disk(spool, 5) == {
        0: (symbol_of(5, 0), VERIFIED),
        1: (symbol_of(5, 1), VERIFIED),
        2: (symbol_of(5, 2, 1), UNVERIFIED),
    }


def test_symbols_leave_the_ring_when_somebody_asks_and_the_others_stay(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, quota=4 * 6 * RING_SLOT)
    put(spool, 5, 0, 1, 2)
    put(spool, 6, 0, 1)
    put(spool, 6, 2, is_verified=False)
    spool.open_blocks_of([(CHANNEL, 5, 5_000)])
    assert sum(key != 0 for key in spool._ring._keys) == 3
    spool.open_blocks_of([(CHANNEL, 6, 5_000)])
    assert sum(key != 0 for key in spool._ring._keys) == 0
    assert on_disk(spool, 6).keys() == {0, 1, 2}
    spool.close()


def test_full_ring_forgets_the_oldest(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, quota=4 * 10 * RING_SLOT)
    for toi in range(25):
        put(spool, toi, 0)
    assert (tmp_path / "ring").stat().st_size == 10 * RING_SLOT
    abandon(spool)  # Nothing of the ring is written down anywhere else.
    spool = BlockSpool(tmp_path, quota_bytes=4 * 10 * RING_SLOT)
    assert spool.session == 0, "there was no commit"
    spool.close()


def test_ring_is_there_after_a_restart_in_the_same_session(tmp_path: Path) -> None:
    quota = 4 * 10 * RING_SLOT
    spool = open_spool(tmp_path, quota)
    commit(spool)
    for toi in range(25):
        put(spool, toi, 0)
    abandon(spool)
    spool = open_spool(tmp_path, quota)
    for toi in range(25, 28):
        put(spool, toi, 0)
    spool.open_blocks_of([(CHANNEL, toi, 100) for toi in range(28)])
    kept = [toi for toi in range(28) if found(spool, toi).count]
    assert kept == list(range(18, 28))
    for toi in kept:
        assert on_disk(spool, toi) == {0: (symbol_of(toi, 0), VERIFIED)}
    spool.close()


def test_ring_of_another_session_is_not_given_to_anybody(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    commit(spool)
    put(spool, 5, 0, 1)
    spool.begin_session(SESSION + 1)
    spool.open_blocks_of([(CHANNEL, 5, 5_000)])
    assert found(spool, 5).count == 0
    abandon(spool)
    # The new session wasn't written down, but its symbols are in the ring.
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    spool.take(CHANNEL, 6, 0, packet_of(6, 0, session=SESSION + 1), is_verified=True)
    abandon(spool)
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    assert spool.session == SESSION
    spool.open_blocks_of([(CHANNEL, 6, 5_000)])
    assert found(spool, 6).count == 0
    spool.close()


def test_ring_is_not_read_into_memory_at_once(tmp_path: Path) -> None:
    """It has 256 MiB; the whole receiver may have 128 MiB."""
    spool = open_spool(tmp_path)
    packet = packet_of(5, 0)
    for number in range(12_000):
        spool._ring.put(CHANNEL, number % 8, number, packet, is_verified=bool(number % 3))
    tracemalloc.start()
    spool.open_blocks_of([(CHANNEL, toi, BLOCK_BYTES) for toi in range(8)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(found(spool, toi).count for toi in range(8)) > 5_000
    assert peak < 6_000_000
    spool.close()


# Files that something has damaged.


def filled(folder: Path) -> None:
    spool = open_spool(folder)
    spool.open_blocks_of([(CHANNEL, toi, 20_000) for toi in range(5, 8)])
    for toi in range(5, 8):
        put(spool, toi, *range(0, 15, 2), 50, 51)
    put(spool, 90, 0, 1, 2)
    spool.close()


def spoil(path: Path, chance: random.Random, how: int) -> None:
    """Write into a file what doesn't belong there, somewhere in its first part, which holds something."""
    size = min(path.stat().st_size, 60_000)
    with path.open("r+b") as file:
        match how:
            case 0:
                file.truncate(0)
            case 1:
                file.truncate(chance.randrange(size))
            case 2:
                file.write(chance.randbytes(size))
            case 3:
                file.seek(chance.randrange(size))
                file.write(bytes(4096))
            case 4:
                for _ in range(50):
                    file.seek(chance.randrange(size))
                    file.write(chance.randbytes(1))
            case _:
                file.seek(chance.randrange(size))
                file.write(chance.randbytes(512))


@pytest.mark.parametrize("name", ["spool.sqlite", "ring", "blocks"])
@pytest.mark.parametrize("seed", range(12))
def test_damaged_file_costs_what_was_in_it_and_nothing_else(
    tmp_path: Path, name: str, seed: int
) -> None:
    filled(tmp_path)
    spoil(tmp_path / name, random.Random(f"{name} {seed}"), seed % 6)
    spool = open_spool(tmp_path)
    assert_sound(spool)
    # It works as before.
    spool.open_blocks_of([(CHANNEL, toi, 20_000) for toi in (5, 90, 91)])
    for toi in (5, 90, 91):
        spool.again(CHANNEL, toi, is_wrong=True)
        spool.again(CHANNEL, toi, is_wrong=True)
        put(spool, toi, *range(15))
    put(spool, 92, 0)
    assert {(block.channel, block.toi) for block in spool.ready()} >= {
        (CHANNEL, toi) for toi in (5, 90, 91)
    }
    for toi in (5, 90, 91):
        assert on_disk(spool, toi) == {esi: (symbol_of(toi, esi), VERIFIED) for esi in range(15)}
    commit(spool)
    spool.close()


ROW = {
    "channel": int(CHANNEL),
    "toi": 5,
    "size": 20_000,
    "slot": 0,
    "source": bytes(15),
    "repairs": b"",
    "flags": b"",
}


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": -5},
        {"size": 1 << 40},
        {"size": "x"},
        {"slot": -1},
        {"slot": (1 << 20) + 1},
        {"slot": "x"},
        {"slot": 1.5},
        {"channel": "x"},
        {"toi": -3},
        {"source": bytes(14)},
        {"source": bytes([9] * 15)},
        {"source": "text"},
        {"source": 15},
        {"repairs": b"123", "flags": b"\2"},
        {"repairs": b"\x32\0\0\0" * 2, "flags": b"\2\2"},
        {"repairs": b"\x03\0\0\0", "flags": b"\2"},
        {"repairs": b"\xff\xff\xff\xff", "flags": b"\2"},
        {"repairs": b"\x32\0\0\0", "flags": b"\7"},
        {"repairs": b"".join(number.to_bytes(4, "little") for number in range(50, 90)),
         "flags": b"\2" * 40},
    ],
    ids=lambda change: ",".join(change),
)  # fmt: skip
def test_row_that_makes_no_sense_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    open_spool(tmp_path).close()
    database = sqlite3.connect(tmp_path / "spool.sqlite")
    with database:
        row = ROW | change
        database.execute(
            f"INSERT INTO blocks ({', '.join(row)}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            tuple(row.values()),
        )
        database.execute(
            "INSERT INTO blocks VALUES (3, 7, 20000, 3, ?, x'', x'')", (b"\2" + bytes(14),)
        )
    database.close()
    spool = open_spool(tmp_path)
    assert spool.keys() == {(CHANNEL, 7)}
    spool.open_blocks_of([(CHANNEL, 5, 20_000)])
    put(spool, 5, *range(15))
    assert len(spool.ready()) == 1
    assert_sound(spool)
    commit(spool)
    spool.close()


def test_two_rows_with_the_same_place_are_not_both_believed(tmp_path: Path) -> None:
    open_spool(tmp_path).close()
    database = sqlite3.connect(tmp_path / "spool.sqlite")
    with database:
        for toi in (5, 6):
            database.execute(
                "INSERT INTO blocks VALUES (3, ?, 20000, 0, ?, x'', x'')", (toi, bytes(15))
            )
    database.close()
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, toi, 20_000) for toi in (5, 6, 7)])
    assert_sound(spool)
    spool.close()


@pytest.mark.parametrize("heard", [(None, 3), ("x", 3), (3, "x"), (-1, -1), (1 << 60, 0)])
def test_session_that_makes_no_sense_is_not_believed(
    tmp_path: Path, heard: tuple[object, object]
) -> None:
    open_spool(tmp_path).close()
    database = sqlite3.connect(tmp_path / "spool.sqlite")
    with database:
        database.execute("DROP TABLE heard")
        database.execute("CREATE TABLE heard (session, number)")
        database.execute("INSERT INTO heard VALUES (?, ?)", heard)
    database.close()
    spool = BlockSpool(tmp_path, quota_bytes=QUOTA)
    assert isinstance(spool.session, int)
    assert 0 <= spool.session < 1 << 28
    assert isinstance(spool.number, int)
    spool.close()


def test_ring_whose_numbers_are_beyond_reason_goes_on(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    put(spool, 5, 0)
    spool.close()
    with (tmp_path / "ring").open("r+b") as ring:
        ring.write((2**64 - 1).to_bytes(8, "big"))
    spool = open_spool(tmp_path)
    assert put(spool, 6, *range(20)) == [None] * 20
    spool.close()


def test_ring_slot_with_an_impossible_symbol_number_gives_nothing_to_another_block(
    tmp_path: Path,
) -> None:
    spool = open_spool(tmp_path)
    put(spool, 4, 0)
    spool.close()
    with (tmp_path / "ring").open("r+b") as ring:
        ring.seek(16 + 16)
        ring.write((1 << 24).to_bytes(4, "big"))
    spool = open_spool(tmp_path)
    spool.open_blocks_of([(CHANNEL, toi, 5_000) for toi in (4, 5)])
    assert [found(spool, toi).count for toi in (4, 5)] == [0, 0]
    spool.close()


@needs_raptorq
def test_spoilt_block_file_gives_the_wrong_block_once_and_then_the_right_one(
    tmp_path: Path,
) -> None:
    block = on_air(random_bytes(40_000, 1))
    spool = open_spool(tmp_path)
    spool.open_blocks_of([block.opening])
    gather(spool, block, list(range(1, 31)))
    spool.close()
    with (tmp_path / "blocks").open("r+b") as file:
        file.seek(5 * SYMBOL_BYTES)
        file.write(bytes(SYMBOL_BYTES))
    spool = open_spool(tmp_path)
    spool.open_blocks_of([block.opening])
    (ready,) = spool.ready()
    assert made_whole(spool, ready) != block.symbols.data
    spool.again(*block.key, is_wrong=True)
    gather(spool, block, list(range(30)))
    (ready,) = spool.ready()
    assert made_whole(spool, ready) == block.symbols.data
    spool.close()


# Anything, in any order, against a model in memory.

EXAMPLES = int(os.environ.get("DATACAST_EXAMPLES", "50"))
"""More of them, now and then: 3,000 take two minutes."""

TOIS = (1, 2, 3)
SIZES = (1, 2_000, 6 * SYMBOL_BYTES)
RING_SLOTS = 9
MODEL_QUOTA = 4 * RING_SLOTS * RING_SLOT
assert MODEL_QUOTA // SYMBOL_BYTES == 36


@dataclass
class Block:
    """What the model knows of an open block: its symbols by number, as (variant, is verified)."""

    size: int
    symbols: dict[int, tuple[int, bool]] = field(default_factory=dict)
    needed: int = 0
    is_ready: bool = False
    left: int = 0
    leaving: int = 0
    born: int = 0
    later: dict[int, int] = field(default_factory=dict)

    @property
    def source(self) -> int:
        return symbol_count(self.size)


@dataclass
class Entry:
    """A slot of the ring."""

    number: int
    session: int
    toi: int
    esi: int
    variant: int
    is_verified: bool
    is_there: bool = True


class SpoolMachine(RuleBasedStateMachine):
    """`BlockSpool` against dicts. Invariant: a mark is true, sums are right, and only what wasn't committed is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp(prefix="cuntong-spool-"))
        self.session, self.kept_session = SESSION, 0
        self.blocks: dict[int, Block] = {}
        self.kept: dict[int, Block] = {}
        self.closed: list[int] = []
        self.ring: list[Entry | None] = [None] * RING_SLOTS
        self.numbers = 0
        self.births = 0
        self.rows: object = None
        self.prepared: dict[int, Block] = {}

    @initialize()
    def open(self) -> None:
        self.spool = open_spool(self.folder, MODEL_QUOTA)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            abandon(self.spool)
        shutil.rmtree(self.folder)

    @property
    def used(self) -> int:
        return sum(len(block.symbols) for block in self.blocks.values())

    # What the daemon says.

    @rule(
        tois=st.lists(st.sampled_from(TOIS), min_size=1, unique=True), size=st.sampled_from(SIZES)
    )
    def open_blocks(self, tois: list[int], size: int) -> None:
        self.spool.open_blocks_of([(CHANNEL, toi, size) for toi in tois])
        fresh: set[int] = set()
        for toi in tois:
            known = self.blocks.get(toi)
            if known is not None and known.size == size:
                known.is_ready = known.is_ready or len(known.symbols) >= known.needed
                continue
            if known is not None:
                self._close(toi)
            self.births += 1
            self.blocks[toi] = Block(size, needed=symbol_count(size), born=self.births)
            fresh.add(toi)
        for is_verified in (True, False):
            for entry in self.ring:
                if (
                    entry is not None
                    and entry.is_there
                    and entry.session == self.session
                    and entry.toi in fresh
                    and entry.is_verified is is_verified
                ):
                    entry.is_there = False
                    self._keep(entry.toi, entry.esi, entry.variant, is_verified=is_verified)

    @rule(tois=st.lists(st.sampled_from(TOIS), min_size=1, unique=True))
    def close_blocks(self, tois: list[int]) -> None:
        self.spool.close_blocks([(CHANNEL, toi) for toi in tois])
        for toi in tois:
            self._close(toi)

    def _close(self, toi: int) -> None:
        if self.blocks.pop(toi, None) is not None:
            self.closed.append(toi)

    @rule(toi=st.sampled_from(TOIS), is_wrong=st.booleans())
    def again(self, toi: int, is_wrong: bool) -> None:
        self.spool.again(CHANNEL, toi, is_wrong=is_wrong)
        block = self.blocks.get(toi)
        if block is None:
            return
        block.is_ready = False
        if is_wrong:
            stay = {esi: it for esi, it in block.symbols.items() if it[1]}
            if len(stay) == len(block.symbols):
                stay = {}
            block.left += sum(
                esi >= block.source and block.symbols[esi][1]
                for esi in block.symbols.keys() - stay.keys()
            )
            block.symbols, block.needed = stay, block.source
        else:
            block.needed = max(block.needed, len(block.symbols)) + 1
        later, block.later = block.later, {}
        for esi, variant in later.items():
            self._keep(toi, esi, variant, is_verified=True)

    # What comes.

    @rule(
        toi=st.sampled_from(TOIS),
        first=st.integers(0, 14),
        count=st.integers(1, 6),
        variant=st.integers(0, 2),
    )
    def take(self, toi: int, first: int, count: int, variant: int) -> None:
        is_verified = variant == 0
        for esi in range(first, first + count):
            packet = packet_of(toi, esi, variant, session=self.session)
            block = self.blocks.get(toi)
            reason = self.spool.take(CHANNEL, toi, esi, packet, is_verified=is_verified)
            if block is None:
                assert reason is None
                self.ring[self.numbers % RING_SLOTS] = Entry(
                    self.numbers + 1, self.session, toi, esi, variant, is_verified
                )
                self.numbers += 1
            else:
                assert reason == self._keep(toi, esi, variant, is_verified=is_verified)

    def _keep(self, toi: int, esi: int, variant: int, *, is_verified: bool) -> str | None:
        block = self.blocks[toi]
        if block.is_ready:
            if is_verified:
                block.later[esi] = variant
            return "not-needed"
        if self.used * SYMBOL_BYTES >= MODEL_QUOTA:
            return "spool-full"
        known = block.symbols.get(esi)
        if known is not None and known[1] >= is_verified:
            return "duplicate"
        if esi >= block.source and known is None:
            if esi >= esi_limit(block.size):
                return "bad-symbol"
            repairs = [it for it in block.symbols if it >= block.source]
            # Places of verified ones that were dropped are kept until that is written down.
            if len(repairs) + block.left + block.leaving >= block.source:
                victims = [it for it in repairs if not block.symbols[it][1]]
                if not is_verified or not victims:
                    return "not-needed"
                del block.symbols[min(victims)]
        block.symbols[esi] = (variant, is_verified)
        block.is_ready = len(block.symbols) >= block.needed
        return None

    @rule(toi=st.sampled_from(TOIS), esi=st.integers(0, 19))
    def vouch(self, toi: int, esi: int) -> None:
        expected = digest(packet_of(toi, esi, session=self.session))
        is_vouched = self.spool.vouch(CHANNEL, toi, esi, expected)
        block = self.blocks.get(toi)
        known = None if block is None or block.is_ready else block.symbols.get(esi)
        if block is None or known is None or known[1]:
            assert not is_vouched
        elif known[0] == 0:
            assert is_vouched
            block.symbols[esi] = (0, True)
        else:
            assert not is_vouched
            # It is known to be forged now, so it doesn't count.
            del block.symbols[esi]

    @rule()
    def ready(self) -> None:
        for block in self.spool.ready():
            assert self.blocks[block.toi].is_ready
            assert self.spool.block(block.channel, block.toi) is block

    # Time goes by.

    @precondition(lambda self: self.rows is None)
    @rule()
    def prepare(self) -> None:
        self.rows = self.spool.prepare()
        for block in self.blocks.values():
            block.leaving, block.left = block.leaving + block.left, 0
        self.prepared = copy.deepcopy(self.blocks)

    @precondition(lambda self: self.rows is not None)
    @rule()
    def commit(self) -> None:
        self._commit()

    def _commit(self) -> None:
        self.spool.sync()
        self.spool.commit(self.rows)  # type: ignore[arg-type]
        for toi in self.closed:
            self.kept.pop(toi, None)
        for toi, block in self.prepared.items():
            if toi in self.blocks and self.blocks[toi].born == block.born:
                self.kept[toi] = block
                self.blocks[toi].leaving = 0
        self.closed, self.rows, self.prepared = [], None, {}
        self.kept_session = self.session

    @rule()
    def crash(self) -> None:
        abandon(self.spool)
        self._start()

    @rule()
    def end(self) -> None:
        if self.rows is not None:
            self._commit()
        self.spool.close()
        self.kept, self.kept_session = self.blocks, self.session
        self._start()

    def _start(self) -> None:
        self.spool = BlockSpool(self.folder, quota_bytes=MODEL_QUOTA)
        self.session = self.kept_session
        assert self.spool.session == self.session
        self.blocks, self.closed, self.rows = copy.deepcopy(self.kept), [], None
        for block in self.blocks.values():
            block.is_ready, block.needed, block.later = False, block.source, {}
            block.left = block.leaving = 0
        self.numbers = 0
        for entry in self.ring:
            if entry is not None and entry.session == self.session:
                entry.is_there = True
                self.numbers = max(self.numbers, entry.number)

    @rule()
    def new_session(self) -> None:
        self.spool.begin_session(self.session + 1)
        self.session += 1
        for toi in list(self.blocks):
            self._close(toi)
        self.ring = [None] * RING_SLOTS

    # What holds always.

    @invariant()
    def marks_are_true(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert_sound(self.spool)
        assert self.spool.keys() == {(CHANNEL, toi) for toi in self.blocks}
        for toi, block in self.blocks.items():
            opened = found(self.spool, toi)
            assert opened.size == block.size
            assert opened.is_ready is block.is_ready
            disk = on_disk(self.spool, toi)
            assert disk.keys() == block.symbols.keys()
            for esi, (variant, is_verified) in block.symbols.items():
                data, flag = disk[esi]
                assert flag == (VERIFIED if is_verified else UNVERIFIED)
                # After a crash an unverified one may be the verified one that came later, or none at all.
                assert data == symbol_of(toi, esi, variant) or flag == UNVERIFIED


def test_spool_does_what_a_model_in_memory_does() -> None:
    run_state_machine_as_test(
        SpoolMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_pending_symbols_have_a_limit() -> None:
    assert blockspool_module._PENDING * SYMBOL_BYTES < 1_000_000
