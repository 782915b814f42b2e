"""What an authority does with a node: take it in, renew, remove it (SPEC 5.4 to 5.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from cuntong_daemon.authority.keys import KeyRing
from cuntong_daemon.pki.ca import issue_node_certificate
from cuntong_daemon.pki.certificates import (
    PrivateKey,
    PublicKey,
    certificate_spki,
)
from cuntong_daemon.pki.issued import NodeRecord
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import (
    EnrolmentError,
    checked_public_key,
    encode_pack,
)
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.members import Member, MembersList

from .centre import Centre, check_below
from .packs import check_clock, collect, make_pack


def issue(
    centre: Centre, node: Division, key: PublicKey, ca_key: PrivateKey, *, now: datetime
) -> list[x509.Certificate]:
    """Sign a certificate; the chain that the node presents.

    Raises:
        EnrolmentError: `ca.…`; nothing was signed.
    """
    certificate = issue_node_certificate(node, key, centre.ca_chain[0], ca_key, now=now)
    return [certificate, *centre.ca_chain[:-1]]


def with_member(
    members: MembersList, node: Division, certificate: x509.Certificate, *, now: datetime
) -> MembersList:
    """The list with a node's line made active for this certificate."""
    spki = certificate_spki(certificate)
    before = members.members.get(node)
    is_same = before is not None and before.is_active and before.spki == spki
    line = Member(
        node,
        spki,
        "active",
        before.since if is_same and before is not None else now.date(),
        certificate.not_valid_after_utc.date(),
    )
    return MembersList.of([*members.members.values(), line])


def accept(
    centre: Centre,
    node: Division,
    key: PublicKey,
    record: NodeRecord,
    ring: KeyRing,
    *,
    now: datetime,
) -> bytes:
    """Issue a certificate, publish the members list, and make the pack.

    In this order everything can be done again after it was cut short anywhere.

    Returns:
        The pack as a file.

    Raises:
        EnrolmentError: `ca.…`, `pack.…`.
        AuthorityError: wrong stick or passphrase, a wrong clock; the members list is as it was.
    """
    check_below(centre, node)
    check_clock(collect(centre, node), now)
    ca_key, signer = centre.ca_key(ring), centre.enrolment_signer(ring)
    chain = issue(centre, node, key, ca_key, now=now)
    members = with_member(centre.members, node, chain[0], now=now)
    centre.repository.set_members(members, signer, now=now)
    centre.issued.save(node, chain, record)
    pack = make_pack(centre, node, chain, record, collect(centre, node), now=now)
    return encode_pack(pack, ca_key)


@dataclass(frozen=True, slots=True)
class Renewed:
    """One node's new certificate; `pack` is for nodes without a link."""

    node: Division
    ends: datetime
    pack: bytes


def renew(
    centre: Centre, nodes: Sequence[Division], ring: KeyRing, *, now: datetime
) -> list[Renewed]:
    """Issue new certificates for the keys that the nodes have, in one change of the members list.

    Raises:
        EnrolmentError: `node.not-a-member`, `node.removed`, `ca.…`; nothing was changed.
        AuthorityError: as `accept`.
    """
    certificates = {node: renewable(centre, node) for node in nodes}
    check_clock(collect(centre, centre.code), now)
    ca_key, signer = centre.ca_key(ring), centre.enrolment_signer(ring)
    members, chains = centre.members, {}
    for node, certificate in certificates.items():
        key = checked_public_key(certificate.public_key())
        chains[node] = issue(centre, node, key, ca_key, now=now)
        members = with_member(members, node, chains[node][0], now=now)
    centre.repository.set_members(members, signer, now=now)
    found: list[Renewed] = []
    for node, chain in chains.items():
        centre.issued.save(node, chain)
        record = centre.issued.record(node)
        pack = make_pack(centre, node, chain, record, collect(centre, node), now=now)
        found.append(Renewed(node, chain[0].not_valid_after_utc, encode_pack(pack, ca_key)))
    return found


def renewable(centre: Centre, node: Division) -> x509.Certificate:
    """The certificate from which a node's is renewed.

    Raises:
        EnrolmentError: `node.not-a-member`, `node.removed`.
    """
    line = centre.members.members.get(node)
    chain = centre.issued.chain(node)
    if line is not None and not line.is_active:
        raise EnrolmentError(
            "node.removed",
            N_("{node} was removed on {date}: {reason}"),
            node=node,
            date=line.since.isoformat(),
            reason=line.reason,
        )
    if line is None or chain is None or certificate_spki(chain[0]) != line.spki:
        raise EnrolmentError(
            "node.not-a-member",
            N_("{node} has no certificate from here. Accept a request of it first."),
            fault=Fault.USAGE,
            node=node,
        )
    return chain[0]


def remove(centre: Centre, node: Division, reason: str, ring: KeyRing, *, now: datetime) -> None:
    """Remove a node: its line says so, and no certificate is delivered to it any more.

    Raises:
        EnrolmentError: `node.not-a-member`, `node.removed`.
        AuthorityError: as `accept`.
    """
    line = removable(centre, node)
    signer = centre.enrolment_signer(ring)
    removed = Member(node, line.spki, "removed", now.date(), line.until, reason)
    members = MembersList.of([*centre.members.members.values(), removed])
    centre.repository.set_members(members, signer, now=now)
    centre.issued.forget(node)


def removable(centre: Centre, node: Division) -> Member:
    """The line of a node that can be removed. Errors as `remove`."""
    line = centre.members.members.get(node)
    if line is None:
        raise EnrolmentError(
            "node.not-a-member",
            N_("{node} isn't in the members list of {authority}. See: cuntong node list"),
            fault=Fault.USAGE,
            node=node,
            authority=centre.code,
        )
    if not line.is_active:
        raise EnrolmentError(
            "node.removed",
            N_("{node} was removed on {date}: {reason}"),
            fault=Fault.USAGE,
            node=node,
            date=line.since.isoformat(),
            reason=line.reason,
        )
    return line
