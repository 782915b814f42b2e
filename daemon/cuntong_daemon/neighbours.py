"""The neighbours: who is connected, what each of them has, and who is introduced to whom (DESIGN 6, 7).

It is the one delegate of the control link, on both sides. It judges who may come in by the verified members
lists, passes news on to those who act on it, and introduces children to the peers that `policy.peers`
chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import trio

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.messages import (
    Announcement,
    Bandwidth,
    HaveItem,
    HaveState,
    PeerAddress,
    SwarmCertificate,
    SwarmRequest,
)
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import N_, Sentence, sentence
from cuntong_protocol.trust.names import parse_object_path

from .clock import NodeClock
from .link.delegate import Identity
from .link.server import ChildServer
from .link.session import LinkSession
from .logs import get_logger
from .metadata import MetadataKeeper
from .pki.tls import PeerIdentity, judge, judge_parent
from .policy.peers import introductions, may_trade, partners_of
from .trust.spool import Spool
from .trust.view import View

log = get_logger("neighbours")

MAX_WANTED_BY_A_CHILD = 20_000
"""Twice the bundles of a large network; a child that claims more is not believed any further."""
MAX_NUMBERED = 40_000
"""Bundles of which is remembered which child has them: a bit for each child. Four large networks."""
SETTLED_S, UNSETTLED_S = 1.0, 5.0
"""Siblings are introduced to each other when none has come or gone for so long; at the latest after so long."""
GROUPED_AT_ONCE = 5_000
"""Children looked at in one call of `settle`: some hundredths of a second."""
MAX_UNSETTLED = 20_000
"""Bundles whose siblings wait to be introduced; for more it is done when somebody comes or goes again."""


class NeighbourError(CuntongError):
    """A neighbour isn't what it should be."""

    fault = Fault.PEER


class Listener(Protocol):
    """Who acts on what neighbours say (the replicator and the app)."""

    def on_parent(self, session: LinkSession) -> None:
        """A parent is connected and wants to know what this node has."""
        ...

    def on_introduced(self, infohash: bytes, peers: Sequence[PeerAddress]) -> None:
        """The parent names peers for a bundle."""
        ...

    def on_child_haves(self) -> None:
        """What children have or want has changed."""
        ...

    async def on_child_order(self, child: Division, bundle: str) -> Sentence:
        """A child ordered a bundle; returns what it is told."""
        ...

    def on_notice(self, sender: Division, text: Sentence) -> None:
        """The parent has something for the operator."""
        ...

    def on_certificate(self, chain: str) -> None:
        """The parent sent a renewed certificate (not verified)."""
        ...

    def on_report(self, child: Division, kind: str, body: bytes) -> None:
        """A child sent evidence (not verified)."""
        ...

    def on_child(self, session: LinkSession) -> None:
        """A child is connected."""
        ...

    def on_admission(self, peer: LinkSession, message: SwarmRequest | SwarmCertificate) -> None:
        """A child asks for a swarm certificate, or the parent answers (not verified)."""
        ...

    def on_bandwidth(self, peer: LinkSession, message: Bandwidth) -> None:
        """What may cross the child's link, by the word of the other side."""
        ...


@dataclass(slots=True)
class Child:
    """A connected child.

    Attributes:
        wants: What it said of each bundle that it wants or has in part, by infohash.
        complete: A bit for each bundle that it has, at the number that `Neighbours` gave the bundle: a thousand
            children have ten thousand bundles each.
        introduced: What it was told last, by infohash.
    """

    session: LinkSession
    wants: dict[bytes, HaveItem] = field(default_factory=dict)
    complete: int = 0
    introduced: dict[bytes, tuple[PeerAddress, ...]] = field(default_factory=dict)

    @property
    def code(self) -> Division:
        return self.session.peer_code

    @property
    def bundles_done(self) -> int:
        """How many bundles it has."""
        return self.complete.bit_count()

    def swarm(self, *, is_closed: bool) -> PeerAddress | None:
        """Where its BitTorrent listens, for closed torrents or for the others."""
        hello = self.session.hello
        if hello is None or not self.session.peer_host:
            return None
        port = hello.closed_swarm_port if is_closed else hello.swarm_port
        return PeerAddress(self.session.peer_host, port) if port else None


