"""Multicast sockets of the datacast: one interface, one group, for receivers one source (RFC 4607)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
"""Half a second at 50 Mbit/s takes 5 MB of it: the kernel counts its own overhead."""
SEND_BUFFER_BYTES = 256 * 1024

# Linux's numbers; Python has no names for them before 3.12, or none at all.
_MCAST_JOIN_GROUP = 42
_MCAST_JOIN_SOURCE_GROUP = 46
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_STORAGE_BYTES = 128


@dataclass(frozen=True, slots=True)
class Group:
    """A multicast group and port, and the interface it is on.

    Attributes:
        interface: Its name.
        source: The sender's address. Receivers take nobody else's packets; empty: everybody's.
    """

    address: str
    port: int
    interface: str
    source: str = ""

    @property
    def family(self) -> socket.AddressFamily:
        is_6 = ipaddress.ip_address(self.address).version == 6
        return socket.AF_INET6 if is_6 else socket.AF_INET

    @property
    def is_6(self) -> bool:
        return self.family is socket.AF_INET6


def open_sender(group: Group, *, hops: int) -> socket.socket:
    """A socket that sends to the group and to nothing else.

    Args:
        group: Where to.
        hops: Time to live.

    Raises:
        DatacastError: `datacast.no-interface`.
    """
    index = interface_index(group)
    sender = socket.socket(group.family, socket.SOCK_DGRAM)
    try:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if group.source:
            sender.bind((group.source, 0))
        if group.is_6:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
            sender.connect((group.address, group.port, 0, index))
        else:
            request = struct.pack("=4s4si", bytes(4), bytes(4), index)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
            sender.connect((group.address, group.port))
    except OSError as error:
        sender.close()
        raise _cannot_use(group, error) from error
    return sender


def open_receiver(group: Group) -> socket.socket:
    """A socket that gets what is sent to the group on its interface, and nothing else. It doesn't block.

    Raises:
        DatacastError: `datacast.no-interface`.
    """
    index = interface_index(group)
    receiver = socket.socket(group.family, socket.SOCK_DGRAM)
    try:
        receiver.setblocking(False)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:  # Then as much as the system lets everybody have.
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        receiver.bind((group.address, group.port))
        level = socket.IPPROTO_IPV6 if group.is_6 else socket.IPPROTO_IP
        request = struct.pack("=I4x", index) + _storage(group.address)
        option = _MCAST_JOIN_GROUP
        if group.source:
            request += _storage(group.source)
            option = _MCAST_JOIN_SOURCE_GROUP
        receiver.setsockopt(level, option, request)
        receiver.setsockopt(level, _IPV6_MULTICAST_ALL if group.is_6 else _IP_MULTICAST_ALL, 0)
    except OSError as error:
        receiver.close()
        raise _cannot_use(group, error) from error
    return receiver


def interface_index(group: Group) -> int:
    """The kernel's number of the interface.

    Raises:
        DatacastError: `datacast.no-interface`.
    """
    try:
        return socket.if_nametoindex(group.interface)
    except OSError as error:
        raise _cannot_use(group, error) from error


def dropped_packets(receiver: socket.socket) -> int:
    """Packets that the kernel dropped because this socket's buffer was full."""
    found = receiver.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(found)[8])


def buffer_bytes(receiver: socket.socket) -> int:
    """What the kernel keeps for this socket, its own overhead included."""
    return receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _storage(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        data = struct.pack("=HH4s", socket.AF_INET, 0, parsed.packed)
    else:
        data = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, parsed.packed, 0)
    return data.ljust(_STORAGE_BYTES, b"\0")


def _cannot_use(group: Group, error: OSError) -> DatacastError:
    return DatacastError(
        "datacast.no-interface",
        N_(
            "The datacast {group} can't be used on the interface {interface}: {reason}. Check [cast] and [dish] in config.toml."
        ),
        fault=Fault.SYSTEM,
        group=f"{group.address}:{group.port}",
        interface=group.interface,
        reason=error.strerror or str(error),
    )
