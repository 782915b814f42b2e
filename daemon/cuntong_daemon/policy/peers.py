"""Whom a place is introduced to (SPEC 7.5, DESIGN 7).

Its parents first, nearest first. Siblings trade where links are fast and their own: provinces, cities and
counties. Below the county they don't, since what a village sends up delays its own acknowledgements, and in a
hub VPN each byte between two of them would cross the county's link twice; only in a mesh do they trade, and
only while the uplink of the place above is the bottleneck (`uplink`).

Those who trade form a few circles, each in another scattered order, and everyone dials the next in each. So each has
twice as many partners as there are circles, whatever their number, and what one has reaches all in few steps: a random
regular graph is an expander (Law and Siu, Distributed Construction of Random Expander Networks, 2003).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from cuntong_protocol.divisions import Division, Tier
from cuntong_protocol.texts import N_, Sentence, sentence

MAX_PARENTS = 2
"""The nearest, and one in reserve: more would carry the same copy over longer links."""
CIRCLES = 3
"""Six partners: at 512 kbit/s each may have one packet under way within a round trip, and the parent several."""

_PARENT = sentence("peers.parent", N_("It is above this place."))
_SIBLING = sentence("peers.sibling", N_("It is a neighbour with a link of its own."))
_HELPER = sentence("peers.helper", N_("It is a neighbour, and the uplink above is too thin."))


@dataclass(frozen=True, slots=True)
class Introduction:
    """Connect to this place, for this reason."""

    code: Division
    reason: Sentence


def introductions(
    asker: Division,
    asker_done: float,
    holders: Iterable[Division],
    partners: Iterable[Division] = (),
) -> list[Introduction]:
    """Whom `asker` should connect to for one bundle.

    Args:
        asker: The place that wants the bundle.
        asker_done: Share of the payload it has already, 0 to 1; one that has all is introduced to nobody: others come
            to it.
        holders: Who is known to take part; only those above `asker` count.
        partners: The siblings that it should dial, from `partners_of`.
    """
    if asker_done >= 1:
        return []
    above = {code: nearness for nearness, code in enumerate(asker.ancestors)}
    parents = sorted((code for code in holders if code in above), key=lambda code: above[code])
    found = [Introduction(code, _PARENT) for code in parents[:MAX_PARENTS]]
    found += [
        Introduction(code, _HELPER if max(asker.tier, code.tier) > Tier.COUNTY else _SIBLING)
        for code in partners
    ]
    return found


def may_trade(
    place: Division, vpn_shape: Literal["mesh", "hub"], *, is_uplink_scarce: bool = False
) -> bool:
    """Whether a place could be introduced to a sibling.

    Args:
        place: Any.
        vpn_shape: Of the VPN that joins it and its siblings.
        is_uplink_scarce: The uplink of the place above is what slows its children down.
    """
    is_below_trading = vpn_shape == "mesh" and is_uplink_scarce
    return place.parent is not None and (place.tier <= Tier.COUNTY or is_below_trading)


def partners_of(bundle: str, done: Mapping[Division, float]) -> dict[Division, list[Division]]:
    """Whom each of some siblings should dial for one bundle.

    Args:
        bundle: Its id; scatters the orders.
        done: The siblings that take part, and the share of the payload that each has, 0 to 1.

    Returns:
        For each of them those to dial. One that has all dials nobody; of two that would dial each other only the one
        with the lower code does: two calls at once end as none, again and again.
    """
    chosen: dict[Division, list[Division]] = {place: [] for place in done}
    for circle in range(CIRCLES):
        order = sorted(done, key=partial(_rank, bundle, circle))
        for place, following in zip(order, [*order[1:], *order[:1]], strict=True):
            if following != place and following not in chosen[place]:
                chosen[place].append(following)

    def is_dialled_by(other: Division, place: Division) -> bool:
        return done[other] < 1 and other < place and place in chosen[other]

    return {
        place: [other for other in others if not is_dialled_by(other, place)]
        if done[place] < 1
        else []
        for place, others in chosen.items()
    }


def _rank(bundle: str, circle: int, place: Division) -> bytes:
    # A CRC won't do: it is linear, so that all circles would have nearly the same order.
    return hashlib.sha256(f"{circle} {place} {bundle}".encode()).digest()
