"""Attacks on the door between nodes: real TLS over real sockets, each with the code that it must get.

Every attack runs with both key types. `meet` gives what either side concluded; a side that refused in the
handshake gives the words for it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from cuntong_daemon.pki.certificates import KeyFiles, new_key
from cuntong_daemon.pki.tls import (
    PeerIdentity,
    client_context,
    handshake_error,
    judge,
    judge_parent,
    peer_identity,
    server_context,
)
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import EnrolmentError, spki_sha256
from tests.support.pki import (
    DONGGUAN,
    GUANGDONG,
    JIEYANG,
    JIEYANG_VILLAGE,
    NOW,
    TOWNSHIP,
    VILLAGE,
    Authority,
    Line,
    World,
    dns,
    forge_ca,
    forge_node,
    ip,
    uri,
)


@dataclass(frozen=True)
class Meeting:
    """What each side knows after the handshake: who the other is, or the code of its refusal."""

    server: PeerIdentity | str
    client: PeerIdentity | str
    resumed: bool = False
    version: str | None = None


@pytest.fixture(params=["ed25519", "p256"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(request.param, tmp_path)


async def meet(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    parent: Division,
    *,
    dial: Callable[[trio.SocketStream], Any] | None = None,
) -> Meeting:
    """Let a child dial a parent over a real socket."""
    found: dict[str, PeerIdentity | str] = {}
    facts: dict[str, Any] = {}
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def side(name: str, stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.do_handshake()
            found[name] = peer_identity(stream)
            facts["resumed"] = stream.session_reused
            facts["version"] = stream.version()
            await stream.send_all(b"x")
            await stream.receive_some(1)
        except EnrolmentError as error:
            found[name] = error.code
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            found[name] = handshake_error(error).code
        finally:
            await trio.aclose_forcefully(stream)

    async def serve() -> None:
        await side("server", trio.SSLStream(await listener.accept(), server, server_side=True))

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        if dial is not None:
            await dial(stream)
            found["client"] = "-"
        else:
            await side("client", trio.SSLStream(stream, client, server_hostname=parent.dns_name))
    return Meeting(found["server"], found["client"], **facts)


async def knock(world: World, child: Path) -> Meeting:
    """A child with these keys dials Dongguan."""
    server, _spki = world.node(DONGGUAN, DONGGUAN)
    return await meet(server_context(server), client_context(child), DONGGUAN)


async def answer(world: World, parent: Path) -> Meeting:
    """An honest village dials what should be Dongguan, and a node with these keys answers."""
    village, _spki = world.node(VILLAGE, DONGGUAN)
    return await meet(server_context(parent), client_context(village), DONGGUAN)


def forged(world: World, issuer: Division, names: list[x509.GeneralName], **how: Any) -> Path:
    """Keys with a certificate that a CA of the network signed, but shouldn't have."""
    authority, key = world.authorities[issuer], new_key(world.kind)
    certificate = forge_node(names, key, authority.certificate.subject, authority.key, **how)
    return world.write(key, [certificate, *authority.chain])


def members(
    authority: Division, code: Division, line: Line
) -> dict[Division, dict[Division, Line]]:
    return {authority: {code: line}}


def refusal(identity: PeerIdentity | str, *args: Any) -> str:
    """The code with which an identity is judged."""
    assert isinstance(identity, PeerIdentity)
    with pytest.raises(EnrolmentError) as caught:
        judge(identity, *args)
    assert "{" not in str(caught.value)
    return caught.value.code


# --- What must work -------------------------------------------------------------------------------


async def test_village_and_county_know_each_other(world: World) -> None:
    child, spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, child)
    assert meeting.version == "TLSv1.3"
    assert isinstance(meeting.server, PeerIdentity)
    assert isinstance(meeting.client, PeerIdentity)
    assert meeting.server.code == VILLAGE
    assert meeting.server.issuers == (DONGGUAN, GUANGDONG, NATION)
    assert meeting.server.spki == spki
    assert meeting.client.code == DONGGUAN
    judge(meeting.server, members(DONGGUAN, VILLAGE, Line(spki)), NOW, DONGGUAN)
    judge_parent(meeting.client, {}, NOW, DONGGUAN)