@dataclass(slots=True)
class _Unsettled:
    """A bundle whose siblings come and go.

    Attributes:
        is_new: One has since `settle` was called last.
        changed_at: When one did last, by the calls of `settle`.
        since: When the first did.
    """

    is_new: bool = True
    changed_at: float = float("inf")
    since: float = float("inf")


class Neighbours:
    """All links of this node, as their delegate.

    Args:
        own_code: This node.
        vpn_shape: Of the VPN below this node.
        clock: The time by which certificates are judged.
        spool: Where objects are served from.
        swarm_ports: Our BitTorrent port, and that for closed torrents.
    """

    def __init__(
        self,
        own_code: Division,
        *,
        vpn_shape: Literal["mesh", "hub"],
        clock: NodeClock,
        spool: Spool,
        swarm_ports: Callable[[], tuple[int, int]],
    ) -> None:
        self._own_code = own_code
        self._vpn_shape = vpn_shape
        self._clock = clock
        self._spool = spool
        self._swarm_ports = swarm_ports
        self._view = View()
        self._announcements: list[Announcement] = []
        self._children: dict[Division, Child] = {}
        self._parent: LinkSession | None = None
        self._numbers: dict[bytes, int] = {}
        self._swarms: Mapping[bytes, float] = {}
        self._closed: frozenset[bytes] = frozenset()
        self._is_uplink_scarce = False
        self._partners: dict[bytes, Mapping[Division, Sequence[Division]]] = {}
        self._unsettled: dict[bytes, _Unsettled] = {}
        self._keeper: MetadataKeeper | None = None
        self._listener: Listener | None = None
        self._server: ChildServer | None = None

    def attach(
        self, *, keeper: MetadataKeeper, listener: Listener, server: ChildServer | None
    ) -> None:
        """Name those who act on news; before any link is opened."""
        self._keeper, self._listener, self._server = keeper, listener, server

    # What others here ask.

    @property
    def parent(self) -> LinkSession | None:
        """The open link upwards."""
        return self._parent if self._parent is not None and self._parent.is_open else None

    @property
    def children(self) -> Mapping[Division, Child]:
        """The connected children."""
        return self._children

    def sessions(self) -> list[LinkSession]:
        """Whom to ask for objects, best first."""
        parent = self.parent
        below = [child.session for child in self._children.values() if child.session.is_open]
        return ([parent] if parent is not None else []) + below

    def wanted_below(self) -> set[bytes]:
        """Infohashes that a child wants or has only in part."""
        return {infohash for child in self._children.values() for infohash in child.wants}

    def holders_below(self, infohash: bytes) -> list[PeerAddress]:
        """Children that have at least a part of a bundle."""
        is_closed = infohash in self._closed
        return [
            swarm
            for child in self._children.values()
            if self._has_of(child, infohash) > 0
            and (swarm := child.swarm(is_closed=is_closed)) is not None
        ]

    def holdings(self) -> dict[Division, int]:
        """Something that changes, for each connected child, whenever what it has does."""
        return {code: child.complete for code, child in self._children.items()}

    def held_by(self, code: Division) -> frozenset[bytes] | None:
        """Infohashes of what a child has; None when it isn't connected."""
        child = self._children.get(code)
        if child is None:
            return None
        return frozenset(
            infohash for infohash, number in self._numbers.items() if child.complete >> number & 1
        )

    def towards(self, place: Division) -> LinkSession | None:
        """The link to a child that a place is, or lies below; the nearest to it."""
        nearest = max(
            (child for child in self._children.values() if place.is_within(child.code)),
            key=lambda child: child.code.tier,
            default=None,
        )
        return None if nearest is None else nearest.session

    # What others here tell.

    def set_view(
        self, view: View, announcements: Sequence[Announcement], *, has_blobs: bool
    ) -> None:
        """The verified view has changed: judge the children anew, pass the news on.

        Args:
            view: What is verified now.
            announcements: The timestamps to pass on.
            has_blobs: Blobs have come. A neighbour that heard of a timestamp before they did has asked for
                them in vain, so it is told once more.
        """
        self._view = view
        self._announcements = list(announcements)
        if self._server is not None:
            self._server.check_members()
        for session in self.sessions():
            session.announce(self._announcements, again=has_blobs)

    def set_swarms(self, progress: Mapping[bytes, float]) -> None:
        """What this node takes part in, with its own progress (0 to 1)."""
        changed = progress.keys() ^ self._swarms.keys()
        self._swarms = dict(progress)
        if changed:
            self.introduce(changed)

    def set_closed(self, infohashes: frozenset[bytes]) -> None:
        """Which of the listed bundles have a closed swarm."""
        if infohashes != self._closed:
            changed = infohashes ^ self._closed
            self._closed = infohashes
            self.introduce(changed)
            for infohash in changed & self._partners.keys():
                self._unsettle(infohash)  # Who has no port for closed swarms takes no part.

    def set_uplink_scarce(self, *, is_scarce: bool) -> None:
        """Whether this node's uplink is what slows its children down, so that they should help each other."""
        if is_scarce != self._is_uplink_scarce:
            self._is_uplink_scarce = is_scarce
            for infohash in self.wanted_below():
                self._unsettle(infohash)

    def settle(self, now: float) -> None:
        """Introduce siblings to each other; to be called once a second or more often.

        Whoever comes or goes changes whom others should dial. So this waits until nobody has for a while: places that
        hear of a bundle at once would dial, one after the other, everybody.

        Args:
            now: Monotonic seconds.
        """
        most = max(1, GROUPED_AT_ONCE // max(1, len(self._children)))
        for infohash, unsettled in list(self._unsettled.items()):
            if unsettled.is_new:
                unsettled.is_new, unsettled.changed_at = False, now
                unsettled.since = min(unsettled.since, now)
            is_due = now - unsettled.changed_at >= SETTLED_S or now - unsettled.since >= UNSETTLED_S
            if is_due and most:
                most -= 1
                self._group(infohash)

    def introduce(self, infohashes: Collection[bytes]) -> None:
        """Tell children whom to connect to for these, where that has changed."""
        for child in self._children.values():
            self._introduce(child, infohashes)

    def _introduce(self, child: Child, infohashes: Collection[bytes]) -> None:
        if not child.wants:
            return
        for infohash in infohashes:
            item = child.wants.get(infohash)
            if item is None:
                continue
            peers = tuple(self._peers_for(child, infohash, item))
            if peers != child.introduced.get(infohash, ()):
                child.introduced[infohash] = peers
                child.session.introduce(infohash, peers)

    def _peers_for(self, child: Child, infohash: bytes, item: HaveItem) -> list[PeerAddress]:
        addresses: dict[Division, PeerAddress] = {}
        is_closed = infohash in self._closed
        port = self._swarm_ports()[is_closed]
        if infohash in self._swarms and port and child.session.local_host:
            addresses[self._own_code] = PeerAddress(child.session.local_host, port)
        partners = self._partners.get(infohash, {}).get(child.code, ())
        # Children of ours may be above this one: it has fallen back to us.
        for code in (*child.code.ancestors, *partners):
            other = self._children.get(code)
            if other is None or self._has_of(other, infohash) < 0:
                continue
            swarm = other.swarm(is_closed=is_closed)
            if swarm is not None:
                addresses[code] = swarm
        chosen = introductions(
            child.code,
            item.permille / 1000,
            addresses,
            [code for code in partners if code in addresses],
        )
        return [addresses[introduction.code] for introduction in chosen]

    def _group(self, infohash: bytes) -> None:
        """Decide anew which siblings should dial each other for one bundle, and tell them."""
        self._unsettled.pop(infohash, None)
        is_closed = infohash in self._closed
        groups: dict[Division | None, dict[Division, float]] = {}
        for child in self._children.values():
            done = self._has_of(child, infohash)
            if (
                done >= 0
                and self.trades(child.code)
                and child.swarm(is_closed=is_closed) is not None
            ):
                groups.setdefault(child.code.parent, {})[child.code] = done
        partners: dict[Division, Sequence[Division]] = {}
        for done_by in groups.values():
            partners.update(partners_of(infohash.hex(), done_by))
        if any(done < 1 for done_by in groups.values() for done in done_by.values()):
            self._partners[infohash] = partners
        else:
            self._partners.pop(infohash, None)
        self.introduce((infohash,))

    def _unsettle(self, infohash: bytes) -> None:
        """Somebody takes part in a bundle now, or no longer, or has all of it."""
        unsettled = self._unsettled.get(infohash)
        if unsettled is not None:
            unsettled.is_new = True
        elif len(self._unsettled) < MAX_UNSETTLED:
            self._unsettled[infohash] = _Unsettled()

    def trades(self, place: Division) -> bool:
        """Whether a place below may trade with its siblings as things are."""
        return may_trade(place, self._vpn_shape, is_uplink_scarce=self._is_uplink_scarce)

    def _has_of(self, child: Child, infohash: bytes) -> float:
        """How much of a bundle a child has, 0 to 1; -1 when it takes no part."""
        item = child.wants.get(infohash)
        if item is not None:
            return item.permille / 1000
        number = self._numbers.get(infohash)
        return 1.0 if number is not None and child.complete >> number & 1 else -1.0

    def _forget(self, code: Division) -> None:
        """A child is gone, or comes anew."""
        child = self._children.pop(code, None)
        if child is not None:
            for infohash in self._partners:
                if self._has_of(child, infohash) >= 0:
                    self._unsettle(infohash)

    def _takes_part(self, child: Child, infohash: bytes) -> tuple[bool, bool]:
        done = self._has_of(child, infohash)
        return done >= 0, done >= 1

    # The delegate of the link.

    def identity_check(self, identity: Identity, role: Role) -> None:
        """Judge a neighbour by certificate, members lists and time (SPEC 5.3)."""
        if not isinstance(identity, PeerIdentity):
            raise TypeError(identity)
        view = self._view
        # With a clock in 2000 or 2040 no parent could ever tell the right time: proven time then decides.
        is_believed = view.is_clock_trusted or self._clock.is_confirmed
        now = self._clock.now() if is_believed else view.time
        if role is Role.CHILD:
            judge(
                identity,
                self._view.members,
                now,
                self._own_code,
                ca_certificates=self._view.ca_certificates,
            )
        else:
            judge_parent(
                identity,
                self._view.members,
                now,
                identity.code,
                ca_certificates=self._view.ca_certificates,
            )
            if not self._own_code.is_below(identity.code):
                raise NeighbourError(
                    "link.not-above",
                    N_("{parent} isn't above {node}. Check the parents in config.toml."),
                    parent=identity.code,
                    node=self._own_code,
                )

    def announcements(self) -> Sequence[Announcement]:
        return self._announcements

    async def read_object(self, path: str) -> bytes | None:
        return await trio.to_thread.run_sync(self._read, path)

    def _read(self, path: str) -> bytes | None:
        try:
            return self._spool.read(path)
        except CuntongError:
            return None

    async def read_base(self, path: str, sha256: bytes) -> bytes | None:
        return await trio.to_thread.run_sync(self._read_base, path, sha256)

    def _read_base(self, path: str, sha256: bytes) -> bytes | None:
        try:
            name = parse_object_path(path)
        except CuntongError:
            return None
        if name.authority is None:
            return self._spool.read_blob(sha256.hex()) if name.kind == "blobs" else None
        return self._spool.find_version(name.authority, name.role, sha256.hex())

    async def on_order(self, peer: LinkSession, bundle: str) -> Sentence:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        return await self._listener.on_child_order(peer.peer_code, bundle)

    def on_announce(self, peer: LinkSession, entries: Sequence[Announcement]) -> None:
        assert self._keeper is not None  # noqa: S101 - attached before any link.
        if peer.peer_role is Role.CHILD and self.parent is not None:
            # A child speaks for itself and what is below it, not for those above; unless there is no link to them, and
            # the child may have a dish. What it says is verified in any case.
            entries = [entry for entry in entries if entry.authority.is_within(peer.peer_code)]
        self._keeper.heard(peer, entries)

    def on_status(self, peer: LinkSession, items: Sequence[HaveItem]) -> None:
        child = self._children.get(peer.peer_code)
        if child is None or child.session is not peer:
            return
        is_trading = self.trades(child.code)
        for item in items:
            before = self._takes_part(child, item.infohash)
            self._note(child, item)
            # Of ten thousand bundles that nobody lacks nothing needs to be decided.
            is_wanted = item.infohash in child.wants or item.infohash in self._partners
            if is_trading and is_wanted and self._takes_part(child, item.infohash) != before:
                self._unsettle(item.infohash)
        said = {item.infohash for item in items}
        self._introduce(child, said)
        for other in self._children.values():
            if other.code.is_below(child.code):
                self._introduce(other, said)
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._listener.on_child_haves()

    def _note(self, child: Child, item: HaveItem) -> None:
        number = self._numbers.get(item.infohash)
        if number is not None:
            child.complete &= ~(1 << number)
        if item.state in (HaveState.WANTED, HaveState.PARTIAL):
            if item.infohash in child.wants or len(child.wants) < MAX_WANTED_BY_A_CHILD:
                child.wants[item.infohash] = item
            return
        child.wants.pop(item.infohash, None)
        # Should it be damaged later, the child is to be told anew.
        child.introduced.pop(item.infohash, None)
        if item.state is HaveState.COMPLETE:
            if number is None and len(self._numbers) < MAX_NUMBERED:
                number = self._numbers[item.infohash] = len(self._numbers)
            if number is not None:
                child.complete |= 1 << number

    def on_introduce(
        self, peer: LinkSession, infohash: bytes, peers: Sequence[PeerAddress]
    ) -> None:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._listener.on_introduced(infohash, peers)

    def on_notice(self, peer: LinkSession, text: Sentence) -> None:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._listener.on_notice(peer.peer_code, text)

    def on_certificate(self, peer: LinkSession, chain: str) -> None:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._listener.on_certificate(chain)

    def on_report(self, peer: LinkSession, kind: str, body: bytes) -> None:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._listener.on_report(peer.peer_code, kind, body)

    def on_admission(self, peer: LinkSession, message: SwarmRequest | SwarmCertificate) -> None:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._listener.on_admission(peer, message)

    def on_bandwidth(self, peer: LinkSession, message: Bandwidth) -> None:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._listener.on_bandwidth(peer, message)

    def on_connected(self, peer: LinkSession) -> None:
        assert self._listener is not None  # noqa: S101 - attached before any link.
        if peer.peer_role is Role.CHILD:
            self._forget(peer.peer_code)
            self._children[peer.peer_code] = Child(peer)
            self._listener.on_child(peer)
            return
        self._parent = peer
        if peer.welcome is not None:
            self._clock.confirm(peer.welcome.time)
        self._listener.on_parent(peer)

    def on_disconnected(self, peer: LinkSession) -> None:
        assert self._keeper is not None  # noqa: S101 - attached before any link.
        assert self._listener is not None  # noqa: S101 - attached before any link.
        self._keeper.forget(peer)
        if peer.peer_role is Role.CHILD:
            child = self._children.get(peer.peer_code)
            if child is not None and child.session is peer:
                self._forget(peer.peer_code)
                self._listener.on_child_haves()
        elif self._parent is peer:
            self._parent = None


def order_noted() -> Sentence:
    """What a child is told when its order can be served."""
    return sentence("order.noted", N_("The order is noted; it will be sent as soon as it is here."))
