"""The swarm CA of an authority and what it issues (SPEC 7.6)."""

from __future__ import annotations

import base64
import datetime as dt
import random
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cuntong_daemon.authority.keys import AuthorityError
from cuntong_daemon.authority.publishing import sign_promotion
from cuntong_daemon.pki.certificates import (
    KeyType,
    certificate_der,
    load_certificate,
    load_chain,
    new_key,
)
from cuntong_daemon.pki.swarm import (
    PEER_LIFE,
    SWARM_CA,
    PeerCertificates,
    check_peer_certificate,
    ensure_swarm_ca,
    load_swarm_ca,
    make_swarm_ca,
)
from cuntong_daemon.torrents import check_access
from cuntong_protocol.bundle.descriptor import parse_bundle_id
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.metadata import Licence, Metadata
from cuntong_protocol.bundle.torrent import decode_torrent, make_hybrid
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import EnrolmentError, checked_public_key
from cuntong_tools.publish.build import build_bundle
from tests.support.authorities import NOW, Place, make_listing, make_place
from tests.support.bundles import write_folder
from tests.support.payloads import some_files, torrent_of
from tests.vectors import bundle as bundle_vectors

BUNDLE_VECTORS = Path(bundle_vectors.__file__).parent
COUNTY, VILLAGE = Division("441900000000"), Division("441900003005")
DAY = dt.timedelta(days=1)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path, "000000000000")


def test_new_authority_has_a_swarm_ca_that_only_its_daemon_reads(place: Place) -> None:
    path = place.repository.path / SWARM_CA
    assert path.stat().st_mode & 0o777 == 0o600
    first = place.repository.swarm_ca(now=NOW)
    again = place.repository.swarm_ca(now=NOW + DAY)
    assert (
        first.pem == again.pem == ensure_swarm_ca(path.parent.parent, COUNTY, "p256", now=NOW).pem
    )
    assert first.certificate.not_valid_after_utc > NOW + 3650 * DAY


def test_older_authority_gets_its_swarm_ca_once(place: Place) -> None:
    (place.repository.path / SWARM_CA).unlink()
    assert load_swarm_ca(place.repository.path) is None
    made = place.repository.swarm_ca(now=NOW)
    assert (place.repository.path / SWARM_CA).stat().st_mode & 0o777 == 0o600
    assert place.repository.swarm_ca(now=NOW).pem == made.pem


@pytest.mark.parametrize("data", [b"", b"rubbish", make_swarm_ca(COUNTY, "p256", now=NOW).pem])
def test_damaged_swarm_ca_is_told_and_never_replaced(place: Place, data: bytes) -> None:
    path = place.repository.path / SWARM_CA
    path.write_bytes(data)
    with pytest.raises(EnrolmentError) as caught:
        place.repository.swarm_ca(now=NOW)
    assert caught.value.code == "swarm-ca.damaged"
    assert path.read_bytes() == data


def test_key_of_another_ca_is_damage(place: Place) -> None:
    one, two = (make_swarm_ca(COUNTY, "ed25519", now=NOW) for _ in range(2))
    mixed = one.encode().replace(one.pem, two.pem)
    (place.repository.path / SWARM_CA).write_bytes(mixed)
    with pytest.raises(EnrolmentError):
        load_swarm_ca(place.repository.path)


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_certificate_is_for_one_key_every_torrent_and_90_days(kind: KeyType) -> None:
    ca, key = make_swarm_ca(COUNTY, kind, now=NOW), new_key(kind)
    certificate = ca.issue(VILLAGE, key.public_key(), now=NOW)
    check = lambda now, root=ca.pem, own=key: check_peer_certificate(  # noqa: E731
        certificate, root, own.public_key(), now
    )
    check(NOW)
    check(NOW - 29 * DAY)  # A clock that is behind.
    check(NOW + PEER_LIFE - DAY)
    other = make_swarm_ca(COUNTY, kind, now=NOW)
    for code, run in {
        "swarm-ca.ended": lambda: check(NOW + PEER_LIFE),
        "swarm-ca.wrong-issuer": lambda: check(NOW, root=other.pem),
        "swarm-ca.wrong-key": lambda: check(NOW, own=new_key(kind)),
    }.items():
        with pytest.raises(EnrolmentError) as caught:
            run()
        assert caught.value.code == code
    assert certificate.subject.rfc4514_string() == f"CN={VILLAGE}"


