"""The Unix socket's own errors and its address.

A socket's path may have 107 bytes at most, and data directories may lie deeper. Both sides therefore
name it through an open descriptor of its folder: `/proc/self/fd/<n>/control.sock` is always short.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cuntong_protocol.errors import CuntongError, Fault

MAX_ADDRESS_BYTES = 107
"""`sun_path` of Linux, less the final NUL."""


class ControlError(CuntongError):
    """The local socket can't be used, or a request over it can't be answered."""

    fault = Fault.TRANSPORT


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """A form of `path` that fits a socket address, valid inside the block.

    Raises:
        OSError: the folder can't be opened.
    """
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