@pytest.mark.parametrize("grandparent", [GUANGDONG, NATION])
async def test_grandparent_accepts_a_grandchild_that_the_county_enrolled(
    world: World, grandparent: Division
) -> None:
    server, _spki = world.node(grandparent, grandparent)
    child, spki = world.node(VILLAGE, DONGGUAN)
    meeting = await meet(server_context(server), client_context(child), grandparent)
    assert isinstance(meeting.server, PeerIdentity)
    judge(meeting.server, members(DONGGUAN, VILLAGE, Line(spki)), NOW, grandparent)


async def test_village_below_an_authority_of_its_township_is_known_by_the_whole_chain(
    world: World,
) -> None:
    child, spki = world.node(VILLAGE, TOWNSHIP)
    meeting = await knock(world, child)
    assert isinstance(meeting.server, PeerIdentity)
    assert meeting.server.issuers == (TOWNSHIP, DONGGUAN, GUANGDONG, NATION)
    judge(meeting.server, members(TOWNSHIP, VILLAGE, Line(spki)), NOW, DONGGUAN)


async def test_different_key_types_meet(tmp_path: Path) -> None:
    world = World("ed25519", tmp_path)
    world.kind = "p256"
    child, _spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, child)
    assert isinstance(meeting.server, PeerIdentity)
    assert isinstance(meeting.client, PeerIdentity)


# --- Refused in the handshake ---------------------------------------------------------------------


async def test_child_without_a_certificate(world: World) -> None:
    server, _spki = world.node(DONGGUAN, DONGGUAN)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(KeyFiles(server).anchor)
    client.verify_flags |= 0x200000
    meeting = await meet(server_context(server), client, DONGGUAN)
    assert meeting.server == "tls.no-certificate"


async def test_child_with_a_self_signed_certificate(world: World) -> None:
    key = new_key(world.kind)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "forged")])
    child = world.write(key, [forge_node(dns(VILLAGE.dns_name), key, name, key)])
    assert (await knock(world, child)).server == "tls.unknown-authority"


async def test_child_of_another_network_with_the_same_names(world: World, tmp_path: Path) -> None:
    other = World(world.kind, tmp_path / "other")
    child, _spki = other.node(VILLAGE, DONGGUAN)
    KeyFiles(child).anchor.write_bytes(
        world.authorities[NATION].certificate.public_bytes(Encoding.PEM)
    )
    assert (await knock(world, child)).server == "tls.unknown-authority"


async def test_child_that_brings_the_nation_ca_of_another_network(
    world: World, tmp_path: Path
) -> None:
    other = World(world.kind, tmp_path / "other")
    child, _spki = other.node(VILLAGE, DONGGUAN)
    files = KeyFiles(child)
    files.chain.write_bytes(files.chain.read_bytes() + files.anchor.read_bytes())
    files.anchor.write_bytes(world.authorities[NATION].certificate.public_bytes(Encoding.PEM))
    assert (await knock(world, child)).server == "tls.unknown-authority"


async def test_child_without_the_certificates_between(world: World) -> None:
    child, _spki = world.node(VILLAGE, DONGGUAN)
    files = KeyFiles(child)
    files.chain.write_bytes(
        x509.load_pem_x509_certificates(files.chain.read_bytes())[0].public_bytes(Encoding.PEM)
    )
    assert (await knock(world, child)).server == "tls.unknown-authority"


