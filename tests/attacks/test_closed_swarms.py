"""Who gets into the swarm of a bundle with a restricted licence: real sessions, real certificates (SPEC 7.6)."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import libtorrent as lt
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import KeyType, new_key, private_key_pem
from cuntong_daemon.pki.swarm import SwarmCa, make_swarm_ca
from cuntong_daemon.services import running
from cuntong_daemon.store.pieces import PieceSet
from cuntong_daemon.store.torrents import payload_folder
from cuntong_daemon.swarm.engine import Credential, SwarmEngine
from cuntong_daemon.swarm.events import Completed, TorrentState
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.divisions import Division, Tier
from tests.support.payloads import read_files, some_files, torrent_of, write_payload

NATION, VILLAGE = Division("000000000000"), Division("441900003005")
NOW = datetime.now(UTC)
PLAIN_MASK = lt.alert_category.error | lt.alert_category.peer | lt.alert_category.connect
_hosts = itertools.count(2)


def credential(
    ca: SwarmCa, *, now: datetime = NOW, kind: KeyType = "ed25519", code: Division = VILLAGE
) -> Credential:
    """A certificate of this CA, issued at some time."""
    key = new_key(kind)
    certificate = ca.issue(code, key.public_key(), now=now)
    return Credential(
        certificate.public_bytes(Encoding.PEM).decode(), private_key_pem(key).decode()
    )


def engine_at(root: Path, tier: Tier = Tier.COUNTY) -> SwarmEngine:
    return SwarmEngine(
        DataPaths(root),
        listen=f"127.0.75.{next(_hosts)}:0",
        networks=[ipaddress.ip_network("127.0.0.0/8")],
        down_bytes_s=0,
        up_bytes_s=0,
        tier=tier,
    )


FILES = some_files(300_000)


@asynccontextmanager
async def seeding(
    root: Path, torrent: Torrent, shown: Credential | None
) -> AsyncIterator[SwarmEngine]:
    write_payload(DataPaths(root), torrent, FILES)
    async with running(engine_at(root)) as engine:
        await engine.add(torrent, credential=shown)
        await completed(engine, torrent)
        yield engine


async def completed(engine: SwarmEngine, torrent: Torrent) -> None:
    with trio.fail_after(60):
        while await engine.wait_event() != Completed(torrent.infohash):
            pass


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
@pytest.mark.parametrize("tier", [Tier.VILLAGE, Tier.COUNTY])
async def test_member_with_a_certificate_gets_the_bytes(
    tmp_path: Path, kind: KeyType, tier: Tier
) -> None:
    ca = make_swarm_ca(NATION, kind, now=NOW)
    torrent = torrent_of(FILES, root_certificate=ca.pem)
    async with (
        seeding(tmp_path / "a", torrent, credential(ca, kind=kind)) as county,
        running(engine_at(tmp_path / "b", tier)) as village,
    ):
        await village.add(torrent, credential=credential(ca, kind=kind))
        village.connect_peers(torrent.infohash, [county.closed_address])
        await completed(village, torrent)
        assert read_files(payload_folder(DataPaths(tmp_path / "b"), torrent)) == FILES


async def test_certificate_that_comes_later_opens_the_swarm(tmp_path: Path) -> None:
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    torrent = torrent_of(FILES, root_certificate=ca.pem)
    async with (
        seeding(tmp_path / "a", torrent, None) as county,
        running(engine_at(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await village.add(torrent)
        village.connect_peers(torrent.infohash, [county.closed_address])
        county.admit(torrent.infohash, credential(ca))
        village.admit(torrent.infohash, credential(ca))
        await completed(village, torrent)


async def test_certificate_is_shown_again_after_a_repair(tmp_path: Path) -> None:
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    torrent = torrent_of(FILES, root_certificate=ca.pem)
    async with (
        seeding(tmp_path / "a", torrent, credential(ca)) as county,
        running(engine_at(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await village.add(torrent, credential=credential(ca))
        village.connect_peers(torrent.infohash, [county.closed_address])
        await completed(village, torrent)
        big = torrent.file("files/a.mp4")
        assert big is not None
        path = payload_folder(DataPaths(tmp_path / "b"), torrent) / big.path
        path.write_bytes(bytes(big.length))
        await village.repair(
            torrent.infohash, PieceSet.of(torrent.piece_count, torrent.pieces_of(big))
        )
        village.connect_peers(torrent.infohash, [county.closed_address])
        await completed(village, torrent)
        assert path.read_bytes() == FILES["files/a.mp4"]


class Stranger:
    """A plain libtorrent session of somebody else, which says what becomes of its connections."""

    def __init__(
        self, folder: Path, torrent: Torrent, shown: Credential | None, *, is_plain: bool = False
    ) -> None:
        self.session = lt.session(
            {
                "listen_interfaces": f"127.0.75.{next(_hosts)}:0,127.0.75.{next(_hosts)}:0s",
                "alert_mask": PLAIN_MASK,
                "enable_dht": False,
                "enable_lsd": False,
                "enable_upnp": False,
                "enable_natpmp": False,
                "dht_bootstrap_nodes": "",
                "enable_outgoing_utp": False,
                "min_reconnect_time": 1,
            }
        )
        params = lt.load_torrent_buffer(torrent.encode())
        params.save_path = str(folder)
        self.handle = self.session.add_torrent(params)
        if shown is not None:
            self.handle.set_ssl_certificate_buffer(shown.certificate, shown.key, "")
        self.said: list[str] = []

    async def turned_away_by(self, address: tuple[str, int]) -> str:
        """Connect; the words with which the connection ended."""
        self.handle.connect_peer(address)
        with trio.fail_after(30):
            while True:
                for alert in self.session.pop_alerts():
                    self.said.append(alert.message())
                    if isinstance(alert, lt.peer_disconnected_alert | lt.peer_error_alert):
                        return alert.error.message()
                await trio.sleep(0.02)  # libtorrent has no event that trio could wait for here.

    @property
    def received(self) -> int:
        return self.handle.status().total_payload_download


OTHER = make_swarm_ca(NATION, "ed25519", now=NOW)
"""Another CA of the same name."""


def expired(ca: SwarmCa) -> Credential:
    return credential(ca, now=NOW - timedelta(days=91))


def of_a_node(ca: SwarmCa) -> Credential:
    """A certificate that the CA's certificate itself is taken for: the key isn't there."""
    key = new_key()
    return Credential(ca.pem.decode(), private_key_pem(key).decode())


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(lambda ca: None, id="no certificate"),
        pytest.param(lambda ca: credential(OTHER), id="another CA of the same name"),
        pytest.param(expired, id="expired"),
        pytest.param(of_a_node, id="without its key"),
    ],
)
async def test_stranger_is_turned_away_before_a_byte(
    tmp_path: Path, shown: Callable[[SwarmCa], Credential | None]
) -> None:
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    torrent = torrent_of(FILES, root_certificate=ca.pem)
    async with seeding(tmp_path / "a", torrent, credential(ca)) as county:
        stranger = Stranger(tmp_path / "s", torrent, shown(ca))
        await stranger.turned_away_by(county.closed_address)
        assert stranger.received == 0, stranger.said
        assert county.totals.up == 0


async def test_the_same_stranger_with_a_certificate_is_served(tmp_path: Path) -> None:
    """So it is the certificate that the others lack."""
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    torrent = torrent_of(FILES, root_certificate=ca.pem)
    async with seeding(tmp_path / "a", torrent, credential(ca)) as county:
        member = Stranger(tmp_path / "m", torrent, credential(ca))
        member.handle.connect_peer(county.closed_address)
        with trio.fail_after(60):
            while not member.handle.status().is_seeding:  # noqa: ASYNC110  libtorrent has no event.
                await trio.sleep(0.02)
        assert member.received >= torrent.payload_size


async def test_plain_port_and_plain_torrent_lead_nowhere(tmp_path: Path) -> None:
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    torrent = torrent_of(FILES, root_certificate=ca.pem)
    async with seeding(tmp_path / "a", torrent, credential(ca)) as county:
        member = Stranger(tmp_path / "m", torrent, credential(ca))
        await member.turned_away_by(county.address)
        assert member.received == 0, member.said
        # The same files as an open torrent have another infohash; nobody has such a swarm.
        plain = Stranger(tmp_path / "p", torrent_of(FILES), None)
        for address in (county.closed_address, county.address):
            await plain.turned_away_by(address)
        assert plain.received == 0, plain.said
        assert county.totals.up == 0


async def test_member_refuses_a_seeder_that_nobody_certified(tmp_path: Path) -> None:
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    torrent = torrent_of(FILES, root_certificate=ca.pem)
    async with (
        seeding(tmp_path / "false", torrent, credential(OTHER)) as false,
        seeding(tmp_path / "true", torrent, credential(ca)) as true,
        running(engine_at(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await village.add(torrent, credential=credential(ca))
        village.connect_peers(torrent.infohash, [false.closed_address, true.closed_address])
        await completed(village, torrent)
        status = village.status(torrent.infohash)
        assert status is not None
        assert status.state is TorrentState.COMPLETE
        assert false.totals.up == 0


def test_root_certificate_makes_the_same_torrent_each_time() -> None:
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    first = torrent_of(FILES, root_certificate=ca.pem)
    assert torrent_of(FILES, root_certificate=ca.pem).encode() == first.encode()
    info = lt.load_torrent_buffer(first.encode()).ti
    assert info is not None
    assert info.info_hashes().v2.to_bytes() == first.infohash
    assert info.ssl_cert().encode() == ca.pem
    assert x509.load_pem_x509_certificate(ca.pem) == ca.certificate
