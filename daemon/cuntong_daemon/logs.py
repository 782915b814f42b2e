"""Structured logs: JSON lines to stderr for the journal, readable lines on a terminal.

structlog imports rich when it is installed, only to print tracebacks in colour, and asyncio, only for those who
use that; together they cost every node 5 MB of its 80 (DESIGN 12). So it is imported here, first, without
them, and other modules take their loggers from `get_logger`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from types import ModuleType
from typing import Any, TextIO, cast

from .memory import without

with without("rich"), without("asyncio", ModuleType("asyncio")):
    import structlog

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _Unfailing:
    """A stream for logs. A full disk or a journal that restarts loses lines, but never stops a node."""

    def __init__(self, target: TextIO) -> None:
        self._target = target

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._target.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._target.flush()


def configure_logging(
    level: str = "info", *, stream: TextIO | None = None, is_console: bool | None = None
) -> None:
    """Set up the process's logs; call it once, at the start.

    Args:
        level: One of `LEVELS`.
        stream: Where lines go; stderr when None.
        is_console: Readable lines instead of JSON; None asks whether the stream is a terminal.
    """
    target = sys.stderr if stream is None else stream
    if target.isatty() if is_console is None else is_console:
        renderer: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(
                colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    else:
        renderer = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(target))),
        # Tests and `configure_logging` itself may change the set-up after modules took their loggers.
        cache_logger_on_first_use=False,
    )


def get_logger(part: str) -> Any:  # noqa: ANN401 - structlog's loggers are typed as Any.
    """A logger whose lines say which part of the daemon speaks. Events are short fixed words."""
    return structlog.get_logger(part=part)