async def test_child_whose_certificate_was_changed_by_one_bit(world: World) -> None:
    child, _spki = world.node(VILLAGE, DONGGUAN)
    files = KeyFiles(child)
    leaf, *rest = x509.load_pem_x509_certificates(files.chain.read_bytes())
    der = bytearray(leaf.public_bytes(Encoding.DER))
    der[der.index(b"005.003") + 2] ^= 1  # 004.003…: a neighbour's name
    changed = ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
    files.chain.write_bytes(changed + b"".join(link.public_bytes(Encoding.PEM) for link in rest))
    assert (await knock(world, child)).server == "tls.unknown-authority"


async def test_county_ca_signs_a_node_of_another_county(world: World) -> None:
    child = forged(world, JIEYANG, dns(VILLAGE.dns_name))
    assert (await knock(world, child)).server == "tls.outside-subtree"


async def test_county_ca_signs_a_ca_for_another_county(world: World) -> None:
    jieyang, key, ca_key = world.authorities[JIEYANG], new_key(world.kind), new_key(world.kind)
    false_ca = forge_ca(TOWNSHIP, ca_key, jieyang.certificate.subject, jieyang.key)
    leaf = forge_node(dns(VILLAGE.dns_name), key, false_ca.subject, ca_key)
    child = world.write(key, [leaf, false_ca, *jieyang.chain])
    assert (await knock(world, child)).server == "tls.outside-subtree"


async def test_county_ca_signs_its_neighbour_s_prefix_with_a_longer_label(world: World) -> None:
    """`119.44.…` ends with the text `19.44.…`, but not with its labels."""
    child = forged(world, DONGGUAN, dns("000.000.00.119.44.cuntong.internal"))
    assert (await knock(world, child)).server == "tls.outside-subtree"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("CA of somebody", "tls.path-too-long", id="another name"),
        # OpenSSL doesn't count a CA that has its issuer's name.
        pytest.param("", "node.bad-ca", id="its own name"),
    ],
)
async def test_village_ca_signs_a_ca_of_its_own(world: World, name: str, code: str) -> None:
    village = world.endorse(VILLAGE, TOWNSHIP)
    key, ca_key = new_key(world.kind), new_key(world.kind)
    false_ca = forge_ca(VILLAGE, ca_key, village.certificate.subject, village.key, name=name)
    leaf = forge_node(dns(VILLAGE.dns_name), key, false_ca.subject, ca_key)
    child = world.write(key, [leaf, false_ca, *village.chain])
    assert (await knock(world, child)).server == code


async def test_node_uses_its_certificate_as_a_ca(world: World) -> None:
    authority, ca_key, key = world.authorities[DONGGUAN], new_key(world.kind), new_key(world.kind)
    node = forge_node(dns(TOWNSHIP.dns_name), ca_key, authority.certificate.subject, authority.key)
    leaf = forge_node(dns(VILLAGE.dns_name), key, node.subject, ca_key)
    child = world.write(key, [leaf, node, *authority.chain])
    assert (await knock(world, child)).server == "tls.unknown-authority"


@pytest.mark.parametrize(
    "purpose", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION]
)
async def test_child_with_a_certificate_for_another_purpose(
    world: World, purpose: x509.ObjectIdentifier
) -> None:
    child = forged(world, DONGGUAN, dns(VILLAGE.dns_name), purposes=[purpose])
    assert (await knock(world, child)).server == "tls.wrong-purpose"


async def test_child_that_speaks_tls_1_2(world: World) -> None:
    server, _spki = world.node(DONGGUAN, DONGGUAN)
    child, _spki = world.node(VILLAGE, DONGGUAN)
    client = client_context(child)
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    meeting = await meet(server_context(server), client, DONGGUAN)
    assert meeting.server == "tls.old-version"
    assert meeting.client == "tls.closed"


async def test_somebody_speaks_http_to_the_control_port(world: World) -> None:
    server, _spki = world.node(DONGGUAN, DONGGUAN)

    async def browse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: county\r\n\r\n")
            await stream.receive_some(1)

    meeting = await meet(server_context(server), client_context(server), DONGGUAN, dial=browse)
    assert meeting.server in {"tls.failed", "tls.old-version"}


