"""A small CA and node certificates for TLS on loopback, made afresh for each test run."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from cuntong_protocol.divisions import Division, division_of_dns_name


@dataclass(frozen=True, slots=True)
class SimpleIdentity:
    """As much of an identity as the link looks at."""

    code: Division


class TestAuthority:
    """One CA that signs whatever it is asked to."""

    __test__ = False

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self._certificate = self._build(self._name, self._key.public_key(), is_ca=True, dns=None)

    def _build(
        self, subject: x509.Name, key: Any, *, is_ca: bool, dns: str | None
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if dns is not None:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False
            )
        return builder.sign(self._key, None)

    def context(
        self, code: Division, *, server: bool, anchor: TestAuthority | None = None
    ) -> ssl.SSLContext:
        """A TLS context for a node: its certificate from this CA, and whom it trusts (this CA if not said)."""
        key = Ed25519PrivateKey.generate()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, code)])
        certificate = self._build(subject, key.public_key(), is_ca=False, dns=code.dns_name)
        pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = not server
        context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "node.pem"
            file.write_bytes(pem)
            context.load_cert_chain(file)
        trusted = (anchor or self)._certificate
        context.load_verify_locations(
            cadata=trusted.public_bytes(serialization.Encoding.PEM).decode()
        )
        if server:
            context.num_tickets = 0
        return context


@functools.cache
def shared_authority() -> TestAuthority:
    """One CA for all tests of a run."""
    return TestAuthority()


def identify(stream: trio.SSLStream[Any]) -> SimpleIdentity:
    """Read the node's code from the peer's certificate."""
    names = stream.getpeercert()["subjectAltName"]
    return SimpleIdentity(division_of_dns_name(names[0][1]))
