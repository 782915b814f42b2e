"""One open control link, from either end: reads, writes, serves objects and fetches them.

An idle session is one task, the one that reads. A task that writes, and one that loads what the other end
asked for, run only while there is something to do. What waits to be said is bounded: news about the same
thing replaces older news, objects are sent a chunk at a time between everything else, so that a ping never
waits for more than a chunk.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import trio

from cuntong_daemon.logs import get_logger
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.connection import MAX_OUTSTANDING_GETS, LinkConnection
from cuntong_protocol.link.errors import LinkClosedError, LinkError, LinkRefusedError
from cuntong_protocol.link.messages import (
    CHUNK_BYTES,
    MAX_ANNOUNCEMENTS,
    MAX_HAVES,
    MAX_INTRODUCED,
    Announce,
    Announcement,
    AnyMessage,
    Bandwidth,
    Bye,
    Certificate,
    Get,
    Have,
    HaveItem,
    Hello,
    Introduce,
    Message,
    NotFound,
    Notice,
    ObjectChunk,
    ObjectHead,
    Order,
    OrderResult,
    PeerAddress,
    Ping,
    Pong,
    Refused,
    Report,
    SwarmCertificate,
    SwarmRequest,
    Welcome,
    check_message,
)
from cuntong_protocol.link.states import Role, State
from cuntong_protocol.texts import N_, Sentence

from .delegate import Identity, LinkDelegate
from .fetching import Fetching, LinkLostError
from .parts import Parts
from .shelf import Loan, Shelf
from .transport import broken_link, hung_up

READ_BYTES: Final = 32_768
SEND_STALL_S: Final = 60.0
"""A neighbour that takes less than a chunk in this time is given up: below 2 kbit/s nothing would end."""
FAREWELL_S: Final = 1.0
"""For the last words to a neighbour, and for it to close first."""
FAREWELL_READS: Final = 16
"""What a neighbour that still talks may get rid of in that time."""
SERVED_AT_ONCE: Final = 8
"""Objects sent in turns: a small urgent one isn't held up by a large one."""
MAX_OUTBOX: Final = 512
"""Messages that must not be merged and wait to be sent; an honest neighbour never lets it grow so far."""
MAX_PENDING_NEWS: Final = 20_000
"""Introductions, haves or announcements that wait: twice the bundles of a large network."""
ORDER_S: Final = 60.0

log = get_logger("link")

K = TypeVar("K")
V = TypeVar("V")


