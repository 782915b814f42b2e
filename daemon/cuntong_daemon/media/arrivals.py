"""Media that come and go below the watched folders (SPEC 12.4). Blocks; call it in a worker thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from cuntong_protocol.errors import CuntongError

from .volume import find_receipts, find_volumes, folders_in, is_volume

MAX_PLACES = 256
"""Folders directly below a watched one, and so many in each of these."""
MAX_DEEPER = 16

_EJECTED = object()


class Arrivals:
    """Notices what is new. May be used by several threads."""

    def __init__(self, watched: Sequence[str]) -> None:
        """Look below these folders; nothing is known yet."""
        self._watched = [Path(os.path.realpath(folder)) for folder in watched]
        self._known: dict[Path, object] = {}
        self._lock = threading.Lock()

    def look(self) -> list[Path]:
        """Places where volumes or receipts lie that weren't there, or were others, at the last look."""
        with self._lock:
            return self._look()

    def _look(self) -> list[Path]:
        found: dict[Path, object] = {}
        for folder in self._watched:
            top = folders_in(folder)[:MAX_PLACES]
            for place in [*top, *(deeper for it in top for deeper in folders_in(it)[:MAX_DEEPER])]:
                if is_volume(place) and place.parent != folder:
                    continue  # The medium that it lies on is looked at.
                mark = _mark(place)
                if mark is not None:
                    found[place] = mark
        # What was taken out is looked at again, should it come again.
        self._known = {place: mark for place, mark in self._known.items() if place in found}
        fresh = [
            place for place, mark in found.items() if self._known.get(place) not in (mark, _EJECTED)
        ]
        self._known.update({place: found[place] for place in fresh})
        return fresh

    def know(self, place: Path) -> None:
        """What lies there now is known: this node has written there itself."""
        with self._lock:
            if place in self._known:
                self._known[place] = _mark(place)

    def eject(self, path: Path) -> None:
        """Leave a medium alone until it has gone."""
        with self._lock:
            for place in self._known:
                if place.is_relative_to(path) or path.is_relative_to(place):
                    self._known[place] = _EJECTED

    def is_ejected(self, place: Path) -> bool:
        """Whether a medium is to be left alone."""
        return self._known.get(place) is _EJECTED


def _mark(place: Path) -> object:
    """Something that changes when other volumes or receipts lie at a place; None when there are none."""
    try:
        volumes = find_volumes(place)
        receipts = find_receipts(place, volumes)
        if not volumes and not receipts:
            return None
        return tuple(
            (str(path), status.st_dev, status.st_ino, status.st_mtime_ns)
            for path in (*volumes, *receipts)
            for status in [path.stat()]
        )
    except (OSError, CuntongError):
        return None
