"""How a limit moves to where it should be (SPEC 10.3).

A big step down in libtorrent (10 MB/s to 16 kB/s) gives ten seconds of silence and then lumps: what was sent under
the old limit is paid off under the new one. Halving once a second is smooth. Upwards a limit at most doubles
a second, so that what turns out to be too much is noticed while it is twice too much at most. A stop isn't a
limit of 0 at the end of a ramp, which would come too late: it is a pause, at once.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_LIMIT_BYTES_S = 125_000_000
"""1 Gbit/s: a limit that has been doubled to this holds nothing back, and is dropped."""
BINDS_ABOVE = 0.5
"""A limit holds a transfer back when more than this share of it is used; half is what one doubling adds."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to set now.

    Attributes:
        limit_bytes_s: 0 for no limit.
        is_paused: Everything is to be paused, whatever the limit.
        is_there: The target is reached: there is no further step.
    """

    limit_bytes_s: int
    is_paused: bool
    is_there: bool


def ramp(
    current_bytes_s: int,
    target_bytes_s: int,
    *,
    achieved_bytes_s: int,
    elapsed_s: float,
    is_paused: bool = False,
) -> Step:
    """The next step of a limit.

    Args:
        current_bytes_s: What is set; 0 for no limit.
        target_bytes_s: What is wanted; 0 for no limit.
        achieved_bytes_s: What was moved in the last second. Where no limit is set, or one far above this,
            the way down begins here: no more was ever under way.
        elapsed_s: Since the last step; 0 for the first. More than a second counts as one.
        is_paused: Pause is wanted. While paused nothing is under way, so the limit goes to its target at once.
    """
    if is_paused or current_bytes_s == target_bytes_s:
        return Step(target_bytes_s, is_paused, is_there=True)
    factor = 2.0 ** min(max(elapsed_s, 0.0), 1.0)
    if target_bytes_s and (not current_bytes_s or current_bytes_s > target_bytes_s):
        begin = min(current_bytes_s or achieved_bytes_s, achieved_bytes_s)
        limit = max(target_bytes_s, int(begin / factor))
        return Step(limit, is_paused=False, is_there=limit == target_bytes_s)
    limit = max(current_bytes_s + (elapsed_s > 0), int(current_bytes_s * factor))
    if target_bytes_s:
        limit = min(limit, target_bytes_s)
        return Step(limit, is_paused=False, is_there=limit == target_bytes_s)
    if limit >= MAX_LIMIT_BYTES_S or achieved_bytes_s <= current_bytes_s * BINDS_ABOVE:
        return Step(0, is_paused=False, is_there=True)
    return Step(limit, is_paused=False, is_there=False)
