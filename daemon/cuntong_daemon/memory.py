"""What keeps a node within its 80 MiB (DESIGN 12): libraries left out, and memory given back.

glibc keeps what was freed; after a large piece of work the daemon asks for it to be returned. Python returns its own
only in pieces of 1 MiB that are quite empty, so what takes much for a short time is done in parts.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

_MALLOC_OPTIONS: Final = {-8: 1, -3: 64 * 1024, -1: 64 * 1024}
"""Of mallopt(3). M_ARENA_MAX: all threads allocate from one place instead of one each, which costs nothing
where Python runs one thread at a time. M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: buffers of this many bytes,
and free space at the end of the heap, go back at once; by itself glibc raises both with what it sees."""


@contextmanager
def without(name: str, stand_in: ModuleType | None = None) -> Iterator[None]:
    """Let imports inside the block find `stand_in` instead of the module `name`.

    Nothing happens when somebody has imported the module already, and afterwards anyone may.

    Args:
        name: Of the module, with its packages.
        stand_in: With the names that importing needs; None: as if the module weren't installed.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in  # type: ignore[assignment]  # None is how Python says it itself.
    try:
        yield
    finally:
        del sys.modules[name]


def use_little() -> None:
    """Set the allocator up for a small process; before there are threads."""
    with contextlib.suppress(OSError, AttributeError):  # Not glibc.
        library = ctypes.CDLL(None)
        for option, value in _MALLOC_OPTIONS.items():
            library.mallopt(option, value)


def return_memory() -> None:
    """Give what is free back to the system. Blocks for some milliseconds."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # Not glibc.
        ctypes.CDLL(None).malloc_trim(0)
