"""The sender: the daemon's side of what goes on the air (SPEC 11.10).

It tells the caster what to send: the verified catalogues of the authorities that this node follows at or below itself
and above, and every bundle that is held here, listed, and has an open licence. What is restricted is never cast: whoever
has a dish can receive it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from importlib import util

import msgspec
import trio

from cuntong_daemon.addresses import parse_address
from cuntong_daemon.config_datacast import BYTES_PER_KBIT, CastSection
from cuntong_daemon.logs import get_logger
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_, Sentence, sentence

from .caster import CastOrder, CastStatus
from .children import child, module_command, receive_frames
from .frames import encode_frame
from .lineup import Lineup

log = get_logger("datacast")

RESTART_S = 5.0


def is_installed() -> bool:
    """Whether this machine has what encodes and decodes."""
    return util.find_spec("raptorq") is not None


def not_installed() -> Sentence:
    """What to tell where it isn't."""
    return sentence(
        "datacast.not-installed",
        N_(
            "config.toml sets up a satellite, but the package raptorq isn't installed: pip install 'cuntong[datacast]' (x86-64 only)."
        ),
    )


def cast_order(paths: DataPaths, code: Division, section: CastSection) -> CastOrder:
    """What the caster is told."""
    address, port = parse_address(section.group)
    return CastOrder(
        data=str(paths.root.resolve()),
        sender=str(code),
        address=address,
        port=port,
        interface=section.interface,
        source=section.source,
        hops=section.hops,
        rate_bytes_s=section.rate_kbit_s * BYTES_PER_KBIT,
    )


class DatacastSender:
    """A service; see the module."""

    def __init__(self, order: CastOrder, make_lineup: Callable[[], Awaitable[Lineup]]) -> None:
        """Prepare.

        Args:
            order: How to send.
            make_lineup: Says what should be on the air now.
        """
        self._order = order
        self._make_lineup = make_lineup
        self._changed = trio.Event()
        self._problem: Sentence | None = None
        self.status = CastStatus(rate_bytes_s=order.rate_bytes_s)

    @property
    def problems(self) -> list[Sentence]:
        """What an administrator should know."""
        found = [] if self._problem is None else [self._problem]
        return found + self.status.problems

    def look(self) -> None:
        """What should be on the air may have changed."""
        self._changed.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        task_status.started()
        if not is_installed():
            self._problem = not_installed()
            log.warning("datacast.not-installed")
            await trio.sleep_forever()
        while True:
            command = [*module_command("caster"), msgspec.json.encode(self._order).decode()]
            async with child(command) as process, trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, process)
                assert process.stdout is not None  # noqa: S101 - a pipe was asked for.
                async for status in receive_frames(process.stdout, CastStatus):
                    self.status, self._problem = status, None
                nursery.cancel_scope.cancel()
            self._problem = sentence(
                "datacast.sender-ended",
                N_("The satellite sender ended; it is started again. Look into the log."),
            )
            log.warning("datacast.sender-ended", code=process.returncode)
            await trio.sleep(RESTART_S)

    async def _tell(self, process: trio.Process) -> None:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for.
        last: Lineup | None = None
        while True:
            self._changed = trio.Event()
            lineup = await self._make_lineup()
            if lineup != last:
                last = lineup
                with contextlib.suppress(trio.BrokenResourceError):  # It has ended; that is seen.
                    await process.stdin.send_all(encode_frame(lineup))
            await self._changed.wait()
