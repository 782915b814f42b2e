"""Addresses as configuration files have them."""

from __future__ import annotations

import ipaddress
import re


def parse_address(text: str) -> tuple[str, int]:
    """Split `10.1.2.3:7440` or `[fd00::1]:7440`.

    Raises:
        ValueError: it isn't an IP address and a port from 1 to 65535.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(host[1:-1])
    else:
        address = ipaddress.IPv4Address(host)
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
        raise ValueError(text)
    return str(address), int(port)
