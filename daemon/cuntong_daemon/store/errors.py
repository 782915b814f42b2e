"""What can go wrong with files on the disk."""

from __future__ import annotations

import errno
import os

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_


class StoreError(CuntongError):
    """A payload or a library folder couldn't be read, written or believed."""

    fault = Fault.SYSTEM


def disk_error(error: OSError) -> StoreError:
    """The sentence for a failed disk operation: `store.disk-full` or `store.disk-error`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            "store.disk-full",
            N_("The disk is full. Make room; Cuntong goes on by itself."),
        )
    return StoreError(
        "store.disk-error",
        N_("{file} can't be read or written: {reason}. It is tried again by itself."),
        file=str(error.filename or "?"),
        reason=os.strerror(error.errno) if error.errno else str(error),
    )