def test_root_that_is_no_certificate_opens_nothing() -> None:
    ca, key = make_swarm_ca(COUNTY, "ed25519", now=NOW), new_key()
    certificate = ca.issue(VILLAGE, key.public_key(), now=NOW)
    with pytest.raises(EnrolmentError) as caught:
        check_peer_certificate(certificate, b"rubbish", key.public_key(), NOW)
    assert caught.value.code == "swarm-ca.wrong-issuer"
    # The CA's own certificate names no torrents.
    with pytest.raises(EnrolmentError) as caught:
        check_peer_certificate(ca.certificate, ca.pem, ca.certificate.public_key(), NOW)  # type: ignore[arg-type]
    assert caught.value.code == "swarm-ca.wrong-name"


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_damaged_certificates_are_refused_in_words() -> None:
    """Whatever comes over the link gives one kind of error: any other would take the daemon down."""
    root = (BUNDLE_VECTORS / "swarm-ca.pem").read_bytes()
    whole = x509.load_pem_x509_certificate(root)
    key, good = checked_public_key(whole.public_key()), certificate_der(whole)
    randomness = random.Random(5)
    for _ in range(5000):
        data = bytearray(good)
        for _ in range(randomness.randrange(1, 4)):
            data[randomness.randrange(len(data))] = randomness.randrange(256)
        with pytest.raises(EnrolmentError):
            check_peer_certificate(load_certificate(bytes(data)), root, key, NOW)


