"""How long-lived parts of the daemon run: started in order, stopped newest first.

A service's `run` calls `task_status.started()` only when it is really usable. `running` keeps it alive
until the body has left, whatever happens around it, and only then cancels it; so a service may rely on
everything that was entered before it, even while it says goodbye. Each service's clean-up must have a
deadline of its own, because nothing else limits it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import trio


class Service(Protocol):
    """Something that runs until it is cancelled."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run; report `started()` when usable."""
        ...


S = TypeVar("S", bound=Service)


@asynccontextmanager
async def running(service: S) -> AsyncIterator[S]:
    """Run a service in the background and stop it only after the body has left."""
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def child(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with scope:
                await service.run(task_status=task_status)

        await nursery.start(child)
        scope.shield = True
        try:
            yield service
        finally:
            scope.cancel()
