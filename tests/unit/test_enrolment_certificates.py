"""What an authority's CA signs, what it refuses to sign, and how a renewed certificate gets in (SPEC 5.1)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_daemon.pki import ca, making
from cuntong_daemon.pki.ca import (
    CA_LIFE,
    NODE_LIFE,
    check_chain,
    issue_node_certificate,
    lint,
    make_ca_certificate,
    path_length,
    sign_ca,
)
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    ca_code,
    certificate_code,
    certificate_spki,
    chain_pem,
    load_chain,
    load_private_key,
    new_key,
    own_certificate,
    private_key_pem,
)
from cuntong_daemon.pki.issued import IssuedCertificates, NodeRecord, install_renewal
from cuntong_protocol.divisions import NATION, Division, Tier
from cuntong_protocol.enrolment import EnrolmentError, Parent, spki_sha256
from tests.support.pki import (
    DONGGUAN,
    GUANGDONG,
    JIEYANG,
    JIEYANG_VILLAGE,
    NOW,
    TOWNSHIP,
    VILLAGE,
    World,
    dns,
    forge_ca,
    forge_node,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World("ed25519", tmp_path)


def code_of(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(EnrolmentError) as caught:
        call(*args, **named)
    assert "{" not in str(caught.value)
    return caught.value.code


# --- Signing --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999),
    st.integers(0, 999), st.integers(0, 5),
)  # fmt: skip
def test_every_node_gets_exactly_one_name_and_its_authority_back(
    province: int, city: int, county: int, township: int, village: int, depth: int
) -> None:
    code = Division(f"{province:02}{city:02}{county:02}{township:03}{village:03}")
    key = new_key()
    anchor = make_ca_certificate(key, now=NOW)
    issuer, chain = anchor, []
    for place in reversed(code.ancestors[: min(depth, len(code.ancestors) - 1)]):
        below = new_key()
        issuer = sign_ca(place, below.public_key(), issuer, key, now=NOW)
        chain.insert(0, issuer)
        key = below
    node = new_key()
    certificate = issue_node_certificate(code, node.public_key(), issuer, key, now=NOW)
    lint(certificate)
    check_chain([certificate, *chain], anchor)
    assert certificate_code(certificate) == code
    assert certificate_spki(certificate) == spki_sha256(node.public_key())
    assert [ca_code(found) for found in [*chain, anchor]][-1] == NATION
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == NODE_LIFE


def test_path_lengths_leave_room_for_just_the_tiers_below() -> None:
    assert [path_length(code) for code in (NATION, GUANGDONG, DONGGUAN, TOWNSHIP, VILLAGE)] == [
        5, 4, 3, 1, 0,
    ]  # fmt: skip
    assert len(Tier) == 6


@pytest.mark.parametrize("child", [JIEYANG, JIEYANG_VILLAGE, GUANGDONG, NATION])
def test_authority_signs_nothing_outside_its_area(world: World, child: Division) -> None:
    county, key = world.authorities[DONGGUAN], new_key().public_key()
    for sign in (sign_ca, issue_node_certificate):
        args = (child, key, county.certificate, county.key)
        assert code_of(sign, *args, now=NOW) == "ca.wrong-subtree"


def test_authority_signs_no_second_ca_for_itself(world: World) -> None:
    county, key = world.authorities[DONGGUAN], new_key().public_key()
    args = (DONGGUAN, key, county.certificate, county.key)
    assert code_of(sign_ca, *args, now=NOW) == "ca.wrong-subtree"
    assert certificate_code(issue_node_certificate(*args, now=NOW)) == DONGGUAN


def test_wrong_stick_signs_nothing(world: World) -> None:
    county, key = world.authorities[DONGGUAN], new_key()
    args = (VILLAGE, key.public_key(), county.certificate, key)
    assert code_of(issue_node_certificate, *args, now=NOW) == "ca.wrong-key"


def test_ca_that_has_ended_signs_nothing(world: World) -> None:
    county, key = world.authorities[DONGGUAN], new_key().public_key()
    later = NOW + CA_LIFE + timedelta(days=1)
    args = (VILLAGE, key, county.certificate, county.key)
    assert code_of(issue_node_certificate, *args, now=later) == "ca.expired"


def test_certificates_never_outlive_their_ca(world: World) -> None:
    later = NOW + CA_LIFE - timedelta(days=100)
    county, key = world.authorities[DONGGUAN], new_key().public_key()
    node = issue_node_certificate(VILLAGE, key, county.certificate, county.key, now=later)
    assert node.not_valid_after_utc == county.certificate.not_valid_after_utc
    township = sign_ca(TOWNSHIP, key, county.certificate, county.key, now=later)
    assert township.not_valid_after_utc == county.certificate.not_valid_after_utc


def test_something_that_is_no_ca_signs_nothing(world: World) -> None:
    county, key = world.authorities[DONGGUAN], new_key()
    node = issue_node_certificate(
        TOWNSHIP, key.public_key(), county.certificate, county.key, now=NOW
    )
    args = (VILLAGE, key.public_key(), node, key)
    assert code_of(issue_node_certificate, *args, now=NOW) == "node.bad-ca"


def test_a_mistake_of_ours_is_found_before_the_real_key_signs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lint sees a certificate that a throw-away key signed; the real key never signs a wrong one."""
    county, key = world.authorities[DONGGUAN], new_key().public_key()
    signed_with: list[Any] = []
    real = making.signed_by

    def record(builder: x509.CertificateBuilder, signer: Any) -> x509.Certificate:
        signed_with.append(signer)
        return real(builder, signer)

    monkeypatch.setattr(ca, "signed_by", record)
    monkeypatch.setattr(ca, "NODE_LIFE", timedelta(days=1))
    monkeypatch.setattr(ca, "lint", lambda found: lint(found))
    args = (VILLAGE, key, county.certificate, county.key)
    issue_node_certificate(*args, now=NOW)
    assert len(signed_with) == 2
    assert signed_with[0] is not county.key
    assert signed_with[1] is county.key
    signed_with.clear()
    monkeypatch.setattr(ca, "common_name", lambda name: x509.Name([]))
    monkeypatch.setattr(ca, "lint", lambda found: ca._demand(bool(list(found.subject)), "subject"))
    assert code_of(issue_node_certificate, *args, now=NOW) == "ca.lint-subject"
    assert county.key not in signed_with


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"purposes": [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]}, "ca.lint-purpose"),
        ({"purposes": []}, "ca.lint-extensions"),
        ({"names": []}, "ca.lint-extensions"),
        ({"names": [VILLAGE.dns_name, TOWNSHIP.dns_name]}, "node.bad-name"),
        ({"names": ["*.003.00.19.44.cuntong.internal"]}, "node.bad-name"),
        ({"common_name": "somebody"}, "ca.lint-subject"),
        ({"life": NODE_LIFE + timedelta(days=1)}, "ca.lint-period"),
    ],
)
def test_lint_finds_what_is_wrong_with_a_node_certificate(
    world: World, change: dict[str, Any], code: str
) -> None:
    county = world.authorities[DONGGUAN]
    names = dns(*change.pop("names", [VILLAGE.dns_name]))
    how = {"common_name": str(VILLAGE), **change}
    wrong = forge_node(names, new_key(), county.certificate.subject, county.key, **how)
    assert code_of(lint, wrong) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"length": 2}, "ca.lint-path-length"),
        ({"constraint": []}, "ca.lint-extensions"),
        ({"constraint": ["internal"]}, "node.bad-ca"),
        ({"life": CA_LIFE + timedelta(days=1)}, "ca.lint-period"),
        ({"name": "CA somewhere"}, "ca.lint-subject"),
    ],
)
def test_lint_finds_what_is_wrong_with_a_ca_certificate(
    world: World, change: dict[str, Any], code: str
) -> None:
    county = world.authorities[DONGGUAN]
    wrong = forge_ca(TOWNSHIP, new_key(), county.certificate.subject, county.key, **change)
    assert code_of(lint, wrong) == code


