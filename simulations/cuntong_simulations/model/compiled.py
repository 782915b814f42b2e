"""How the model is compiled: by numba, once, and kept on the disk beside the sources."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from cuntong_daemon import policy

Made = TypeVar("Made", bound=Callable[..., Any])


def compiled(function: Made) -> Made:
    """Sums stay in the order in which they are written."""
    return cast("Made", numba.njit(cache=True, fastmath=False, nogil=True)(function))


def compiled_bare(function: Made) -> Made:
    """The same without numba's runtime, for what makes no arrays: those passed on aren't counted, a seventh of the time."""
    options: dict[str, Any] = {"cache": True, "fastmath": False, "nogil": True, "_nrt": False}
    return cast("Made", numba.njit(**options)(function))


def _forget_stale(kept: Path, *sources: Path) -> None:
    """Numba looks only whether a function's own file has changed, but what it calls is compiled into it."""
    newest = max(path.stat().st_mtime for folder in sources for path in folder.glob("*.py"))
    for index in kept.glob("*.nbi"):
        # Another process may have been first; where nothing may be written nothing is ever changed.
        with contextlib.suppress(OSError):
            if index.stat().st_mtime <= newest:
                index.unlink()


_HERE = Path(__file__).parent
_forget_stale(_HERE / "__pycache__", _HERE, Path(policy.__path__[0]))
