"""An authority's swarm CA, and the certificates by which nodes join its closed swarms (SPEC 7.6).

The CA is flat, as libtorrent's SSL torrents need it: self-signed, with its certificate in the torrent, and
every certificate is issued by it directly. It has nothing to do with the CAs that name nodes: what it signs opens
swarms and nothing else. Its key lies beside the online key, since certificates are issued without a person.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from cuntong_daemon.files import write_atomically
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import EnrolmentError, spki_sha256
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .ca import CA_LIFE
from .certificates import (
    KeyType,
    PrivateKey,
    PublicKey,
    certificate_spki,
    load_certificate,
    load_private_key,
    new_key,
    private_key_pem,
)
from .making import common_name, key_usage, new_builder, signed_by

SWARM_CA = "keys/swarm-ca.pem"
"""Below the authority's folder, mode 0600: key and certificate in one file, so that neither is there alone."""
PEER_LIFE = timedelta(days=90)
"""There is no revocation: so long a removed node keeps access to peers that it can still reach."""
PEER_RENEW_BEFORE = timedelta(days=30)
BACKDATED = timedelta(days=30)
"""libtorrent judges by the machine's clock, and a village's may be behind."""
ANY_TORRENT = "*"
"""As a DNS name, for libtorrent: a certificate for every torrent of the CA."""


class SwarmCa:
    """The swarm CA of one authority.

    Attributes:
        certificate: In the info dictionary of each closed torrent, byte for byte (`pem`).
    """

    def __init__(self, key: PrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @property
    def pem(self) -> bytes:
        """The certificate as torrents hold it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def encode(self) -> bytes:
        """The content of its file."""
        return private_key_pem(self._key) + self.pem

    def issue(self, code: Division, key: PublicKey, *, now: datetime) -> x509.Certificate:
        """A certificate for a node, for 90 days and every torrent of this CA. It never outlives the CA.

        Raises:
            EnrolmentError: `swarm-ca.expired`.
        """
        start = now.replace(microsecond=0)
        end = min(start + PEER_LIFE, self.certificate.not_valid_after_utc)
        if end <= now:
            raise EnrolmentError(
                "swarm-ca.expired",
                N_("The swarm CA of this authority ended on {date}. Publish its bundles anew."),
                date=self.certificate.not_valid_after_utc.date().isoformat(),
            )
        builder = (
            new_builder(common_name(str(code)), key, start - BACKDATED, end)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_data=True, signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(ANY_TORRENT)]), critical=False)
        )
        return signed_by(builder, self._key)


def make_swarm_ca(code: Division, kind: KeyType, *, now: datetime) -> SwarmCa:
    """A new CA for an authority; ten years."""
    key = new_key(kind)
    name = common_name(f"swarm {code}")
    start = now.replace(microsecond=0)
    builder = (
        new_builder(name, key.public_key(), start - BACKDATED, start + CA_LIFE)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_data=False, signs_certificates=True), critical=True)
    )
    return SwarmCa(key, signed_by(builder, key))


def load_swarm_ca(authority: Path) -> SwarmCa | None:
    """The swarm CA in an authority's folder; None when it has none yet.

    Raises:
        EnrolmentError: `swarm-ca.damaged`.
        OSError: It can't be read.
    """
    path = authority / SWARM_CA
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        key, certificate = load_private_key(data), x509.load_pem_x509_certificate(data)
        if certificate_spki(certificate) == spki_sha256(key.public_key()):
            return SwarmCa(key, certificate)
    except (ValueError, EnrolmentError, x509.InvalidVersion):
        pass
    raise EnrolmentError(
        "swarm-ca.damaged",
        N_("{file} is damaged. Put it back from the backup."),
        fault=Fault.SYSTEM,
        file=str(path),
    )


def ensure_swarm_ca(authority: Path, code: Division, kind: KeyType, *, now: datetime) -> SwarmCa:
    """The swarm CA of an authority, made if it has none: those of older versions weren't born with one.

    Raises:
        EnrolmentError: as `load_swarm_ca`.
        OSError: It can't be written.
    """
    found = load_swarm_ca(authority)
    if found is None:
        found = make_swarm_ca(code, kind, now=now)
        write_atomically(authority / SWARM_CA, found.encode(), mode=0o600)
    return found


def check_peer_certificate(
    certificate: x509.Certificate, root: bytes, key: PublicKey, now: datetime
) -> None:
    """Check that a certificate lets a node with this key join the torrents of a swarm CA.

    It came over the link, from nodes that might be mistaken; other peers would only hang up.

    Args:
        root: The CA's certificate as the torrent has it, PEM.

    Raises:
        EnrolmentError: `swarm-ca.wrong-key`, `swarm-ca.wrong-issuer`, `swarm-ca.wrong-name`,
            `swarm-ca.ended`.
    """
    if certificate_spki(certificate) != spki_sha256(key):
        raise _unfit("wrong-key")
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _unfit("wrong-issuer") from None
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_for_all = ANY_TORRENT in names.get_values_for_type(x509.DNSName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        is_for_all = False
    if not is_for_all:
        raise _unfit("wrong-name")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise _unfit("ended")


class PeerCertificates:
    """The swarm certificates of this node, `keys/swarm/<publisher>.der`: one for each publisher."""

    def __init__(self, keys: Path) -> None:
        self.folder = keys / "swarm"

    def load(self, publisher: Division) -> x509.Certificate | None:
        """The newest certificate of a publisher; None when there is none that can be read."""
        try:
            return load_certificate(self._path(publisher).read_bytes())
        except (OSError, EnrolmentError):
            return None

    def save(self, publisher: Division, der: bytes) -> None:
        """Keep a certificate that was checked.

        Raises:
            OSError: It can't be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._path(publisher), der)

    def _path(self, publisher: Division) -> Path:
        return self.folder / f"{publisher}.der"


def _unfit(what: str) -> EnrolmentError:
    return EnrolmentError(
        f"swarm-ca.{what}",
        N_("The certificate doesn't open this publisher's bundles ({what})."),
        fault=Fault.PEER,
        what=what,
    )
