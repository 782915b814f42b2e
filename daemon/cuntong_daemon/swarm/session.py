"""The libtorrent session and the way its alerts take into trio.

Alerts come through a socket pair (`set_alert_fd`; `set_alert_notify` can deadlock under Python). The pair must
outlive the session: libtorrent would write into whatever file got the number next.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import libtorrent as lt
import trio

from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from . import alerts as al
from .events import SwarmError
from .settings import (
    IPNetwork,
    confinement,
    listen_interfaces,
    one_class_for_all,
    session_settings,
)


class Session:
    """An open session. `raw` is libtorrent's; nothing else may keep a reference to it."""

    def __init__(self, raw: lt.session, wake: socket.socket) -> None:
        self.raw = raw
        self._wake = wake

    async def alerts(self) -> list[al.Alert]:
        """Wait for alerts and copy them. The wake-up is edge-triggered: drain first, then take."""
        await trio.lowlevel.wait_readable(self._wake)
        with suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass
        return [
            translated
            for alert in self.raw.pop_alerts()
            if (translated := al.translate(alert)) is not None
        ]

    async def listen(self, host: str, port: int) -> tuple[int, int]:
        """Open a TCP and a UDP socket, each again for closed torrents, and nothing on any other address.

        Returns:
            The port, and that of closed torrents.

        Raises:
            SwarmError: `swarm.cannot-listen`.
        """
        self.raw.apply_settings({"listen_interfaces": listen_interfaces(host, port)})
        ports: dict[bool, int] = {}
        sockets = 0
        while sockets < 4:
            for alert in await self.alerts():
                match alert:
                    case al.Listening(_, found, is_closed):
                        ports[is_closed] = found
                        sockets += 1
                    case al.ListenFailed(reason):
                        raise SwarmError(
                            "swarm.cannot-listen",
                            N_(
                                "{address} can't be listened on for swarms: {reason}. Is another daemon running, or"
                                " is the address under [network] swarm not one of this machine?"
                            ),
                            fault=Fault.SYSTEM,  # The VPN may not be up yet: starting again can mend it.
                            address=listen_interfaces(host, port),
                            reason=reason,
                        )
                    case _:
                        pass
        return ports[False], ports[True]


@contextmanager
def open_session(
    *, host: str, networks: Sequence[IPNetwork], down_bytes_s: int, up_bytes_s: int, is_shared: bool
) -> Iterator[Session]:
    """A session that is confined and limited before it listens.

    On leaving, the session ends; whoever held `Session.raw` must have let go of it. Its destructor holds the GIL,
    for milliseconds when it was paused before.
    """
    params = lt.session_params(
        session_settings(
            host=host, down_bytes_s=down_bytes_s, up_bytes_s=up_bytes_s, is_shared=is_shared
        )
    )
    params.disk_io_constructor = "pread_disk_io_constructor"  # mmap's pages count as resident.
    params.ip_filter = confinement(networks)
    wake_read, wake_write = socket.socketpair()
    with wake_read, wake_write:
        wake_read.setblocking(False)
        wake_write.setblocking(False)  # A blocking one would stall libtorrent.
        session = Session(lt.session(params), wake_read)
        try:
            session.raw.set_peer_class_filter(one_class_for_all())
            session.raw.set_alert_fd(wake_write.fileno())
            yield session
        finally:
            del session.raw