class LinkSession:
    """One connection to a neighbour.

    Args:
        stream: The encrypted stream; the session closes it.
        role: Our end.
        delegate: The rest of the daemon.
        shelf: Packed objects, shared.
        parts: Interrupted transfers, shared.
        now: When the connection was begun (trio's clock).

    Attributes:
        identity: Who the other end proved to be.
        hello: What the child said first; None at the child's end.
        welcome: What the parent answered; None at the parent's end.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        role: Role,
        delegate: LinkDelegate,
        shelf: Shelf,
        parts: Parts,
        identity: Identity,
        now: float,
    ) -> None:
        self.identity: Final = identity
        self.hello: Hello | None = None
        self.welcome: Welcome | None = None
        self._stream = stream
        self._delegate = delegate
        self._shelf = shelf
        self._parts = parts
        self._conn = LinkConnection(role, now)
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._read_scope: trio.CancelScope | None = None
        self._ended: CuntongError | None = None
        self._last_words: Message | None = None
        self._is_writing = False
        self._has_writer = False
        self._has_loader = False
        # To be said.
        self._outbox: deque[Message] = deque()
        self._announcements: dict[Division, Announcement] = {}
        self._announced: dict[Division, Announcement] = {}
        self._introductions: dict[bytes, list[PeerAddress]] = {}
        self._haves: dict[bytes, HaveItem] = {}
        self._admissions: dict[tuple[Division, Division], SwarmRequest | SwarmCertificate] = {}
        # Objects that the other end asked for.
        self._gets: deque[Get] = deque()
        self._outgoing: deque[_Outgoing] = deque()
        # Objects and answers that we asked for.
        self._asks: deque[Get] = deque()
        self._fetching: dict[int, Fetching] = {}
        self._next_id = 0
        self._orders: dict[str, _Order] = {}

    @property
    def peer_code(self) -> Division:
        """The other end's division, proven in TLS."""
        return self.identity.code

    @property
    def peer_role(self) -> Role:
        """PARENT when we dialled it."""
        return self._conn.role.other

    @property
    def peer_host(self) -> str:
        """The other end's address; empty when the stream isn't a socket's."""
        return _host(self._stream, is_peer=True)

    @property
    def local_host(self) -> str:
        """Our address as the other end sees it; empty when the stream isn't a socket's."""
        return _host(self._stream, is_peer=False)

    @property
    def is_open(self) -> bool:
        """False before `run` and after the end."""
        return self._nursery is not None and self._ended is None

    @property
    def end_reason(self) -> CuntongError | None:
        """Why it ended, or None while it hasn't."""
        return self._ended

    # Greeting.

    async def greet(self, hello: Hello) -> Welcome:
        """The child's greeting.

        Raises:
            LinkRefusedError: with the parent's sentence.
            CuntongError: The connection broke, or the parent broke a rule; it must be closed.
        """
        await self._say_now(hello)
        answer = await self._next_message()
        if isinstance(answer, Refused):
            raise LinkRefusedError(answer.reason)
        assert isinstance(answer, Welcome)  # noqa: S101  # The table lets nothing else pass.
        if answer.code != self.peer_code:
            raise _wrong_code(answer.code, self.peer_code)
        self.welcome = answer
        return answer

    async def wait_hello(self) -> Hello:
        """The child's greeting as the parent hears it; answer with `accept` or `refuse`.

        Raises:
            CuntongError: The connection broke, or the child broke a rule.
        """
        hello = await self._next_message()
        assert isinstance(hello, Hello)  # noqa: S101  # The table lets nothing else pass.
        if hello.code != self.peer_code:
            raise _wrong_code(hello.code, self.peer_code)
        self.hello = hello
        return hello

    async def accept(self, welcome: Welcome) -> None:
        """The parent's welcome."""
        await self._say_now(welcome)

    async def refuse(self, reason: Sentence) -> None:
        """Refuse the child; where it said hello it is told why. Closed when this returns."""
        self._ended = LinkRefusedError(reason)
        self._last_words = Refused(reason)
        await self._close()

    async def _say_now(self, message: Message) -> None:
        data = self._conn.send(message, trio.current_time())
        with trio.CancelScope(deadline=self._conn.next_deadline()):
            await self._send_all(data)
            return
        raise _too_slow()

    async def _next_message(self) -> AnyMessage:
        while (message := self._conn.next_event()) is None:
            self._conn.receive_data(await self._receive(), trio.current_time())
        return message

    # The open link.

    async def run(self, *, on_open: Callable[[], None]) -> CuntongError:
        """Talk until the link ends; everything is closed then.

        Args:
            on_open: Called as soon as the session can be used.

        Returns:
            Why it ended.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    on_open()
                    self._wake()
                    try:
                        await self._read()
                    finally:
                        # It closes some steps before this task goes on, and refuses new tasks from then on.
                        self._nursery = None
        finally:
            if self._ended is None:
                self._end(
                    LinkError(
                        "link.stopped",
                        N_("This node stops; it will be back."),
                        fault=Fault.TRANSPORT,
                    )
                )
            for fetching in self._fetching.values():
                fetching.lose()
            for order in self._orders.values():
                order.done.set()
            while self._outgoing:
                self._shelf.give_back(self._outgoing.popleft().loan)
            await self._close()
        assert self._ended is not None  # noqa: S101  # Set above at the latest.
        return self._ended

    def close(self, reason: CuntongError) -> None:
        """End the session; the other end is told the sentence. Returns at once."""
        self._end(reason)

    def remove(self, reason: Sentence) -> None:
        """Refuse a child that was welcome until now. Returns at once."""
        if self._ended is None:
            self._last_words = Refused(reason)
        self._end(LinkRefusedError(reason))

    def announce(self, entries: Iterable[Announcement], *, again: bool = False) -> None:
        """Tell what of these the neighbour hasn't been told yet; or all of it again."""
        for entry in entries:
            if again or self._announced.get(entry.authority) != entry:
                self._announced[entry.authority] = entry
                _put(self._announcements, entry.authority, entry)
        self._wake()

    def introduce(self, infohash: bytes, peers: Sequence[PeerAddress]) -> None:
        """Tell a child whom to connect to for a bundle."""
        _put(self._introductions, infohash, list(peers[:MAX_INTRODUCED]))
        self._wake()

    def report_status(self, items: Iterable[HaveItem]) -> None:
        """Tell the parent what changed in our bundles."""
        for item in items:
            _put(self._haves, item.infohash, item)
        self._wake()

    def notify(self, text: Sentence) -> None:
        """Tell a child's operator something."""
        self._tell(Notice(text))

    def send_certificate(self, chain: str) -> None:
        """Give a child its renewed certificate (PEM).

        Raises:
            LinkError: `link.misuse` (Fault.OURS), when it is too long.
        """
        self._tell(Certificate(chain))

    def report(self, kind: str, body: bytes) -> None:
        """Send evidence to the parent.

        Raises:
            LinkError: `link.misuse` (Fault.OURS), when it is too long.
        """
        self._tell(Report(kind, body))

    def say_bandwidth(self, message: Bandwidth) -> None:
        """Say what may cross the child's link from now on.

        Raises:
            LinkError: `link.misuse` (Fault.OURS), when it is beyond its own limits.
        """
        self._tell(message)

    def pass_on(self, message: SwarmRequest | SwarmCertificate) -> None:
        """Hand a request for a swarm certificate up, or the answer down; a newer one replaces it.

        Raises:
            LinkError: `link.misuse` (Fault.OURS), when it is beyond its own limits.
        """
        check_message(message)
        _put(self._admissions, (message.asker, message.publisher), message)
        self._wake()

    async def order(self, bundle: str) -> Sentence:
        """Order a bundle from the parent.

        Raises:
            LinkLostError: The link ended before the answer.
            LinkError: `link.no-answer`; `link.misuse` (Fault.OURS), when it is no identifier.
        """
        order = self._orders.get(bundle)
        if order is None:
            self._tell(Order(bundle))
            order = self._orders[bundle] = _Order()
        order.users += 1
        try:
            with trio.move_on_after(ORDER_S):
                if self.is_open:
                    await order.done.wait()
        finally:
            order.users -= 1
            if not order.users and self._orders.get(bundle) is order:
                del self._orders[bundle]
        if order.answer is None:
            if self._ended is not None:
                raise LinkLostError()
            raise LinkError("link.no-answer", N_("The parent didn't answer. Try again later."))
        return order.answer

    async def fetch(
        self, path: str, max_bytes: int, base: tuple[bytes, bytes] | None = None
    ) -> bytes | None:
        """Get an object from the neighbour.

        Args:
            path: Its name (SPEC 6.3).
            max_bytes: A larger one counts as not there.
            base: SHA-256 and bytes of an object like it, for the zstd dictionary.

        Returns:
            The object, its hash checked against what the neighbour stated, and against `path` if that
            says it; None when the neighbour hasn't got it.

        Raises:
            LinkLostError: The link ended; what came so far is kept for the next fetch.
            LinkError: `link.cannot-store` (Fault.SYSTEM).
        """
        while True:
            async with Fetching(self._parts, path, max_bytes, base) as fetching:
                if not self.is_open:
                    raise LinkLostError()
                get = fetching.get(self._next_id)
                try:
                    check_message(get)
                except LinkError:
                    log.warning("link.unnameable-object", path=path)
                    return None
                try:
                    return await self._ask(get, fetching)
                except LinkError as error:
                    if error.code != "link.bad-object":
                        raise
                    if not fetching.was_resumed:
                        self._end(error)
                        raise LinkLostError() from error
                    # What lay on our disk was spoilt: once more from the start.

    async def _ask(self, get: Get, fetching: Fetching) -> bytes | None:
        self._next_id = (get.id + 1) % 2**32
        self._fetching[get.id] = fetching
        self._asks.append(get)
        self._wake()
        try:
            return await fetching.result()
        finally:
            # Abandoned before it was asked; afterwards what comes is thrown away as it comes.
            if get in self._asks:
                self._asks.remove(get)
                del self._fetching[get.id]

    # Reading.

    async def _read(self) -> None:
        try:
            while self._ended is None:
                await self._handle(await self._next_message())
        except CuntongError as error:
            self._end(error)

    async def _receive(self) -> bytes:
        while True:
            with trio.CancelScope(deadline=self._conn.next_deadline()) as self._read_scope:
                try:
                    data = await self._stream.receive_some(READ_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise broken_link(error) from error
                if not data:
                    raise hung_up(self._conn.state)
                return bytes(data)
            for message in self._conn.on_timeout(trio.current_time()):
                self._post(message)

    async def _handle(self, message: AnyMessage) -> None:
        match message:
            case Ping():
                self._post(Pong(message.nonce))
            case Bandwidth():
                self._delegate.on_bandwidth(self, message)
            case Get():
                self._gets.append(message)
                self._wake_loader()
            case ObjectHead() | ObjectChunk() | NotFound():
                fetching = self._fetching[message.id]
                await fetching.take(message)
                if fetching.is_finished:
                    del self._fetching[message.id]
                    if self._asks:
                        self._wake()
            case Announce():
                self._delegate.on_announce(self, message.entries)
            case Have():
                self._delegate.on_status(self, message.items)
            case Introduce():
                self._delegate.on_introduce(self, message.infohash, message.peers)
            case Order():
                answer = await self._delegate.on_order(self, message.bundle)
                self._post(OrderResult(message.bundle, answer))
            case OrderResult():
                order = self._orders.get(message.bundle)
                if order is not None:
                    order.answer = message.answer
                    order.done.set()
            case Notice():
                self._delegate.on_notice(self, message.text)
            case Certificate():
                self._delegate.on_certificate(self, message.chain)
            case Report():
                self._delegate.on_report(self, message.kind, message.body)
            case SwarmRequest() | SwarmCertificate():
                self._delegate.on_admission(self, message)
            case Refused():
                self._end(LinkRefusedError(message.reason))
            case Bye():
                self._end(LinkClosedError(message.reason))

    # Writing.

    def _tell(self, message: Message) -> None:
        check_message(message)
        self._post(message)

    def _post(self, message: Message) -> None:
        if len(self._outbox) >= MAX_OUTBOX:
            self._end(_too_slow())
            return
        self._outbox.append(message)
        self._wake()

    def _wake(self) -> None:
        if self._nursery is not None and self._ended is None and not self._has_writer:
            self._has_writer = True
            self._nursery.start_soon(self._write)

    async def _write(self) -> None:
        try:
            while True:
                data = self._next_bytes()
                if data:
                    with trio.fail_after(SEND_STALL_S):
                        await self._send_all(data)
                elif self._has_news():
                    await trio.sleep(self._conn.pacing_s(trio.current_time()))
                else:
                    break
        except trio.TooSlowError:
            self._end(_too_slow())
        except CuntongError as error:
            self._end(error)
        finally:
            self._has_writer = False

    async def _send_all(self, data: bytes) -> None:
        self._is_writing = True
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise broken_link(error) from error
        self._is_writing = False

    def _next_bytes(self) -> bytes:
        """About a chunk of what is to be said, the most urgent first."""
        now = trio.current_time()
        data = bytearray()
        while len(data) < CHUNK_BYTES and (message := self._next_to_say(now)) is not None:
            data += self._conn.send(message, now)
            if isinstance(message, Get) and self._read_scope is not None:
                # Somebody waits now: the reader's deadline may be nearer than it knows.
                self._read_scope.deadline = self._conn.next_deadline()
        return bytes(data)

    def _next_to_say(self, now: float) -> Message | None:
        if self._outbox:
            return self._outbox.popleft()
        if self._asks and self._conn.outstanding_gets < MAX_OUTSTANDING_GETS:
            return self._asks.popleft()
        if self._has_news() and self._conn.pacing_s(now) <= 0:
            return self._next_news()
        if not self._outgoing:
            return None
        outgoing = self._outgoing.popleft()
        message = outgoing.next_message()
        if outgoing.is_finished:
            self._shelf.give_back(outgoing.loan)
            self._wake_loader()
        else:
            self._outgoing.append(outgoing)
        return message

    def _has_news(self) -> bool:
        return bool(self._announcements or self._introductions or self._haves or self._admissions)

    def _next_news(self) -> Message:
        if self._announcements:
            return Announce(_pop(self._announcements, MAX_ANNOUNCEMENTS))
        if self._introductions:
            infohash = next(iter(self._introductions))
            return Introduce(infohash, self._introductions.pop(infohash))
        if self._haves:
            return Have(_pop(self._haves, MAX_HAVES))
        # Last: they come from all places below, so a flood of them holds up nothing of this node's own.
        return self._admissions.pop(next(iter(self._admissions)))

    # Serving objects.

    def _wake_loader(self) -> None:
        if self._gets and self._nursery is not None and not (self._ended or self._has_loader):
            self._has_loader = True
            self._nursery.start_soon(self._load)

    async def _load(self) -> None:
        try:
            while self._gets and len(self._outgoing) < SERVED_AT_ONCE:
                get = self._gets.popleft()
                loan = await self._shelf.take(get)
                if loan is None:
                    self._post(NotFound(get.id))
                else:
                    self._outgoing.append(_Outgoing(get, loan))
                    self._wake()
        finally:
            self._has_loader = False

    # The end.

    def _end(self, reason: CuntongError) -> None:
        if self._ended is None:
            self._ended = reason
            if self._last_words is None and not isinstance(reason, LinkClosedError):
                self._last_words = Bye(reason.sentence)
            self._scope.cancel()

    async def _close(self) -> None:
        with trio.CancelScope(shield=True):
            await self._say_goodbye()
            await trio.aclose_forcefully(self._stream)

    async def _say_goodbye(self) -> None:
        # After half a record the stream can't be used any more.
        if self._is_writing or self._last_words is None or self._conn.state is State.CLOSED:
            return
        with trio.move_on_after(FAREWELL_S):
            try:
                await self._send_all(self._conn.send(self._last_words, trio.current_time()))
                # Closing a socket with unread bytes in it would destroy what was just sent.
                for _ in range(FAREWELL_READS):
                    if not await self._stream.receive_some(READ_BYTES):
                        break
            except (CuntongError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass


class _Outgoing:
    """An object on its way to the other end."""

    __slots__ = ("_get", "_position", "loan")

    def __init__(self, get: Get, loan: Loan) -> None:
        self._get = get
        self.loan = loan
        self._position: int | None = None

    @property
    def is_finished(self) -> bool:
        return self._position == len(self.loan.encoded.data)

    def next_message(self) -> ObjectHead | ObjectChunk:
        encoded, get = self.loan.encoded, self._get
        if self._position is not None:
            data = encoded.data[self._position : self._position + CHUNK_BYTES]
            self._position += len(data)
            return ObjectChunk(get.id, data)
        goes_on = get.form == encoded.form and get.offset <= len(encoded.data)
        start = get.offset if goes_on else 0
        data = encoded.data[start : start + CHUNK_BYTES]
        self._position = start + len(data)
        return ObjectHead(
            get.id,
            encoded.size,
            encoded.sha256,
            encoded.encoding,
            len(encoded.data),
            encoded.form,
            start,
            data,
        )


class _Order:
    """An order that waits for its answer."""

    __slots__ = ("answer", "done", "users")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Sentence | None = None
        self.users = 0


def _put(waiting: dict[K, V], key: K, value: V) -> None:
    """Newer news replaces older; when there is too much the oldest is dropped."""
    waiting[key] = value
    if len(waiting) > MAX_PENDING_NEWS:
        del waiting[next(iter(waiting))]


def _pop(waiting: dict[K, V], count: int) -> list[V]:
    return [waiting.pop(key) for key in list(itertools.islice(waiting, count))]


def _wrong_code(said: Division, proven: Division) -> LinkError:
    return LinkError(
        "link.wrong-code",
        N_("The other end says that it is {said}, but its certificate is for {proven}."),
        said=said,
        proven=proven,
    )


def _too_slow() -> LinkError:
    return LinkError(
        "link.too-slow",
        N_("The other end takes nothing from the connection any more."),
        fault=Fault.TRANSPORT,
    )


def _host(stream: trio.abc.Stream, *, is_peer: bool) -> str:
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(transport, trio.SocketStream):
        return ""
    try:
        name = transport.socket.getpeername() if is_peer else transport.socket.getsockname()
    except OSError:
        return ""  # It is closed already.
    return str(name[0])