# --- Chained, but not exactly one name of ours ----------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(dns(VILLAGE.dns_name, TOWNSHIP.dns_name), id="two names"),
        pytest.param(dns(VILLAGE.dns_name, VILLAGE.dns_name), id="one name twice"),
        pytest.param(dns(VILLAGE.dns_name) + uri("x"), id="a name and a URI"),
        pytest.param(uri(JIEYANG_VILLAGE.dns_name), id="URI that no constraint confines"),
        pytest.param(ip("10.1.2.3"), id="address"),
        pytest.param(dns("*.003.00.19.44.cuntong.internal"), id="wildcard"),
        pytest.param(dns("00*.003.00.19.44.cuntong.internal"), id="partial wildcard"),
        pytest.param(dns("003.00.19.44.cuntong.internal"), id="a subtree"),
        pytest.param(dns("5.003.00.19.44.cuntong.internal"), id="short group"),
        pytest.param(dns("x.005.003.00.19.44.cuntong.internal"), id="one label more"),
        pytest.param(dns(VILLAGE.dns_name.upper()), id="upper case"),
        pytest.param([], id="only a common name"),
    ],
)
async def test_child_whose_certificate_names_something_else(
    world: World, names: list[x509.GeneralName]
) -> None:
    child = forged(world, DONGGUAN, names, common_name=VILLAGE.dns_name)
    assert (await knock(world, child)).server == "node.bad-name"


# --- Chained through a CA that is no authority ----------------------------------------------------


def below(world: World, authority: Authority, ca: x509.Certificate, ca_key: Any) -> Path:
    """A village's keys, issued by `ca`, which `authority` signed."""
    key = new_key(world.kind)
    leaf = forge_node(dns(VILLAGE.dns_name), key, ca.subject, ca_key)
    return world.write(key, [leaf, ca, *authority.chain])


async def test_county_makes_a_second_ca_for_itself_that_nobody_endorsed(world: World) -> None:
    county, key = world.authorities[DONGGUAN], new_key(world.kind)
    second = forge_ca(DONGGUAN, key, county.certificate.subject, county.key, length=0)
    assert (await knock(world, below(world, county, second, key))).server == "node.bad-ca"


async def test_county_makes_a_ca_with_its_province_s_constraint(world: World) -> None:
    """Harmless to OpenSSL, since both constraints hold; but it would speak for the province's list."""
    county, key = world.authorities[DONGGUAN], new_key(world.kind)
    false_ca = forge_ca(GUANGDONG, key, county.certificate.subject, county.key, length=0)
    assert (await knock(world, below(world, county, false_ca, key))).server == "node.bad-ca"


@pytest.mark.parametrize(
    "constraint",
    [
        pytest.param([], id="none"),
        pytest.param(["003.00.19.44.cuntong.internal", "004.00.19.44.cuntong.internal"], id="two"),
        pytest.param(["44.cuntong.internal", "19.44.cuntong.internal"], id="wider"),
        pytest.param(["internal"], id="above the nation"),
    ],
)
async def test_county_makes_a_ca_without_the_right_constraint(
    world: World, constraint: list[str]
) -> None:
    county, key = world.authorities[DONGGUAN], new_key(world.kind)
    loose = forge_ca(
        TOWNSHIP, key, county.certificate.subject, county.key, constraint=constraint, length=0
    )
    assert (await knock(world, below(world, county, loose, key))).server == "node.bad-ca"


async def test_certificate_larger_than_any_of_ours(world: World) -> None:
    names = dns(*(f"{number:03}.003.00.19.44.cuntong.internal" for number in range(300)))
    assert (await knock(world, forged(world, DONGGUAN, names))).server == "node.bad-certificate"