# --- Chains ---------------------------------------------------------------------------------------


def chain_of(world: World, code: Division, issuer: Division) -> list[x509.Certificate]:
    keys, _spki = world.node(code, issuer)
    return load_chain(KeyFiles(keys).chain.read_bytes())


def test_chains_of_nodes_and_authorities_are_accepted(world: World) -> None:
    anchor = world.authorities[NATION].certificate
    check_chain(chain_of(world, VILLAGE, TOWNSHIP), anchor)
    check_chain(chain_of(world, VILLAGE, NATION), anchor)
    check_chain(list(world.authorities[TOWNSHIP].chain), anchor)
    check_chain([], anchor)


def test_broken_chains_are_found_before_a_pack_leaves(world: World, tmp_path: Path) -> None:
    anchor = world.authorities[NATION].certificate
    leaf, county, province = chain_of(world, VILLAGE, DONGGUAN)
    other = World("ed25519", tmp_path / "other").authorities[NATION].certificate
    for chain, top in (
        ([leaf, province], anchor),
        ([leaf, county], anchor),
        ([leaf, province, county], anchor),
        ([leaf, county, province], other),
        ([county, county, province], anchor),
        ([leaf, county], province),
    ):
        assert code_of(check_chain, chain, top) == "ca.broken-chain"


