"""What the control link needs from the rest of the daemon, and what it tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cuntong_protocol.divisions import Division
from cuntong_protocol.link.messages import (
    Announcement,
    Bandwidth,
    HaveItem,
    PeerAddress,
    SwarmCertificate,
    SwarmRequest,
)
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import Sentence

if TYPE_CHECKING:
    from .session import LinkSession


class Identity(Protocol):
    """Who the other end proved to be in TLS (`pki.tls.PeerIdentity`)."""

    @property
    def code(self) -> Division: ...


class LinkDelegate(Protocol):
    """The rest of the daemon as the link sees it.

    The `on_…` methods are called in the task that reads the connection: they take the news and return at
    once (put it into a memory channel, set an event). They must never wait for a fetch on the same
    session, which only that task can finish. An exception from them takes the daemon down.
    """

    def identity_check(self, identity: Identity, role: Role) -> None:
        """Judge a neighbour of the given role before any news is exchanged.

        Raises:
            CuntongError: It is refused; a child is told the sentence.
        """
        ...

    def announcements(self) -> Sequence[Announcement]:
        """The newest verified timestamp of each authority that this node can serve."""
        ...

    async def read_object(self, path: str) -> bytes | None:
        """An object by its name (SPEC 6.3), or None. Check the name: it comes from the other end."""
        ...

    async def read_base(self, path: str, sha256: bytes) -> bytes | None:
        """An older object that may serve as dictionary for the one at `path`, or None."""
        ...

    async def on_order(self, peer: LinkSession, bundle: str) -> Sentence:
        """A child's order; returns what the child is told."""
        ...

    def on_announce(self, peer: LinkSession, entries: Sequence[Announcement]) -> None:
        """The neighbour has news of these authorities."""
        ...

    def on_status(self, peer: LinkSession, items: Sequence[HaveItem]) -> None:
        """What changed in a child's bundles."""
        ...

    def on_introduce(
        self, peer: LinkSession, infohash: bytes, peers: Sequence[PeerAddress]
    ) -> None:
        """Whom to connect to for a bundle. Check the addresses against the allowed networks."""
        ...

    def on_notice(self, peer: LinkSession, text: Sentence) -> None:
        """Something for the operator, from the parent."""
        ...

    def on_certificate(self, peer: LinkSession, chain: str) -> None:
        """A renewed certificate from the parent, not verified."""
        ...

    def on_report(self, peer: LinkSession, kind: str, body: bytes) -> None:
        """Evidence from a child, not verified."""
        ...

    def on_admission(self, peer: LinkSession, message: SwarmRequest | SwarmCertificate) -> None:
        """A child's request for a swarm certificate, or the parent's answer to one; not verified."""
        ...

    def on_bandwidth(self, peer: LinkSession, message: Bandwidth) -> None:
        """What may cross the child's link, by the word of the other side."""
        ...

    def on_connected(self, peer: LinkSession) -> None:
        """A neighbour was welcomed, or welcomed us (`peer.peer_role`)."""
        ...

    def on_disconnected(self, peer: LinkSession) -> None:
        """It is gone. When a nearer parent takes over, the new one connects first."""
        ...
