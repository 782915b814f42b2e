"""Who is believed of all that comes from the air (SPEC 11.4, 11.9): real packets, certificates and spools."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cuntong_daemon.datacast import intake as intake_module
from cuntong_daemon.pki.ca import NODE_LIFE
from cuntong_daemon.pki.certificates import KeyType, certificate_der, new_key
from cuntong_protocol.datacast.errors import DROP_REASONS
from cuntong_protocol.datacast.packets import (
    HEADER_BYTES,
    MAX_TOI,
    PACKET_BYTES,
    SYMBOL_BYTES,
    Channel,
    Segment,
    beacon_packet,
    digest,
    digest_packet,
    filler_packet,
    identity_packet,
    peek_beacon,
    read_header,
    symbol_packet,
)
from cuntong_protocol.divisions import NATION, Division
from tests.support.datacast import (
    PROVEN,
    SESSION,
    OnAir,
    Sender,
    Station,
    make_sender,
    needs_raptorq,
    on_air,
)
from tests.support.payloads import random_bytes
from tests.support.pki import DONGGUAN, GUANGDONG, NOW, VILLAGE, World, dns, forge_ca, forge_node

pytestmark = needs_raptorq

CONTENT = random_bytes(40_000, 1)
ALL = 40
"""More symbols than the block needs."""
VERIFIED, UNVERIFIED = 2, 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World("ed25519", tmp_path_factory.mktemp("world"))


@pytest.fixture
def sender(world: World) -> Sender:
    return make_sender(world)


@pytest.fixture
def station(world: World, tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "spool", anchor_of(world))
    yield station
    station.close()


@pytest.fixture
def block() -> OnAir:
    return on_air(CONTENT)


def anchor_of(world: World) -> x509.Certificate:
    return world.authorities[NATION].certificate


def forged(sender: Sender, block: OnAir, esi: int, seed: int = 9) -> bytes:
    """A packet that nobody could tell from a genuine one without its digest."""
    symbol = random.Random(f"forged {seed}").randbytes(SYMBOL_BYTES)
    return symbol_packet(sender.session, block.channel, block.toi, esi, symbol)


def flags(station: Station, block: OnAir) -> list[int]:
    """Of the source symbols."""
    found = station.spool.block(*block.key)
    assert found is not None
    return list(found.source)


# Senders that are believed.


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
@pytest.mark.parametrize("code", [NATION, GUANGDONG, DONGGUAN], ids=["nation", "province", "city"])
def test_block_is_gathered_of_whoever_has_proved_to_be_the_sender(
    tmp_path: Path, kind: KeyType, code: Division, block: OnAir
) -> None:
    world = World(kind, tmp_path / "world")
    sender = make_sender(world, code)
    station = Station(tmp_path / "spool", anchor_of(world), code)
    station.listen(sender)
    station.gather(block)
    station.feed_all(sender.packets([block], ALL))
    station.make()
    assert station.done == {block.key}
    assert station.intake.unverified == 0
    assert set(station.dropped) <= {"not-needed", "bad-signature"}
    station.close()


def test_sender_that_its_own_county_enrolled_is_believed(
    world: World, tmp_path: Path, block: OnAir
) -> None:
    """The chain of a node below an authority has that authority's CA, and those above it."""
    sender = make_sender(world, VILLAGE, issuer=DONGGUAN)
    station = Station(tmp_path / "spool", anchor_of(world), VILLAGE)
    station.listen(sender)
    assert station.intake.session == SESSION
    station.close()


def test_chain_is_understood_in_whatever_order_its_certificates_come(
    world: World, tmp_path: Path
) -> None:
    sender = make_sender(world, DONGGUAN)
    for order in ([2, 0, 1], [0, 2, 1], [1, 0, 2], [2, 1, 0]):
        station = Station(tmp_path / "".join(map(str, order)), anchor_of(world), DONGGUAN)
        for _ in range(len(sender.chain)):
            identities = sender.identities()
            station.feed_all(identities[number] for number in order)
            station.feed(sender.beacon())
            station.now += 1
        assert station.intake.session == SESSION
        station.close()


