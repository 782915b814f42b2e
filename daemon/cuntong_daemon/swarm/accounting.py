"""Whose bytes: payload by peer address, from the counters of connections that come and go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from .alerts import Connection
from .events import PeerBytes

MAX_HOSTS = 10_000
"""A centre has 1,000 children; further addresses share one line."""
OTHERS = "others"


@dataclass(slots=True)
class _Torrent:
    live: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    down: int = 0
    up: int = 0
    unclaimed_down: int = 0
    unclaimed_up: int = 0


class Accounting:
    """Adds up. A connection is looked at about once a second; what it moved after the last look is known
    only from its torrent's own counter, and is given to the connections that have ended."""

    def __init__(self) -> None:
        self._torrents: defaultdict[bytes, _Torrent] = defaultdict(_Torrent)
        self._hosts: dict[str, list[int]] = {}
        self.down = 0
        self.up = 0

    def start(self, infohash: bytes, down: int, up: int) -> None:
        """A torrent was added with these counters from before."""
        self._torrents[infohash] = _Torrent(down=down, up=up)

    def forget(self, infohash: bytes) -> None:
        """A torrent is gone."""
        self._torrents.pop(infohash, None)

    def is_watched(self, infohash: bytes) -> bool:
        """Whether connections of this torrent began or were seen at the last look."""
        return infohash in self._torrents and bool(self._torrents[infohash].live)

    def begin(self, infohash: bytes, host: str, port: int) -> None:
        """A connection began; it may end before anyone looks."""
        self._torrents[infohash].live[host, port] = (0, 0)

    def progress(self, infohash: bytes, down: int, up: int) -> None:
        """A torrent's counters, whoever it was."""
        torrent = self._torrents[infohash]
        more_down, more_up = max(0, down - torrent.down), max(0, up - torrent.up)
        torrent.down, torrent.up = down, up
        torrent.unclaimed_down += more_down
        torrent.unclaimed_up += more_up
        self.down += more_down
        self.up += more_up
        if not torrent.live:
            self._settle(torrent)

    def look(self, infohash: bytes, connections: tuple[Connection, ...]) -> None:
        """A look at all of a torrent's connections."""
        torrent = self._torrents[infohash]
        live: dict[tuple[str, int], tuple[int, int]] = {}
        for connection in connections:
            key = (connection.host, connection.port)
            down, up = torrent.live.get(key, (0, 0))
            if connection.down < down or connection.up < up:
                down = up = 0  # Another connection with the same address and port.
            self._add(torrent, connection.host, connection.down - down, connection.up - up)
            live[key] = (connection.down, connection.up)
        ended = [host for (host, port) in torrent.live if (host, port) not in live]
        torrent.live = live
        if ended or live:
            torrent.ended = ended
        self._settle(torrent)

    def by_host(self) -> Mapping[str, PeerBytes]:
        """Payload bytes by address."""
        return {host: PeerBytes(down, up) for host, (down, up) in self._hosts.items()}

    def _settle(self, torrent: _Torrent) -> None:
        for position, host in enumerate(torrent.ended):
            left = len(torrent.ended) - position
            self._add(
                torrent,
                host,
                max(0, torrent.unclaimed_down) // left,
                max(0, torrent.unclaimed_up) // left,
            )

    def _add(self, torrent: _Torrent, host: str, down: int, up: int) -> None:
        if host not in self._hosts and len(self._hosts) >= MAX_HOSTS:
            host = OTHERS
        counters = self._hosts.setdefault(host, [0, 0])
        counters[0] += down
        counters[1] += up
        torrent.unclaimed_down -= down
        torrent.unclaimed_up -= up
