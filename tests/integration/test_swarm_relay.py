"""A village's relay between two real engines on loopback: pace, pause, and who gets through."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from cuntong_daemon.services import running
from cuntong_daemon.store.torrents import payload_folder
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_daemon.swarm.events import SwarmError, TorrentState
from cuntong_daemon.swarm.relay import INSIDE, Order, Relay
from cuntong_daemon.swarm.relay.downlink import Downlink
from cuntong_daemon.swarm.relay.utp import (
    Kind,
    acknowledged_by,
    kind_of,
)
from cuntong_protocol.divisions import Tier
from tests.support.payloads import read_files, some_files, torrent_of, write_payload

from .test_swarm_engine import NETWORKS, DataPaths, completed, make_engine, seeding, until


@contextmanager
def relay(host: str) -> Iterator[tuple[Relay, list[int], socket.socket]]:
    """A relay before a socket that stands for libtorrent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        inside.bind((INSIDE, 0))
        inside.settimeout(5)
        made = Relay(NETWORKS)
        try:
            yield made, made.open(host, (0, 0), [inside.getsockname()] * 2), inside
        finally:
            made.close()


def test_each_peer_outside_is_a_port_inside_and_answers_find_it() -> None:
    with (
        relay("127.0.78.1") as (made, ports, inside),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        seen = []
        for number, peer in enumerate((one, two)):
            peer.bind((f"127.0.78.{number + 2}", 0))
            peer.settimeout(5)
            peer.sendto(b"hello", ("127.0.78.1", ports[0]))
            data, sender = inside.recvfrom(2048)
            assert data == b"hello"
            assert made.outside_of(sender[1]) == peer.getsockname()
            inside.sendto(b"answer", sender)
            assert peer.recvfrom(2048) == (b"answer", ("127.0.78.1", ports[0]))
            seen.append(sender)
        assert seen[0] != seen[1]
        assert made.inside_of(one.getsockname(), is_closed=False) == seen[0]
        assert made.inside_of(one.getsockname(), is_closed=True) != seen[0]
        assert made.inside_of(("192.0.2.1", 6881), is_closed=False) is None


def test_a_stranger_is_not_let_in() -> None:
    networks = NETWORKS[0].subnets(new_prefix=24)
    only = next(network for network in networks if str(network).startswith("127.0.79."))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member,
    ):
        inside.bind((INSIDE, 0))
        inside.settimeout(5)
        stranger.bind(("127.0.80.1", 0))
        member.bind(("127.0.79.9", 0))
        made = Relay([only])
        ports = made.open("127.0.79.1", (0, 0), [inside.getsockname()] * 2)
        try:
            stranger.sendto(b"let me in", ("127.0.79.1", ports[0]))
            member.sendto(b"me", ("127.0.79.1", ports[0]))
            assert inside.recv(2048) == b"me"
        finally:
            made.close()


def test_a_flood_of_addresses_makes_room_and_no_crash() -> None:
    with relay("127.0.81.1") as (made, ports, inside):
        for number in range(200):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.81.2", 0))
                peer.sendto(bytes([number]), ("127.0.81.1", ports[number % 2]))
                assert inside.recv(2048) == bytes([number])
        assert len(made._peers) <= 128


def test_a_port_taken_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.82.1", 0))
        made = Relay(NETWORKS)
        with pytest.raises(SwarmError) as caught:
            made.open("127.0.82.1", (taken.getsockname()[1], 0), [(INSIDE, 9)] * 2)
        assert caught.value.code == "swarm.cannot-listen"


def utp(kind: Kind, acknowledged: int, payload: bytes = b"") -> bytes:
    header = bytes([kind << 4 | 1, 0]) + (77).to_bytes(2, "big")
    return header + bytes(14) + acknowledged.to_bytes(2, "big") + payload


