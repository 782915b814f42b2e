"""TLS between nodes: contexts, who the other side is, and whether it may come in (SPEC 5.2, 5.3).

OpenSSL checks the chain up to the nation's CA, name constraints, path lengths, purposes, and (for a child)
the parent's name. It doesn't check times: a box's clock may be wrong, so `judge` does that with the time
that its caller believes in. And it lets everything in that is properly chained, so that a parent can tell a
removed or expired node *why* it is refused; until `judge` has passed, the other side gets nothing else.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import trio

from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import EnrolmentError, spki_sha256
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .certificates import (
    KeyFiles,
    bad_ca,
    ca_code,
    certificate_code,
    certificate_spki,
    chain_end,
    load_certificate,
    load_chain,
    load_private_key,
    not_enrolled,
)

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME; Python's `ssl` has no name for it."""
NOT_BEFORE_SLACK = timedelta(days=30)
"""Proven time may lag behind by a timestamp's life (SPEC 4.3) before an authority counts as stale, and a
certificate made today must work at once where only proven time is known."""
_ENCODING_DER = 2
"""`_ssl.ENCODING_DER`."""


class MemberLine(Protocol):
    """A line of a members list, as far as it decides who may come in (`trust.members.Member`, SPEC 5.4)."""

    @property
    def spki(self) -> bytes: ...

    @property
    def status(self) -> str: ...

    @property
    def since(self) -> object: ...

    @property
    def reason(self) -> str: ...


Members = Mapping[Division, Mapping[Division, MemberLine]]
"""The verified members lists: authority -> node -> its line."""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who the other side of a connection proved to be.

    Attributes:
        code: The node.
        issuers: The authorities above the certificate: the one that issued it first, the nation last.
        spki: SHA-256 of the node's public key, as in the members list.
        not_before: When the node's certificate begins (UTC).
        not_after: When the first certificate of the chain ends (UTC).
        issuer_keys: SHA-256 of each issuer's public key, in the order of `issuers`.
    """

    code: Division
    issuers: tuple[Division, ...]
    spki: bytes
    not_before: datetime
    not_after: datetime
    issuer_keys: tuple[bytes, ...]


def server_context(keys: Path) -> ssl.SSLContext:
    """For a parent: every child must show a chained certificate.

    Reads files: call it in a thread. Use one context for all connections.

    Args:
        keys: `DataPaths.keys`.

    Raises:
        EnrolmentError: `node.not-enrolled`, `node.bad-key`, `node.bad-certificate`, `node.key-mismatch`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, keys)
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would skip the verification that says who this is.
    context.num_tickets = 0
    return context


