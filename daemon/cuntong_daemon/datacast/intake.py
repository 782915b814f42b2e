"""Who may be believed of all that comes from the air (SPEC 11.9): sans-I/O.

Nothing is stored that isn't of the session whose beacon the sender has signed. A sender is believed when its
certificate leads up to the nation's CA and is for the code that this node listens to. Symbols whose digest was lost
are kept apart: a block is made with them only as long as that gives the right bytes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from cuntong_daemon.pki.ca import check_chain, lint
from cuntong_daemon.pki.certificates import (
    ca_code,
    certificate_code,
    certificate_spki,
    load_certificate,
)
from cuntong_protocol.datacast.errors import BadPacketError, DropReason
from cuntong_protocol.datacast.packets import (
    KEY_ID_BYTES,
    Beacon,
    Codepoint,
    Header,
    Verify,
    check_beacon,
    digest,
    peek_beacon,
    read_digests,
    read_header,
    read_identity,
    read_symbol,
)
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError

from .signing import verifier

KNOWN_DIGESTS = 256
"""Digest packets whose symbols are waited for: 9 s at 20 Mbit/s. One goes just before its symbols."""
MAX_CERTIFICATES = 32
"""That are proven: a sender has a chain of at most six, and another one after a renewal. Nobody else can make one."""
CERTIFICATES_AT_ONCE = 256
"""That are judged in a second: a signature each, 40 ms of a core, however many are sent. Beacons aren't counted: they
cost what digests cost."""
_STRANGE = (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)
"""What reading a certificate raises besides ValueError; they have no base class of their own."""


class SymbolStore(Protocol):
    """Where symbols go."""

    def take(
        self, channel: int, toi: int, esi: int, packet: bytes, *, is_verified: bool
    ) -> DropReason | None:
        """Keep a symbol, or say why not."""
        ...

    def vouch(self, channel: int, toi: int, esi: int, expected: bytes) -> bool:
        """A digest has come after its symbol: True when the symbol had it."""
        ...


@dataclass(frozen=True, slots=True)
class Sender:
    """A sender that has proved who it is."""

    spki: bytes
    not_after: datetime
    verify: Verify


class Intake:
    """Takes packets, keeps symbols, counts the rest."""

    def __init__(
        self,
        store: SymbolStore,
        *,
        anchor: x509.Certificate,
        sender: Division,
        session: int = 0,
        number: int = -1,
    ) -> None:
        """Listen to one sender.

        Args:
            store: Where symbols go.
            anchor: The nation's CA.
            sender: The only one that counts.
            session: The highest that was heard.
            number: The last beacon's in that session.
        """
        self._store = store
        self._anchor = anchor
        self._sender = sender
        self.session = session
        self._number = number
        self._is_proven = False
        self._senders: dict[bytes, Sender] = {}
        self._current: Sender | None = None
        self._proven: dict[bytes, tuple[x509.Certificate, ...]] = {}
        self._digests: dict[int, bytes] = {}
        self._digest_order: deque[list[int]] = deque()
        self._removed: frozenset[bytes] = frozenset()
        self._proven_time = datetime.fromtimestamp(0, UTC)
        self._judged_second = -1
        self._judged = 0
        self.dropped: Counter[DropReason] = Counter()
        self.packets = 0
        self.bytes = 0
        self.symbols = 0
        self.unverified = 0
        self.vouched = 0
        self.fillers = 0

    def judge(self, *, proven_time: datetime, removed: Collection[bytes]) -> None:
        """What the trust layer knows by now.

        Args:
            proven_time: A certificate that ended before it doesn't count.
            removed: Public keys (SHA-256) that were removed.
        """
        self._proven_time = proven_time
        self._removed = frozenset(removed)
        if self._current is not None and not self._is_in_force(self._current):
            self._current = None

    def feed(self, packet: bytes, now: float) -> Beacon | None:
        """Take a packet, whatever it is.

        Args:
            packet: A UDP payload.
            now: Seconds of a steady clock.

        Returns:
            A beacon that is new and true.
        """
        self.packets += 1
        self.bytes += len(packet)
        try:
            header = read_header(packet)
            if header.codepoint is Codepoint.SYMBOL:
                self._symbol(header, packet)
            elif header.codepoint is Codepoint.DIGESTS:
                self._take_digests(header, packet)
            elif header.codepoint is Codepoint.BEACON:
                return self._beacon(header, packet)
            elif header.codepoint is Codepoint.IDENTITY:
                self._identity(packet, now)
            else:
                self.fillers += 1
        except BadPacketError as error:
            self.dropped[error.reason] += 1
        return None

    # Who it is.

    def _beacon(self, header: Header, packet: bytes) -> Beacon:
        beacon = peek_beacon(packet)
        if beacon.sender != self._sender:
            raise BadPacketError("other-session")
        if header.session < self.session or (
            header.session == self.session and beacon.number <= self._number
        ):
            raise BadPacketError("replayed")
        sender = self._senders.get(beacon.key)
        if sender is None or not self._is_in_force(sender):
            raise BadPacketError("bad-signature")
        check_beacon(packet, sender.verify)
        if header.session != self.session:
            self._digests.clear()
            self._digest_order.clear()
        self.session, self._number = header.session, beacon.number
        self._current = sender
        return beacon

    def _identity(self, packet: bytes, now: float) -> None:
        """Prove a certificate of the chain; one that comes before the one above it is proven the next time."""
        der = read_identity(packet)
        key = sha256(der).digest()
        if key in self._proven or not self._may_judge(now):
            return
        try:
            certificate = load_certificate(der)
            lint(certificate)
        except (CuntongError, ValueError, TypeError, *_STRANGE):
            raise BadPacketError("malformed") from None
        above = ((self._anchor,), *self._proven.values())
        for chain in above:
            if _issued(certificate, chain[0]):
                self._prove(key, (certificate, *chain))
                return

    def _prove(self, key: bytes, chain: tuple[x509.Certificate, ...]) -> None:
        """Keep a certificate that leads up to the anchor; if it is the sender's, that is known now."""
        leaf, links = chain[0], list(chain[:-1])
        try:
            check_chain(links, self._anchor)
            is_ca = _is_ca(leaf)
            if not (
                self._sender.is_within(ca_code(leaf))
                if is_ca
                else certificate_code(leaf) == self._sender
            ):
                return
        except (CuntongError, ValueError, TypeError, *_STRANGE):
            return
        self._proven[key] = chain
        if len(self._proven) > MAX_CERTIFICATES:
            del self._proven[next(iter(self._proven))]
        if is_ca:
            return
        spki = certificate_spki(leaf)
        sender = Sender(
            spki, min(it.not_valid_after_utc for it in links), verifier(leaf.public_key())
        )
        known = self._senders.get(spki[:KEY_ID_BYTES])
        # A certificate is renewed for the same key.
        if known is None or known.not_after < sender.not_after:
            self._senders[spki[:KEY_ID_BYTES]] = sender
            if self._current is not None and self._current.spki == spki:
                self._current = sender

    def _is_in_force(self, sender: Sender) -> bool:
        return sender.spki not in self._removed and sender.not_after >= self._proven_time

    def _may_judge(self, now: float) -> bool:
        if int(now) != self._judged_second:
            self._judged_second, self._judged = int(now), 0
        self._judged += 1
        return self._judged <= CERTIFICATES_AT_ONCE

    # What it sends.

    def _take_digests(self, header: Header, packet: bytes) -> None:
        if self._current is None or header.session != self.session:
            raise BadPacketError("other-session")
        keys: list[int] = []
        for segment in read_digests(packet, self._current.verify):
            base = segment.channel << 56 | segment.toi << 24 | segment.first_esi
            for number, expected in enumerate(segment.digests):
                key = base + number
                if self._store.vouch(
                    segment.channel, segment.toi, segment.first_esi + number, expected
                ):
                    self.vouched += 1
                else:
                    self._digests[key] = expected
                    keys.append(key)
        self._digest_order.append(keys)
        if len(self._digest_order) > KNOWN_DIGESTS:
            for key in self._digest_order.popleft():
                self._digests.pop(key, None)

    def _symbol(self, header: Header, packet: bytes) -> None:
        if self._current is None or header.session != self.session:
            raise BadPacketError("other-session")
        symbol = read_symbol(packet)
        expected = self._digests.pop(symbol.channel << 56 | symbol.toi << 24 | symbol.esi, None)
        if expected is not None and digest(packet) != expected:
            self._digests[symbol.channel << 56 | symbol.toi << 24 | symbol.esi] = expected
            raise BadPacketError("forged")
        reason = self._store.take(
            symbol.channel, symbol.toi, symbol.esi, packet, is_verified=expected is not None
        )
        if reason is not None:
            raise BadPacketError(reason)
        self.symbols += 1
        self.unverified += expected is None


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, *_STRANGE):
        return False
    return True


def _is_ca(certificate: x509.Certificate) -> bool:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
