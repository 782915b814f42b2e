"""The libtorrent session and the way its alerts take into trio.

Alerts come through a socket pair (`set_alert_fd`; `set_alert_notify` can deadlock under Python). The pair must
outlive the session: libtorrent would write into whatever file got the number next.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import libtorrent as lt
import trio

from . import alerts as al
from .events import cannot_listen
from .settings import (
    IPNetwork,
    closed_port,
    confinement,
    listen_interfaces,
    one_class_for_all,
    session_settings,
)

FREE_PORT_TRIES = 100
"""How often a free port is looked for, each time another."""


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

        Args:
            host: The address.
            port: 0 takes a free one.

        Returns:
            The port, and that of closed torrents.

        Raises:
            SwarmError: `swarm.cannot-listen`.
        """
        reason = ""
        for _ in range(1 if port else FREE_PORT_TRIES):
            try:
                chosen = port or _free_port(host)
            except OSError as error:
                chosen, reason = 0, error.strerror or str(error)
                continue
            refusal = await self._try_port(host, chosen)
            if refusal is None:
                return chosen, closed_port(chosen)
            reason = refusal
        raise cannot_listen(listen_interfaces(host, chosen), reason)

    async def _try_port(self, host: str, port: int) -> str | None:
        """Listen on a port and its neighbour. None, or why that can't be done."""
        self.raw.apply_settings({"listen_interfaces": listen_interfaces(host, port)})
        mine = {port, closed_port(port)}  # The ports of an earlier try are still being told of.
        sockets = 0
        while sockets < 4:
            for alert in await self.alerts():
                match alert:
                    case al.Listening(_, found) if found in mine:
                        sockets += 1
                    case al.ListenFailed(found, reason) if found in mine:
                        return reason
                    case _:
                        pass
        return None


def _free_port(host: str) -> int:
    """A port that is free now for TCP and UDP, and so is its neighbour for closed torrents.

    libtorrent, told to take any, takes a free one for TCP and fails where another program has the same for UDP.

    Raises:
        OSError: It found none, which can be chance; or the address isn't one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:

        def take(kind: socket.SocketKind, port: int) -> int:
            taken = stack.enter_context(socket.socket(family, kind))
            taken.bind((host, port))
            return int(taken.getsockname()[1])

        port = take(socket.SOCK_DGRAM, 0)
        take(socket.SOCK_STREAM, port)
        take(socket.SOCK_DGRAM, closed_port(port))
        take(socket.SOCK_STREAM, closed_port(port))
    return port


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
