"""Traces: when a dish hears nothing, or less than all, as a file says.

A trace is CSV. Each line is one fade: `begin_s,end_s` or `begin_s,end_s,loss`, in seconds from the trace's beginning,
in order and without overlaps. Without `loss` nothing comes through. The first line may name the columns; empty lines
and lines that begin with `#` say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cuntong_protocol.texts import N_

from .errors import SkyFileError

MAX_TRACE_BYTES = 16 * 1024 * 1024
"""A fade every second for a week; another file is refused before it is read."""
COLUMNS = ("begin_s", "end_s", "loss")


class Fade(msgspec.Struct, frozen=True, array_like=True):
    """From `begin_s` until before `end_s` this share of the packets is lost."""

    begin_s: float
    end_s: float
    loss: float = 1.0


def read_trace(path: Path) -> tuple[Fade, ...]:
    """The fades of a trace file.

    Raises:
        SkyFileError: `sky.trace-unreadable`, `sky.trace-too-large`; as `parse_trace`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TRACE_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SkyFileError(
            "sky.trace-unreadable",
            N_("{file} can't be read: {reason}."),
            file=str(path),
            reason=getattr(error, "strerror", None) or str(error),
        ) from error
    if len(data) > MAX_TRACE_BYTES:
        raise SkyFileError(
            "sky.trace-too-large",
            N_("{file} is too large for a list of fades: {limit} bytes are the most."),
            file=str(path),
            limit=MAX_TRACE_BYTES,
        )
    return parse_trace(text, file=str(path))


def parse_trace(text: str, *, file: str) -> tuple[Fade, ...]:
    """The fades of a trace; `file` is its name in errors.

    Raises:
        SkyFileError: `sky.trace-columns`, `sky.trace-number`, `sky.trace-backwards`, `sky.trace-overlap`,
            `sky.trace-loss`.
    """
    found: list[Fade] = []
    is_first = True
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split(",")]
        if is_first and tuple(cells) in {COLUMNS, COLUMNS[:2]}:
            is_first = False
            continue
        is_first = False
        found.append(_fade(cells, found[-1].end_s if found else 0.0, file, number))
    return tuple(found)


def format_trace(fades: Iterable[Fade]) -> str:
    """A trace as it is written to a file; `parse_trace` gives the same fades."""
    lines = [",".join(COLUMNS)]
    lines += [f"{fade.begin_s!r},{fade.end_s!r},{fade.loss!r}" for fade in fades]
    return "".join(f"{line}\n" for line in lines)


def _fade(cells: list[str], after_s: float, file: str, line: int) -> Fade:
    if len(cells) not in {2, 3}:
        raise SkyFileError(
            "sky.trace-columns",
            N_("{file}, line {line}: there must be begin_s,end_s or begin_s,end_s,loss."),
            file=file,
            line=line,
        )
    begin_s, end_s, *rest = (_number(cell, file, line) for cell in cells)
    loss = rest[0] if rest else 1.0
    if begin_s >= end_s:
        raise SkyFileError(
            "sky.trace-backwards",
            N_("{file}, line {line}: the fade must end later than it begins."),
            file=file,
            line=line,
        )
    if begin_s < after_s:
        raise SkyFileError(
            "sky.trace-overlap",
            N_(
                "{file}, line {line}: the fade begins at {begin}, but the one above it lasts until {after}."
            ),
            file=file,
            line=line,
            begin=cells[0],
            after=repr(after_s),
        )
    if not 0 < loss <= 1:
        raise SkyFileError(
            "sky.trace-loss",
            N_("{file}, line {line}: the loss must be more than 0, and at most 1."),
            file=file,
            line=line,
        )
    return Fade(begin_s, end_s, loss)


def _number(cell: str, file: str, line: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise SkyFileError(
            "sky.trace-number",
            N_("{file}, line {line}: {value} isn't a number that can stand here."),
            file=file,
            line=line,
            value=cell or "''",
        )
    return value
