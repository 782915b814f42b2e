"""Waiting for programs that tell nothing by themselves: they are asked again and again, but not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

from .errors import LabError


def poll(
    is_so: Callable[[], bool], *, every_s: float, deadline: float, failure: Callable[[], LabError]
) -> None:
    """Ask until it is so.

    Args:
        is_so: Asked at least once.
        every_s: Between two questions.
        deadline: By the monotonic clock.
        failure: Makes the error; asked only then, so that it can tell how far it had come.

    Raises:
        LabError: `failure`, when it isn't so at the deadline.
    """
    while not is_so():
        if time.monotonic() > deadline:
            raise failure()
        time.sleep(every_s)
