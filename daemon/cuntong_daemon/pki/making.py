"""What every certificate of ours is made of, whatever it is for."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from cuntong_protocol.enrolment import PrivateKey, PublicKey


def common_name(text: str) -> x509.Name:
    """A subject that is one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def new_builder(
    subject: x509.Name, key: PublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    """A certificate with a random number; issuer and extensions are still missing."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def key_usage(*, signs_data: bool, signs_certificates: bool) -> x509.KeyUsage:
    """What a key is for; ours encipher nothing and sign no revocation lists."""
    return x509.KeyUsage(
        digital_signature=signs_data,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def signed_by(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    """Sign with the hash that goes with the key."""
    return builder.sign(key, None if isinstance(key, Ed25519PrivateKey) else SHA256())
