"""Keys and certificates as files and values: making, reading, and what they say (SPEC 5.1, 5.2).

Nothing here decides whether somebody may come in; `tls.py` does. Nothing here signs certificates; `ca.py` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cuntong_protocol.divisions import Division, DivisionError, Tier, division_of_dns_name
from cuntong_protocol.enrolment import (
    EnrolmentError,
    bad_key,
    fingerprint,
    spki_sha256,
)
from cuntong_protocol.enrolment import PrivateKey as PrivateKey
from cuntong_protocol.enrolment import PublicKey as PublicKey
from cuntong_protocol.enrolment import checked_public_key as checked_public_key
from cuntong_protocol.enrolment import load_public_key as load_public_key
from cuntong_protocol.enrolment import public_key_der as public_key_der
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

KeyType = Literal["ed25519", "p256"]

MAX_CHAIN_CERTIFICATES = len(Tier) + 1
"""A node, and a CA at each tier above it."""
MAX_CERTIFICATE_BYTES = 4096
"""Ours have below 600 bytes; room for another key type."""
MAX_CHAIN_BYTES = MAX_CHAIN_CERTIFICATES * MAX_CERTIFICATE_BYTES


def new_key(kind: KeyType = "ed25519") -> PrivateKey:
    """Make a private key."""
    return Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP256R1())


def key_type_of(key: PrivateKey) -> KeyType:
    """The name of a key's type."""
    return "ed25519" if isinstance(key, Ed25519PrivateKey) else "p256"


def private_key_pem(key: PrivateKey) -> bytes:
    """Unencrypted PKCS#8: for keys that a daemon must be able to use without a person."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(data: bytes) -> PrivateKey:
    """Read an unencrypted private key.

    Raises:
        EnrolmentError: `node.bad-key`.
    """
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise bad_key()


def certificate_spki(certificate: x509.Certificate) -> bytes:
    """The hash of a certificate's public key.

    Raises:
        EnrolmentError: `node.bad-key`.
    """
    try:
        return spki_sha256(checked_public_key(certificate.public_key()))
    except (ValueError, UnsupportedAlgorithm):
        raise bad_key() from None


def certificate_code(certificate: x509.Certificate) -> Division:
    """The node that a certificate names: exactly one SAN, of exactly our form (SPEC 5.2).

    OpenSSL lets wildcards, several names, and URI names (which DNS name constraints don't confine) pass.

    Raises:
        EnrolmentError: `node.bad-name`.
    """
    try:
        names = list(
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
        if len(names) == 1 and isinstance(names[0], x509.DNSName):
            return division_of_dns_name(names[0].value)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, DivisionError):
        pass
    raise EnrolmentError(
        "node.bad-name",
        N_("The certificate doesn't name exactly one place of this network. Enrol the node again."),
    )


def ca_code(certificate: x509.Certificate) -> Division:
    """The authority whose CA this is: the one whose subtree its name constraint permits (SPEC 5.1).

    The constraint is what OpenSSL enforces; a CA's subject is only what its issuer wrote there.

    Raises:
        EnrolmentError: `node.bad-ca`.
    """
    try:
        extensions = certificate.extensions
        constraint = extensions.get_extension_for_class(x509.NameConstraints)
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        permitted = constraint.value.permitted_subtrees or []
        if is_ca and constraint.critical and len(permitted) == 1:
            subtree = permitted[0]
            if isinstance(subtree, x509.DNSName):
                return _division_of_subtree(subtree.value)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, DivisionError):
        pass
    raise bad_ca()


def bad_ca() -> EnrolmentError:
    """The error for a CA certificate that isn't an authority's."""
    return EnrolmentError(
        "node.bad-ca",
        N_("The certificate was issued by something that isn't an authority of this network."),
    )


def _division_of_subtree(name: str) -> Division:
    missing = 7 - len(name.split("."))  # 5 groups and the 2 labels of the suffix
    zeros = ["000", "000", "00", "00", "00"][: max(missing, 0)]
    code = division_of_dns_name(".".join((*zeros, name)))
    if code.dns_subtree != name:
        raise DivisionError(
            "division.bad-name", N_("{name} is not the network name of a division."), name=name
        )
    return code


def load_certificate(der: bytes) -> x509.Certificate:
    """Read one DER certificate.

    Raises:
        EnrolmentError: `node.bad-certificate`.
    """
    if len(der) <= MAX_CERTIFICATE_BYTES:
        try:
            return x509.load_der_x509_certificate(der)
        except (ValueError, x509.InvalidVersion):
            pass
    raise _bad_certificate()


def load_chain(pem: bytes) -> list[x509.Certificate]:
    """Read PEM certificates, in the order of the file; at least one.

    Raises:
        EnrolmentError: `node.bad-certificate`.
    """
    if len(pem) <= 2 * MAX_CHAIN_BYTES:
        try:
            chain = x509.load_pem_x509_certificates(pem)
        except (ValueError, x509.InvalidVersion):
            chain = []
        if 0 < len(chain) <= MAX_CHAIN_CERTIFICATES:
            return chain
    raise _bad_certificate()


def _bad_certificate() -> EnrolmentError:
    return EnrolmentError("node.bad-certificate", N_("The certificate is damaged."))


def certificate_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def chain_pem(chain: Iterable[x509.Certificate]) -> bytes:
    """Certificates as PEM, in the order given."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """What a node proves itself with, below `DataPaths.keys` (mode 0700)."""

    folder: Path

    @property
    def key(self) -> Path:
        """The node's private key, unencrypted, mode 0600. Made on the node, never leaves it."""
        return self.folder / "node.key"

    @property
    def chain(self) -> Path:
        """The node's certificate, then the CAs above it without the nation's; PEM."""
        return self.folder / "node.pem"

    @property
    def anchor(self) -> Path:
        """The nation's CA certificate, the only one that is trusted by itself; PEM."""
        return self.folder / "anchor.pem"

    @property
    def pending_key(self) -> Path:
        """The key of a request that hasn't been answered; becomes `key` when the pack comes."""
        return self.folder / "pending.key"

    @property
    def pending_request(self) -> Path:
        """That request, as text."""
        return self.folder / "pending.request"


def network_fingerprint(nation_root: bytes, anchor: x509.Certificate) -> str:
    """What people compare to be sure that a pack is of their nation's network: its first root and its CA."""
    return fingerprint(network_digest(hashlib.sha256(nation_root).digest(), anchor))


def network_digest(nation_root_sha256: bytes, anchor: x509.Certificate) -> bytes:
    """Which network this is (SPEC 5.6): the SHA-256 that the fingerprint begins with.

    Args:
        nation_root_sha256: Of the nation's root, version 1.
        anchor: The nation's CA certificate.
    """
    return hashlib.sha256(nation_root_sha256 + certificate_spki(anchor)).digest()


def own_certificate(files: KeyFiles) -> x509.Certificate:
    """The certificate that this node shows.

    Raises:
        EnrolmentError: `node.not-enrolled`, `node.bad-certificate`.
    """
    try:
        return load_chain(files.chain.read_bytes())[0]
    except FileNotFoundError:
        raise not_enrolled() from None


def not_enrolled() -> EnrolmentError:
    """The error for a data directory without a certificate."""
    return EnrolmentError(
        "node.not-enrolled",
        N_("This node isn't enrolled yet. Install its pack: cuntong node enrol PACK"),
        fault=Fault.CONFIG,
    )


def chain_end(chain: Iterable[x509.Certificate]) -> datetime:
    """When the first of these certificates ends (UTC)."""
    return min(certificate.not_valid_after_utc for certificate in chain)