@pytest.mark.parametrize("kind", ["rsa", "p384"])
async def test_child_with_a_key_of_another_type(world: World, kind: str) -> None:
    key: Any = (
        rsa.generate_private_key(65537, 2048)
        if kind == "rsa"
        else ec.generate_private_key(ec.SECP384R1())
    )
    authority = world.authorities[DONGGUAN]
    leaf = forge_node(dns(VILLAGE.dns_name), key, authority.certificate.subject, authority.key)
    files = KeyFiles(world.write(key, [leaf, *authority.chain]))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_cert_chain(files.chain, files.key)
    client.load_verify_locations(files.anchor)
    client.verify_flags |= 0x200000
    server, _spki = world.node(DONGGUAN, DONGGUAN)
    meeting = await meet(server_context(server), client, DONGGUAN)
    assert meeting.server == "node.bad-key"


# --- Properly chained, but not to be let in -------------------------------------------------------


async def test_removed_child_gets_in_no_more_and_reads_why(world: World) -> None:
    child, spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, child)
    assert isinstance(meeting.server, PeerIdentity)
    line = Line(spki, "removed", "2027-03-01", "inspection")
    with pytest.raises(EnrolmentError) as caught:
        judge(meeting.server, members(DONGGUAN, VILLAGE, line), NOW, DONGGUAN)
    assert caught.value.code == "node.removed"
    assert str(caught.value) == f"{VILLAGE} was removed on 2027-03-01: inspection"


async def test_removed_child_comes_with_an_older_key(world: World) -> None:
    child, _spki = world.node(VILLAGE, DONGGUAN)
    line = Line(b"\1" * 32, "removed", "2027-03-01", "inspection")
    meeting = await knock(world, child)
    lists = members(DONGGUAN, VILLAGE, line)
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.removed"


async def test_province_removes_a_key_that_its_county_still_lists(world: World) -> None:
    child, spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, child)
    lists = members(DONGGUAN, VILLAGE, Line(spki))
    lists[GUANGDONG] = {VILLAGE: Line(spki, "removed", "2027-03-01", "stolen")}
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.removed"


async def test_child_that_is_in_no_list(world: World) -> None:
    child, _spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, child)
    lists = members(DONGGUAN, TOWNSHIP, Line(b"\1" * 32))
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.not-a-member"


async def test_child_of_an_authority_that_is_not_endorsed_any_more(world: World) -> None:
    child, spki = world.node(VILLAGE, TOWNSHIP)
    meeting = await knock(world, child)
    lists = members(DONGGUAN, VILLAGE, Line(spki))
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.not-a-member"


async def test_copy_of_a_child_that_was_enrolled_again_with_a_new_key(world: World) -> None:
    old, _spki = world.node(VILLAGE, DONGGUAN)
    _new, spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, old)
    lists = members(DONGGUAN, VILLAGE, Line(spki))
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.other-key"


async def test_ca_that_lost_its_key_ceases_to_count_for_children_and_parents(world: World) -> None:
    """The thief of a county's CA key can still sign; the catalogue lists the county's new CA."""
    child, spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, child)
    assert isinstance(meeting.server, PeerIdentity)
    assert isinstance(meeting.client, PeerIdentity)
    lists = members(DONGGUAN, VILLAGE, Line(spki))
    listed = {DONGGUAN: world.authorities[DONGGUAN].certificate.public_bytes(Encoding.PEM)}
    judge(meeting.server, lists, NOW, DONGGUAN, ca_certificates=listed)
    judge(meeting.server, lists, NOW, DONGGUAN, ca_certificates={DONGGUAN: b"garbage"})
    new = world.endorse(DONGGUAN, GUANGDONG)
    listed = {DONGGUAN: new.certificate.public_bytes(Encoding.PEM)}
    with pytest.raises(EnrolmentError) as caught:
        judge(meeting.server, lists, NOW, DONGGUAN, ca_certificates=listed)
    assert caught.value.code == "node.old-ca"
    with pytest.raises(EnrolmentError) as caught:
        judge_parent(meeting.client, {}, NOW, DONGGUAN, ca_certificates=listed)
    assert caught.value.code == "node.old-ca"


