"""A small BitTorrent tracker (BEP 3, 23), for the swarms of other programs: everybody is told of everybody.

`python -m cuntong_simulations.lab.contenders.tracker ADDRESS PORT`
"""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from functools import partial
from urllib.parse import unquote_to_bytes

import trio

INTERVAL_S = 15
"""Short, because a run takes minutes."""
MAX_REQUEST_BYTES = 8192

Swarm = dict[bytes, bytes]
"""By peer id: address and port, packed."""


async def _answer(swarms: dict[bytes, Swarm], stream: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        request = b""
        while b"\r\n\r\n" not in request and len(request) < MAX_REQUEST_BYTES:
            data = await stream.receive_some(4096)
            if not data:
                return
            request += data
        query = request.split(b" ")[1].partition(b"?")[2]
        body = announce(swarms, query, stream.socket.getpeername()[0])
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)


def announce(swarms: dict[bytes, Swarm], query: bytes, address: str) -> bytes:
    """The bencoded answer to an announce."""
    fields = {
        name: unquote_to_bytes(value)
        for name, _equals, value in (part.partition(b"=") for part in query.split(b"&"))
    }
    swarm = swarms.setdefault(fields[b"info_hash"], {})
    own = fields[b"peer_id"]
    if fields.get(b"event") == b"stopped":
        swarm.pop(own, None)
    else:
        swarm[own] = ipaddress.ip_address(address).packed + int(fields[b"port"]).to_bytes(2, "big")
    peers = b"".join(found for peer, found in swarm.items() if peer != own)
    interval = b"8:intervali%de12:min intervali%de" % (INTERVAL_S, INTERVAL_S)
    return b"d" + interval + b"5:peers%d:" % len(peers) + peers + b"e"


def main() -> None:
    """Serve until the process is ended."""
    host, port = sys.argv[1], int(sys.argv[2])
    trio.run(partial(trio.serve_tcp, partial(_answer, {}), port, host=host))


if __name__ == "__main__":
    main()
