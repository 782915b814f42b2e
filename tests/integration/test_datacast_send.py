"""A real `cuntong datacast send` on the loopback interface: what a receiver gets of it, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util

import msgspec
import pytest

from cuntong_daemon.control.lock import hold_data_directory
from cuntong_daemon.control.messages import DatacastStatus
from cuntong_daemon.datacast.intake import Intake
from cuntong_daemon.datacast.sockets import Group, open_receiver, open_sender
from cuntong_daemon.pki.certificates import KeyFiles, load_chain
from cuntong_protocol.bundle.torrent import decode_torrent
from cuntong_protocol.datacast.blocks import Layout, is_right, object_blocks, symbol_count
from cuntong_protocol.datacast.errors import DropReason
from cuntong_protocol.datacast.objects import (
    Programme,
    Ref,
    check_object,
    decode_manifest,
    decode_programme,
)
from cuntong_protocol.datacast.packets import PACKET_BYTES, SYMBOL_BYTES, Beacon, Channel
from cuntong_protocol.divisions import Division
from cuntong_tools.demo.network import Network, Place
from tests.support.world import ENVIRONMENT, NATION, World, make_films

WAIT_S = 60.0
"""A bound for a sender that hangs."""
INTERFACE, SOURCE = "lo", "127.0.0.1"
RATE_KBIT_S = 4000
FILMS, SECRET = f"{NATION}/202611/films", f"{NATION}/202611/secret"


def free_group() -> str:
    """A group of this test's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"232.20.77.1:{probe.getsockname()[1]}"


def listen(group: str) -> socket.socket:
    host, _, port = group.rpartition(":")
    return open_receiver(Group(host, int(port), INTERFACE, SOURCE))


def is_multicast_possible() -> bool:
    group = free_group()
    host, _, port = group.rpartition(":")
    try:
        with (
            listen(group) as receiver,
            open_sender(Group(host, int(port), INTERFACE, SOURCE), hops=1) as sender,
        ):
            sender.send(b"x")
            return bool(select.select([receiver], [], [], 5.0)[0])
    except Exception:  # noqa: BLE001 - whatever the reason is, this machine can't.
        return False