async def test_expired_child_passes_the_handshake_and_reads_why_it_is_refused(
    world: World,
) -> None:
    child, spki = world.node(VILLAGE, DONGGUAN, now=NOW - timedelta(days=500))
    meeting = await knock(world, child)
    lists = members(DONGGUAN, VILLAGE, Line(spki))
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.expired"


async def test_expired_ca_between(world: World) -> None:
    province, ca_key, key = world.authorities[GUANGDONG], new_key(world.kind), new_key(world.kind)
    old = forge_ca(
        DONGGUAN, ca_key, province.certificate.subject, province.key, life=timedelta(days=30)
    )
    leaf = forge_node(dns(VILLAGE.dns_name), key, old.subject, ca_key)
    child = world.write(key, [leaf, old, *province.chain])
    meeting = await knock(world, child)
    lists = members(DONGGUAN, VILLAGE, Line(spki_sha256(key.public_key())))
    later = NOW + timedelta(days=60)
    assert refusal(meeting.server, lists, later, DONGGUAN) == "node.expired"


async def test_certificate_from_the_future(world: World) -> None:
    child, spki = world.node(VILLAGE, DONGGUAN, now=NOW + timedelta(days=31))
    meeting = await knock(world, child)
    lists = members(DONGGUAN, VILLAGE, Line(spki))
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.not-yet-valid"


async def test_new_certificate_works_where_proven_time_lags_a_month_behind(world: World) -> None:
    child, spki = world.node(VILLAGE, DONGGUAN)
    meeting = await knock(world, child)
    assert isinstance(meeting.server, PeerIdentity)
    lists = members(DONGGUAN, VILLAGE, Line(spki))
    judge(meeting.server, lists, NOW - timedelta(days=30), DONGGUAN)


async def test_good_node_of_another_county(world: World) -> None:
    child, spki = world.node(JIEYANG_VILLAGE, JIEYANG)
    meeting = await knock(world, child)
    lists = members(JIEYANG, JIEYANG_VILLAGE, Line(spki))
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.wrong-subtree"


@pytest.mark.parametrize("code", [DONGGUAN, GUANGDONG])
async def test_county_is_dialled_by_itself_or_its_parent(world: World, code: Division) -> None:
    child, spki = world.node(code, code)
    meeting = await knock(world, child)
    lists = members(code, code, Line(spki))
    assert refusal(meeting.server, lists, NOW, DONGGUAN) == "node.wrong-subtree"


async def test_session_is_never_resumed_past_the_check(world: World) -> None:
    server, _spki = world.node(DONGGUAN, DONGGUAN)
    child, _spki = world.node(VILLAGE, DONGGUAN)
    accepting, dialling = server_context(server), client_context(child)
    for _ in range(2):
        meeting = await meet(accepting, dialling, DONGGUAN)
        assert isinstance(meeting.server, PeerIdentity)
        assert not meeting.resumed
    assert accepting.session_stats()["hits"] == 0


# --- False parents --------------------------------------------------------------------------------


async def test_another_county_answers_at_the_parent_s_address(world: World) -> None:
    parent, _spki = world.node(JIEYANG, JIEYANG)
    assert (await answer(world, parent)).client == "tls.wrong-name"


async def test_a_sibling_answers_at_the_parent_s_address(world: World) -> None:
    parent, _spki = world.node(TOWNSHIP, DONGGUAN)
    assert (await answer(world, parent)).client == "tls.wrong-name"


async def test_parent_of_another_network(world: World, tmp_path: Path) -> None:
    parent, _spki = World(world.kind, tmp_path / "other").node(DONGGUAN, DONGGUAN)
    assert (await answer(world, parent)).client == "tls.unknown-authority"


async def test_other_county_s_ca_signs_a_certificate_for_the_parent(world: World) -> None:
    parent = forged(world, JIEYANG, dns(DONGGUAN.dns_name))
    assert (await answer(world, parent)).client == "tls.outside-subtree"


