"""What only a centre does: sign its timestamp again each day, and deliver renewed certificates (DESIGN 3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import trio

from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import N_, Sentence, sentence

from .authority.repository import AuthorityRepository
from .clock import NodeClock
from .link.session import LinkSession
from .logs import get_logger
from .paths import DataPaths
from .pki.issued import IssuedCertificates
from .pki.tls import PeerIdentity

log = get_logger("centre")

RESIGN_AFTER = timedelta(days=1)
CHECK_INTERVAL_S = 600.0
"""Short enough that a clock that jumps, or an authority that is set up later, is noticed soon."""


class Centre:
    """A service of every node; it does nothing on one that isn't an authority.

    Args:
        on_change: Called after the repository was signed anew.
    """

    def __init__(self, paths: DataPaths, clock: NodeClock, on_change: Callable[[], None]) -> None:
        self._repository = AuthorityRepository(paths.authority)
        self._issued = IssuedCertificates(paths.authority)
        self._clock = clock
        self._on_change = on_change
        self.problem: Sentence | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        await self._sign_if_due()
        task_status.started()
        while True:
            await trio.sleep(CHECK_INTERVAL_S)
            await self._sign_if_due()

    async def _sign_if_due(self) -> None:
        try:
            signed = await trio.to_thread.run_sync(self._sign)
        except (CuntongError, OSError) as error:
            reason = error.sentence if isinstance(error, CuntongError) else None
            self.problem = reason or sentence(
                "centre.not-signed",
                N_("The timestamp could not be signed again: {reason}."),
                reason=str(error),
            )
            log.warning("centre.not-signed", code=self.problem.code, text=str(self.problem))
            return
        self.problem = None
        if signed:
            log.info("centre.timestamp-signed")
            self._on_change()

    def _sign(self) -> bool:
        if not self._repository.exists():
            return False
        now = self._clock.now()
        if now - self._repository.load().signed_at < RESIGN_AFTER:
            return False
        self._repository.resign_timestamp(now)
        return True

    async def deliver_certificate(self, session: LinkSession) -> None:
        """Send a child its renewed certificate, if one waits for it."""
        identity = session.identity
        if not isinstance(identity, PeerIdentity):
            return
        try:
            chain = await trio.to_thread.run_sync(
                self._issued.newer_chain, identity.code, identity.spki, identity.not_after
            )
        except CuntongError as error:
            log.warning("centre.bad-certificate", child=identity.code, code=error.code)
            return
        if chain is not None and session.is_open:
            session.send_certificate(chain.decode())
