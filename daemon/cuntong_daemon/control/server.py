"""The daemon's end of the local socket.

Whoever may open the socket (mode 0660: the daemon's user and group) may ask. A client that says nonsense,
floods or stalls costs a bounded amount of memory and is hung up on; it never harms the daemon.
"""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from cuntong_daemon.logs import get_logger
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_, sentence

from .messages import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Answer, Request
from .sockets import ControlError, short_address

Handler = Callable[[dict[str, Any]], Awaitable[object]]
Stream = Callable[[dict[str, Any]], AsyncIterator[object]]

MAX_CLIENTS = 32
"""More operators than ever look at one node; each costs a task and a buffer."""
BACKLOG = 16
SEND_TIMEOUT_S = 30
"""A client that doesn't read for so long has stopped (Ctrl-Z)."""
IDLE_TIMEOUT_S = 300
READ_BYTES = 4096
MAX_METHOD_CHARS = 80
SOCKET_MODE = 0o660

log = get_logger("control")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stream yields last, if its answer has a result."""

    result: object


class ControlServer:
    """A service: answers requests on a Unix socket.

    Args:
        path: Where the socket is made. What a dead daemon left there is replaced.
        handlers: Methods that return one result. They get the request's params and may raise
            `CuntongError`, which the client is told; anything msgspec can encode may be returned.
        streams: Methods whose items are sent as they come (progress); closed when the client leaves. One that
            yields an `Outcome` has that as its result.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        streams: Mapping[str, Stream] | None = None,
    ) -> None:
        self._path = path
        self._handlers = dict(handlers)
        self._streams = dict(streams or {})
        self._clients = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; removes the socket at the end.

        Raises:
            ControlError: `control.second-daemon`, `control.no-socket`.
        """
        listener = self._listen()
        try:
            with listener:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    while True:
                        client, _ = await listener.accept()
                        if self._clients >= MAX_CLIENTS:
                            client.close()
                            continue
                        self._clients += 1
                        nursery.start_soon(self._serve, trio.SocketStream(client))
        finally:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _listen(self) -> trio.socket.SocketType:
        try:
            with short_address(self._path) as address:
                self._clear(address)
                plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                try:
                    # Between bind and chmod nobody can connect: listen comes last.
                    plain.bind(address)
                    self._path.chmod(SOCKET_MODE)
                    plain.listen(BACKLOG)
                except BaseException:
                    plain.close()
                    raise
        except OSError as error:
            raise ControlError(
                "control.no-socket",
                N_("The local socket {path} can't be made: {reason}."),
                fault=Fault.SYSTEM,
                path=str(self._path),
                reason=error.strerror or str(error),
            ) from error
        return trio.socket.from_stdlib_socket(plain)

    def _clear(self, address: str) -> None:
        """Remove a stale socket; refuse when somebody answers on it."""
        try:
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                return  # Somebody's file: bind fails and says so.
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # A full backlog means somebody listens; never wait for it.
            probe.setblocking(False)
            try:
                probe.connect(address)
            except ConnectionRefusedError:
                self._path.unlink(missing_ok=True)
                return
            except BlockingIOError:
                pass
        raise ControlError(
            "control.second-daemon",
            N_("Another daemon runs on {folder}; stop it first."),
            fault=Fault.SYSTEM,
            folder=str(self._path.parent),
        )

    async def _serve(self, stream: trio.SocketStream) -> None:
        buffer = bytearray()
        try:
            async with stream:
                while True:
                    line = await _read_line(stream, buffer)
                    if line is None:
                        return
                    await self._answer(stream, line)
        except _ClientGoneError:
            pass
        finally:
            self._clients -= 1

    async def _answer(self, stream: trio.SocketStream, line: bytes) -> None:
        method = "?"
        try:
            request = _REQUESTS.decode(line)
            method = request.method[:MAX_METHOD_CHARS]
            if items := self._streams.get(method):
                result = None
                async with aclosing(items(request.params)) as running:  # type: ignore[type-var]
                    async for item in running:
                        if isinstance(item, Outcome):
                            result = item.result
                            break
                        await _send(stream, Answer(item=item))
            else:
                result = await self._handlers.get(method, _unknown(method))(request.params)
            answer = Answer(result=result)
        except CuntongError as error:
            answer = _refusal(error)
        except msgspec.DecodeError as error:
            answer = _refusal(_bad_request(str(error)))
        except _ClientGoneError:
            raise
        except Exception:
            # A service's own edge: a fault in one method must not stop replication.
            log.exception("method-failed", method=method)
            answer = _refusal(
                ControlError(
                    "control.internal",
                    N_("The daemon failed at {method}; its log says where."),
                    fault=Fault.OURS,
                    method=method,
                )
            )
        await _send(stream, answer)


class _ClientGoneError(Exception):
    """The client left, stopped reading, or isn't one of ours."""


def _unknown(method: str) -> Handler:
    async def refuse(_params: dict[str, Any]) -> object:
        raise ControlError(
            "control.no-method",
            N_("The daemon doesn't know {method}; it may be older than this command."),
            method=method,
        )

    return refuse


def _refusal(error: CuntongError) -> Answer:
    return Answer(error=error.sentence, fault=error.fault.value)


_REQUESTS = msgspec.json.Decoder(Request)
_ANSWERS = msgspec.json.Encoder(enc_hook=str)  # Division codes are a kind of str.


def _bad_request(reason: str) -> ControlError:
    return ControlError(
        "control.bad-request",
        N_("The daemon doesn't understand the request: {reason}."),
        fault=Fault.USAGE,
        reason=reason,
    )


async def _read_line(stream: trio.SocketStream, buffer: bytearray) -> bytes | None:
    """The next line; None when the client left or idles."""
    while (end := buffer.find(b"\n")) < 0:
        if len(buffer) > MAX_REQUEST_BYTES:
            raise _ClientGoneError
        data = b""
        with trio.move_on_after(IDLE_TIMEOUT_S), contextlib.suppress(trio.BrokenResourceError):
            data = bytes(await stream.receive_some(READ_BYTES))
        if not data:
            return None
        buffer += data
    line = bytes(buffer[:end])
    del buffer[: end + 1]
    return line


async def _send(stream: trio.SocketStream, answer: Answer) -> None:
    data = _ANSWERS.encode(answer)
    if len(data) > MAX_ANSWER_BYTES:
        too_long = sentence(
            "control.too-long", N_("The daemon's answer is too long for the local socket.")
        )
        data = _ANSWERS.encode(Answer(error=too_long, fault=Fault.OURS.value))
    try:
        with trio.fail_after(SEND_TIMEOUT_S):
            await stream.send_all(data + b"\n")
    except (trio.BrokenResourceError, trio.TooSlowError):
        raise _ClientGoneError from None
