"""Receipts: made at a place, taken at the one that sends it media (SPEC 12.6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from cuntong_daemon.pki.ca import check_chain
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    ca_code,
    certificate_code,
    certificate_der,
    certificate_spki,
    load_certificate,
    load_chain,
    load_private_key,
)
from cuntong_daemon.pki.tls import Members, PeerIdentity, check_not_removed
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import EnrolmentError, PrivateKey, checked_public_key
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.papers import (
    SHORT,
    Receipt,
    SignedReceipt,
    SignedVolume,
    Statistics,
    Subscriptions,
    Volume,
    check_volume,
    decode_receipt,
    receipt_qr_text,
    sign_receipt,
)
from cuntong_protocol.texts import N_

MAX_QR_ORDERS = 20

_LONG_AGO = datetime.fromtimestamp(0, UTC)
_FAR = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Identity:
    """What this node signs with, and what it judges others by."""

    code: Division
    key: PrivateKey
    chain: tuple[x509.Certificate, ...]
    anchor: x509.Certificate

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        return tuple(certificate_der(link) for link in self.chain)


def load_identity(code: Division, keys: Path) -> Identity:
    """Read the node's key and certificates. Blocks.

    Raises:
        OSError, EnrolmentError: they can't be read.
    """
    files = KeyFiles(keys)
    return Identity(
        code,
        load_private_key(files.key.read_bytes()),
        tuple(load_chain(files.chain.read_bytes())),
        load_chain(files.anchor.read_bytes())[0],
    )


def qr_of(receipt: Receipt, identity: Identity, first: Collection[bytes]) -> str:
    """A receipt for a QR code, with as much of what is held as fits; empty when not even the least does.

    Args:
        receipt: All of it.
        identity: Who signs.
        first: Infohashes that are named before others.
    """
    held = receipt.holdings
    wanted = {infohash[:SHORT] for infohash in first} & held
    order = [*sorted(wanted), *sorted(held - wanted)]
    slim = msgspec.structs.replace(receipt, catalogues={}, orders=receipt.orders[:MAX_QR_ORDERS])
    found = _most_held(slim, order, identity)
    if not found:
        # Long words everywhere: what is held counts more.
        slim = msgspec.structs.replace(
            slim, orders=(), sets={}, subscriptions=Subscriptions(), statistics=Statistics()
        )
        found = _most_held(slim, order, identity)
    return found


def _most_held(slim: Receipt, order: Sequence[bytes], identity: Identity) -> str:
    """With as many of these payloads as fit; empty when it doesn't fit without any."""
    low, high = 0, len(order) + 1
    found = ""
    while low < high:
        count = (low + high) // 2
        text = receipt_qr_text(
            sign_receipt(
                msgspec.structs.replace(
                    slim,
                    held=b"".join(sorted(order[:count])),
                    is_all=slim.is_all and count == len(order),
                ),
                identity.key,
                (),
            )
        )
        if text is None:
            high = count
        else:
            found, low = text, count + 1
    return found


def checked_receipt(
    text: str,
    *,
    identity: Identity,
    network: bytes,
    members: Members,
) -> tuple[Receipt, bytes]:
    """Read a receipt and check that its place made it.

    Args:
        text: It.
        identity: Who takes it.
        network: Digest of this network.
        members: The members lists that are known.

    Returns:
        The receipt, and the SHA-256 of the key that signed it.

    Raises:
        MediaError: `media.bad-receipt`, `media.newer-version`, `media.forged-receipt`, `media.foreign-receipt`,
            `media.not-below`, `media.unknown-key`.
        EnrolmentError: `node.removed`, `node.other-key`.
    """
    receipt, signed = decode_receipt(text)
    code = Division(receipt.code)
    if receipt.network != network:
        raise MediaError(
            "media.foreign-receipt",
            N_("The receipt of {code} comes from another network."),
            code=code,
        )
    if not code.is_below(identity.code) and code not in identity.code.ancestors:
        raise MediaError(
            "media.not-below",
            N_("{code} lies neither below {own} nor above it: its receipt is of no use here."),
            fault=Fault.USAGE,
            code=code,
            own=identity.code,
        )
    signer = _signer(code, signed, identity.anchor, members)
    check_not_removed(signer, members)
    line = members.get(signer.issuers[0], {}).get(code)
    if line is not None and line.spki != signer.spki:
        raise EnrolmentError(
            "node.other-key",
            N_(
                "{node} was enrolled again with another key. This copy of it is no longer a member."
            ),
            node=code,
        )
    return receipt, signer.spki


def check_exporter(volume: Volume, signed: SignedVolume, anchor: x509.Certificate) -> None:
    """Check that a volume's paper was signed by whom it names.

    Raises:
        MediaError: `media.forged-volume`.
    """
    try:
        chain = [load_certificate(der) for der in signed.chain]
        check_chain(chain, anchor)
        is_right = certificate_code(chain[0]) == volume.by
        key = checked_public_key(chain[0].public_key())
    except (CuntongError, ValueError):
        is_right = False
    if not is_right:
        raise MediaError(
            "media.forged-volume",
            N_("What this volume says of itself wasn't signed by {code}."),
            code=volume.by,
        )
    check_volume(signed, key)


def signs_itself(signed: SignedVolume) -> bool:
    """Whether a volume's paper is as its signer made it, whoever that is."""
    try:
        key = load_certificate(signed.chain[0]).public_key()
        check_volume(signed, checked_public_key(key))
    except (CuntongError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _signer(
    code: Division, signed: SignedReceipt, anchor: x509.Certificate, members: Members
) -> PeerIdentity:
    """Who signed, when that is `code`."""
    spki = sha256(signed.public_key).digest()
    if signed.chain:
        try:
            chain = [load_certificate(der) for der in signed.chain]
            check_chain(chain, anchor)
            if certificate_code(chain[0]) == code and certificate_spki(chain[0]) == spki:
                issuers = tuple(ca_code(issuer) for issuer in (*chain[1:], anchor))
                return _identity(code, issuers, spki)
        except CuntongError:
            pass
        raise MediaError(
            "media.forged-receipt",
            N_("The receipt was not signed by {code}. Ask the place for it again."),
            code=code,
        )
    for authority in _nearest(code, members):
        line = members[authority].get(code)
        if line is not None and line.spki == spki:
            return _identity(code, (authority,), spki)
    raise MediaError(
        "media.unknown-key",
        N_(
            "Whether {code} made this receipt can't be told here, since no members list that is known names its key. Take the receipt as a file instead of its QR code."
        ),
        code=code,
    )


def _nearest(code: Division, members: Mapping[Division, object]) -> list[Division]:
    return [authority for authority in (code, *code.ancestors) if authority in members]


def _identity(code: Division, issuers: tuple[Division, ...], spki: bytes) -> PeerIdentity:
    # Nothing is judged by the certificate's time: the place's clock may be wrong, and it is its own word anyway.
    return PeerIdentity(code, issuers, spki, _LONG_AGO, _FAR, ())
