"""Connections below the link: dialling, TLS, and why they fail, in words."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from cuntong_daemon.pki.tls import handshake_error
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.connection import HANDSHAKE_S
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.states import State
from cuntong_protocol.texts import N_

from .delegate import Identity

TlsStream = trio.SSLStream[trio.SocketStream]
Identify = Callable[[trio.SSLStream[Any]], Identity]
"""`pki.tls.peer_identity`: who is on the other side of a finished handshake; raises CuntongError."""


@dataclass(frozen=True, slots=True)
class ParentAddress:
    """Where a parent's control link listens."""

    code: Division
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Dial = Callable[[ParentAddress], Awaitable[tuple[trio.abc.Stream, Identity]]]
"""Connects to a parent and says who answered; raises CuntongError."""


def tls_dialler(context: ssl.SSLContext, identify: Identify, *, local_host: str = "") -> Dial:
    """How a node really dials: TCP and TLS with its client context.

    Args:
        context: From `pki.tls.client_context`.
        identify: `pki.tls.peer_identity`.
        local_host: The address to dial from, where parents of its family are concerned; "" or an unspecified one
            leaves it to the system. A parent introduces others to a child at the address that it sees.
    """
    local = ipaddress.ip_address(local_host) if local_host else None

    async def connect(address: ParentAddress) -> tuple[trio.abc.Stream, Identity]:
        own = None
        if local is not None and not local.is_unspecified:
            own = str(local) if (local.version == 6) == (":" in address.host) else None
        stream = await dial(address.host, address.port, context, address.code.dns_name, own)
        try:
            return stream, identify(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    return connect


async def dial(
    host: str,
    port: int,
    context: ssl.SSLContext,
    server_hostname: str,
    local_host: str | None = None,
) -> TlsStream:
    """Connect to a parent and finish the TLS handshake, within 15 s.

    Raises:
        CuntongError: in words: `link.unknown-host`, `link.nobody-listens`, `link.unreachable`,
            `link.no-connection`, `link.closed-in-handshake`, `tls.…`.
    """
    address = f"{host}:{port}"
    with trio.move_on_after(HANDSHAKE_S):
        try:
            transport = await trio.open_tcp_stream(host, port, local_address=local_host)
        except OSError as error:
            raise _unreachable(address, error) from error
        return await _handshake(
            trio.SSLStream(
                transport, context, server_hostname=server_hostname, https_compatible=True
            )
        )
    raise LinkError(
        "link.no-connection",
        N_("{address} didn't answer within {seconds} seconds. Is the VPN up?"),
        fault=Fault.TRANSPORT,
        address=address,
        seconds=int(HANDSHAKE_S),
    )


async def answer(transport: trio.SocketStream, context: ssl.SSLContext) -> TlsStream:
    """The parent's side of the TLS handshake, within 15 s.

    Raises:
        CuntongError: in words; the transport is closed.
    """
    with trio.move_on_after(HANDSHAKE_S):
        return await _handshake(
            trio.SSLStream(transport, context, server_side=True, https_compatible=True)
        )
    raise LinkError(
        "link.handshake-timeout",
        N_("The other end didn't finish its greeting within {seconds} seconds."),
        seconds=int(HANDSHAKE_S),
    )


async def _handshake(stream: TlsStream) -> TlsStream:
    # Our frames say where a conversation ends, so TLS needn't (https_compatible): closing never waits.
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error.__cause__, ssl.SSLError) and not isinstance(
            error.__cause__, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            raise handshake_error(error) from error
        raise LinkError(
            "link.closed-in-handshake",
            N_("The other end closed the connection while it was being secured."),
        ) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def broken_link(error: trio.BrokenResourceError | trio.ClosedResourceError) -> CuntongError:
    """Why an established connection broke.

    In TLS 1.3 a child learns only now that the parent refused its certificate.
    """
    if isinstance(error.__cause__, ssl.SSLError) and not isinstance(
        error.__cause__, ssl.SSLEOFError | ssl.SSLZeroReturnError
    ):
        return handshake_error(error)
    return LinkError("link.broken", N_("The connection broke."), fault=Fault.TRANSPORT)


def hung_up(state: State) -> LinkError:
    """The other end closed without a word."""
    if state is State.ANSWER:
        return LinkError(
            "link.closed-unanswered",
            N_(
                "The parent closed the connection without a word. It may not know this node's certificate."
            ),
        )
    return LinkError(
        "link.hung-up",
        N_("The other end closed the connection without a word."),
        fault=Fault.TRANSPORT,
    )


def cannot_listen(address: str, error: OSError) -> LinkError:
    """Why the link's port can't be opened.

    The system's fault and not the configuration's: the VPN may not be up yet, and starting again mends it.
    """
    if error.errno == errno.EADDRINUSE:
        return LinkError(
            "link.port-taken",
            N_(
                "{address} is in use by another program. Change `listen` in config.toml or stop that one."
            ),
            fault=Fault.SYSTEM,
            address=address,
        )
    return LinkError(
        "link.cannot-listen",
        N_("Can't listen on {address}: {reason}. Check `listen` in config.toml."),
        fault=Fault.SYSTEM,
        address=address,
        reason=error.strerror or str(error),
    )


def _unreachable(address: str, error: OSError) -> LinkError:
    cause = _first_cause(error)
    if isinstance(cause, socket.gaierror):
        return LinkError(
            "link.unknown-host",
            N_("The name in {address} can't be resolved. Check the parents in config.toml."),
            fault=Fault.TRANSPORT,
            address=address,
        )
    if isinstance(cause, ConnectionRefusedError):
        return LinkError(
            "link.nobody-listens",
            N_("Nobody listens at {address}. Is the daemon there running?"),
            fault=Fault.TRANSPORT,
            address=address,
        )
    return LinkError(
        "link.unreachable",
        N_("{address} can't be reached: {reason}."),
        fault=Fault.TRANSPORT,
        address=address,
        reason=getattr(cause, "strerror", None) or str(cause),
    )


def _first_cause(error: BaseException) -> BaseException:
    """What lies below trio's summary of several attempts."""
    if isinstance(error, BaseExceptionGroup):
        return _first_cause(error.exceptions[0])
    if isinstance(error.__cause__, OSError | BaseExceptionGroup):
        return _first_cause(error.__cause__)
    return error
