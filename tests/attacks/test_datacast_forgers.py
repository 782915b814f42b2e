"""Forgers: one packet in a hundred is theirs, with the right session, a TOI that is gathered and a number that may be.

Invariant: no wrong bytes are ever taken for a block, and every block is complete after at most 5 % more symbols than it
would have needed without them, whether packets are lost or not.

The forgers are as good as they can be without the sender's key: they know which digests a receiver has lost, they come before the
genuine symbols, or they use numbers that aren't sent for a long time. A block that decodes to wrong bytes is judged only after
a while (`LAG`), in which the receiver takes nothing of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cuntong_daemon.datacast.blockspool import OpenBlock
from cuntong_protocol.datacast.blocks import BLOCK_BYTES, esi_limit, pass_length
from cuntong_protocol.datacast.packets import (
    SYMBOL_BYTES,
    Symbol,
    digest_packet,
    read_symbol,
    symbol_packet,
)
from cuntong_protocol.divisions import NATION
from tests.support.datacast import OnAir, Sender, Station, make_sender, needs_raptorq, on_air
from tests.support.payloads import random_bytes
from tests.support.pki import World

pytestmark = needs_raptorq

PART = 0.01
LAG = 36
"""Packets until the daemon has judged a block: 20 ms at 20 Mbit/s."""
LATER = 0.05
BLOCKS = 4
SEEDS = (1, 2, 3)

Forge = Callable[["Ear", Sequence[Symbol], bool, int], list[Symbol]]
"""Given the symbols that come next, whether their digests are lost for this receiver, and how many may be forged: which are."""


@dataclass
class Cast:
    """What is on the air."""

    world: World
    sender: Sender
    blocks: list[OnAir]
    groups: list[list[bytes]]


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    world = World("ed25519", tmp_path_factory.mktemp("world"))
    sender = make_sender(world)
    blocks = [on_air(random_bytes(BLOCK_BYTES, seed), toi=5 + seed) for seed in range(BLOCKS)]
    count = round(blocks[0].symbols.source * 1.2)
    return Cast(world, sender, blocks, list(sender.groups(blocks, count)))


@dataclass
class Ear:
    """A receiver that loses packets, and those who know it well."""

    cast: Cast
    station: Station
    chance: random.Random
    saved: int = 0

    def forged(self, at: Symbol) -> bytes:
        symbol = self.chance.randbytes(SYMBOL_BYTES)
        return symbol_packet(self.cast.sender.session, at.channel, at.toi, at.esi, symbol)


def somewhere_in_the_pass(ear: Ear, _: Sequence[Symbol], __: bool, count: int) -> list[Symbol]:
    return [
        Symbol(block.channel, block.toi, ear.chance.randrange(pass_length(block.size)))
        for block in ear.chance.choices(ear.cast.blocks, k=count)
    ]


def in_a_later_pass(ear: Ear, _: Sequence[Symbol], __: bool, count: int) -> list[Symbol]:
    return [
        Symbol(
            block.channel,
            block.toi,
            ear.chance.randrange(2 * pass_length(block.size), esi_limit(block.size)),
        )
        for block in ear.chance.choices(ear.cast.blocks, k=count)
    ]


def just_before_the_genuine(
    ear: Ear, coming: Sequence[Symbol], _: bool, count: int
) -> list[Symbol]:
    return ear.chance.sample(coming, min(count, len(coming)))


def where_digests_are_lost(
    ear: Ear, coming: Sequence[Symbol], is_lost: bool, count: int
) -> list[Symbol]:
    ear.saved += count
    if not is_lost:
        return []
    aims = ear.chance.sample(coming, min(ear.saved, len(coming)))
    ear.saved -= len(aims)
    return aims


def symbols_needed(cast: Cast, folder: Path, loss: float, seed: int, forge: Forge | None) -> int:
    """How many genuine packets were sent until every block was right."""
    station = Station(folder, cast.world.authorities[NATION].certificate)
    station.listen(cast.sender)
    station.gather(*cast.blocks)
    losses, ear = random.Random(seed), Ear(cast, station, random.Random(seed + 100))
    judged: list[tuple[int, OpenBlock]] = []
    sent, owed = 0, 0.0
    for group in packets_for_ever(cast):
        lost = [losses.random() < loss for _ in group]
        owed += PART * len(group)
        if forge is not None:
            coming = [read_symbol(packet) for packet in group[1:]]
            for at in forge(ear, coming, lost[0], int(owed)):
                station.feed(ear.forged(at))
        owed -= int(owed)
        for packet, is_lost in zip(group, lost, strict=True):
            sent += 1
            if not is_lost:
                station.feed(packet)
            judged += [(sent + LAG, block) for block in station.spool.ready()]
            while judged and judged[0][0] <= sent:
                station.judge(judged.pop(0)[1])
        if len(station.done) == len(cast.blocks):
            break
    assert station.done == {block.key for block in cast.blocks}
    assert station.spool.used_bytes == 0, "forged symbols still take room"
    if forge is None:
        assert station.wrong == 0
    station.close()
    return sent


def packets_for_ever(cast: Cast) -> Iterator[list[bytes]]:
    yield from cast.groups
    raise AssertionError("it takes far too long")


@pytest.fixture(scope="module")
def usual(cast: Cast, tmp_path_factory: pytest.TempPathFactory) -> dict[float, int]:
    """Without forgers, by loss."""
    folder = tmp_path_factory.mktemp("usual")
    return {
        loss: sum(
            symbols_needed(cast, folder / f"{loss}-{seed}", loss, seed, None) for seed in SEEDS
        )
        for loss in (0.0, 0.05)
    }


@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize(
    "forge",
    [
        somewhere_in_the_pass,
        in_a_later_pass,
        just_before_the_genuine,
        where_digests_are_lost,
    ],
)
def test_forgers_spoil_no_block_and_hold_none_up(
    cast: Cast, usual: dict[float, int], tmp_path: Path, forge: Forge, loss: float
) -> None:
    needed = sum(symbols_needed(cast, tmp_path / str(seed), loss, seed, forge) for seed in SEEDS)
    later = needed / usual[loss] - 1
    print(f"{forge.__name__}, {loss:.0%} lost: {later:+.2%}")
    assert later <= LATER


def test_block_is_right_though_every_packet_was_forged_before_it_came(
    cast: Cast, tmp_path: Path
) -> None:
    """Not one in a hundred but each, all before their digests: the block is late, and right."""
    block = cast.blocks[0]
    station = Station(tmp_path, cast.world.authorities[NATION].certificate)
    station.listen(cast.sender)
    station.gather(block)
    ear = Ear(cast, station, random.Random(1))
    for group in cast.sender.groups([block], 2 * block.symbols.source):
        for packet in group[1:]:
            station.feed(ear.forged(read_symbol(packet)))
        station.feed_all(group)
        station.make()
        if station.done:
            break
    assert station.done == {block.key}
    assert station.spool.used_bytes == 0
    station.close()


def test_forged_digests_vouch_for_no_forged_symbols(cast: Cast, tmp_path: Path) -> None:
    """Whole groups, signed with another key."""
    block = cast.blocks[0]
    station = Station(tmp_path, cast.world.authorities[NATION].certificate)
    station.listen(cast.sender)
    station.gather(block)
    forger = make_sender(cast.world)
    fake = on_air(random_bytes(BLOCK_BYTES, 66), block.toi, block.channel)
    for genuine, forged in zip(
        cast.sender.groups([block], block.symbols.source + 64),
        forger.groups([fake], block.symbols.source + 64),
        strict=True,
    ):
        station.feed(forged[0])
        station.feed_all(genuine)
        station.feed_all(forged[1:])
        station.make()
    assert station.done == {block.key}
    assert station.wrong == 0
    assert station.dropped["bad-signature"] > 40
    station.close()


def test_digests_are_not_taken_from_one_session_into_another(cast: Cast, tmp_path: Path) -> None:
    """The same segments under the same key, in another session's packet."""
    block = cast.blocks[0]
    station = Station(tmp_path, cast.world.authorities[NATION].certificate)
    station.listen(cast.sender)
    station.gather(block)
    old = Sender(NATION, cast.sender.key, cast.sender.chain, session=cast.sender.session - 1)
    digests, *symbols = old.group((block, 0, 32))
    moved = digest_packet(cast.sender.session, [], lambda _: digests[-64:])[:16] + digests[16:]
    station.feed_all([digests, moved, *symbols])
    assert station.dropped["other-session"] == 33
    assert station.dropped["bad-signature"] >= 1
    found = station.spool.block(*block.key)
    assert found is not None
    assert found.count == 0
    station.close()
