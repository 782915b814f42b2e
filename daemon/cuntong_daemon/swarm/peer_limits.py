"""Limits for single addresses, by libtorrent's peer classes (SPEC 10.3).

A connection gets its classes when it is made, from a filter of addresses; a class's limit can be changed at any time.
The filter is a bit mask, so only the first 32 classes can be given to addresses, three of them are libtorrent's own, and
one of them holds everybody to the session's limits. Addresses beyond that number are only held by these.
"""

from __future__ import annotations

import libtorrent as lt

from .settings import one_class_for_all

MAX_LIMIT = 2**31 - 1
"""What libtorrent can hold; who asks for more isn't limited by it either."""
MAX_CLASSES = 31
"""Bit 31 doesn't get through the filter's signed numbers."""
MAX_HOSTS = 27


class PeerLimits:
    """The classes of one session. It owns the session's filter."""

    def __init__(self, session: lt.session) -> None:
        self._session = session
        self._classes: dict[str, int] = {}
        self._limits: dict[str, int] = {}

    def set(self, host: str, bytes_s: int | None) -> None:
        """What may be sent to an address: 0 for no limit, None to forget it."""
        if bytes_s is None:
            number = self._classes.pop(host, None)
            if number is not None:
                self._limits.pop(host, None)
                self._apply_filter()
                self._session.delete_peer_class(number)
            return
        bytes_s = min(bytes_s, MAX_LIMIT)
        number = self._classes.get(host)
        if number is None:
            if not host or len(self._classes) >= MAX_HOSTS:
                return
            number = self._session.create_peer_class(host)
            if number >= MAX_CLASSES:  # Every torrent that has a limit has a class, too.
                self._session.delete_peer_class(number)
                return
            self._classes[host] = number
            self._apply_filter()
        elif self._limits.get(host) == bytes_s:
            return
        self._limits[host] = bytes_s
        settings = self._session.get_peer_class(number)
        settings["upload_limit"] = bytes_s
        self._session.set_peer_class(number, settings)

    def _apply_filter(self) -> None:
        rules = one_class_for_all()
        everyone = 1 << lt.session.global_peer_class_id
        for host, number in self._classes.items():
            rules.add_rule(host, host, everyone | 1 << number)
        self._session.set_peer_class_filter(rules)