def test_nobody_is_believed_before_a_beacon_of_his(
    station: Station, sender: Sender, block: OnAir
) -> None:
    station.gather(block)
    packets = sender.packets([block], ALL)
    station.feed_all(packets)
    station.feed_all(sender.identities())
    station.feed_all(packets)
    assert station.dropped == {"other-session": 2 * len(packets)}
    assert station.intake.symbols == 0


def test_beacon_of_another_sender_with_a_good_chain_counts_for_nothing(
    world: World, station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    before = station.dropped
    other = make_sender(world, GUANGDONG, session=SESSION + 1)
    assert station.feed_all(other.hello() + other.hello()) == []
    # In the session of the real one, with its code, and with its key's name: it has another key all the same.
    other.session = SESSION
    assert station.feed_all([other.beacon(sender=str(NATION), number=500)]) == []
    assert (
        station.feed_all([other.beacon(sender=str(NATION), number=501, key=sender.spki[:8])]) == []
    )
    digests, *symbols = other.packets([block], 8)
    station.feed(digests)
    assert station.dropped - before == {"other-session": 2, "bad-signature": 3}
    station.feed_all(symbols)
    assert set(flags(station, block)) == {0, UNVERIFIED}
    assert station.intake.session == SESSION


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_chain_of_another_network_proves_nothing(
    station: Station, tmp_path: Path, kind: KeyType
) -> None:
    elsewhere = make_sender(World(kind, tmp_path / "elsewhere"))
    for _ in range(3):
        station.feed_all(elsewhere.hello())
    assert station.dropped == {"bad-signature": 3}
    assert station.intake.session == 0


def test_node_that_names_itself_a_ca_issues_no_senders(world: World, station: Station) -> None:
    """A village's key signs a certificate for the nation, and one for a CA; both are well formed."""
    village = make_sender(world, VILLAGE, issuer=DONGGUAN)
    key, ca_key = new_key(), new_key()
    leaf = forge_node(dns(NATION.dns_name), key, village.chain[0].subject, village.key)
    ca = forge_ca(GUANGDONG, ca_key, village.chain[0].subject, village.key)
    below = forge_node(dns(NATION.dns_name), key, ca.subject, ca_key, common_name=str(NATION))
    for chain in ([leaf, *village.chain], [below, ca, *village.chain]):
        forger = Sender(NATION, key, chain)
        for _ in range(len(chain) + 1):
            station.feed_all(forger.hello())
            station.now += 1
    assert station.intake.session == 0


def test_authority_issues_no_sender_outside_its_subtree(world: World, station: Station) -> None:
    """Guangdong's CA signs a certificate for the nation's code: its name constraint doesn't let it."""
    authority = world.authorities[GUANGDONG]
    key = new_key()
    leaf = forge_node(
        dns(NATION.dns_name), key, authority.certificate.subject, authority.key,
        common_name=str(NATION),
    )  # fmt: skip
    forger = Sender(NATION, key, [leaf, *authority.chain])
    for _ in range(3):
        station.feed_all(forger.hello())
        station.now += 1
    assert station.intake.session == 0


# Certificates that end, keys that go.


def test_certificate_ends_by_proven_time_and_by_no_clock(
    world: World, station: Station, block: OnAir
) -> None:
    """It has ended years ago by any clock, but nothing proves that so much time has passed."""
    sender = make_sender(world, now=NOW - NODE_LIFE - timedelta(days=1))
    end = sender.chain[0].not_valid_after_utc
    station.intake.judge(proven_time=end, removed=())
    station.listen(sender)
    station.gather(block)
    station.feed_all(sender.packets([block], 8))
    assert station.intake.symbols == 8
    station.intake.judge(proven_time=end + timedelta(seconds=1), removed=())
    before = station.dropped
    station.feed_all(sender.packets([block], 8, first=8))
    station.feed(sender.beacon())
    assert station.dropped - before == {"other-session": 9, "bad-signature": 1}
    assert station.intake.symbols == 8


def test_ca_that_has_ended_ends_its_senders(world: World, tmp_path: Path) -> None:
    sender = make_sender(world, DONGGUAN)
    station = Station(tmp_path / "spool", anchor_of(world), DONGGUAN)
    station.listen(sender)
    last = min(link.not_valid_after_utc for link in sender.chain)
    station.intake.judge(proven_time=last + timedelta(seconds=1), removed=())
    assert station.feed(sender.beacon()) is None
    station.close()


def test_removed_key_is_not_believed_any_more(
    station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    station.intake.judge(proven_time=PROVEN, removed=[sender.spki])
    before = station.dropped
    station.feed_all([*sender.packets([block], 8), *sender.hello()])
    assert station.dropped - before == {"other-session": 9, "bad-signature": 1}
    # It was a mistake of the members list, which is newer by now.
    station.intake.judge(proven_time=PROVEN, removed=())
    assert station.feed(sender.beacon()) is not None
    station.feed_all(sender.packets([block], 8))
    assert station.intake.symbols == 8


def test_sender_with_a_renewed_certificate_goes_on_when_the_old_one_ends(
    world: World, station: Station, sender: Sender
) -> None:
    """A renewal is for the same key (SPEC 5.1). The receiver has known the old certificate for months."""
    station.listen(sender)
    old_end = sender.chain[0].not_valid_after_utc
    renewed = make_sender(world, key=sender.key, now=NOW + timedelta(days=370))
    renewed.number = sender.number
    station.feed_all(renewed.hello())
    station.intake.judge(proven_time=old_end + timedelta(days=1), removed=())
    station.now += 1
    assert station.feed_all(renewed.hello()), "the renewed certificate isn't taken"


def test_older_certificate_does_not_replace_the_renewed_one(
    world: World, station: Station, sender: Sender
) -> None:
    """Anybody may repeat what was on the air last year."""
    renewed = make_sender(world, key=sender.key, now=NOW + timedelta(days=370))
    station.listen(renewed)
    station.feed_all(sender.identities())
    sender.number = renewed.number
    later = sender.chain[0].not_valid_after_utc + timedelta(days=1)
    station.intake.judge(proven_time=later, removed=())
    assert station.feed_all(renewed.hello())


def test_sender_that_gets_another_key_within_a_session_is_understood_at_once(
    world: World, station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    station.feed_all(sender.packets([block], 8))
    successor = make_sender(world)
    successor.number = sender.number
    station.feed_all(successor.hello())
    assert station.intake.session == SESSION
    before = station.dropped
    station.feed_all(successor.packets([block], 8, first=8))
    assert flags(station, block)[:16] == [VERIFIED] * 16
    # What the old key signs counts no more, though the key was never removed: it isn't on the air.
    station.feed_all(sender.packets([block], 8, first=16))
    assert station.dropped - before == {"bad-signature": 1}
    assert flags(station, block)[16:24] == [UNVERIFIED] * 8


# Sessions and numbers.


def test_repeated_and_older_beacons_are_refused(station: Station, sender: Sender) -> None:
    station.listen(sender)
    before = station.dropped
    first, second, third = sender.beacon(), sender.beacon(), sender.beacon()
    heard = station.feed_all([second, first, second, third, second, third])
    assert [beacon.number for beacon in heard] == [
        peek_beacon(packet).number for packet in (second, third)
    ]
    assert station.dropped - before == {"replayed": 4}


def test_new_session_counts_at_once_and_the_old_one_no_more(
    world: World, station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    recorded = [*sender.hello(), *sender.packets([block], ALL)]
    station.feed_all(recorded[: 2 * len(recorded) // 3])
    later = make_sender(world, session=SESSION + 1)
    station.listen(later)
    assert station.intake.session == SESSION + 1
    assert station.spool.open_blocks == 0, "blocks of the old session are of no use"
    # The same numbers stand for something else now.
    other = on_air(random_bytes(40_000, 2))
    station.gather(other)
    before = station.dropped
    station.feed_all([*recorded, *sender.hello()])
    digests = sum(read_header(packet).codepoint == 128 for packet in recorded)
    assert station.dropped - before == {"replayed": 2, "other-session": digests + ALL}
    assert station.intake.session == SESSION + 1
    station.feed_all(later.packets([other], ALL))
    station.make()
    assert station.done == {other.key}
    assert station.wrong == 0


def test_recorded_session_that_is_repeated_while_it_runs_does_no_harm(
    station: Station, sender: Sender, block: OnAir
) -> None:
    """Everything in it is genuine, so it counts once."""
    second = on_air(random_bytes(60_000, 3), toi=6)
    station.listen(sender)
    station.gather(block, second)
    recorded = [*sender.hello(), *sender.packets([block, second], 20)]
    for _ in range(3):
        station.feed_all(recorded)
    for copy in station.spool.block(*block.key), station.spool.block(*second.key):
        assert copy is not None
        assert copy.count == 20
    assert station.spool.used_bytes == 40 * SYMBOL_BYTES
    assert station.dropped["duplicate"] == 2 * 40
    assert station.dropped["replayed"] == 2
    station.feed_all(sender.packets([block, second], 40, first=20))
    station.make()
    assert station.done == {block.key, second.key}
    assert station.wrong == 0
    assert station.spool.used_bytes == 0


def test_beacons_from_before_the_restart_are_refused_after_it(
    station: Station, sender: Sender
) -> None:
    station.listen(sender)
    recorded = [sender.beacon() for _ in range(5)]
    station.feed_all(recorded)
    station.commit()
    station.crash()
    station.feed_all(sender.identities())
    assert station.feed_all(recorded) == []
    assert station.dropped == {"replayed": 5}
    assert station.feed(sender.beacon()) is not None


def test_old_session_is_refused_after_a_restart_too(
    world: World, station: Station, sender: Sender
) -> None:
    station.listen(sender)
    later = make_sender(world, session=SESSION + 1)
    station.listen(later)
    station.commit()
    station.crash()
    for _ in range(3):
        assert station.feed_all(sender.hello()) == []
        station.now += 1
    assert station.dropped["replayed"] == 3
    assert station.feed_all(later.hello())


# Forgers.


def test_forged_symbol_is_told_by_its_digest_and_the_genuine_one_still_counts(
    station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    before = station.dropped
    digests, *symbols = sender.packets([block], 8)
    station.feed(digests)
    for esi in range(8):
        station.feed_all(forged(sender, block, esi, seed) for seed in range(5))
    station.feed_all(symbols)
    assert station.dropped - before == {"forged": 40}
    assert flags(station, block)[:8] == [VERIFIED] * 8


def test_forged_symbols_without_a_digest_spoil_no_block(
    station: Station, sender: Sender, block: OnAir
) -> None:
    """They come first, for numbers whose digests are lost: the block comes out wrong once, then right."""
    station.listen(sender)
    station.gather(block)
    _, *symbols = sender.packets([block], 8)
    station.feed_all(forged(sender, block, esi) for esi in range(8))
    station.feed_all(symbols)
    station.feed_all(sender.packets([block], 50, first=8))
    station.make()
    assert (station.wrong, station.done) == (1, set())
    station.feed_all(sender.packets([block], 8, first=58))
    station.make()
    assert (station.wrong, station.done) == (1, {block.key})


def test_digests_that_come_after_their_symbols_vouch_for_them(
    station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    digests, *symbols = sender.packets([block], 28)
    station.feed_all(symbols)
    assert flags(station, block)[:28] == [UNVERIFIED] * 28
    station.feed(digests)
    assert flags(station, block)[:28] == [VERIFIED] * 28
    assert station.intake.vouched == 28
    assert station.intake.unverified == 28


def test_repair_symbols_are_vouched_for_too(station: Station, sender: Sender, block: OnAir) -> None:
    station.listen(sender)
    station.gather(block)
    digests, *symbols = sender.packets([block], 20, first=30)
    station.feed_all(symbols)
    station.feed(digests)
    found = station.spool.block(*block.key)
    assert found is not None
    assert set(found.flags) == {VERIFIED}


def test_symbol_that_a_digest_disproves_afterwards_counts_no_more(
    station: Station, sender: Sender, block: OnAir
) -> None:
    """Otherwise it would take the place of one that is needed, and spoil the unverified ones beside it."""
    station.listen(sender)
    station.gather(block)
    station.feed_all(forged(sender, block, esi) for esi in (0, 1, 30, 31))
    station.feed(sender.packets([block], 2)[0])
    station.feed(sender.packets([block], 2, first=30)[0])
    found = station.spool.block(*block.key)
    assert found is not None
    assert found.count == 0
    assert station.spool.used_bytes == 0
    station.feed_all(sender.packets([block], 31, first=2))
    station.make()
    assert (station.wrong, station.done) == (0, {block.key})


def test_genuine_symbol_replaces_the_forged_one_that_came_before_its_digest(
    station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    digests, *symbols = sender.packets([block], 30)
    station.feed_all(forged(sender, block, esi) for esi in (0, 7, 29))
    station.feed(digests)
    station.feed_all(symbols)
    station.make()
    assert (station.wrong, station.done) == (0, {block.key})


def test_digests_of_another_session_or_key_vouch_for_nothing(
    world: World, station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    digests, *symbols = sender.packets([block], 8)
    stranger = make_sender(world)
    forged_digests = stranger.packets([block], 8)[0]
    other_session = Sender(NATION, sender.key, sender.chain, SESSION + 5).packets([block], 8)[0]
    spoilt = bytearray(digests)
    spoilt[HEADER_BYTES + 30] ^= 1
    before = station.dropped
    station.feed_all([forged_digests, other_session, bytes(spoilt)])
    assert station.dropped - before == {"bad-signature": 2, "other-session": 1}
    station.feed_all(symbols)
    assert flags(station, block)[:8] == [UNVERIFIED] * 8


# Floods.


def junk_certificates(code: Division, count: int) -> list[bytes]:
    """Well-formed certificates for the sender's code, in the names of its CAs, signed by nobody."""
    key, stranger = new_key(), new_key()
    issuers = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA 440000000000")])]
    issuers.append(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"CA {NATION}")]))
    found: list[bytes] = []
    for number in range(count):
        issuer = issuers[number % 2]
        if number % 4 < 2:
            certificate = forge_node(
                dns(code.dns_name), key, issuer, stranger, common_name=str(code)
            )
        else:
            certificate = forge_ca(GUANGDONG, key, issuer, stranger)
        found.append(identity_packet(SESSION, certificate_der(certificate)))
    return found


def test_sender_is_understood_amid_a_flood_of_certificates(world: World, tmp_path: Path) -> None:
    """Two hundred each second: the chain is found among them, and each beacon after that counts."""
    sender = make_sender(world, GUANGDONG)
    station = Station(tmp_path / "spool", anchor_of(world), GUANGDONG)
    junk = junk_certificates(GUANGDONG, 800)
    chance = random.Random(5)
    heard: list[int] = []
    for second in range(30):
        genuine = chance.randrange(200)
        for number, packet in enumerate(junk[second % 4 * 200 :][:200]):
            station.now = 1000 + second + number / 200
            if number == genuine:
                heard += [second] * len(station.feed_all(sender.hello()))
            station.feed(packet)
    assert heard, "the sender is never believed"
    assert heard[0] < 20
    assert heard == list(range(heard[0], 30))
    station.close()


def test_forged_beacons_do_not_keep_the_genuine_ones_out(station: Station, sender: Sender) -> None:
    """They name the sender's key and a number that is new; whoever sends them has heard the sender."""
    station.listen(sender)
    heard = 0
    for second in range(10):
        station.now = 2000.0 + second
        forgeries = [sender.beacon() for _ in range(128)]
        station.feed_all(packet[:-1] + bytes([packet[-1] ^ 1]) for packet in forgeries)
        heard += len(station.feed_all([sender.beacon()]))
    assert heard == 10


def test_flood_of_certificates_costs_few_signature_checks(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate is checked against its issuer, and not every one against every other."""
    checks = 0
    issued: Callable[[x509.Certificate, x509.Certificate], bool] = intake_module._issued

    def counted(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        nonlocal checks
        checks += certificate.issuer == issuer.subject  # Otherwise it costs nothing.
        return issued(certificate, issuer)

    monkeypatch.setattr(intake_module, "_issued", counted)
    station = Station(tmp_path / "spool", anchor_of(world), GUANGDONG)
    station.listen(make_sender(world, GUANGDONG))
    checks = 0
    junk = junk_certificates(GUANGDONG, 200)
    for number, packet in enumerate(junk):
        station.now = 3000 + number / 10
        station.feed(packet)
    assert checks <= 2 * len(junk)
    station.close()


def test_digests_that_are_waited_for_have_a_limit(station: Station, sender: Sender) -> None:
    station.listen(sender)
    for number in range(600):
        segment = Segment(Channel.CONTENT, 5, number * 64, (b"d" * len(digest(b"")),) * 64)
        station.feed(digest_packet(SESSION, [segment], sender.sign))
    assert len(station.intake._digests) <= intake_module.KNOWN_DIGESTS * 64
    assert len(station.intake._digest_order) <= intake_module.KNOWN_DIGESTS


def test_symbols_of_unknown_blocks_take_no_more_than_the_ring(
    world: World, sender: Sender, tmp_path: Path
) -> None:
    station = Station(tmp_path / "spool", anchor_of(world), quota=400_000)
    station.listen(sender)
    chance = random.Random(3)
    for _ in range(1000):
        toi = chance.randrange(MAX_TOI + 1)
        packet = symbol_packet(
            SESSION, Channel.CONTENT, toi, chance.randrange(1 << 24), bytes(SYMBOL_BYTES)
        )
        station.feed(packet)
    assert (tmp_path / "spool" / "ring").stat().st_size <= 100_000
    assert station.intake.symbols == 1000
    assert station.spool.used_bytes == 0
    station.close()


# Whatever the bytes.


def kinds(sender: Sender, block: OnAir) -> dict[str, bytes]:
    digests, symbol = sender.packets([block], 1)
    return {
        "identity": sender.identities()[0],
        "beacon": sender.beacon(),
        "digests": digests,
        "symbol": symbol,
        "filler": filler_packet(sender.session),
    }


@pytest.mark.parametrize("name", ["identity", "beacon", "digests", "symbol", "filler"])
def test_cut_packet_is_counted_and_nothing_else(
    station: Station, sender: Sender, block: OnAir, name: str
) -> None:
    station.listen(sender)
    station.gather(block)
    packet = kinds(sender, block)[name]
    before = station.dropped.total() + station.intake.fillers
    for size in range(len(packet)):
        station.now += 1
        assert station.feed(packet[:size]) is None
    counted = station.dropped.total() + station.intake.fillers - before
    assert counted == len(packet)
    assert station.dropped["truncated"] >= HEADER_BYTES
    assert station.intake.symbols == 0
    assert station.feed(packet) is not None or name != "beacon"


@pytest.mark.parametrize("name", ["identity", "beacon", "digests", "symbol", "filler"])
def test_packet_that_is_too_long_is_counted_and_nothing_else(
    station: Station, sender: Sender, block: OnAir, name: str
) -> None:
    station.listen(sender)
    station.gather(block)
    packet = kinds(sender, block)[name]
    before = station.dropped
    for size in (PACKET_BYTES + 1, PACKET_BYTES + 2, 2000, 65_507):
        assert station.feed(packet.ljust(size, b"\0")) is None
    assert station.dropped - before == {"oversized": 4}


@pytest.mark.parametrize("name", ["identity", "beacon", "digests", "symbol", "filler"])
def test_packet_of_another_version_is_counted_and_nothing_else(
    station: Station, sender: Sender, block: OnAir, name: str
) -> None:
    station.listen(sender)
    packet = kinds(sender, block)[name]
    before = station.dropped
    for version in (0, 2, 15):
        station.feed(bytes([version << 4 | packet[0] & 15]) + packet[1:])
    assert station.dropped - before == {"wrong-version": 3}


def test_beacon_of_a_later_wire_version_is_counted_as_that(
    station: Station, sender: Sender
) -> None:
    station.listen(sender)
    before = station.dropped
    assert station.feed(sender.beacon(v=2)) is None
    assert station.feed(sender.beacon(symbol_bytes=1280)) is None
    assert station.dropped - before == {"wrong-version": 2}


def test_every_drop_has_a_reason_that_is_specified(
    station: Station, sender: Sender, block: OnAir
) -> None:
    station.listen(sender)
    station.gather(block)
    packets = list(kinds(sender, block).values())
    chance = random.Random(11)
    for _ in range(3000):
        packet = bytearray(chance.choice(packets))
        packet[chance.randrange(24)] ^= 1 << chance.randrange(8)
        station.now += 0.1
        station.feed(bytes(packet))
    assert set(station.dropped) <= set(DROP_REASONS)
    assert station.dropped["malformed"]


def spoilt_certificates(certificate: x509.Certificate) -> Iterator[tuple[str, bytes]]:
    """Well-formed DER that says what certificates here never say."""
    der = certificate_der(certificate)

    def swapped(old: str, new: str) -> bytes:
        before, after = bytes.fromhex(old), bytes.fromhex(new)
        assert len(before) == len(after)
        assert before in der
        return der.replace(before, after)

    yield "two subject key identifiers", swapped("0603551d23", "0603551d0e")
    yield "a public key of an unknown kind", swapped("06032b6570", "06032b657f")
    yield "a name of an unsupported kind", _other_name(der)
    yield "no extension that is known", swapped("0603551d", "0603551e")


def _other_name(der: bytes) -> bytes:
    """The name in the subject's alternative name becomes an x400Address."""
    at = der.index(bytes.fromhex("0603551d11"))
    at = der.index(b"\x82", at)
    return der[:at] + b"\xa3" + der[at + 1 :]


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_strange_certificates_do_not_end_the_reader(tmp_path: Path, kind: KeyType) -> None:
    """Anybody can send them: the signature is looked at last."""
    world = World(kind, tmp_path / "world")
    sender = make_sender(world)
    station = Station(tmp_path / "spool", anchor_of(world))
    if kind == "ed25519":
        strange = dict(spoilt_certificates(sender.chain[0]))
    else:
        der = certificate_der(sender.chain[0])
        curve = bytes.fromhex("06082a8648ce3d030107")
        strange = {
            "an unknown curve": der.replace(curve, curve[:-1] + b"\x7f"),
            "an unknown signature": der.replace(
                bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
            ),
            "an unsupported name": _other_name(der),
        }
    for name, der in strange.items():
        station.feed(identity_packet(SESSION, der))
        assert station.dropped["malformed"] >= 1, name
    station.listen(sender)
    station.close()


@pytest.mark.filterwarnings(
    "ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning"
)
def test_certificates_with_any_byte_changed_do_not_end_the_reader(
    world: World, station: Station
) -> None:
    """Each of their bytes; the first certificates of a chain are read before anything is proven."""
    sender = make_sender(world, DONGGUAN)
    chance = random.Random(17)
    for link in sender.chain[:2]:
        der = bytearray(certificate_der(link))
        for at in range(len(der)):
            old = der[at]
            der[at] = chance.choice((0, 0x30, 0x82, 0xA3, 0xFF, old ^ 1, old ^ 0x80))
            station.now += 1
            station.feed(identity_packet(SESSION, bytes(der)))
            der[at] = old
    assert not station.intake._senders


def test_beacon_with_numbers_at_their_limits_does_not_end_the_reader(
    world: World, station: Station, sender: Sender
) -> None:
    station.listen(sender)
    assert station.feed(sender.beacon(number=(1 << 53) - 1, time=1 << 40)) is not None
    station.commit()
    station.crash()
    station.feed_all(sender.identities())
    station.now += 1
    assert station.feed(sender.beacon(number=1 << 53)) is not None
    last = make_sender(world, session=(1 << 28) - 1)
    station.listen(last)
    assert station.intake.session == (1 << 28) - 1


def test_beacon_is_proven_for_its_own_session_only(station: Station, sender: Sender) -> None:
    """The session stands in the header; it is signed with the rest."""
    station.listen(sender)
    packet = sender.beacon()
    moved = beacon_packet(SESSION + 1, peek_beacon(packet), lambda _: packet[-64:])
    assert station.feed(moved) is None
    assert station.intake.session == SESSION


def test_digest_names_every_byte_of_its_packet(
    station: Station, sender: Sender, block: OnAir
) -> None:
    """A genuine symbol that is sent under another number or for another block doesn't count as verified."""
    second = on_air(random_bytes(40_000, 8), toi=6)
    station.listen(sender)
    station.gather(block, second)
    for packet in sender.group((block, 0, 8), (second, 0, 8))[:1]:
        station.feed(packet)
    before = station.dropped
    for esi in range(1, 8):
        station.feed(symbol_packet(SESSION, block.channel, block.toi, esi, block.symbols[0]))
        station.feed(symbol_packet(SESSION, second.channel, second.toi, esi, block.symbols[esi]))
    assert station.dropped - before == {"forged": 14}
