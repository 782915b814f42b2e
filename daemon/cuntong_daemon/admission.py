"""Certificates for closed swarms: asked for, handed on, issued and renewed over the control link (SPEC 7.6).

A request goes from node to parent until it reaches the publisher; the answer comes down the same way, and finds its
asker by the code. A place without a link upwards keeps requests until it has one; who gets no answer asks again. The parent of the
asker has proven in TLS that it is a member and has the key; every place further up checks that the request comes from
the right child, and that it knows of no removal.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import EnrolmentError, load_public_key, spki_sha256
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.messages import SwarmCertificate, SwarmRequest
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import N_, Sentence, sentence

from .clock import NodeClock
from .link.session import LinkSession
from .logs import get_logger
from .neighbours import Neighbours
from .paths import DataPaths
from .pki.certificates import (
    KeyFiles,
    PrivateKey,
    certificate_der,
    load_certificate,
    load_private_key,
    private_key_pem,
    public_key_der,
)
from .pki.swarm import (
    PEER_RENEW_BEFORE,
    PeerCertificates,
    check_peer_certificate,
    load_swarm_ca,
)
from .pki.tls import PeerIdentity
from .swarm.engine import Credential
from .trust.view import View

log = get_logger("admission")

LOOK_INTERVAL_S = 60.0
ASK_AGAIN_S = 60.0
"""After a request that nobody answered; some place on the way up may have been down."""
RENEWAL_AGAIN_S = 3600.0
"""The same, while the old certificate still opens everything: a month is left."""
REFUSED_AGAIN_S = 600.0
MAX_WAITING = 1024
"""Messages that wait to be acted on. What comes on top is dropped, and asked for again a minute later."""
MAX_ROOTS = 8
"""Swarm CAs of one publisher: one, and another after each time it lost its keys."""


class Admissions:
    """A service; see the module.

    Args:
        on_change: Called with the publisher when its certificate has come, or was refused.
    """

    def __init__(
        self,
        paths: DataPaths,
        own_code: Division,
        *,
        clock: NodeClock,
        neighbours: Neighbours,
        on_change: Callable[[Division], None],
    ) -> None:
        self._authority = paths.authority
        self._key_file = KeyFiles(paths.keys).key
        self._certificates = PeerCertificates(paths.keys)
        self._own_code = own_code
        self._clock = clock
        self._neighbours = neighbours
        self._on_change = on_change
        self._view = View()
        self._roots: dict[Division, set[bytes]] = {}
        self._asked_at: dict[Division, float] = {}
        self._refusals: dict[Division, Sentence] = {}
        self._held: dict[tuple[Division, Division], SwarmRequest] = {}
        self._wake = trio.Event()
        self._send, self._receive = trio.open_memory_channel[SwarmRequest | SwarmCertificate](
            MAX_WAITING
        )

    # What others here ask and tell.

    async def credential(self, publisher: Division, root: bytes) -> Credential | None:
        """What opens a closed torrent; None while it isn't here. Then it is asked for, and `on_change` tells.

        Args:
            publisher: Of the bundle.
            root: The swarm CA in its torrent, PEM.
        """
        roots = self._roots.setdefault(publisher, set())
        if len(roots) < MAX_ROOTS:
            roots.add(root)
        found = await trio.to_thread.run_sync(self._load, publisher, root)
        if found is None:
            self._wake.set()
            return None
        certificate, key = found
        return Credential(
            certificate.public_bytes(Encoding.PEM).decode(), private_key_pem(key).decode()
        )

    def problem(self, publisher: Division) -> Sentence:
        """Why there is no credential."""
        return self._refusals.get(publisher) or sentence(
            "admission.waiting",
            N_("Its licence is restricted: this place waits for a certificate of {publisher}."),
            publisher=publisher,
        )

    def set_view(self, view: View) -> None:
        """The verified view has changed: its members lists say who was removed."""
        self._view = view

    def on_parent(self) -> None:
        """A parent is new: ask at once, and hand on what has waited."""
        self._asked_at.clear()
        self._wake.set()
        held, self._held = self._held, {}
        for request in held.values():
            self._hand_up(request)

    def handle(self, peer: LinkSession, message: SwarmRequest | SwarmCertificate) -> None:
        """A child's request, or the parent's answer; returns at once."""
        if isinstance(message, SwarmRequest):
            if peer.peer_role is Role.CHILD:
                self._take_request(peer, message)
        elif peer.peer_role is Role.PARENT:
            if message.asker == self._own_code:
                self._later(message)
            else:
                self._answer(message)

    # Requests from below.

    def _take_request(self, child: LinkSession, request: SwarmRequest) -> None:
        try:
            self._check(child, request)
        except EnrolmentError as error:
            log.info("admission.refused", asker=request.asker, code=error.code)
            child.pass_on(
                SwarmCertificate(request.publisher, request.asker, refusal=error.sentence)
            )
            return
        if request.publisher == self._own_code:
            self._later(request)
        else:
            self._hand_up(request)

    def _hand_up(self, request: SwarmRequest) -> None:
        parent = self._neighbours.parent
        if parent is not None:
            parent.pass_on(request)
        elif len(self._held) < MAX_WAITING:
            self._held[request.asker, request.publisher] = request

    def _check(self, child: LinkSession, request: SwarmRequest) -> None:
        asker = request.asker
        if not asker.is_within(child.peer_code) or not self._own_code.is_within(request.publisher):
            raise EnrolmentError(
                "admission.wrong-subtree",
                N_("{node} can't have a certificate of {publisher}: it doesn't lie below it."),
                node=asker,
                publisher=request.publisher,
            )
        spki = spki_sha256(load_public_key(request.public_key))
        identity = child.identity
        if asker == child.peer_code and (
            not isinstance(identity, PeerIdentity) or identity.spki != spki
        ):
            raise EnrolmentError(
                "admission.other-key",
                N_("{node} asked for a certificate for another key than its own."),
                fault=Fault.PEER,
                node=asker,
            )
        for authority in (asker, *asker.ancestors):
            line = self._view.members.get(authority, {}).get(asker)
            if line is not None and not line.is_active and line.spki == spki:
                raise EnrolmentError(
                    "node.removed",
                    N_("{node} was removed on {date}: {reason}"),
                    node=asker,
                    date=str(line.since),
                    reason=line.reason,
                )

    def _answer(self, answer: SwarmCertificate) -> None:
        session = self._neighbours.towards(answer.asker)
        if session is not None:
            session.pass_on(answer)

    # Running.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work)
            task_status.started()
            while True:
                with trio.move_on_after(LOOK_INTERVAL_S):
                    await self._wake.wait()
                self._wake = trio.Event()
                for publisher in list(self._roots):
                    await self._ask_if_due(publisher)

    def _later(self, message: SwarmRequest | SwarmCertificate) -> None:
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            log.warning("admission.too-many", asker=message.asker)

    async def _work(self) -> None:
        async for message in self._receive:
            if isinstance(message, SwarmRequest):
                self._answer(await self._issue(message))
            else:
                await self._take(message)

    async def _issue(self, request: SwarmRequest) -> SwarmCertificate:
        """The publisher's answer."""
        try:
            certificate = await trio.to_thread.run_sync(self._issued, request)
        except (CuntongError, OSError) as error:
            log.warning("admission.not-issued", asker=request.asker, reason=str(error))
            refusal = sentence(
                "admission.not-issued",
                N_("{publisher} can't issue a certificate now. Look into its log."),
                publisher=self._own_code,
            )
            return SwarmCertificate(self._own_code, request.asker, refusal=refusal)
        log.info("admission.issued", asker=request.asker)
        return SwarmCertificate(self._own_code, request.asker, certificate)

    def _issued(self, request: SwarmRequest) -> bytes:
        ca = load_swarm_ca(self._authority)
        if ca is None:
            raise EnrolmentError(
                "admission.no-ca",
                N_("{publisher} has no swarm CA: it has published nothing restricted."),
                publisher=self._own_code,
            )
        key = load_public_key(request.public_key)
        return certificate_der(ca.issue(request.asker, key, now=self._clock.now()))

    async def _ask_if_due(self, publisher: Division) -> None:
        missing, is_due = await trio.to_thread.run_sync(self._standing, publisher)
        if not missing and not is_due:
            return
        again_s = ASK_AGAIN_S if missing else RENEWAL_AGAIN_S
        if publisher in self._refusals:
            again_s = max(again_s, REFUSED_AGAIN_S)
        now = trio.current_time()
        if now < self._asked_at.get(publisher, -again_s) + again_s:
            return
        try:
            key = await trio.to_thread.run_sync(self._key)
        except (CuntongError, OSError) as error:
            log.warning("admission.no-key", reason=str(error))
            return
        request = SwarmRequest(publisher, self._own_code, public_key_der(key.public_key()))
        parent = self._neighbours.parent
        if publisher == self._own_code:
            self._asked_at[publisher] = now
            await self._take(await self._issue(request))
        elif parent is not None:
            self._asked_at[publisher] = now
            parent.pass_on(request)

    async def _take(self, answer: SwarmCertificate) -> None:
        publisher = answer.publisher
        if publisher not in self._roots:
            return  # Nothing of it is wanted here (any more).
        if not answer.certificate:
            if answer.refusal is not None:
                self._refusals[publisher] = answer.refusal
                self._on_change(publisher)
            return
        try:
            await trio.to_thread.run_sync(self._keep, publisher, answer.certificate)
        except (CuntongError, OSError) as error:
            log.warning("admission.unfit", publisher=publisher, reason=str(error))
            if isinstance(error, CuntongError):
                self._refusals[publisher] = error.sentence
                self._on_change(publisher)
            return
        self._refusals.pop(publisher, None)
        log.info("admission.certificate", publisher=publisher)
        self._on_change(publisher)

    # Files; these block.

    def _key(self) -> PrivateKey:
        return load_private_key(self._key_file.read_bytes())

    def _load(self, publisher: Division, root: bytes) -> tuple[x509.Certificate, PrivateKey] | None:
        certificate = self._certificates.load(publisher)
        if certificate is None:
            return None
        try:
            key = self._key()
            check_peer_certificate(certificate, root, key.public_key(), self._clock.now())
        except (CuntongError, OSError):
            return None
        return certificate, key

    def _standing(self, publisher: Division) -> tuple[bool, bool]:
        """Whether a certificate is missing for one of the publisher's torrents, and whether it is due for renewal."""
        found = [self._load(publisher, root) for root in self._roots[publisher]]
        renew_at = self._clock.now() + PEER_RENEW_BEFORE
        is_due = any(it is not None and it[0].not_valid_after_utc < renew_at for it in found)
        return None in found, is_due

    def _keep(self, publisher: Division, der: bytes) -> None:
        certificate, key = load_certificate(der), self._key()
        problem: CuntongError | None = None
        for root in self._roots[publisher]:
            try:
                check_peer_certificate(certificate, root, key.public_key(), self._clock.now())
            except EnrolmentError as error:
                problem = error
            else:
                self._certificates.save(publisher, der)
                return
        assert problem is not None  # noqa: S101 - there is a root as soon as there is an entry.
        raise problem
