"""Engines as processes of their own, read line by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parents[2]


class Node:
    """A running `tests.support.swarm_node`: what it said last, and how to wait for it."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.status: dict[str, Any] = {}
        self.seen: list[dict[str, Any]] = []
        self._news = trio.Event()

    async def read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["what"] == "status":
                    self.status = message
                else:
                    self.seen.append(message)
            self._news.set()
            self._news = trio.Event()
        self.seen.append({"what": "end"})
        self._news.set()

    async def wait(self, what: str, *, seconds: float = 90) -> dict[str, Any]:
        """The first message of this kind, or `end` if the process ends before."""
        with trio.fail_after(seconds):
            while True:
                for message in self.seen:
                    if message["what"] in (what, "end"):
                        return message
                await self._news.wait()

    async def wait_state(self, state: str, *, seconds: float = 90) -> None:
        with trio.fail_after(seconds):
            while self.status.get("state") != state:
                await self._news.wait()


@asynccontextmanager
async def swarm_node(
    settings: dict[str, Any], *, wrapper: Sequence[str] = ()
) -> AsyncIterator[Node]:
    """Start a node and kill it (`SIGKILL`) at the end."""
    process = await trio.lowlevel.open_process(
        [*wrapper, sys.executable, "-m", "tests.support.swarm_node", json.dumps(settings)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    node = Node(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.read)
        try:
            yield node
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # With what a wrapper has started.
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()
