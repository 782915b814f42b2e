"""What leaves the store, and why (DESIGN 5).

Order: withdrawn, then expired licence, then superseded, then what nobody used for longest; never what others
below still depend on. The first two leave at once, room or no room, and whoever depends on them: they may not be
held. The others leave only when room is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from cuntong_protocol.texts import N_, Sentence, sentence


@dataclass(frozen=True, slots=True)
class Held:
    """Something in the store: one payload of a bundle.

    Attributes:
        key: Names it to the caller, for example its infohash in hex; unique.
        size_bytes: What its removal frees.
        licence_until: The last day it may be held.
        is_superseded: A newer revision is complete here.
        is_wanted: This place wants it (`selection`), so it only leaves for what is worth more: never here.
        is_needed_below: A place below hasn't got it yet, or depends on this copy.
        used_at: Seconds since 1970 when somebody last used it.
    """

    key: str
    size_bytes: int
    is_withdrawn: bool = False
    licence_until: date | None = None
    is_superseded: bool = False
    is_wanted: bool = False
    is_needed_below: bool = False
    used_at: int = 0


@dataclass(frozen=True, slots=True)
class Eviction:
    """Remove this, for this reason."""

    key: str
    size_bytes: int
    reason: Sentence


def evict(held: Iterable[Held], *, needed_bytes: int, today: date) -> list[Eviction]:
    """What to remove, in this order.

    Args:
        held: All of the store.
        needed_bytes: Room that is wanting; 0 removes only what may not be held.
        today: The day by which licences are judged.

    Returns:
        Perhaps less than `needed_bytes`: then there is nothing else that may go.
    """
    must: list[tuple[int, Held, Sentence]] = []
    may: list[tuple[int, Held, Sentence]] = []
    for item in held:
        if item.is_withdrawn:
            must.append((0, item, sentence("eviction.withdrawn", N_("It was withdrawn."))))
        elif item.licence_until is not None and item.licence_until < today:
            must.append(
                (
                    1,
                    item,
                    sentence(
                        "eviction.licence-expired",
                        N_("Its licence ended on {day}."),
                        day=str(item.licence_until),
                    ),
                )
            )
        elif item.is_needed_below:
            continue
        elif item.is_superseded:
            may.append(
                (2, item, sentence("eviction.superseded", N_("A newer revision took its place.")))
            )
        elif not item.is_wanted:
            may.append(
                (
                    3,
                    item,
                    sentence(
                        "eviction.unused", N_("Nobody used it for longest, and room was needed.")
                    ),
                )
            )
    evictions = [_eviction(entry) for entry in sorted(must, key=_key)]
    freed = sum(eviction.size_bytes for eviction in evictions)
    for entry in sorted(may, key=_key):
        if freed >= needed_bytes:
            break
        evictions.append(_eviction(entry))
        freed += entry[1].size_bytes
    return evictions


def _key(entry: tuple[int, Held, Sentence]) -> tuple[int, int, str]:
    rank, item, _reason = entry
    return rank, item.used_at, item.key


def _eviction(entry: tuple[int, Held, Sentence]) -> Eviction:
    _rank, item, reason = entry
    return Eviction(item.key, item.size_bytes, reason)
