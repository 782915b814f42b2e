"""The caps that are set in the end, in each direction and for each child (SPEC 10.3).

What the calendars allow and what keeps a link healthy are limits of one kind: the lowest
holds, and its reason is the one that is shown. 0 is no limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cuntong_protocol.texts import N_, Sentence, sentence

from .calendar import Limit, Limits, lower
from .transport import THIN_BYTES_S

UPLINK_SHARE = 0.9
"""A full uplink delays its own acknowledgements: counties with 0.5 Mbit/s up took 49 s for 8 MiB, capped at 90 %
25 s."""
FULL_SHARE = 0.97
"""Of an uplink that is too thin for all below: with a queue there, uTP gives some places a sixth of what others get."""
_NO_LIMIT = sentence("limits.none", N_("No limit applies now."))


@dataclass(frozen=True, slots=True)
class Caps:
    """What a session may move: bytes/s on the wire, 0 for no limit, each with its reason."""

    down: Limit
    up: Limit
    is_paused: bool
    reason: Sentence


def lowest(limits: Iterable[Limit]) -> Limit:
    """The limit that holds: the lowest, of equal ones the first."""
    found = Limit(0, _NO_LIMIT)
    for limit in limits:
        if lower(found.bytes_s, limit.bytes_s) != found.bytes_s:
            found = limit
    return found


def session_caps(
    limits: Limits,
    *,
    is_shared: bool,
    link_up_bytes_s: int,
    wanted_below_bytes_s: int = 0,
) -> Caps:
    """The session's caps.

    Args:
        limits: From the calendars.
        is_shared: Others use the link too.
        link_up_bytes_s: What the uplink carries, 0 when unknown. A shared or thin one isn't filled.
        wanted_below_bytes_s: What the places below that want something could take all together.
    """
    ups = [limits.up]
    if link_up_bytes_s and (is_shared or link_up_bytes_s < THIN_BYTES_S):
        ups.append(
            Limit(
                int(link_up_bytes_s * UPLINK_SHARE),
                sentence("caps.uplink", N_("A full uplink would delay its own acknowledgements.")),
            )
        )
    elif 0 < link_up_bytes_s < wanted_below_bytes_s:
        ups.append(
            Limit(
                int(link_up_bytes_s * FULL_SHARE),
                sentence(
                    "caps.wanted-below",
                    N_("The places below could take more; without a queue each gets the same."),
                ),
            )
        )
    down, up = lowest([limits.down]), lowest(ups)
    tighter = lowest([down, up])
    return Caps(down, up, limits.is_paused, limits.reason if limits.is_paused else tighter.reason)


def child_cap(below: Limits, told: Limit | None) -> Limit:
    """What may be sent to one child; nothing at all while `below` is paused.

    Args:
        below: What this place's calendars allow each place below; the direction is the child's, so `down` counts.
        told: What the child asked for; None when it said nothing.
    """
    return lowest([below.down, *([told] if told else [])])
