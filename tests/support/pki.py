"""A small network of CAs and nodes, and a forge that signs what no authority of ours would."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cuntong_daemon.pki.ca import issue_node_certificate, make_ca_certificate, path_length, sign_ca
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    KeyType,
    PrivateKey,
    chain_pem,
    new_key,
    private_key_pem,
)
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import spki_sha256

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
GUANGDONG = Division("440000000000")
DONGGUAN = Division("441900000000")
TOWNSHIP = Division("441900003000")
VILLAGE = Division("441900003005")
JIEYANG = Division("445200000000")
JIEYANG_VILLAGE = Division("445202001002")
BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


@dataclass(frozen=True)
class Authority:
    """A CA with its key and the chain that it presents (itself first, without the nation's)."""

    code: Division
    key: PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Line:
    """A line of a members list."""

    spki: bytes
    status: str = "active"
    since: str = "2026-11-01"
    reason: str = ""


@dataclass
class World:
    """Nation, Guangdong, Dongguan with a township that is an authority, and Jieyang."""

    kind: KeyType
    folder: Path
    now: datetime = NOW
    authorities: dict[Division, Authority] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        key = new_key(self.kind)
        self.authorities[NATION] = Authority(
            NATION, key, make_ca_certificate(key, now=self.now), ()
        )
        for code, above in (
            (GUANGDONG, NATION),
            (DONGGUAN, GUANGDONG),
            (JIEYANG, GUANGDONG),
            (TOWNSHIP, DONGGUAN),
        ):
            self.endorse(code, above)

    def endorse(self, code: Division, above: Division) -> Authority:
        key, parent = new_key(self.kind), self.authorities[above]
        certificate = sign_ca(code, key.public_key(), parent.certificate, parent.key, now=self.now)
        authority = Authority(code, key, certificate, (certificate, *parent.chain))
        self.authorities[code] = authority
        return authority

    def node(
        self, code: Division, issuer: Division, *, now: datetime | None = None
    ) -> tuple[Path, bytes]:
        """Enrol a node properly: its keys folder, and the hash of its public key."""
        key, authority = new_key(self.kind), self.authorities[issuer]
        certificate = issue_node_certificate(
            code, key.public_key(), authority.certificate, authority.key, now=now or self.now
        )
        return self.write(key, [certificate, *authority.chain]), spki_sha256(key.public_key())

    def write(self, key: PrivateKey | Any, chain: Sequence[x509.Certificate]) -> Path:
        """A keys folder with whatever is given."""
        self.count += 1
        folder = self.folder / f"node-{self.count}"
        folder.mkdir(parents=True)
        files = KeyFiles(folder)
        files.key.write_bytes(private_key_pem(key))
        files.chain.write_bytes(chain_pem(chain))
        files.anchor.write_bytes(chain_pem([self.authorities[NATION].certificate]))
        return folder


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


def uri(name: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(f"spiffe://{name}/")]


def ip(address: str) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(address))]


def forge_node(
    names: Sequence[x509.GeneralName],
    key: Any,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    *,
    purposes: Sequence[x509.ObjectIdentifier] = BOTH,
    start: datetime = NOW,
    life: timedelta = timedelta(days=456),
    common_name: str = "forged",
) -> x509.Certificate:
    """Sign a node's certificate with anything in it."""
    builder = _builder(common_name, key, issuer, issuer_key, start, start + life)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(signs=False), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, _algorithm(issuer_key))


def forge_ca(
    code: Division,
    key: PrivateKey,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    *,
    constraint: Sequence[str] | None = None,
    length: int | None = None,
    start: datetime = NOW,
    life: timedelta = timedelta(days=3650),
    name: str = "",
) -> x509.Certificate:
    """Sign a CA certificate with any constraint (empty: none)."""
    builder = _builder(name or f"CA {code}", key, issuer, issuer_key, start, start + life)
    depth = path_length(code) if length is None else length
    builder = builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=depth), critical=True
    )
    builder = builder.add_extension(_usage(signs=True), critical=True)
    permitted = [code.dns_subtree] if constraint is None else constraint
    if permitted:
        subtrees = [x509.DNSName(name) for name in permitted]
        builder = builder.add_extension(x509.NameConstraints(subtrees, None), critical=True)
    return builder.sign(issuer_key, _algorithm(issuer_key))


def _builder(
    name: str,
    key: Any,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
    )


def _algorithm(key: PrivateKey) -> SHA256 | None:
    return None if isinstance(key, Ed25519PrivateKey) else SHA256()


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, signs, False, False, False)
