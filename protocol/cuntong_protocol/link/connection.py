"""The control link as a machine without I/O: bytes and times in, messages out (SPEC 6).

Use: feed what arrives with `receive_data`, then call `next_event` until it returns None. Write what `send`
returns. At `next_deadline` (monotonic seconds, the same clock as every `now`) call `on_timeout` and send
what it returns. Any method may raise `LinkError`; then the link is over: tell the other end with `Bye` if
you like, and close.

Three limits on the other end are kept here, besides those in the messages themselves:

* unasked messages are counted in a token bucket (`limits.py`);
* an object's bytes are taken only for a `Get` of ours, and never more than its limit;
* at most 64 `Get`s of the other end may be unanswered. Their rate needs no limit: they can't come faster
  than they are answered.
"""

from __future__ import annotations

from typing import Final

from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .errors import LinkError
from .frames import HELLO_FRAME_BYTES, FrameDecoder, encode_frame
from .limits import (
    RECEIVE_BURST,
    RECEIVE_TOKENS_PER_S,
    SEND_BURST,
    SEND_TOKENS_PER_S,
    TokenBucket,
    cost,
)
from .messages import (
    LINK_VERSION,
    MAX_FRAME_BYTES,
    AnyMessage,
    Encoding,
    Get,
    Message,
    NotFound,
    ObjectChunk,
    ObjectHead,
    Ping,
    Welcome,
    decode_payload,
)
from .objects import bad_object
from .states import Role, State, next_state

HANDSHAKE_S: Final = 15.0
"""From the first byte of TLS to `Welcome`; ten round trips over a satellite would fit."""
PING_AFTER_S: Final = {Role.CHILD: 60.0, Role.PARENT: 75.0}
"""Silence after which an end asks whether the other is there. The parent is later, so that the child's ping
answers its question too and one ping and pong a minute is all that an idle link costs."""
DEAD_AFTER_S: Final = 150.0
"""Silence after which the other end is given up."""
STALLED_AFTER_S: Final = 60.0
"""An end that answers pings but sends nothing of what was asked for is given up as well. 16 KiB in that time
is 2 kbit/s."""
MAX_OUTSTANDING_GETS: Final = 64
"""Enough that small objects come without a pause: 64 of 600 bytes are 0.6 s of a 512 kbit/s link."""

_TRANSFER = (Get, ObjectHead, ObjectChunk, NotFound)


class _Asked:
    """What we asked for and what has come of it."""

    __slots__ = ("get", "missing")

    def __init__(self, get: Get) -> None:
        self.get = get
        self.missing: int | None = None  # Unknown before the head.


