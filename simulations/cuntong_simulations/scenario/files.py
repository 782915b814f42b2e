"""Reading what a scenario consists of: files, and only files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cuntong_protocol.texts import N_

from .errors import ScenarioError


def is_utf8(path: Path) -> bool:
    """Whether a file's name can be written into a text."""
    return str(path) == shown_path(path)


def shown_path(path: Path) -> str:
    """With a question mark for each byte that isn't UTF-8."""
    return str(path).encode(errors="replace").decode()


def contents(path: Path, most_bytes: int) -> bytes:
    """All of a file.

    Raises:
        ScenarioError: `sim.file-name`: results couldn't say where they come from; `sim.file-unreadable`; `sim.not-a-file`: a pipe or a device, which might never end;
            `sim.file-too-large`.
    """
    if not is_utf8(path):
        raise ScenarioError(
            "sim.file-name", N_("The name of {file} isn't UTF-8; rename it."), file=shown_path(path)
        )
    try:
        # Without waiting for somebody who writes into a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(most_bytes + 1) if is_file else b""
    except (OSError, ValueError) as error:  # A name with a zero in it is a ValueError.
        reason = error.strerror if isinstance(error, OSError) else None
        raise ScenarioError(
            "sim.file-unreadable",
            N_("{file} can't be read: {reason}."),
            file=str(path),
            reason=reason or str(error),
        ) from error
    if not is_file:
        raise ScenarioError(
            "sim.not-a-file", N_("{file} isn't a file but something else."), file=str(path)
        )
    if len(data) > most_bytes:
        raise ScenarioError(
            "sim.file-too-large", N_("{file} is too large for a scenario."), file=str(path)
        )
    return data
