"""The parent's side: listens, greets, and keeps a session with each child."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import trio

from cuntong_daemon.logs import get_logger
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.messages import Welcome
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import N_

from .delegate import Identity, LinkDelegate
from .parts import Parts
from .session import LinkSession
from .shelf import Shelf
from .transport import Identify, answer, cannot_listen

MAX_CHILDREN: Final = 4_096
"""Above a centre's largest number of children, and the grandchildren who come in a fall-back."""
MAX_GREETING: Final = 256
"""Connections not yet welcomed; strangers can't take more memory or file descriptors than these."""

log = get_logger("link")


class ChildServer:
    """A service that listens for children.

    Args:
        host: Address to listen on.
        port: 0 lets the system choose (tests).
        context: The TLS context of the node as a server; shared by all connections.
        identify: `pki.tls.peer_identity`.
        delegate: The rest of the daemon.
        welcome: Makes the welcome for each child.
        parts: Interrupted transfers, shared with `ParentLink`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext,
        identify: Identify,
        delegate: LinkDelegate,
        welcome: Callable[[], Welcome],
        parts: Parts,
        shelf: Shelf | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._identify = identify
        self._delegate = delegate
        self._welcome = welcome
        self._parts = parts
        self._shelf = shelf or Shelf(delegate)
        self._sessions: dict[Division, LinkSession] = {}
        self._greeting = 0

    @property
    def port(self) -> int:
        """Where it listens, once it runs."""
        return self._port

    @property
    def sessions(self) -> Mapping[Division, LinkSession]:
        """The connected children; a live view."""
        return MappingProxyType(self._sessions)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.

        Raises:
            LinkError: `link.port-taken` or `link.cannot-listen` (Fault.SYSTEM).
        """
        try:
            listeners = await trio.open_tcp_listeners(self._port, host=self._host)
        except OSError as error:
            raise cannot_listen(f"{self._host}:{self._port}", error) from error
        self._port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    def announce(self) -> None:
        """Tell all children what is new in `delegate.announcements()`."""
        entries = self._delegate.announcements()
        for session in self._sessions.values():
            session.announce(entries)

    def check_members(self) -> None:
        """Judge all children anew, after the members lists changed; who is removed is told and closed."""
        for session in list(self._sessions.values()):
            try:
                self._delegate.identity_check(session.identity, Role.CHILD)
            except CuntongError as error:
                log.info("link.child-removed", child=session.peer_code, code=error.code)
                session.remove(error.sentence)

    async def serve_stream(self, stream: trio.abc.Stream, identity: Identity, began: float) -> None:
        """Greet and keep one child whose stream is secured already; returns when it is gone.

        Args:
            stream: Closed at the end.
            identity: Who it is.
            began: When it connected (trio's clock).
        """
        session = await self._greet(stream, identity, began)
        if session is not None:
            await self._keep(session)

    async def _serve(self, transport: trio.SocketStream) -> None:
        began = trio.current_time()
        if self._greeting >= MAX_GREETING or len(self._sessions) >= MAX_CHILDREN:
            log.warning("link.too-many", greeting=self._greeting, children=len(self._sessions))
            await trio.aclose_forcefully(transport)
            return
        session: LinkSession | None = None
        self._greeting += 1
        try:
            stream = await answer(transport, self._context)
            try:
                identity = self._identify(stream)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            session = await self._greet(stream, identity, began)
        except CuntongError as error:
            log.info("link.child-not-greeted", code=error.code, reason=str(error))
        finally:
            self._greeting -= 1
        if session is not None:
            await self._keep(session)

    async def _greet(
        self, stream: trio.abc.Stream, identity: Identity, began: float
    ) -> LinkSession | None:
        session = LinkSession(
            stream, Role.PARENT, self._delegate, self._shelf, self._parts, identity, began
        )
        try:
            await session.wait_hello()
            self._delegate.identity_check(identity, Role.CHILD)
            await session.accept(self._welcome())
        except CuntongError as error:
            log.info("link.child-refused", child=identity.code, code=error.code, reason=str(error))
            await session.refuse(error.sentence)
            return None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return session

    async def _keep(self, session: LinkSession) -> None:
        code = session.peer_code

        def on_open() -> None:
            previous = self._sessions.get(code)
            self._sessions[code] = session
            self._delegate.on_connected(session)
            session.announce(self._delegate.announcements())
            if previous is not None:
                # A half-open one, most often; or somebody copied a key, and both will see this again and again.
                previous.close(
                    LinkError(
                        "link.replaced",
                        N_("This node connected once more."),
                        fault=Fault.TRANSPORT,
                    )
                )

        try:
            reason = await session.run(on_open=on_open)
            log.info("link.child-gone", child=code, code=reason.code)
        finally:
            if self._sessions.get(code) is session:
                del self._sessions[code]
            self._delegate.on_disconnected(session)