def test_chain_with_a_node_outside_its_authority_s_area_is_found(world: World) -> None:
    county, key = world.authorities[DONGGUAN], new_key()
    wrong = forge_node(dns(JIEYANG_VILLAGE.dns_name), key, county.certificate.subject, county.key)
    anchor = world.authorities[NATION].certificate
    assert code_of(check_chain, [wrong, *county.chain], anchor) == "ca.broken-chain"


# --- Files ----------------------------------------------------------------------------------------


def test_only_our_key_types_are_read() -> None:
    for key in (new_key("ed25519"), new_key("p256")):
        assert load_private_key(private_key_pem(key)).public_key() == key.public_key()
    wrong: Any = ec.generate_private_key(ec.SECP384R1())
    assert code_of(load_private_key, private_key_pem(wrong)) == "node.bad-key"
    assert code_of(load_private_key, b"") == "node.bad-key"


def test_node_without_enrolment_says_so(tmp_path: Path) -> None:
    assert code_of(own_certificate, KeyFiles(tmp_path)) == "node.not-enrolled"
    assert code_of(install_renewal, tmp_path, b"") == "node.bad-certificate"


def renewed(world: World, keys: Path, code: Division = VILLAGE, **how: Any) -> bytes:
    county = world.authorities[DONGGUAN]
    key = how.get("key") or load_private_key(KeyFiles(keys).key.read_bytes())
    later = NOW + timedelta(days=how.get("days", 400))
    certificate = issue_node_certificate(
        code, key.public_key(), county.certificate, county.key, now=later
    )
    return chain_pem([certificate, *county.chain])


def test_renewed_certificate_is_taken_into_use(world: World) -> None:
    keys, spki = world.node(VILLAGE, DONGGUAN)
    pem = renewed(world, keys)
    assert install_renewal(keys, pem)
    assert KeyFiles(keys).chain.read_bytes() == pem
    assert certificate_spki(own_certificate(KeyFiles(keys))) == spki
    assert not install_renewal(keys, pem)


def test_older_certificate_doesn_t_replace_a_newer_one(world: World) -> None:
    keys, _spki = world.node(VILLAGE, DONGGUAN)
    before = KeyFiles(keys).chain.read_bytes()
    assert not install_renewal(keys, renewed(world, keys, days=-30))
    assert KeyFiles(keys).chain.read_bytes() == before


def test_certificate_for_another_node_or_key_is_not_taken(world: World) -> None:
    keys, _spki = world.node(VILLAGE, DONGGUAN)
    before = KeyFiles(keys).chain.read_bytes()
    for pem in (
        renewed(world, keys, key=new_key()),
        renewed(world, keys, code=Division("441900003006")),
    ):
        assert code_of(install_renewal, keys, pem) == "node.foreign-certificate"
    assert KeyFiles(keys).chain.read_bytes() == before


def test_certificate_of_another_network_is_not_taken(world: World, tmp_path: Path) -> None:
    keys, _spki = world.node(VILLAGE, DONGGUAN)
    other = World("ed25519", tmp_path / "other")
    assert code_of(install_renewal, keys, renewed(other, keys)) == "ca.broken-chain"


def test_what_was_issued_is_delivered_once_to_the_right_key(world: World, tmp_path: Path) -> None:
    keys, spki = world.node(VILLAGE, DONGGUAN)
    old = load_chain(KeyFiles(keys).chain.read_bytes())
    issued = IssuedCertificates(tmp_path / "authority")
    assert issued.codes() == []
    assert issued.newer_chain(VILLAGE, spki, NOW) is None
    record = NodeRecord(site="水乡", parents=(Parent("441900000000", "10.0.0.1:7440"),))
    issued.save(VILLAGE, old, record)
    assert issued.record(VILLAGE) == record
    assert issued.newer_chain(VILLAGE, spki, old[0].not_valid_after_utc) is None
    pem = renewed(world, keys)
    issued.save(VILLAGE, load_chain(pem))
    assert issued.record(VILLAGE) == record
    assert issued.codes() == [VILLAGE]
    assert issued.newer_chain(VILLAGE, spki, old[0].not_valid_after_utc) == pem
    assert issued.newer_chain(VILLAGE, b"\0" * 32, old[0].not_valid_after_utc) is None
    issued.forget(VILLAGE)
    assert issued.newer_chain(VILLAGE, spki, old[0].not_valid_after_utc) is None
    (issued.folder / "notes.pem").write_text("not a code")
    (issued.folder / f"{VILLAGE}.json").write_text("damaged")
    assert issued.codes() == []
    assert issued.record(VILLAGE) == NodeRecord()


def test_a_p256_authority_signs_with_sha256(tmp_path: Path) -> None:
    world = World("p256", tmp_path)
    leaf = chain_of(world, VILLAGE, DONGGUAN)[0]
    assert isinstance(leaf.signature_hash_algorithm, SHA256)
