"""What the relay reads and writes in a uTP header (BEP 29)."""

from __future__ import annotations

import enum

HEADER_BYTES = 20
IP_UDP_BYTES = 28
"""IPv4 and UDP; what a packet has besides uTP."""
VERSION = 1
SELECTIVE_ACK = 1
_EXTENSION = 1
_CONNECTION = slice(2, 4)
_TIMESTAMP = slice(4, 8)
_DIFFERENCE = slice(8, 12)
_WINDOW = slice(12, 16)
_SEQUENCE = slice(16, 18)
_ACK = slice(18, 20)
_SELECTIVE = HEADER_BYTES
"""Where the first extension is: the number of the next one, its length, its bytes."""
_UINT32 = 1 << 32
_HANDSHAKE = b"\x13BitTorrent protocol"


class Kind(enum.IntEnum):
    """The packet types."""

    DATA = 0
    FIN = 1
    STATE = 2
    RESET = 3
    SYN = 4


def kind_of(packet: bytes | bytearray) -> Kind | None:
    """The type of a uTP packet; None when it isn't one."""
    if len(packet) < HEADER_BYTES or packet[0] & 0x0F != VERSION or packet[0] >> 4 > Kind.SYN:
        return None
    return Kind(packet[0] >> 4)


def connection_of(packet: bytes | bytearray) -> int:
    """Whose packet it is, among those between the same addresses."""
    return int.from_bytes(packet[_CONNECTION], "big")


def sequence_of(packet: bytes | bytearray) -> int:
    """The packet's own number."""
    return int.from_bytes(packet[_SEQUENCE], "big")


def acknowledged_by(packet: bytes | bytearray) -> int:
    """The last packet in sequence that its sender has."""
    return int.from_bytes(packet[_ACK], "big")


def set_acknowledged(packet: bytearray, number: int) -> None:
    """Let a packet acknowledge just this, without selective acknowledgements beyond it."""
    packet[_ACK] = number.to_bytes(2, "big")
    after = _SELECTIVE + 2 + packet[_SELECTIVE + 1] if len(packet) > _SELECTIVE + 1 else 0
    if packet[_EXTENSION] == SELECTIVE_ACK and _SELECTIVE + 2 < after <= len(packet):
        packet[_EXTENSION] = packet[_SELECTIVE]
        del packet[_SELECTIVE:after]


def acknowledgement_of(packet: bytes | bytearray) -> bytearray:
    """A packet that says what this one says, without its data.

    Other extensions than selective acknowledgements stay with the data.
    """
    end = HEADER_BYTES
    made = bytearray(packet[:HEADER_BYTES])
    made[0] = Kind.STATE << 4 | VERSION
    made[_EXTENSION] = 0
    if packet[_EXTENSION] == SELECTIVE_ACK and len(packet) > _SELECTIVE + 1:
        end = _SELECTIVE + 2 + packet[_SELECTIVE + 1]
        if end <= len(packet):
            made[_EXTENSION] = SELECTIVE_ACK
            made += packet[HEADER_BYTES:end]
            made[_SELECTIVE] = 0
    return made


def probe(header: bytes, sequence: int, acknowledged: int, sent_us: int, window: int) -> bytearray:
    """A byte of data that the other end has had already: it answers at once, and does nothing else.

    It isn't counted as a repeated acknowledgement (only `STATE` is), and the sender's clock for lost packets begins
    anew, as for every packet that comes (libtorrent's `utp_socket_impl::incoming_packet`).

    Args:
        header: Of a packet that was sent on this connection.
        sequence: The last packet of ours that came there.
        acknowledged: What was acknowledged last.
        sent_us: Now, by the clock of the one in whose name we speak.
        window: What to advertise.
    """
    made = bytearray(header[:HEADER_BYTES])
    made[0] = Kind.DATA << 4 | VERSION
    made[_EXTENSION] = 0
    made[_TIMESTAMP] = (sent_us % _UINT32).to_bytes(4, "big")
    made[_DIFFERENCE] = bytes(4)  # No sample.
    made[_WINDOW] = window.to_bytes(4, "big")
    made[_SEQUENCE] = sequence.to_bytes(2, "big")
    made[_ACK] = acknowledged.to_bytes(2, "big")
    made.append(0)
    return made


def is_probe(packet: bytes | bytearray) -> bool:
    """Whether this is what `probe` makes; libtorrent always has a sample."""
    return len(packet) == HEADER_BYTES + 1 and not packet[_EXTENSION] and not reported_us(packet)


def has_selective_acknowledgement(packet: bytes | bytearray) -> bool:
    """Whether a packet tells of packets beyond the one it acknowledges."""
    return packet[_EXTENSION] == SELECTIVE_ACK


def swarm_of(packet: bytes | bytearray) -> bytes | None:
    """The infohash, as 20 bytes, in a packet that begins with BitTorrent's handshake (BEP 3); None in others."""
    payload = packet[HEADER_BYTES : HEADER_BYTES + 48]
    if packet[_EXTENSION] or len(payload) < 48 or not payload.startswith(_HANDSHAKE):
        return None
    return bytes(payload[28:48])


def timestamp_us(packet: bytes | bytearray) -> int:
    """When it was sent, by the sender's clock, modulo 2^32."""
    return int.from_bytes(packet[_TIMESTAMP], "big")


def delay_us(packet: bytes | bytearray, now_us: int) -> int:
    """How long it took, by two clocks that aren't the same: only differences mean something."""
    return (now_us - timestamp_us(packet)) % _UINT32


def reported_us(packet: bytes | bytearray) -> int:
    """How long our last packet took, as the sender saw it, by two clocks; 0: it can't say."""
    return int.from_bytes(packet[_DIFFERENCE], "big")


def report_no_more(packet: bytearray, most_us: int) -> None:
    """Let a packet report no longer delay than this, modulo 2^32."""
    reported = reported_us(packet)
    if reported and 0 < (reported - most_us) % _UINT32 < _UINT32 // 2:
        packet[_DIFFERENCE] = (most_us % _UINT32 or 1).to_bytes(4, "big")


def set_timestamp(packet: bytearray, sent_us: int) -> None:
    """Set the time of sending, modulo 2^32: what was held back here isn't the link's delay."""
    packet[_TIMESTAMP] = (sent_us % _UINT32).to_bytes(4, "big")


def narrow_window(packet: bytearray, most_bytes: int) -> None:
    """Let the other end have at most so much under way."""
    if int.from_bytes(packet[_WINDOW], "big") > most_bytes:
        packet[_WINDOW] = most_bytes.to_bytes(4, "big")
