"""How commands speak: errors, tables and numbers, in 80 columns, with Chinese two columns wide a character."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from cuntong_daemon.i18n import _, show
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import Sentence

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

DEFAULT_COLUMNS = 80
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

# Where a line of Chinese may not begin or end.
_CLOSING = "，。、；：？！）》」』】〉”’…％,.;:?!)]}%"
_OPENING = "（《「『【〈“‘([{"


def cell_width(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    from rich.cells import cell_len

    return cell_len(text)


def console(*, stderr: bool = False) -> Console:
    """A console for tables and bars. Where output isn't a terminal it is 80 columns wide and plain."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not made.is_terminal:
        made = Console(
            stderr=stderr, highlight=False, emoji=False, markup=False, width=DEFAULT_COLUMNS
        )
    return made


def wrap_cells(text: str, width: int, indent: str = "") -> list[str]:
    """Break a paragraph into lines of at most `width` columns, `indent` included.

    Latin words stay whole where they fit; Chinese breaks between any two characters but not before closing
    or after opening punctuation.
    """
    room = max(width - cell_width(indent), 2)
    lines: list[str] = []
    line = ""
    for piece in _pieces(text):
        if line and cell_width(line + piece.rstrip()) > room:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
    if line.rstrip():
        lines.append(line.rstrip())
    return [indent + kept for kept in lines]


def _pieces(text: str) -> Iterator[str]:
    """The parts between which a line may break; each keeps the spaces that follow it."""
    piece = ""
    for char in text:
        is_break = bool(piece) and (
            (piece[-1] == " " and char != " ")
            or (
                char not in _CLOSING + " "
                and piece[-1] not in _OPENING
                and (cell_width(char) == 2 or cell_width(piece[-1]) == 2)
            )
        )
        if is_break:
            yield piece
            piece = ""
        piece += char
    if piece:
        yield piece


class WideHelpFormatter(click.HelpFormatter):
    """click's help pages, measured in columns instead of characters."""

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        paragraphs = [
            "\n".join(wrap_cells(" ".join(paragraph.split()), self.width, indent))
            for paragraph in re.split(r"\n\s*\n", text)
        ]
        self.write("\n\n".join(paragraphs) + "\n")

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        rows = list(rows)
        first_column = min(max((cell_width(term) for term, _text in rows), default=0), col_max)
        column = first_column + col_spacing
        lead = " " * self.current_indent
        for term, text in rows:
            lines = wrap_cells(" ".join(text.split()), max(self.width - column - len(lead), 10))
            self.write(lead + term)
            if lines and cell_width(term) <= first_column:
                self.write(" " * (column - cell_width(term)) + lines.pop(0))
            self.write("\n")
            for line in lines:
                self.write(f"{lead}{' ' * column}{line}\n")


def format_bytes(count: float) -> str:
    """`1.5 MB`: decimal units, three digits at most before the unit changes."""
    unit = 0
    while abs(count) >= 999.5 and unit < len(BYTE_UNITS) - 1:
        count /= 1000
        unit += 1
    digits = 0 if unit == 0 or abs(count) >= 99.95 else 1
    return f"{count:.{digits}f} {BYTE_UNITS[unit]}"


def format_rate(bytes_s: float) -> str:
    return f"{format_bytes(bytes_s)}/s" if bytes_s else "-"


def format_percent(share: float) -> str:
    """Rounded down, so that 100 % means all of it."""
    return f"{int(max(0.0, min(share, 1.0)) * 100)} %"


def format_time(epoch_s: int) -> str:
    """In the machine's own time zone."""
    try:
        return datetime.fromtimestamp(epoch_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


def format_date(epoch_s: int) -> str:
    return format_time(epoch_s)[:10]


def format_duration(seconds: int) -> str:
    days, rest = divmod(max(seconds, 0), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return _("{days} d {hours} h", days=days, hours=hours)
    if hours:
        return _("{hours} h {minutes} min", hours=hours, minutes=minutes)
    if minutes:
        return _("{minutes} min {seconds} s", minutes=minutes, seconds=seconds)
    return _("{seconds} s", seconds=seconds)


def print_json(value: object) -> None:
    """One JSON document on stdout, for programs."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Bars on stderr for what takes longer than a second; nothing where stderr isn't a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    shown = console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=shown,
        transient=True,
        disable=not shown.is_terminal,
    ) as progress:
        yield progress


def print_error(text: str, code: str) -> None:
    """`cuntong: What went wrong. (area.code)` on stderr."""
    click.echo(f"cuntong: {text} ({code})", err=True)


def tell_error(error: BaseException) -> int:
    """Say on stderr what stopped a command, in one line; returns the exit code."""
    error = _only(error)
    if isinstance(error, CuntongError):
        print_error(show(error.sentence), error.code)
        return error.fault.value
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return Fault.USAGE.value
    if isinstance(error, click.UsageError):
        # click wraps some messages; ours are one line.
        text = " ".join(error.format_message().split())
        command = error.ctx.command_path if error.ctx else "cuntong"
        print_error(
            text + " " + _("See: {command} --help", command=command), "usage.bad-command-line"
        )
        return Fault.USAGE.value
    if isinstance(error, click.ClickException):
        print_error(" ".join(error.format_message().split()), "usage.refused")
        return Fault.USAGE.value
    if isinstance(error, click.Abort | KeyboardInterrupt):
        print_error(_("Stopped."), "usage.stopped")
        return 130  # What shells expect after Ctrl-C.
    if isinstance(error, OSError):
        place = str(error.filename or "")
        reason = error.strerror or str(error)
        text = _("{place}: {reason}", place=place, reason=reason) if place else reason
        name = errno.errorcode.get(error.errno or 0, "error").lower()
        print_error(text, f"system.{name}")
        return Fault.SYSTEM.value
    raise error


def _only(error: BaseException) -> BaseException:
    """What to tell of a group, which trio's nurseries make of every error: ours if there is one."""
    while isinstance(error, BaseExceptionGroup):
        ours, _others = error.split(CuntongError)
        error = (ours or error).exceptions[0]
    return error


def say(sentence: Sentence | None) -> str:
    """A sentence in the user's language; empty when there is none."""
    return "" if sentence is None else show(sentence)


def make_output_safe() -> None:
    """Where the terminal's encoding lacks a character, show a question mark rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
