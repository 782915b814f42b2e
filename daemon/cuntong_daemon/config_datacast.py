"""`[cast]` and `[dish]` of a node's configuration: what it sends to a satellite, and what it receives from one."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from cuntong_protocol.divisions import NATION_CODE, Division, DivisionError
from cuntong_protocol.texts import N_

from .addresses import parse_address

DEFAULT_GROUP = "232.20.1.1:7450"
"""In the range of source-specific multicast (RFC 4607)."""
BYTES_PER_KBIT = 125

_Interface = Annotated[str, msgspec.Meta(max_length=15)]


class CastSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[cast]`: this node sends by satellite.

    Attributes:
        interface: Of the uplink; empty: this node doesn't send.
        source: This node's address on it; receivers take packets from there only.
        group: Multicast address and port.
        rate_kbit_s: What is sent, IP headers included, all the time.
        hops: Time to live of the packets.
    """

    interface: _Interface = ""
    source: str = ""
    group: str = DEFAULT_GROUP
    rate_kbit_s: Annotated[int, msgspec.Meta(ge=64, le=1_000_000)] = 2000
    hops: Annotated[int, msgspec.Meta(ge=1, le=255)] = 8


class DishSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[dish]`: this node receives from a satellite.

    Attributes:
        interface: Of the satellite receiver; empty: there is none.
        source: The sender's address; empty: any.
        group: Multicast address and port.
        sender: The division code of who sends.
        spool_gb: Room for what isn't complete yet, in gigabytes.
    """

    interface: _Interface = ""
    source: str = ""
    group: str = DEFAULT_GROUP
    sender: str = NATION_CODE
    spool_gb: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 8

    @property
    def spool_bytes(self) -> int:
        return self.spool_gb * 1_000_000_000


DATACAST_REASONS: dict[str, str] = {
    "cast.interface": N_("{file}: {key} must be the name of a network interface in quotes."),
    "dish.interface": N_("{file}: {key} must be the name of a network interface in quotes."),
    "cast.source": N_("{file}: {key} must be this node's address on the interface, in quotes."),
    "dish.source": N_("{file}: {key} must be the sender's address in quotes."),
    "*.group": N_(
        "{file}: {key} must be a multicast address and a port in quotes, such as '232.20.1.1:7450'."
    ),
    "cast.rate_kbit_s": N_("{file}: {key} must be a whole number of kbit/s from 64 to 1000000."),
    "cast.hops": N_("{file}: {key} must be a whole number from 1 to 255."),
    "dish.sender": N_(
        "{file}: {key} must be a division code of 12 digits in quotes, such as '441900000000'."
    ),
    "dish.spool_gb": N_("{file}: {key} must be a whole number of gigabytes, at least 1."),
}


def bad_datacast_key(cast: CastSection, dish: DishSection) -> str | None:
    """The first key whose value can't be used, as `section.key`."""
    for name, section in (("cast", cast), ("dish", dish)):
        if not section.interface:
            continue
        try:
            group = ipaddress.ip_address(parse_address(section.group)[0])
        except ValueError:
            return f"{name}.group"
        if not group.is_multicast:
            return f"{name}.group"
        if section.source or name == "cast":
            try:
                is_fit = ipaddress.ip_address(section.source).version == group.version
            except ValueError:
                is_fit = False
            if not is_fit:
                return f"{name}.source"
    try:
        Division(dish.sender)
    except DivisionError:
        return "dish.sender"
    return None