pytestmark = [
    pytest.mark.skipif(
        util.find_spec("raptorq") is None, reason="raptorq has wheels for x86-64 only"
    ),
    pytest.mark.skipif(
        not is_multicast_possible(), reason="no multicast on this machine's loopback interface"
    ),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A national centre that has published and doesn't run: an open bundle, and one for a province alone."""
    folder = tmp_path_factory.mktemp("centre")
    network = Network(folder / "network", ENVIRONMENT)
    nation = network.add(NATION, "国家中心", is_authority=True)
    network.found(nation)
    network.enrol(nation)
    network.start(nation)
    try:
        for identifier, more in (
            (FILMS, ""),
            (SECRET, '[licence]\nkind="restricted"\nscope=["44"]\n'),
        ):
            slug = identifier.rpartition("/")[2]
            films = make_films(folder / slug, [300_000, 90_000], seed=len(slug))
            metadata = films.with_suffix(".toml")
            metadata.write_text(
                f'title="{slug}"\nslug="{slug}"\ndate="2026-11-01"\ncategory="film"\n{more}'
            )
            network.run(nation, "publish", str(films), str(metadata), *World.keys(nation))
            until = time.monotonic() + WAIT_S
            while network.progress(nation, identifier, 1) < 1:
                assert time.monotonic() < until, nation.log.read_text()[-2000:]
                time.sleep(0.05)
    finally:
        network.stop(nation)
    yield network
    network.stop(nation)


@pytest.fixture
def centre(network: Network) -> Place:
    return network.places[0]


class Symbols:
    """Verified symbols by block; `SymbolStore` for an `Intake`."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[int, int], dict[int, bytes]] = defaultdict(dict)
        self.unverified = 0

    def take(
        self, channel: int, toi: int, esi: int, packet: bytes, *, is_verified: bool
    ) -> DropReason | None:
        self.unverified += not is_verified
        if is_verified:
            self.blocks[channel, toi][esi] = packet[PACKET_BYTES - SYMBOL_BYTES :]
        return None

    def vouch(self, channel: int, toi: int, esi: int, expected: bytes) -> bool:
        return False

    def block(self, channel: Channel, toi: int, size: int) -> bytes | None:
        """A block's bytes, once all source symbols have come."""
        symbols = self.blocks[channel, toi]
        if any(esi not in symbols for esi in range(symbol_count(size))):
            return None
        return b"".join(symbols[esi] for esi in range(symbol_count(size)))[:size]

    def object(self, channel: Channel, ref: Ref) -> bytes | None:
        found = [
            self.block(channel, ref.toi + number, size)
            for number, size in enumerate(object_blocks(ref.size))
        ]
        data = b"".join(part for part in found if part is not None)
        if None in found:
            return None
        check_object(ref, data)
        return data


class Station:
    """Receives, and proves what it receives with nothing but the nation's CA."""

    def __init__(self, receiver: socket.socket, place: Place) -> None:
        self._receiver = receiver
        self.symbols = Symbols()
        anchor = load_chain(KeyFiles(place.paths.keys).anchor.read_bytes())[0]
        self.intake = Intake(self.symbols, anchor=anchor, sender=Division(NATION))
        self.beacon: Beacon | None = None

    @property
    def programme(self) -> Programme | None:
        """What the newest beacon names, when it has come."""
        if self.beacon is None or self.beacon.programme is None:
            return None
        data = self.symbols.object(Channel.CATALOGUE, self.beacon.programme)
        return None if data is None else decode_programme(data)

    def missing(self) -> str:
        """What hasn't come yet of all that is on the air; empty: everything is here and right."""
        programme = self.programme
        if programme is None or not programme.bundles:
            return "programme"
        for entry in programme.bundles:
            data = self.symbols.object(Channel.MANIFEST, entry.manifest)
            if data is None:
                return f"manifest of {entry.id}"
            manifest = decode_manifest(data)
            torrent = decode_torrent(manifest.torrent, infohash=entry.infohash)
            layout = Layout(torrent)
            for number, size in enumerate(layout.sizes):
                block = self.symbols.block(Channel.CONTENT, entry.toi + number, size)
                if block is None:
                    return f"block {number} of {entry.id}"
                view = memoryview(block)
                for part in layout.parts(number):
                    piece = view[part.start : part.start + part.length]
                    assert is_right(torrent, manifest.halves, part, piece)
        return ""

    def read(self) -> None:
        """Take what waits, or wait a little for it."""
        if not select.select([self._receiver], [], [], 1.0)[0]:
            return
        while True:
            try:
                packet = self._receiver.recv(PACKET_BYTES + 1)
            except BlockingIOError:
                return
            self.beacon = self.intake.feed(packet, time.monotonic()) or self.beacon


@contextmanager
def sending(place: Place, group: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`cuntong datacast send`, in a process group of its own as a shell would start it."""
    command = [sys.executable, "-m", "cuntong_tools", "datacast", "send", *arguments]
    command += ["--interface", INTERFACE, "--source", SOURCE, "--group", group]
    command += ["--rate", str(RATE_KBIT_S), "--data", str(place.paths.root)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def hear(station: Station, process: subprocess.Popen[str]) -> None:
    """Receive until everything that is on the air is here."""
    until = time.monotonic() + WAIT_S
    while missing := station.missing():
        if process.poll() is not None:
            pytest.fail(f"it ended: {process.communicate()}")
        assert time.monotonic() < until, (missing, station.intake.dropped)
        station.read()


def test_station_with_nothing_but_the_nations_ca_proves_and_rebuilds_what_was_sent(
    centre: Place,
) -> None:
    group = free_group()
    with listen(group) as receiver, sending(centre, group, "--all") as process:
        station = Station(receiver, centre)
        hear(station, process)
        assert station.beacon is not None
        assert station.beacon.sender == NATION
        assert station.beacon.rate_bytes_s == RATE_KBIT_S * 125
        programme = station.programme
        assert programme is not None
        # What may not be held by everybody isn't cast, also not by --all.
        assert [entry.id for entry in programme.bundles] == [FILMS]
        assert [entry.authority for entry in programme.catalogues] == [NATION]
        assert programme.catalogues[0].version == station.beacon.catalogue
        assert station.symbols.unverified == 0
        assert not station.intake.dropped.keys() - {"other-session"}
        session = station.intake.session
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == f"Sending {RATE_KBIT_S} kbit/s to {group} on lo, 1 bundle.\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("Sent ")
    # It remembers its session, so that receivers go on with what they have.
    with listen(group) as receiver, sending(centre, group, FILMS) as process:
        station = Station(receiver, centre)
        hear(station, process)
        assert station.intake.session == session
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_ctrl_c_at_a_terminal_ends_all_its_processes_without_a_word(centre: Place) -> None:
    """A terminal signals the whole process group, also those children that only send."""
    group = free_group()
    with listen(group) as receiver, sending(centre, group, "--all") as process:
        station = Station(receiver, centre)
        hear(station, process)
        os.killpg(process.pid, signal.SIGINT)
        _out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, "")
    # The next one may have the data directory at once.
    with hold_data_directory(centre.paths):
        pass


def refused(network: Network, place: Place, *arguments: str) -> tuple[int, str]:
    done = network.try_run(place, "datacast", "send", *arguments)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr.rpartition("(")[2].rstrip(")\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((SECRET,), (77, "datacast.restricted")),
        ((FILMS, SECRET), (77, "datacast.restricted")),
        ((f"{NATION}/202611/nothing",), (64, "catalogue.unknown-bundle")),
        (("--all", "--interface", "none0"), (74, "datacast.no-interface")),
        (("--all", "--source", "192.0.2.1"), (74, "datacast.no-interface")),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_on_the_air(
    network: Network, centre: Place, arguments: tuple[str, ...], code: tuple[int, str]
) -> None:
    group = free_group()
    where = ["--interface", INTERFACE, "--source", SOURCE, "--group", group]
    with listen(group) as receiver:
        assert refused(network, centre, *where, *arguments) == code
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


def test_where_the_daemon_runs_nobody_else_sends(network: Network, centre: Place) -> None:
    network.start(centre)
    try:
        where = ["--interface", INTERFACE, "--source", SOURCE, "--group", free_group()]
        assert refused(network, centre, "--all", *where) == (74, "datacast.daemon-runs")
    finally:
        network.stop(centre)


def test_a_running_node_tells_what_it_sends_and_what_it_hears(
    network: Network, centre: Place
) -> None:
    """One node with uplink and dish: it hears itself, and says the same of both ends."""
    host_and_port = free_group()
    where = f'interface = "{INTERFACE}"\nsource = "{SOURCE}"\ngroup = "{host_and_port}"\n'
    plain = centre.paths.config.read_text()
    text = f"[cast]\n{where}rate_kbit_s = {RATE_KBIT_S}\n[dish]\n{where}\n{plain}"
    centre.paths.config.write_text(text)
    try:
        network.start(centre)
        until = time.monotonic() + WAIT_S
        while True:
            answer = network.ask(centre, "datacast")
            if answer["receiver"]["bundles_total"] and answer["sender"]["packets"]:
                break
            assert time.monotonic() < until, answer
            time.sleep(0.05)
        status = msgspec.convert(answer, DatacastStatus)
        heard, sent = status.receiver, status.sender
        assert heard is not None
        assert sent is not None
        assert heard.session == sent.session
        assert heard.rate_kbit_s == sent.rate_kbit_s == RATE_KBIT_S
        assert heard.catalogue == heard.catalogue_here > 0
        assert heard.sender_time > 0
        assert [(one.id, one.state) for one in heard.bundles] == [(FILMS, "complete")]
        assert [one.id for one in sent.bundles] == [FILMS]
        assert "films" in network.run(centre, "datacast", "schedule", FILMS)
        short = network.status(centre).datacast
        assert short is not None
        assert short.receiver is not None
        assert (short.receiver.bundles_total, short.receiver.bundles) == (1, [])
    finally:
        network.stop(centre)
        centre.paths.config.write_text(plain)


def test_the_same_keys_and_folders_as_the_daemons_are_used(centre: Place) -> None:
    """A sender in the foreground leaves nothing beside the places that the daemon knows (SPEC 9)."""
    folder = centre.paths.datacast
    assert {path.name for path in folder.iterdir()} <= {
        "sender.session",
        "sender.sqlite",
        "sender.sqlite-wal",
        "sender.sqlite-shm",
        "objects",
        "symbols",
        f"{NATION}.snapshot",
        "receiver",
    }