class LinkConnection:
    """One end of a control link.

    Args:
        role: Which end this is.
        now: When the connection was made; the handshake's deadline counts from here.
    """

    def __init__(self, role: Role, now: float) -> None:
        self.role: Final = role
        self._state = State.HELLO
        self._frames = FrameDecoder(HELLO_FRAME_BYTES)
        self._handshake_by = now + HANDSHAKE_S
        self._now = now
        self._heard_at = now
        self._pinged = False
        self._nonce = 0
        self._sending = TokenBucket(SEND_TOKENS_PER_S, SEND_BURST, now)
        self._receiving = TokenBucket(RECEIVE_TOKENS_PER_S, RECEIVE_BURST, now)
        self._asked: dict[int, _Asked] = {}
        self._progress_at = now
        self._serving: dict[int, int] = {}

    @property
    def state(self) -> State:
        return self._state

    @property
    def outstanding_gets(self) -> int:
        """How many of our `Get`s are not yet fully answered."""
        return len(self._asked)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes as they came. Call `next_event` until None before the next call."""
        self._now = now
        self._heard_at = now
        self._pinged = False
        if self._state is not State.CLOSED:
            self._frames.feed(data)

    def next_event(self) -> AnyMessage | None:
        """The next message of the other end, or None when more bytes are needed or the link is closed.

        Raises:
            LinkError: The other end broke a rule: `link.too-long`, `link.bad-message`,
                `link.out-of-order`, `link.flood`, `link.version`, `link.unasked-object`,
                `link.bad-object`, `link.too-many-gets`.
        """
        while self._state is not State.CLOSED:
            payload = self._frames.next_payload()
            if payload is None:
                return None
            message = decode_payload(payload)
            if not isinstance(message, _TRANSFER) and not self._receiving.take(
                cost(len(payload)), self._now
            ):
                raise LinkError("link.flood", N_("The other end sends messages too fast."))
            if message is None:
                continue
            state = next_state(self._state, self.role.other, type(message), fault=Fault.PEER)
            self._on_received(message)
            self._enter(state)
            return message
        return None

    def send(self, message: Message, now: float) -> bytes:
        """The bytes to write for a message.

        Raises:
            LinkError: with `Fault.OURS`, when it may not be sent now; nothing has changed then.
        """
        state = next_state(self._state, self.role, type(message), fault=Fault.OURS)
        frame = encode_frame(message)
        self._on_sent(message, now)
        if not isinstance(message, _TRANSFER):
            self._sending.take(cost(len(frame)), now)
        self._enter(state)
        return frame

    def pacing_s(self, now: float) -> float:
        """Seconds to wait before a message that nobody asked for may be sent, so as not to be a flood."""
        return self._sending.wait_s(now)

    def next_deadline(self) -> float:
        """When to call `on_timeout`."""
        if self._state is State.CLOSED:
            return float("inf")
        if self._state is not State.OPEN:
            return self._handshake_by
        deadline = self._heard_at + (DEAD_AFTER_S if self._pinged else PING_AFTER_S[self.role])
        return min(deadline, self._progress_at + STALLED_AFTER_S) if self._asked else deadline

    def on_timeout(self, now: float) -> list[Message]:
        """What to send now because of the time.

        Raises:
            LinkError: `link.handshake-timeout`, `link.silent` or `link.stalled`: give the link up.
        """
        if now < self.next_deadline():
            return []
        if self._state is not State.OPEN:
            raise LinkError(
                "link.handshake-timeout",
                N_("The other end didn't finish its greeting within {seconds} seconds."),
                seconds=int(HANDSHAKE_S),
            )
        if now >= self._heard_at + DEAD_AFTER_S:
            raise LinkError(
                "link.silent",
                N_("Nothing was heard from the other end for {seconds} seconds."),
                seconds=int(DEAD_AFTER_S),
                fault=Fault.TRANSPORT,
            )
        if self._asked and now >= self._progress_at + STALLED_AFTER_S:
            raise LinkError(
                "link.stalled",
                N_("The other end sent nothing of what was asked for {seconds} seconds."),
                seconds=int(STALLED_AFTER_S),
            )
        self._pinged = True
        self._nonce = (self._nonce + 1) % 2**32
        return [Ping(self._nonce)]

    # What both ends keep count of.

    def _enter(self, state: State) -> None:
        if state is State.OPEN and self._state is not State.OPEN:
            self._frames.max_frame_bytes = MAX_FRAME_BYTES
        self._state = state

    def _on_received(self, message: Message) -> None:
        match message:
            case Welcome():
                if message.version > LINK_VERSION:
                    raise LinkError(
                        "link.version",
                        N_("The other end speaks version {version} of the link, we know {known}."),
                        version=message.version,
                        known=LINK_VERSION,
                    )
            case Get():
                if len(self._serving) >= MAX_OUTSTANDING_GETS or message.id in self._serving:
                    raise LinkError(
                        "link.too-many-gets",
                        N_("The other end asks for more than {limit} objects at a time."),
                        limit=MAX_OUTSTANDING_GETS,
                    )
                self._serving[message.id] = -1
            case ObjectHead():
                self._on_head(message)
            case ObjectChunk():
                asked = self._asked.get(message.id)
                if asked is None or asked.missing is None:
                    raise _unasked()
                self._take_bytes(message.id, asked, asked.missing, len(message.data))
            case NotFound():
                if self._asked.pop(message.id, None) is None:
                    raise _unasked()
                self._progress_at = self._now

    def _on_head(self, head: ObjectHead) -> None:
        asked = self._asked.get(head.id)
        if asked is None or asked.missing is not None:
            raise _unasked()
        get = asked.get
        is_plain = head.encoding is Encoding.PLAIN
        may_go_on = head.offset == 0 or (head.offset == get.offset and head.form == get.form)
        if (
            head.size > get.max_bytes
            or head.encoded_size > head.size
            or (is_plain and head.encoded_size != head.size)
            or (head.encoding is Encoding.PATCH and not get.base)
            or not may_go_on
            or head.offset > head.encoded_size
        ):
            raise bad_object()
        self._take_bytes(head.id, asked, head.encoded_size - head.offset, len(head.data))

    def _take_bytes(self, request: int, asked: _Asked, missing: int, count: int) -> None:
        if count > missing:
            raise bad_object()
        self._progress_at = self._now
        asked.missing = missing - count
        if asked.missing == 0:
            del self._asked[request]

    def _on_sent(self, message: Message, now: float) -> None:
        match message:
            case Get():
                if len(self._asked) >= MAX_OUTSTANDING_GETS or message.id in self._asked:
                    raise _misuse("Get")
                if not self._asked:
                    self._progress_at = now
                self._asked[message.id] = _Asked(message)
            case ObjectHead():
                if self._serving.get(message.id) != -1:
                    raise _misuse("ObjectHead")
                self._served(message.id, message.encoded_size - message.offset - len(message.data))
            case ObjectChunk():
                if self._serving.get(message.id, -1) < len(message.data):
                    raise _misuse("ObjectChunk")
                self._served(message.id, self._serving[message.id] - len(message.data))
            case NotFound():
                if self._serving.pop(message.id, 0) != -1:
                    raise _misuse("NotFound")

    def _served(self, request: int, missing: int) -> None:
        if missing:
            self._serving[request] = missing
        else:
            del self._serving[request]


def _unasked() -> LinkError:
    return LinkError(
        "link.unasked-object", N_("The other end sent an object that nobody had asked for.")
    )


def _misuse(kind: str) -> LinkError:
    return LinkError("link.misuse", N_("{kind} can't be sent now."), fault=Fault.OURS, kind=kind)
