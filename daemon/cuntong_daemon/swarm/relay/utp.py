"""What the relay reads and writes in a uTP header (BEP 29)."""

from __future__ import annotations

import enum

HEADER_BYTES = 20
IP_UDP_BYTES = 28
"""IPv4 and UDP; what a packet has besides uTP."""
VERSION = 1
_EXTENSION = 1
_CONNECTION = slice(2, 4)
_TIMESTAMP = slice(4, 8)
_WINDOW = slice(12, 16)
_ACK = slice(18, 20)
_UINT32 = 1 << 32
_UINT16 = 1 << 16
_SELECTIVE_ACK = 1


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


def acknowledged_by(packet: bytes | bytearray) -> int:
    """The last packet in sequence that its sender has."""
    return int.from_bytes(packet[_ACK], "big")


def acknowledge(packet: bytearray, number: int) -> int:
    """Let a packet that waited acknowledge what was acknowledged meanwhile, and return what it acknowledges.

    libtorrent drops a packet, its data too, when what it acknowledges is more than three packets behind. The bits of a
    selective acknowledgement move along: the first stands for the second packet after the number.
    """
    before = acknowledged_by(packet)
    behind = (number - before) % _UINT16
    if not 0 < behind < _UINT16 // 2:
        return before
    packet[_ACK] = number.to_bytes(2, "big")
    if packet[_EXTENSION] == _SELECTIVE_ACK and len(packet) > HEADER_BYTES + 2:
        first = HEADER_BYTES + 2
        bits = slice(first, first + packet[first - 1])
        length = len(packet[bits])
        packet[bits] = (int.from_bytes(packet[bits], "little") >> behind).to_bytes(length, "little")
    return number


def timestamp_us(packet: bytes | bytearray) -> int:
    """When it was sent, by the sender's clock, modulo 2^32."""
    return int.from_bytes(packet[_TIMESTAMP], "big")


def delay_us(packet: bytes | bytearray, now_us: int) -> int:
    """How long it took, by two clocks that aren't the same: only differences mean something."""
    return (now_us - timestamp_us(packet)) % _UINT32


def hold(packet: bytearray, held_us: int) -> None:
    """Move the time of sending: what we held back isn't the link's delay."""
    packet[_TIMESTAMP] = ((timestamp_us(packet) + held_us) % _UINT32).to_bytes(4, "big")


def narrow_window(packet: bytearray, most_bytes: int) -> None:
    """Let the other end have at most so much under way."""
    if int.from_bytes(packet[_WINDOW], "big") > most_bytes:
        packet[_WINDOW] = most_bytes.to_bytes(4, "big")
