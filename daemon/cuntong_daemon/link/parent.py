"""The child's side: keeps a link to the nearest parent that answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import trio

from cuntong_daemon.logs import get_logger
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.errors import LinkError, LinkRefusedError
from cuntong_protocol.link.messages import Hello
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import N_, Sentence

from .backoff import Backoff
from .delegate import Identity, LinkDelegate
from .fetching import LinkLostError
from .parts import Parts
from .session import LinkSession
from .shelf import Shelf
from .transport import Dial, ParentAddress

log = get_logger("link")


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """How it stands with the parent, for `cuntong status`.

    Attributes:
        state: `refused` is `down` because the nearest parent refuses this node.
        parent: Whom we are connected to; when down, whom we tried last.
        since: When this state began (trio's clock).
        is_fallback: True when connected to another than the first.
        problem: Why there is no link to the first parent.
    """

    state: Literal["down", "up", "refused"]
    parent: ParentAddress | None
    since: float
    is_fallback: bool
    problem: Sentence | None


class _Candidate:
    def __init__(self, address: ParentAddress, source: random.Random) -> None:
        self.address = address
        self.backoff = Backoff(source)
        self.problem: Sentence | None = None
        self.is_refused = False


class ParentLink:
    """A service that dials `parents` in order, falls back to the next, and returns to the nearer one.

    Args:
        parents: The nearest first; with none the service only waits (the nation).
        dial: How to connect: `transport.tls_dialler`.
        delegate: The rest of the daemon.
        hello: Makes the greeting for each new connection.
        parts: Interrupted transfers, shared with `ChildServer`.
        source: Of the jitter.
    """

    def __init__(
        self,
        parents: Sequence[ParentAddress],
        *,
        dial: Dial,
        delegate: LinkDelegate,
        hello: Callable[[], Hello],
        parts: Parts,
        source: random.Random | None = None,
    ) -> None:
        jitter = source or random.Random()  # noqa: S311  # Jitter needs no secrecy.
        self._candidates: Final = [_Candidate(address, jitter) for address in parents]
        self._connect = dial
        self._delegate = delegate
        self._hello = hello
        self._parts = parts
        self._shelf = Shelf(delegate)
        self._session: LinkSession | None = None
        self._current: int | None = None
        self._last_tried: int | None = None
        self._since = 0.0
        self._changed = trio.Event()

    @property
    def session(self) -> LinkSession | None:
        """The open link to a parent, or None."""
        return self._session if self._session is not None and self._session.is_open else None

    def status(self) -> ParentStatus:
        """A snapshot for the operator."""
        first = self._candidates[0] if self._candidates else None
        shown = self._current if self._current is not None else self._last_tried
        if self._current is not None:
            state: Literal["down", "up", "refused"] = "up"
        else:
            state = "refused" if first is not None and first.is_refused else "down"
        return ParentStatus(
            state,
            None if shown is None else self._candidates[shown].address,
            self._since,
            self._current is not None and self._current > 0,
            None if first is None or self._current == 0 else first.problem,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a link until cancelled. It is usable, and `fetch` waits, before there is one."""
        self._since = trio.current_time()
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                changed = self._changed
                index = self._due()
                if index is None:
                    with trio.CancelScope(deadline=self._next_try_at()):
                        await changed.wait()
                    continue
                session = await self._dial(index)
                if session is not None:
                    await nursery.start(self._keep, index, session)

    async def fetch(
        self, path: str, max_bytes: int, base: tuple[bytes, bytes] | None = None
    ) -> bytes | None:
        """Get an object from the parent, over as many connections as it takes.

        Waits while there is no link: put a deadline around it if you need one. Up to 64 calls run at once.
        Arguments, result and hash checks as in `LinkSession.fetch`.

        Raises:
            LinkError: `link.cannot-store` (Fault.SYSTEM): our disk.
        """
        while True:
            session = await self.wait_session()
            try:
                return await session.fetch(path, max_bytes, base)
            except LinkLostError:
                continue

    async def order(self, bundle: str) -> Sentence:
        """Order a bundle; returns the parent's answer.

        Raises:
            LinkError: `link.down`, `link.lost` or `link.no-answer`.
        """
        if self.session is None:
            await trio.lowlevel.checkpoint()
            raise LinkError(
                "link.down",
                N_("There is no connection to the parent now."),
                fault=Fault.TRANSPORT,
            )
        return await self.session.order(bundle)

    async def wait_session(self) -> LinkSession:
        """The open link; waits until there is one."""
        while True:
            changed = self._changed
            if self.session is not None:
                await trio.lowlevel.checkpoint()
                return self.session
            await changed.wait()

    async def wait_changed(self) -> None:
        """Wait until `status()` may say something else."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _nearer(self) -> list[_Candidate]:
        return self._candidates[: len(self._candidates) if self._current is None else self._current]

    def _due(self) -> int | None:
        now = trio.current_time()
        for index, candidate in enumerate(self._nearer()):
            if candidate.backoff.next_try_at <= now:
                return index
        return None

    def _next_try_at(self) -> float:
        return min((c.backoff.next_try_at for c in self._nearer()), default=float("inf"))

    async def _dial(self, index: int) -> LinkSession | None:
        candidate = self._candidates[index]
        address = candidate.address
        began = trio.current_time()
        if self._current is None:
            self._last_tried = index
        try:
            stream, identity = await self._connect(address)
            try:
                self._check(identity, address)
                session = LinkSession(
                    stream, Role.CHILD, self._delegate, self._shelf, self._parts, identity, began
                )
                await session.greet(self._hello())
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except CuntongError as error:
            self._failed(candidate, error, lasted_s=0.0)
            return None
        return session

    def _check(self, identity: Identity, address: ParentAddress) -> None:
        if identity.code != address.code:
            raise LinkError(
                "link.wrong-parent",
                N_(
                    "{found} answers at {address} instead of {wanted}. Check the parents in config.toml."
                ),
                found=identity.code,
                address=str(address),
                wanted=address.code,
            )
        self._delegate.identity_check(identity, Role.PARENT)

    def _failed(self, candidate: _Candidate, error: CuntongError, *, lasted_s: float) -> None:
        candidate.problem = error.sentence
        candidate.is_refused = isinstance(error, LinkRefusedError)
        candidate.backoff.ended(trio.current_time(), lasted_s, at_once_longest=candidate.is_refused)
        log.info(
            "link.parent-down",
            parent=candidate.address.code,
            address=str(candidate.address),
            code=error.code,
            reason=str(error),
        )
        self._notify()

    async def _keep(
        self,
        index: int,
        session: LinkSession,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run a session until it ends; it takes over from one with a parent further away."""
        candidate = self._candidates[index]
        began = trio.current_time()

        def on_open() -> None:
            previous = self._session
            self._session, self._current, self._since = session, index, began
            candidate.problem, candidate.is_refused = None, False
            log.info("link.parent-up", parent=candidate.address.code)
            self._delegate.on_connected(session)
            session.announce(self._delegate.announcements())
            self._notify()
            task_status.started()
            if previous is not None:
                previous.close(
                    LinkError(
                        "link.nearer-parent",
                        N_("A nearer parent answers again."),
                        fault=Fault.TRANSPORT,
                    )
                )

        try:
            reason = await session.run(on_open=on_open)
            now = trio.current_time()
            if self._session is session:
                self._failed(candidate, reason, lasted_s=now - began)
                # Those further away are needed now. That one of them refused us was when both were new, perhaps.
                for other in self._candidates[index + 1 :]:
                    other.backoff.next_try_at = min(other.backoff.next_try_at, now)
            else:
                candidate.backoff.next_try_at = now
        finally:
            if self._session is session:
                self._session, self._current, self._since = None, None, trio.current_time()
            self._delegate.on_disconnected(session)
            self._notify()
