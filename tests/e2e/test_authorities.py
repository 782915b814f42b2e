"""What authorities decide, as the nodes below see it: promotion, new keys, and who may come in."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cuntong_daemon.pki.tls import client_context
from cuntong_protocol.link.frames import FrameDecoder, encode_frame
from cuntong_protocol.link.messages import (
    LINK_VERSION,
    MAX_FRAME_BYTES,
    Hello,
    Refused,
    Welcome,
    decode_payload,
)
from cuntong_tools.demo.network import CONTROL_PORT, Network, Place
from tests.support.world import World, assert_same_folder, make_films

OTHER_COUNTY, OTHER_VILLAGE = "442000000000", "442000001001"


@pytest.fixture(scope="module")
def founded_two(founded: Network, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """The network with another county and a village of it; for copying."""
    world = World(founded, tmp_path_factory.mktemp("founded") / "two")
    county = world.net.add(OTHER_COUNTY, "中山市", world.province, is_authority=True)
    village = world.net.add(OTHER_VILLAGE, "石岐村", county)
    world.net.found(county)
    world.net.enrol(county)
    world.net.enrol(village)
    return world.net


@pytest.fixture
def two_counties(founded_two: Network, tmp_path: Path) -> Iterator[World]:
    copy = World(founded_two, tmp_path / "network")
    yield copy
    copy.stop()


def test_what_a_county_publishes_is_promoted_by_two_and_reaches_another_countys_village(
    two_counties: World, tmp_path: Path
) -> None:
    world = two_counties
    other_county, other_village = world.all[5:]
    folder = make_films(tmp_path / "opera", [200_000] * 2, seed=21)
    world.start(world.nation, world.province, world.county, other_county, world.west, other_village)
    bundle = world.publish(world.county, folder)
    world.until_complete(bundle, world.county, world.west)
    world.until("the province sees it", lambda: bundle.id in world.run(world.province, "review"))
    kept = world.run(world.province, "promote", bundle.id, *world.keys(world.province, 1))
    assert "1 of 2" in kept
    for place in (world.province, other_county, other_village):
        assert world.bundle(place, bundle.id) is None
    world.run(world.province, "promote", *world.keys(world.province, 2))
    world.until_complete(bundle, world.province, other_county, other_village)
    assert_same_folder(folder, world.library(other_village, bundle))
    assert world.bundle(world.nation, bundle.id) is None


def test_daemons_follow_when_keys_are_replaced(world: World, tmp_path: Path) -> None:
    world.start(world.county, world.west)
    for number, key in enumerate(("online", "targets", "root-1"), start=1):
        world.run(world.county, "authority", "rotate", key, *world.keys(world.county))
        folder = make_films(tmp_path / f"after-{key}", [100_000], seed=number)
        bundle = world.publish(world.county, folder)
        world.until_complete(bundle)
        assert_same_folder(folder, world.library(world.west, bundle))
    for place in (world.county, world.west):
        assert not world.status(place).problems


def spooled(place: Place) -> dict[str, bytes]:
    """All metadata and descriptors that a place was given, whether or not it has verified them by now."""
    found: dict[str, bytes] = {}
    for folder in (place.paths.spool, place.paths.blobs):
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name != ".verify"]
            for name in names:
                path = Path(parent, name)
                found[str(path.relative_to(place.paths.root))] = path.read_bytes()
    return found


def test_removed_village_is_told_why_and_gets_nothing_more(world: World, tmp_path: Path) -> None:
    world.start()
    world.run(world.county, "node", "remove", world.east.code, "--reason", "plaque taken down",
              *world.keys(world.county))  # fmt: skip

    def is_refused() -> bool:
        parent = world.status(world.east).parent
        refusal = parent.refusal
        return (
            parent.state == "refused"
            and refusal is not None
            and refusal.code == "node.removed"
            and "plaque taken down" in str(refusal)
        )

    def dials_all_parents_anew() -> None:
        world.net.stop(world.east)
        world.net.start(world.east)
        world.until("it is refused again", is_refused)

    world.until("the village is refused, and knows why", is_refused)
    # Until the province has heard of it too, it takes the village in and tells it what is new.
    world.until(
        "its other parent refuses it too", lambda: "node.removed" in world.province.log.read_text()
    )
    dials_all_parents_anew()
    before = spooled(world.east)
    folder = make_films(tmp_path / "film", [100_000], seed=31)
    bundle = world.publish(world.nation, folder)
    world.until_complete(bundle, world.nation, world.province, world.county, world.west)
    for place in (world.nation, world.province, world.county):
        assert world.east.code not in {child.code for child in world.status(place).children}
    assert "node.removed" in world.county.log.read_text()
    dials_all_parents_anew()
    assert spooled(world.east) == before
    assert world.bundle(world.east, bundle.id) is None
    assert world.traffic(world.east)["down_wire"] == 0


def heard_after_hello(place: Place, parent: Place) -> list[object]:
    """What a parent says to a place that dials it with its real key and says hello: until it closes or
    welcomes."""
    context = client_context(place.paths.keys)
    hello = Hello(LINK_VERSION, place.code, "test", place.code.tier.label, 7441)
    decoder = FrameDecoder(MAX_FRAME_BYTES)
    found: list[object] = []
    with (
        socket.create_connection((parent.address, CONTROL_PORT), timeout=10) as plain,
        contextlib.suppress(ssl.SSLEOFError, ConnectionError),
        context.wrap_socket(plain, server_hostname=parent.code.dns_name) as stream,
    ):
        stream.sendall(encode_frame(hello))
        while not any(isinstance(it, Welcome) for it in found) and (part := stream.recv(65_536)):
            decoder.feed(part)
            while (payload := decoder.next_payload()) is not None:
                found.append(decode_payload(payload))
    return found


def test_village_of_another_county_is_told_so_and_gets_nothing(
    two_counties: World, tmp_path: Path
) -> None:
    world = two_counties
    stranger = world.all[6]
    world.start(world.nation, world.province, world.county)
    bundle = world.publish(world.nation, make_films(tmp_path / "film", [100_000], seed=32))
    world.until_complete(bundle, world.county)
    (said,) = heard_after_hello(stranger, world.county)
    assert isinstance(said, Refused)
    assert said.reason.code == "node.wrong-subtree"
    assert said.reason.params["node"] == stranger.code
    world.until(
        "the county tells too", lambda: "node.wrong-subtree" in world.county.log.read_text()
    )
    assert not world.status(world.county).children
    # One of the county's own, who has its key, is welcome.
    assert isinstance(heard_after_hello(world.west, world.county)[0], Welcome)


def stranger_context(folder: Path, *, with_certificate: bool) -> ssl.SSLContext:
    """TLS as somebody speaks it who made a certificate with a village's name for himself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if with_certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "village")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("006.003.00.19.44.cuntong.internal")]),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        file = folder / "stranger.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("with_certificate", [False, True])
def test_stranger_gets_not_a_byte(world: World, tmp_path: Path, with_certificate: bool) -> None:
    world.start(world.nation)
    context = stranger_context(tmp_path, with_certificate=with_certificate)
    received = b""
    with (
        socket.create_connection((world.nation.address, CONTROL_PORT), timeout=10) as plain,
        contextlib.suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain) as stream,
    ):
        # In TLS 1.3 a client may write before it hears that it was refused.
        stream.sendall(b"\x00" * 64)
        while part := stream.recv(65_536):
            received += part
    assert received == b""
    world.until(
        "the daemon has told", lambda: "link.child-not-greeted" in world.nation.log.read_text()
    )
    (line,) = [
        json.loads(line)
        for line in world.nation.log.read_text().splitlines()
        if "link.child-not-greeted" in line
    ]
    assert line["reason"]
    assert not world.status(world.nation).children
