"""An honest stand-in for the rest of the daemon, and nodes that talk over memory streams or loopback."""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from cuntong_daemon.link.delegate import Identity
from cuntong_daemon.link.parent import ParentLink
from cuntong_daemon.link.parts import Parts
from cuntong_daemon.link.server import ChildServer
from cuntong_daemon.link.session import LinkSession
from cuntong_daemon.link.shelf import Shelf
from cuntong_daemon.link.transport import Dial, ParentAddress, tls_dialler
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.messages import (
    LINK_VERSION,
    Announcement,
    HaveItem,
    Hello,
    PeerAddress,
    SwarmCertificate,
    SwarmRequest,
    Welcome,
)
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import Sentence, sentence
from tests.support.tls_certs import SimpleIdentity, identify, shared_authority

PROVINCE = Division("440000000000")
COUNTY = Division("441900000000")
VILLAGE = Division("441900003005")
T0 = 1_800_000_000


class Rest:
    """The rest of a daemon: objects in a dict, and a list of all that was said."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = objects if objects is not None else {}
        self.bases: dict[bytes, bytes] = {}
        self.news: list[Announcement] = []
        self.refuse: dict[Division, CuntongError] = {}
        self.said: list[tuple[object, ...]] = []
        self.up: list[LinkSession] = []
        self._changed = trio.Event()

    def _say(self, *what: object) -> None:
        self.said.append(what)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_said(self, *kinds: str) -> tuple[object, ...]:
        """Wait until something of this kind was said; the first of it."""
        while True:
            for what in self.said:
                if what[0] in kinds:
                    return what
            await self._changed.wait()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def add(self, data: bytes) -> str:
        """Store a blob; its path."""
        path = f"blobs/{hashlib.sha256(data).hexdigest()}"
        self.objects[path] = data
        return path

    def identity_check(self, identity: Identity, role: Role) -> None:
        if identity.code in self.refuse:
            raise self.refuse[identity.code]

    def announcements(self) -> Sequence[Announcement]:
        return self.news

    async def read_object(self, path: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.objects.get(path)

    async def read_base(self, path: str, sha256: bytes) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.bases.get(sha256)

    async def on_order(self, peer: LinkSession, bundle: str) -> Sentence:
        await trio.lowlevel.checkpoint()
        self._say("order", peer.peer_code, bundle)
        return sentence("order.taken", "{bundle} is on its way.", bundle=bundle)

    def on_announce(self, peer: LinkSession, entries: Sequence[Announcement]) -> None:
        self._say("announce", peer.peer_code, list(entries))

    def on_status(self, peer: LinkSession, items: Sequence[HaveItem]) -> None:
        self._say("status", peer.peer_code, list(items))

    def on_introduce(
        self, peer: LinkSession, infohash: bytes, peers: Sequence[PeerAddress]
    ) -> None:
        self._say("introduce", peer.peer_code, infohash, list(peers))

    def on_notice(self, peer: LinkSession, text: Sentence) -> None:
        self._say("notice", peer.peer_code, text)

    def on_certificate(self, peer: LinkSession, chain: str) -> None:
        self._say("certificate", peer.peer_code, chain)

    def on_report(self, peer: LinkSession, kind: str, body: bytes) -> None:
        self._say("report", peer.peer_code, kind, body)

    def on_admission(self, peer: LinkSession, message: SwarmRequest | SwarmCertificate) -> None:
        self._say("admission", peer.peer_code, message)

    def on_connected(self, peer: LinkSession) -> None:
        self.up.append(peer)
        self._say("connected", peer.peer_code)

    def on_disconnected(self, peer: LinkSession) -> None:
        self.up.remove(peer)
        self._say("disconnected", peer.peer_code)


def hello(code: Division = VILLAGE) -> Hello:
    return Hello(LINK_VERSION, code, "cuntong-test", code.tier.label, 6881)


def welcome(code: Division = COUNTY) -> Welcome:
    return Welcome(LINK_VERSION, code, T0, 6881, T0 - 3600)


class _Pipe(trio.abc.SendStream, trio.abc.ReceiveStream):
    """One direction of a connection in memory; holds at most `limit` bytes, as a socket's buffers do."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._is_closed = False
        self._lot = trio.lowlevel.ParkingLot()
        self.total = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = bytes(data)
        while rest:
            if self._is_closed:
                raise trio.BrokenResourceError
            room = self._limit - len(self._data)
            self._data += rest[:room]
            self.total += len(rest[:room])
            rest = rest[room:]
            self._lot.unpark_all()
            if rest:
                await self._lot.park()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._data and not self._is_closed:
            await self._lot.park()
        data = bytes(self._data[: max_bytes or 65_536])
        del self._data[: len(data)]
        self._lot.unpark_all()
        return data

    async def aclose(self) -> None:
        self._is_closed = True
        self._lot.unpark_all()
        await trio.lowlevel.checkpoint()


class MemoryStream(trio.abc.Stream):
    """One end of a connection in memory."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.outgoing.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.incoming.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.incoming._is_closed = True
        self.incoming._lot.unpark_all()
        await self.outgoing.aclose()


def stream_pair(limit: int = 65_536) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a connection in memory."""
    one, two = _Pipe(limit), _Pipe(limit)
    return MemoryStream(one, two), MemoryStream(two, one)


Handler = Callable[[MemoryStream, Identity, float], Awaitable[None]]


class MemoryNetwork:
    """Parents that are reached over memory streams: each has a handler, or is down."""

    def __init__(self, nursery: trio.Nursery, child: Division = VILLAGE) -> None:
        self._nursery = nursery
        self._child = child
        self.handlers: dict[Division, Handler] = {}
        self.dials: list[tuple[Division, float]] = []
        self.streams: list[MemoryStream] = []

    async def dial(self, address: ParentAddress) -> tuple[trio.abc.Stream, Identity]:
        await trio.lowlevel.checkpoint()
        self.dials.append((address.code, trio.current_time()))
        handler = self.handlers.get(address.code)
        if handler is None:
            raise LinkError(
                "link.nobody-listens",
                "Nobody listens at {address}.",
                fault=Fault.TRANSPORT,
                address=str(address),
            )
        near, far = stream_pair()
        self.streams.append(near)
        self._nursery.start_soon(handler, far, SimpleIdentity(self._child), trio.current_time())
        return near, SimpleIdentity(address.code)


def make_server(
    rest: Rest,
    folder: Path,
    code: Division = COUNTY,
    *,
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
    shelf: Shelf | None = None,
) -> ChildServer:
    """A parent; without a context it trusts the CA of this test run."""
    return ChildServer(
        host,
        0,
        context=context or shared_authority().context(code, server=True),
        identify=identify,
        delegate=rest,
        welcome=lambda: welcome(code),
        parts=Parts(folder / f"parts-{code}"),
        shelf=shelf,
    )


def make_child(
    rest: Rest,
    folder: Path,
    dial: Dial | None,
    *parents: Division | ParentAddress,
    code: Division = VILLAGE,
) -> ParentLink:
    """A child of the given parents, nearest first."""
    return ParentLink(
        [
            parent if isinstance(parent, ParentAddress) else ParentAddress(parent, parent, 1)
            for parent in parents
        ],
        dial=dial or tls_dialler(shared_authority().context(code, server=False), identify),
        delegate=rest,
        hello=lambda: hello(code),
        parts=Parts(folder / f"parts-{code}"),
        source=random.Random(7),  # Repeatable, not secret.
    )
