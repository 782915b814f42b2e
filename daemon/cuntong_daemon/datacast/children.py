"""How the datacast's processes are started, heard and ended."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from .frames import FrameDecoder

STOP_S = 3.0
"""A reader's disk may take a second to sync."""

T = TypeVar("T")


def module_command(name: str) -> list[str]:
    """How a process of the datacast is started."""
    return [sys.executable, "-m", f"cuntong_daemon.datacast.{name}"]


@asynccontextmanager
async def child(command: list[str], descriptors: Sequence[int] = ()) -> AsyncIterator[trio.Process]:
    """A child with pipes. At the end of the block its input ends; it may write down what it has, and then must go."""
    # A group of its own: Ctrl-C at a terminal is for the one who started it.
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=descriptors,
        process_group=0,
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for.
            assert process.stdout is not None  # noqa: S101
            await process.stdin.aclose()
            with trio.move_on_after(STOP_S):
                await process.wait()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await process.stdout.aclose()


async def receive_frames(stream: trio.abc.ReceiveStream, kind: type[T]) -> AsyncGenerator[T, None]:
    """Messages from a child's output until it ends."""
    decoder = FrameDecoder(kind)
    while data := await stream.receive_some(65_536):
        for message in decoder.feed(data):
            yield message