def client_context(keys: Path) -> ssl.SSLContext:
    """For a child; connect with `server_hostname=parent_code.dns_name`, which proves the parent's code.

    Reads files: call it in a thread.

    Raises:
        EnrolmentError: `node.not-enrolled`, `node.bad-key`, `node.bad-certificate`, `node.key-mismatch`.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, keys)
    context.check_hostname = True
    context.hostname_checks_common_name = False
    return context


def _context(protocol: int, keys: Path) -> ssl.SSLContext:
    files = KeyFiles(keys)
    try:
        key = load_private_key(files.key.read_bytes())
        chain = load_chain(files.chain.read_bytes())
        anchor = load_chain(files.anchor.read_bytes())
    except FileNotFoundError:
        raise not_enrolled() from None
    if certificate_spki(chain[0]) != spki_sha256(key.public_key()):
        raise EnrolmentError(
            "node.key-mismatch",
            N_(
                "The key and the certificate in {folder} don't belong together. Enrol the node again."
            ),
            fault=Fault.CONFIG,
            folder=str(keys),
        )
    if len(anchor) != 1 or ca_code(anchor[0]) != NATION:
        raise EnrolmentError(
            "node.bad-anchor",
            N_("{file} is not the nation's CA certificate. Enrol the node again."),
            fault=Fault.CONFIG,
            file=str(files.anchor),
        )
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT | NO_CHECK_TIME
    context.load_cert_chain(files.chain, files.key)
    context.load_verify_locations(files.anchor)
    return context


def peer_identity(connection: trio.SSLStream[Any] | ssl.SSLObject) -> PeerIdentity:
    """Who is on the other side. Call it after the handshake.

    Raises:
        EnrolmentError: `node.no-certificate`, `node.bad-name`, `node.bad-ca`, `node.bad-certificate`,
            `node.bad-key`.
    """
    chain = [load_certificate(der) for der in _verified_chain(connection)]
    if len(chain) < 2:  # A certificate, and at least the nation's CA.
        raise EnrolmentError(
            "node.no-certificate",
            N_("The other side has shown no certificate of this network."),
            fault=Fault.PEER,
        )
    code = certificate_code(chain[0])
    issuers = tuple(ca_code(certificate) for certificate in chain[1:])
    # OpenSSL has confined the names to each CA's subtree. What it doesn't know: every CA is another
    # authority, strictly below the next one. A CA below itself would be a second key that nobody endorsed.
    steps = itertools.pairwise(issuers)
    if (
        issuers[-1] != NATION
        or not code.is_within(issuers[0])
        or not all(lower.is_below(upper) for lower, upper in steps)
    ):
        raise bad_ca()
    return PeerIdentity(
        code,
        issuers,
        certificate_spki(chain[0]),
        chain[0].not_valid_before_utc,
        chain_end(chain),
        tuple(certificate_spki(certificate) for certificate in chain[1:]),
    )


def _verified_chain(connection: trio.SSLStream[Any] | ssl.SSLObject) -> list[bytes]:
    """The chain that OpenSSL verified, the peer's certificate first, as DER; empty when there is none."""
    # trio forwards no method that gives the chain, and before Python 3.13 `ssl` has only a private one.
    # tests/attacks/test_tls_handshake.py asserts that they exist.
    tls: Any = connection._ssl_object if isinstance(connection, trio.SSLStream) else connection  # noqa: SLF001
    if hasattr(tls, "get_verified_chain"):
        return list(tls.get_verified_chain())
    return [link.public_bytes(_ENCODING_DER) for link in tls._sslobj.get_verified_chain() or ()]  # noqa: SLF001


def judge(
    identity: PeerIdentity,
    members: Members,
    now: datetime,
    own_code: Division,
    *,
    ca_certificates: Mapping[Division, bytes] | None = None,
) -> None:
    """Decide whether a child may come in.

    Args:
        identity: From `peer_identity`.
        members: The members lists that this node knows.
        now: The time that this node believes in (SPEC 4.7).
        own_code: This node. A child must lie below it.
        ca_certificates: The CA certificates (PEM) that the catalogues list (SPEC 4.2): how a CA whose key
            was lost ceases to count.

    Raises:
        EnrolmentError: `node.wrong-subtree`, `node.removed`, `node.old-ca`, `node.not-a-member`,
            `node.other-key`, `node.expired`, `node.not-yet-valid`. The sentence is for the child's
            administrator.
    """
    if not identity.code.is_below(own_code):
        raise EnrolmentError(
            "node.wrong-subtree",
            N_("{node} doesn't lie below {parent}. Check the parents in config.toml."),
            node=identity.code,
            parent=own_code,
        )
    check_not_removed(identity, members)
    _check_cas(identity, ca_certificates or {})
    issuer = identity.issuers[0]
    line = members.get(issuer, {}).get(identity.code)
    if line is None:
        raise EnrolmentError(
            "node.not-a-member",
            N_("{node} isn't in the members list of {authority}. Ask there to have it accepted."),
            node=identity.code,
            authority=issuer,
        )
    if line.spki != identity.spki:
        raise EnrolmentError(
            "node.other-key",
            N_(
                "{node} was enrolled again with another key. This copy of it is no longer a member."
            ),
            node=identity.code,
        )
    _check_time(identity, now)


def judge_parent(
    identity: PeerIdentity,
    members: Members,
    now: datetime,
    expected: Division,
    *,
    ca_certificates: Mapping[Division, bytes] | None = None,
) -> None:
    """Decide whether a child may talk to the parent that it dialled.

    A parent need not be in a list: before its first contact a child may know none. What a parent says about
    content is verified by signatures in any case.

    Raises:
        EnrolmentError: `node.wrong-parent`, `node.removed`, `node.old-ca`, `node.expired`,
            `node.not-yet-valid`.
    """
    if identity.code != expected:
        raise EnrolmentError(
            "node.wrong-parent",
            N_("At the address of {parent} answers {node}. Check the parents in config.toml."),
            parent=expected,
            node=identity.code,
        )
    check_not_removed(identity, members)
    _check_cas(identity, ca_certificates or {})
    _check_time(identity, now)


