"""How the datacast's processes are started and ended."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio


def module_command(name: str) -> list[str]:
    """How a process of the datacast is started."""
    return [sys.executable, "-m", f"cuntong_daemon.datacast.{name}"]


@asynccontextmanager
async def child(command: list[str], descriptors: Sequence[int] = ()) -> AsyncIterator[trio.Process]:
    """A child with pipes; it ends with the block."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