def test_certificate_of_an_unknown_version_is_damage_in_a_chain_too() -> None:
    der = bytearray(certificate_der(make_swarm_ca(COUNTY, "ed25519", now=NOW).certificate))
    at = der.index(b"\xa0\x03\x02\x01\x02")
    der[at + 4] = 32
    text = base64.encodebytes(bytes(der)).decode()
    with pytest.raises(EnrolmentError) as caught:
        load_chain(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n".encode())
    assert caught.value.code == "node.bad-certificate"


def test_certificate_never_outlives_its_ca() -> None:
    ca, key = make_swarm_ca(COUNTY, "ed25519", now=NOW), new_key()
    end = ca.certificate.not_valid_after_utc
    late = ca.issue(VILLAGE, key.public_key(), now=end - 10 * DAY)
    assert late.not_valid_after_utc == end
    with pytest.raises(EnrolmentError) as caught:
        ca.issue(VILLAGE, key.public_key(), now=end)
    assert caught.value.code == "swarm-ca.expired"


def test_damaged_certificate_of_a_node_counts_as_none(tmp_path: Path) -> None:
    kept = PeerCertificates(tmp_path)
    assert kept.load(COUNTY) is None
    ca, key = make_swarm_ca(COUNTY, "ed25519", now=NOW), new_key()
    certificate = ca.issue(VILLAGE, key.public_key(), now=NOW)
    kept.save(COUNTY, certificate_der(certificate))
    assert kept.load(COUNTY) == certificate
    (kept.folder / f"{COUNTY}.der").write_bytes(b"rubbish")
    assert kept.load(COUNTY) is None


# Torrents.


def test_closed_torrent_is_read_as_it_was_made() -> None:
    ca = make_swarm_ca(COUNTY, "ed25519", now=NOW)
    opened, closed = torrent_of(some_files()), torrent_of(some_files(), root_certificate=ca.pem)
    read = decode_torrent(closed.encode(), infohash=closed.infohash)
    assert read == closed
    assert read.is_closed
    assert x509.load_pem_x509_certificate(read.root_certificate) == ca.certificate
    assert not opened.is_closed
    assert closed.infohash != opened.infohash
    assert [file.root for file in closed.files] == [file.root for file in opened.files]


PEM = make_swarm_ca(COUNTY, "ed25519", now=NOW).pem


@pytest.mark.parametrize(
    "root",
    [
        PEM + PEM,
        PEM + b"\n",
        PEM.replace(b"\n", b"\r\n"),
        b"words before\n" + PEM,
        PEM.replace(b"CERTIFICATE", b"PRIVATE KEY"),
        PEM.replace(b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN CERTIFICATE-----\n\n"),
        b"-----BEGIN CERTIFICATE-----\nAB==\n-----END CERTIFICATE-----\n",  # Bits that mean nothing.
        b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n" + b"A" * 64 + b"\n" * 1 + b"-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n" + (b"A" * 64 + b"\n") * 40 + b"-----END CERTIFICATE-----\n",
        b"x",
    ],
)  # fmt: skip
def test_torrent_with_something_else_for_a_certificate_is_refused(root: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        torrent_of(some_files(), root_certificate=root)
    assert caught.value.code == "bundle.bad-torrent"


@pytest.mark.parametrize("root", [b"", b"x" * 100, PEM + PEM])
def test_torrent_from_a_neighbour_with_a_bad_certificate_is_refused(root: bytes) -> None:
    data = torrent_of(some_files(), root_certificate=PEM).encode()
    assert data.count(PEM) == 1
    forged = data.replace(b"%d:" % len(PEM) + PEM, b"%d:" % len(root) + root)
    with pytest.raises(BundleError) as caught:
        decode_torrent(forged)
    assert caught.value.code == "bundle.bad-torrent"


def test_closed_torrent_is_never_hybrid() -> None:
    closed = torrent_of(some_files(), root_certificate=PEM)
    # The hybrid form is made for others' programs, which couldn't join.
    hybrid = make_hybrid(closed, [bytes(20)] * closed.piece_count)
    assert not hybrid.is_closed
    forged = hybrid.encode().replace(
        b"e12:piece layers", b"8:ssl-cert%d:%be12:piece layers" % (len(PEM), PEM)
    )
    with pytest.raises(BundleError):
        decode_torrent(forged)


@pytest.mark.parametrize(
    ("is_closed", "is_restricted", "code"),
    [
        (True, True, None),
        (False, False, None),
        (False, True, "bundle.open-swarm"),
        (True, False, "bundle.closed-swarm"),
    ],
)
def test_licence_and_swarm_must_agree(
    is_closed: bool, is_restricted: bool, code: str | None
) -> None:
    torrent = torrent_of(some_files(), root_certificate=PEM if is_closed else b"")
    if code is None:
        check_access(torrent, is_restricted=is_restricted)
        return
    with pytest.raises(BundleError) as caught:
        check_access(torrent, is_restricted=is_restricted)
    assert caught.value.code == code


def test_build_puts_the_certificate_into_the_torrent_and_nowhere_else(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", {"a.txt": b"a" * 5000, "b.bin": bytes(range(256)) * 300})
    metadata = Metadata(
        title="档案",
        slug="archive",
        date=dt.date(2026, 11, 1),
        licence=Licence(kind="restricted", scope=("4419",)),
    )
    opened, closed, again = (
        build_bundle(
            source,
            metadata,
            bundle_id=parse_bundle_id(f"{COUNTY}/202611/archive"),
            revision=1,
            output=tmp_path / name,
            root_certificate=root,
        )
        for name, root in (("1", b""), ("2", PEM), ("3", PEM))
    )
    assert closed.torrent.root_certificate == PEM
    assert closed.torrent.encode() == again.torrent.encode()
    assert closed.torrent.files == opened.torrent.files
    assert closed.descriptor.infohash != opened.descriptor.infohash


# Promotion.


@pytest.mark.parametrize(
    ("scope", "is_refused"),
    [(("441900003005",), False), (("4419",), False), (("44",), True), (("4419", "4401"), True)],
)
def test_promotion_of_what_others_could_not_join_is_refused(
    place: Place, scope: tuple[str, ...], is_refused: bool
) -> None:
    bundle = f"{COUNTY}/202611/archive"
    candidate = make_listing(bundle, licence=Licence(kind="restricted", scope=scope))
    signers = [place.signer("reviewer-1"), place.signer("reviewer-2")]
    if not is_refused:
        assert sign_promotion(place.repository, [candidate], signers, now=NOW).is_published
        return
    with pytest.raises(AuthorityError) as caught:
        sign_promotion(place.repository, [candidate], signers, now=NOW)
    assert caught.value.code == "promote.licence-outside"
    assert not place.repository.load().promoted()


def test_pem_is_the_form_that_torrents_hold() -> None:
    ca = make_swarm_ca(COUNTY, "p256", now=NOW)
    assert ca.pem == ca.certificate.public_bytes(Encoding.PEM)
    assert torrent_of(some_files(), root_certificate=ca.pem).root_certificate == ca.pem
