"""One daemon a data directory: a lock that the kernel lets go when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cuntong_daemon.paths import DataPaths
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .sockets import ControlError


@contextmanager
def hold_data_directory(paths: DataPaths) -> Iterator[None]:
    """Own the data directory inside the block; other daemons are refused.

    Raises:
        ControlError: `control.second-daemon`, `control.no-data`.
    """
    try:
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ControlError(
            "control.no-data",
            N_("The data directory {folder} can't be used: {reason}."),
            fault=Fault.SYSTEM,
            folder=str(paths.root),
            reason=error.strerror or str(error),
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ControlError(
                "control.second-daemon",
                N_("Another daemon runs on {folder}; stop it first."),
                fault=Fault.SYSTEM,
                folder=str(paths.root),
            ) from None
        yield
    finally:
        os.close(descriptor)
