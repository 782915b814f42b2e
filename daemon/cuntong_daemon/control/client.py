"""The commands' end of the local socket; plain blocking sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_, Sentence

from .messages import MAX_ANSWER_BYTES, Answer, Request
from .sockets import ControlError, short_address

TIMEOUT_S = 30.0
"""For one line of an answer; the daemon answers at once or tells how far it is."""
READ_BYTES = 64 * 1024

T = TypeVar("T")
R = TypeVar("R")

_ANSWERS = msgspec.json.Decoder(Answer)


class RemoteError(CuntongError):
    """What the daemon answered instead of a result."""

    def __init__(self, said: Sentence, fault: int) -> None:
        super().__init__(said.code, said.template)
        self.sentence = said
        with contextlib.suppress(ValueError):  # A newer daemon may know more faults.
            self.fault = Fault(fault)


class ControlClient:
    """A connection to the daemon. Use it as a context manager.

    Args:
        path: The socket (`DataPaths.socket`).
        timeout_s: How long to wait for each line.

    Raises:
        ControlError: `control.no-daemon`, `control.no-permission`.
    """

    def __init__(self, path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            with short_address(path) as address:
                self._socket.connect(address)
        except PermissionError:
            self._socket.close()
            raise ControlError(
                "control.no-permission",
                N_("You may not use {path}; run this as a member of the daemon's group."),
                fault=Fault.REFUSED,
                path=str(path),
            ) from None
        except OSError:
            self._socket.close()
            raise ControlError(
                "control.no-daemon",
                N_(
                    "No daemon answers at {path}; start it with: systemctl start cuntong, or cuntongd --data {folder}"
                ),
                path=str(path),
                folder=str(path.parent),
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON.
        """Ask and wait for the result.

        Raises:
            RemoteError: what the daemon said.
            ControlError: `control.hung-up`, `control.silent`, `control.garbage`.
        """
        for is_result, value in self._answers(method, params):
            if is_result:
                return value
        raise AssertionError

    def call_as(self, kind: type[T], method: str, params: dict[str, Any] | None = None) -> T:
        """`call`, with the result as a struct of `messages`."""
        return self._convert(self.call(method, params), kind)

    def stream(
        self, kind: type[T], method: str, params: dict[str, Any] | None = None
    ) -> Iterator[T]:
        """Ask, and yield the items as they come. Errors as `call`."""
        for is_result, value in self._answers(method, params):
            if not is_result:
                yield self._convert(value, kind)

    def follow(
        self,
        item: type[T],
        result: type[R],
        method: str,
        params: dict[str, Any],
        on_item: Callable[[T], object],
    ) -> R:
        """Ask, hand over the items as they come, and return the result. Errors as `call`."""
        for is_result, value in self._answers(method, params):
            if is_result:
                return self._convert(value, result)
            on_item(self._convert(value, item))
        raise AssertionError

    def _convert(self, value: object, kind: type[T]) -> T:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise self._garbage(str(error)) from None

    def _answers(self, method: str, params: dict[str, Any] | None) -> Iterator[tuple[bool, Any]]:
        try:
            self._socket.sendall(msgspec.json.encode(Request(method, params or {})) + b"\n")
        except OSError:
            raise self._hung_up() from None
        while True:
            try:
                answer = _ANSWERS.decode(self._read_line())
            except msgspec.DecodeError as error:
                raise self._garbage(str(error)) from None
            if isinstance(answer.error, Sentence):
                raise RemoteError(answer.error, answer.fault)
            if answer.item is not msgspec.UNSET:
                yield False, answer.item
                continue
            yield True, None if answer.result is msgspec.UNSET else answer.result
            return

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_ANSWER_BYTES:
                raise self._garbage("")
            try:
                data = self._socket.recv(READ_BYTES)
            except TimeoutError:
                raise ControlError(
                    "control.silent",
                    N_("The daemon at {path} doesn't answer; look into its log."),
                    path=str(self._path),
                ) from None
            except OSError:
                data = b""
            if not data:
                raise self._hung_up()
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _hung_up(self) -> ControlError:
        return ControlError(
            "control.hung-up",
            N_("The daemon at {path} hung up; it is stopping, or it has too many clients."),
            path=str(self._path),
        )

    def _garbage(self, reason: str) -> ControlError:
        return ControlError(
            "control.garbage",
            N_("What answers at {path} isn't a daemon of this version: {reason}."),
            path=str(self._path),
            reason=reason or "line too long",
        )


def call(path: Path, method: str, params: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON.
    """One request on a connection of its own. Errors as `ControlClient`."""
    with ControlClient(path) as client:
        return client.call(method, params)