def _check_cas(identity: PeerIdentity, listed: Mapping[Division, bytes]) -> None:
    for authority, spki in zip(identity.issuers, identity.issuer_keys, strict=True):
        try:
            current = certificate_spki(load_chain(listed[authority])[0])
        except (KeyError, EnrolmentError):
            continue  # Not listed, or what is listed is no certificate: then the chain alone decides.
        if current != spki:
            raise EnrolmentError(
                "node.old-ca",
                N_(
                    "The certificate of {node} comes from a CA that {authority} has replaced. Enrol it again."
                ),
                node=identity.code,
                authority=authority,
            )


def check_not_removed(identity: PeerIdentity, members: Members) -> None:
    """Refuse who was removed.

    Raises:
        EnrolmentError: `node.removed`.
    """
    # The authority that issued the certificate removes the node whatever key it shows; one further up
    # removes that key, so that the node can be enrolled again below it.
    for authority in (identity.issuers[0], *identity.code.ancestors):
        line = members.get(authority, {}).get(identity.code)
        if (
            line is not None
            and line.status != "active"
            and (authority == identity.issuers[0] or line.spki == identity.spki)
        ):
            raise EnrolmentError(
                "node.removed",
                N_("{node} was removed on {date}: {reason}"),
                node=identity.code,
                date=str(line.since),
                reason=line.reason,
            )


def _check_time(identity: PeerIdentity, now: datetime) -> None:
    if identity.not_after < now:
        raise EnrolmentError(
            "node.expired",
            N_("The certificate of {node} ended on {date}. It must be renewed by its authority."),
            node=identity.code,
            date=identity.not_after.date().isoformat(),
        )
    if identity.not_before > now + NOT_BEFORE_SLACK:
        raise EnrolmentError(
            "node.not-yet-valid",
            N_("The certificate of {node} begins on {date}. Check the clocks of both nodes."),
            node=identity.code,
            date=identity.not_before.date().isoformat(),
        )


_VERIFY_ERRORS = {
    7: "tls.unknown-authority",  # signature failure
    18: "tls.unknown-authority",  # self-signed
    19: "tls.unknown-authority",  # self-signed in the chain
    20: "tls.unknown-authority",  # no local issuer
    21: "tls.unknown-authority",  # can't verify the first
    22: "tls.path-too-long",  # chain too long
    24: "tls.unknown-authority",  # not a CA
    25: "tls.path-too-long",
    26: "tls.wrong-purpose",
    47: "tls.outside-subtree",
    62: "tls.wrong-name",
    79: "tls.unknown-authority",  # not a CA, strict
}
"""X509_V_ERR_… that a peer can cause."""

_SENTENCES = {
    "tls.no-certificate": N_("The other side has shown no certificate. Has it been enrolled?"),
    "tls.unknown-authority": N_("The other side's certificate doesn't come from this network."),
    "tls.path-too-long": N_("The other side's certificate was issued too far down."),
    "tls.wrong-purpose": N_("The other side's certificate is not one for a node."),
    "tls.outside-subtree": N_(
        "The other side's certificate was issued outside its authority's area."
    ),
    "tls.wrong-name": N_(
        "Another node answers at the parent's address. Check the parents in config.toml."
    ),
    "tls.old-version": N_("The other side doesn't speak TLS 1.3. Is it a node of this network?"),
    "tls.refused": N_("The other side refused this node's certificate. Enrol the node again."),
    "tls.closed": N_(
        "The other side hung up while the secure connection was being made. Look into its log."
    ),
    "tls.failed": N_("The secure connection failed: {detail}"),
}


def handshake_error(error: BaseException) -> EnrolmentError:
    """Say in words why a TLS handshake failed.

    Args:
        error: What trio or `ssl` raised; the `ssl.SSLError` may be its cause.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    code, detail = "tls.closed", ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        code = _VERIFY_ERRORS.get(cause.verify_code, "tls.failed")
        detail = cause.verify_message
    elif isinstance(cause, ssl.SSLError) and not isinstance(
        cause, ssl.SSLEOFError | ssl.SSLZeroReturnError
    ):
        code, detail = "tls.failed", cause.reason or "?"
        if detail == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            code = "tls.no-certificate"
        elif "PROTOCOL" in detail or "VERSION" in detail:
            code = "tls.old-version"
        elif "ALERT" in detail:
            code = "tls.refused"
    return EnrolmentError(code, _SENTENCES[code], fault=Fault.PEER, detail=detail)
