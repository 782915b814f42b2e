"""Whom a place is introduced to (SPEC 7.5, DESIGN 7).

Its parents first, nearest first. Siblings trade where links are fast and their own: provinces, cities and
counties. Below the county they don't, since what a village sends up delays its own acknowledgements, and in a
hub VPN each byte between two of them would cross the county's link twice; only in a mesh do they trade, and
only while the uplink of the place above is the bottleneck (`uplink`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cuntong_protocol.divisions import Division, Tier
from cuntong_protocol.texts import N_, Sentence, sentence

MAX_PARENTS = 2
"""The nearest, and one in reserve: more would carry the same copy over longer links."""
MAX_SIBLINGS = 4
"""As many uploads as a peer serves at once by default."""

_SIBLING = sentence("peers.sibling", N_("It is a neighbour with a link of its own."))
_HELPER = sentence("peers.helper", N_("It is a neighbour, and the uplink above is too thin."))


@dataclass(frozen=True, slots=True)
class Holder:
    """A place that takes part in a bundle's swarm, and where its BitTorrent listens.

    Attributes:
        done: Share of the payload it has, 0 to 1.
    """

    code: Division
    address: str
    done: float


@dataclass(frozen=True, slots=True)
class Introduction:
    """Connect to this peer, for this reason."""

    code: Division
    address: str
    reason: Sentence


def introductions(
    asker: Division,
    asker_done: float,
    bundle: str,
    holders: Iterable[Holder],
    *,
    vpn_shape: Literal["mesh", "hub"],
    is_uplink_scarce: bool = False,
) -> list[Introduction]:
    """Whom `asker` should connect to for one bundle.

    Args:
        asker: The place that wants the bundle.
        asker_done: What it has already; one that has all is introduced to nobody: others come to it.
        bundle: Its id; spreads the askers over the siblings.
        holders: Who is known to take part; in any order, `asker` itself and strangers are skipped.
        vpn_shape: Of the VPN that joins the askers.
        is_uplink_scarce: The uplink of the place above is what slows its children down.
    """
    if asker_done >= 1:
        return []
    above = {code: nearness for nearness, code in enumerate(asker.ancestors)}
    parents: list[Holder] = []
    siblings: list[Holder] = []
    for holder in holders:
        if holder.code in above:
            parents.append(holder)
        elif (
            holder.done > 0
            and holder.code != asker
            and not _is_dialled_by(holder, asker, asker_done)
            and _may_trade(asker, holder.code, vpn_shape, is_uplink_scarce=is_uplink_scarce)
        ):
            siblings.append(holder)
    parents.sort(key=lambda holder: above[holder.code])
    siblings.sort(key=lambda holder: _affinity(asker, holder.code, bundle))
    found = [
        Introduction(
            holder.code, holder.address, sentence("peers.parent", N_("It is above this place."))
        )
        for holder in parents[:MAX_PARENTS]
    ]
    found += [
        Introduction(
            holder.code,
            holder.address,
            _HELPER if max(asker.tier, holder.code.tier) > Tier.COUNTY else _SIBLING,
        )
        for holder in siblings[:MAX_SIBLINGS]
    ]
    return found


def _is_dialled_by(holder: Holder, asker: Division, asker_done: float) -> bool:
    """Of two siblings with something to give each other one dials: two calls at once end as none, again and again."""
    return asker_done > 0 and holder.done < 1 and holder.code < asker


def may_trade(
    asker: Division, vpn_shape: Literal["mesh", "hub"], *, is_uplink_scarce: bool = False
) -> bool:
    """Whether a place could be introduced to any sibling: if not, nobody need look for one."""
    is_below_trading = vpn_shape == "mesh" and is_uplink_scarce
    return asker.parent is not None and (asker.tier <= Tier.COUNTY or is_below_trading)


def _may_trade(asker: Division, other: Division, vpn_shape: str, *, is_uplink_scarce: bool) -> bool:
    if asker.parent is None or asker.parent != other.parent:
        return False
    if max(asker.tier, other.tier) <= Tier.COUNTY:
        return True
    return vpn_shape == "mesh" and is_uplink_scarce


def _affinity(asker: Division, other: Division, bundle: str) -> tuple[int, str]:
    """A fixed but scattered order, so that not all askers go to the same sibling.

    It is the same both ways round: who is introduced to somebody is also somebody's choice.
    """
    first, second = sorted((asker, other))
    return zlib.crc32(f"{first} {second} {bundle}".encode()), other