async def test_parent_with_a_wildcard_that_fits(world: World) -> None:
    parent = forged(world, DONGGUAN, dns("*.000.00.19.44.cuntong.internal"))
    assert (await answer(world, parent)).client == "node.bad-name"


async def test_parent_with_two_names_one_of_which_fits(world: World) -> None:
    parent = forged(world, DONGGUAN, dns(DONGGUAN.dns_name, TOWNSHIP.dns_name))
    assert (await answer(world, parent)).client == "node.bad-name"


async def test_parent_with_the_right_common_name_only(world: World) -> None:
    parent = forged(world, DONGGUAN, [], common_name=DONGGUAN.dns_name)
    assert (await answer(world, parent)).client == "tls.wrong-name"


async def test_parent_with_a_certificate_for_clients(world: World) -> None:
    parent = forged(
        world, DONGGUAN, dns(DONGGUAN.dns_name), purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    assert (await answer(world, parent)).client == "tls.wrong-purpose"


async def test_parent_that_speaks_tls_1_2(world: World) -> None:
    parent, _spki = world.node(DONGGUAN, DONGGUAN)
    child, _spki = world.node(VILLAGE, DONGGUAN)
    server = server_context(parent)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    meeting = await meet(server, client_context(child), DONGGUAN)
    assert (meeting.server, meeting.client) == ("tls.old-version", "tls.closed")


@pytest.mark.parametrize(
    ("change", "code"),
    [("removed", "node.removed"), ("expired", "node.expired"), ("other", "node.wrong-parent")],
)
async def test_parent_that_should_not_be_one_any_more(world: World, change: str, code: str) -> None:
    then = NOW - timedelta(days=500) if change == "expired" else NOW
    parent, spki = world.node(DONGGUAN, DONGGUAN, now=then)
    meeting = await answer(world, parent)
    assert isinstance(meeting.client, PeerIdentity)
    line = Line(spki, "removed" if change == "removed" else "active")
    expected = GUANGDONG if change == "other" else DONGGUAN
    with pytest.raises(EnrolmentError) as caught:
        judge_parent(meeting.client, members(DONGGUAN, DONGGUAN, line), NOW, expected)
    assert caught.value.code == code


# --- A node's own files ---------------------------------------------------------------------------


async def test_stolen_certificate_without_its_key(world: World) -> None:
    stolen, _spki = world.node(VILLAGE, DONGGUAN)
    own, _spki = world.node(TOWNSHIP, DONGGUAN)
    KeyFiles(own).chain.write_bytes(KeyFiles(stolen).chain.read_bytes())
    with pytest.raises(EnrolmentError) as caught:
        client_context(own)
    assert caught.value.code == "node.key-mismatch"


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("node.key", None, "node.not-enrolled"),
        ("node.pem", None, "node.not-enrolled"),
        ("anchor.pem", None, "node.not-enrolled"),
        ("node.key", b"garbage", "node.bad-key"),
        ("node.pem", b"garbage", "node.bad-certificate"),
        ("node.pem", b"", "node.bad-certificate"),
        ("anchor.pem", b"x" * 200_000, "node.bad-certificate"),
    ],
)
async def test_node_with_damaged_files_says_which(
    world: World, file: str, content: bytes | None, code: str
) -> None:
    keys, _spki = world.node(VILLAGE, DONGGUAN)
    if content is None:
        (keys / file).unlink()
    else:
        (keys / file).write_bytes(content)
    with pytest.raises(EnrolmentError) as caught:
        server_context(keys)
    assert caught.value.code == code


async def test_node_whose_anchor_is_a_county_s_ca(world: World) -> None:
    keys, _spki = world.node(VILLAGE, DONGGUAN)
    county = world.authorities[DONGGUAN].certificate
    KeyFiles(keys).anchor.write_bytes(county.public_bytes(Encoding.PEM))
    with pytest.raises(EnrolmentError) as caught:
        client_context(keys)
    assert caught.value.code == "node.bad-anchor"
