"""How the model is compiled: by numba, once, and kept on the disk.

Numba's own keeping is not for programs that start at the same time, as those of a sweep do: it has an index for each
function and numbers the files that this names, so two processes that compile a function for different types may give
both the same number, and from then on every run takes the one for the other and tells wrong figures. It also looks only
whether a function's own file has changed, while what it calls is compiled into it. Here a file's name says all that it
was made from, and it holds its own checksum; there is nothing to update.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from cuntong_daemon import policy
from cuntong_daemon.files import write_atomically

Made = TypeVar("Made", bound=Callable[..., Any])

_SUFFIX = ".nbc"
_DIGEST_BYTES = 32


def _made_from(*folders: Path) -> str:
    """A digest of all that compiled code depends on, but for the function and its types."""
    digest = hashlib.sha256(numba.__version__.encode())
    for folder in folders:
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


_STATE = _made_from(Path(__file__).parent, Path(policy.__path__[0]))


class _Files:
    """A function's compiled code, in a file for each signature; in place of numba's `IndexDataCacheFile`."""

    def __init__(self, folder: str, function: str) -> None:
        self._folder = Path(folder)
        self._begin = f"{function}.{_STATE}."

    def save(self, key: object, data: object) -> None:
        """Where it can't be kept it is compiled again the next time."""
        packed: bytes = dumps(data)  # type: ignore[no-untyped-call]
        with contextlib.suppress(OSError):
            for old in self._folder.glob("*.nb[ci]"):
                if _STATE not in old.name:
                    old.unlink(missing_ok=True)
            write_atomically(
                self._path_of(key), hashlib.sha256(packed).digest() + packed, durable=False
            )

    def load(self, key: object) -> object | None:
        """None when there is none, or it was damaged."""
        try:
            data = self._path_of(key).read_bytes()
        except OSError:
            return None
        packed = data[_DIGEST_BYTES:]
        if hashlib.sha256(packed).digest() != data[:_DIGEST_BYTES]:
            return None
        return cast("object", pickle.loads(packed))  # noqa: S301 - as private as the program beside it.

    def _path_of(self, key: object) -> Path:
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return self._folder / f"{self._begin}{name}{_SUFFIX}"

    def is_empty(self) -> bool:
        return not any(self._folder.glob(f"{self._begin}*{_SUFFIX}"))


class _Cache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file: Any = _Files(self.cache_path, self._impl.filename_base)

    def is_empty(self) -> bool:
        """True when the function was never compiled."""
        return bool(self._cache_file.is_empty())


def _compiled(function: Made, **options: Any) -> Made:  # noqa: ANN401 - numba's, some of them private.
    made: Any = numba.njit(nogil=True, fastmath=False, **options)(function)  # noqa: TID251
    if made is not function:  # It is with NUMBA_DISABLE_JIT.
        with contextlib.suppress(RuntimeError):  # There is no folder that can be written.
            made._cache = _Cache(function)  # noqa: SLF001 - numba has no way in for another cache.
    return cast("Made", made)


def compiled(function: Made) -> Made:
    """Sums stay in the order in which they are written."""
    return _compiled(function)


def compiled_bare(function: Made) -> Made:
    """The same without numba's runtime, for what makes no arrays: those passed on aren't counted, a seventh of the time."""
    return _compiled(function, _nrt=False)


def compiled_parallel(function: Made) -> Made:
    """The same as `compiled`; its `numba.prange` are spread over threads."""
    return _compiled(function, parallel=True)


def is_kept(function: Callable[..., Any]) -> bool:
    """Whether what was compiled is there already; otherwise the first call takes most of a minute."""
    cache = getattr(function, "_cache", None)
    return not (isinstance(cache, _Cache) and cache.is_empty())