def test_data_that_waits_for_the_uplink_is_not_dropped_for_an_old_acknowledgement() -> None:
    """libtorrent drops data whose acknowledgement is more than 3 packets older than one before: requests were lost."""
    with (
        relay("127.0.85.1") as (made, ports, inside),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        made.set_order(Order(cap_up_bytes_s=5_000))
        peer.bind(("127.0.85.2", 0))
        peer.settimeout(5)
        peer.sendto(b"hello", ("127.0.85.1", ports[0]))
        _, sender = inside.recvfrom(2048)
        while made.status.reason is None:  # The order is taken with the first look at the link.
            peer.sendto(b"hello", ("127.0.85.1", ports[0]))
            inside.recv(2048)
        for _ in range(2):
            inside.sendto(utp(Kind.DATA, 65_530, bytes(1000)), sender)
        for number in range(65_531, 65_541):
            inside.sendto(utp(Kind.STATE, number % 65_536), sender)
        came = [peer.recv(2048) for _ in range(12)]
        order = [kind_of(packet) for packet in came]
        assert order[-1] is Kind.DATA, "the second piece of data waited for its turn"
        assert [acknowledged_by(packet) for packet in came][-1] == 65_540 % 65_536
        again = utp(Kind.SYN, 0)
        inside.sendto(again[:2] + (76).to_bytes(2, "big") + again[4:], sender)
        assert acknowledged_by(peer.recv(2048)) == 0
        inside.sendto(utp(Kind.STATE, 65_000), sender)
        assert acknowledged_by(peer.recv(2048)) == 65_000, "a new connection begins anew"


async def test_a_relay_that_fails_ends_the_service_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the place would look well, and never get anything again."""

    def fail(*_arguments: object) -> float:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Downlink, "due", fail)
    engine = make_engine(tmp_path, Tier.VILLAGE)
    with (
        trio.fail_after(10),
        pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="ours"), flatten_subgroups=True),
    ):
        async with running(engine):
            await trio.sleep_forever()


@pytest.mark.parametrize("host", ["127.0.83.1", "::1"])
async def test_a_cap_is_kept_to_the_packet(tmp_path: Path, host: str) -> None:
    files = some_files(1_000_000)
    torrent = torrent_of(files)
    networks = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
    seed = SwarmEngine(
        DataPaths(tmp_path / "a"),
        listen=f"[{host}]:0" if ":" in host else f"{host}:0",
        networks=networks,
        down_bytes_s=0,
        up_bytes_s=0,
        tier=Tier.COUNTY,
    )
    write_payload(DataPaths(tmp_path / "a"), torrent, files)
    child = SwarmEngine(
        DataPaths(tmp_path / "b"),
        listen="[::1]:0" if ":" in host else "127.0.83.2:0",
        networks=networks,
        down_bytes_s=50_000,
        up_bytes_s=0,
        tier=Tier.VILLAGE,
    )
    async with running(seed) as county, running(child) as village:
        await county.add(torrent)
        await completed(county, torrent)
        await village.add(torrent)
        village.connect_peers(torrent.infohash, [county.address])
        await until(lambda: village.relay is not None and village.relay.down_bytes_s > 30_000)
        start, before = trio.current_time(), await village.count()
        await trio.sleep(4)
        after = await village.count()
        rate = (after.down_wire - before.down_wire) / (trio.current_time() - start)
        # Blocks that came are counted when they are whole.
        assert rate < 50_000 * 1.25
        village.set_limits(down_bytes_s=0, up_bytes_s=0)
        await completed(village, torrent)
        assert read_files(payload_folder(DataPaths(tmp_path / "b"), torrent)) == files


@pytest.mark.parametrize("tier", [Tier.VILLAGE, Tier.COUNTY])
async def test_a_paused_place_moves_nothing_and_goes_on_afterwards(
    tmp_path: Path, tier: Tier
) -> None:
    files = some_files(1_000_000)
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        running(make_engine(tmp_path / "b", tier, down=100_000)) as child,
    ):
        await child.add(torrent)
        child.connect_peers(torrent.infohash, [county.address])
        await until(lambda: child.statuses()[torrent.infohash].bytes_done > 0)
        child.pause()
        await trio.sleep(2)  # By then it has to stand still.
        before = await child.count()
        await trio.sleep(2)
        after = await child.count()
        assert after.down_wire - before.down_wire < 5_000
        assert child.statuses()[torrent.infohash].state is not TorrentState.COMPLETE
        child.resume()
        child.set_limits(down_bytes_s=0, up_bytes_s=0)
        await completed(child, torrent)


async def test_a_parent_s_limit_for_one_child_leaves_the_other_alone(tmp_path: Path) -> None:
    files = some_files(2_000_000)
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        running(make_engine(tmp_path / "b")) as limited,
        running(make_engine(tmp_path / "c")) as other,
    ):
        county.limit_host(limited.address[0], 50_000)
        county.limit_host(other.address[0], 0)
        for child in (limited, other):
            await child.add(torrent)
            child.connect_peers(torrent.infohash, [county.address])
        await completed(other, torrent)
        assert limited.statuses()[torrent.infohash].bytes_done < 1_000_000
        county.limit_host(limited.address[0], 0)
        await completed(limited, torrent)
        county.limit_host(limited.address[0], None)


async def test_what_a_hostile_child_says_of_itself_is_no_failure(tmp_path: Path) -> None:
    """Its link carries more than libtorrent can count, or its address is gone already."""
    files = some_files(100_000)
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "county", torrent, files) as county,
        running(make_engine(tmp_path / "village", Tier.VILLAGE)) as village,
    ):
        county.limit_host("", 5)
        county.limit_host(village.address[0], 2**53)
        await village.add(torrent, peers=[county.address])
        await completed(village, torrent)


async def test_more_children_than_classes_are_no_failure(tmp_path: Path) -> None:
    async with running(make_engine(tmp_path / "a")) as county:
        for number in range(100):
            county.limit_host(f"127.0.84.{number + 1}", 10_000)
        for number in range(100):
            county.limit_host(f"127.0.84.{number + 1}", None)
        county.limit_host("127.0.84.1", 10_000)
