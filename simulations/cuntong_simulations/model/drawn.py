"""What is drawn for each place: link, dish, subscription; and the classes that come of it (MODEL.md 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.scenario.places import Listed
from cuntong_simulations.scenario.scenario import Link, Scenario, Tier

from .chance import DRAW_DISH, DRAW_LINK, DRAW_NO_LINK, DRAW_SUBSCRIPTION, chance
from .site_class import SiteClass

NO_LINK = -2
LISTED_LINK = -1
EVERYTHING = -1
_Key = tuple[int, int, int, bool, int]
"""Tier, link, subscription, dish, and which of the file's exceptions."""


def draw_classes(
    scenario: Scenario, tier: NDArray[np.int8], row: NDArray[np.int64], listed: Listed | None
) -> tuple[tuple[SiteClass, ...], NDArray[np.int32]]:
    """The classes that occur, and each node's.

    Args:
        scenario: It says what is drawn.
        tier: Of each node, in the order of their identities.
        row: In the file of places; -1: generated.
        listed: The file.
    """
    exceptions, exception = _exceptions(row, listed)
    key = np.zeros(len(tier), dtype=np.int64)
    for given in scenario.tiers:
        number = TIER_LABELS.index(given.tier)
        nodes = np.flatnonzero(tier == number)
        link, subscription, dish = _draw(given, nodes, scenario.run.seed)
        if listed is not None:
            known = row[nodes] >= 0
            said = listed.dish[row[nodes]]
            dish = np.where(known & (said >= 0), said == 1, dish)
        parts = ((number, 6), (link + 2, 1002), (subscription + 1, 1001), (dish, 2))
        for part, most in parts:
            key[nodes] = key[nodes] * most + part
    key = key * len(exceptions) + exception
    occurring, node_class = np.unique(key, return_inverse=True)
    tiers = {TIER_LABELS.index(given.tier): given for given in scenario.tiers}
    classes = []
    for packed in occurring.tolist():
        packed, which = divmod(packed, len(exceptions))
        packed, has_dish = divmod(packed, 2)
        packed, subscription_number = divmod(packed, 1001)
        number, link_number = divmod(packed, 1002)
        classes.append(
            _site_class(
                number,
                tiers[number],
                link_number - 2,
                subscription_number - 1,
                bool(has_dish),
                exceptions[which],
            )
        )
    return tuple(classes), node_class.astype(np.int32)


def _draw(
    given: Tier, nodes: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Link, subscription and dish of a tier's nodes."""
    link = _chosen([one.share for one in given.links], chance(seed, nodes, DRAW_LINK))
    if given.without_link:
        link[chance(seed, nodes, DRAW_NO_LINK) < given.without_link] = NO_LINK
    subscription = np.full(len(nodes), EVERYTHING, dtype=np.int64)
    if given.subscriptions:
        shares = [one.share for one in given.subscriptions]
        subscription = _chosen(shares, chance(seed, nodes, DRAW_SUBSCRIPTION))
    return link, subscription, chance(seed, nodes, DRAW_DISH) < given.dish


def _chosen(shares: Sequence[float], lots: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of some shares each lot falls into; the last one takes what rounding leaves."""
    return np.searchsorted(np.cumsum(shares)[:-1], lots, side="right").astype(np.int64)


def _exceptions(
    row: NDArray[np.int64], listed: Listed | None
) -> tuple[list[tuple[float, float, float]], NDArray[np.int64]]:
    """The rates and stores that a file gives (the first: nothing), and which one each node has."""
    nothing = (math.nan, math.nan, math.nan)
    which = np.zeros(len(row), dtype=np.int64)
    if listed is None:
        return [nothing], which
    said = np.stack((listed.down_bytes_s, listed.up_bytes_s, listed.store_bytes), axis=1)
    known = np.flatnonzero(row >= 0)
    # NaN isn't equal to itself; what isn't said is marked by a number that nobody can give.
    kinds, number = np.unique(np.nan_to_num(said[row[known]], nan=-1.0), axis=0, return_inverse=True)  # fmt: skip
    which[known] = number.reshape(-1) + 1
    found = [tuple(math.nan if value < 0 else value for value in kind) for kind in kinds.tolist()]
    return [nothing, *((down, up, store) for down, up, store in found)], which


def _site_class(
    number: int,
    given: Tier,
    link_number: int,
    subscription: int,
    has_dish: bool,
    exception: tuple[float, float, float],
) -> SiteClass:
    down, up, store = exception
    link = given.links[link_number] if link_number >= 0 else None
    is_listed = not (math.isnan(down) and math.isnan(up))
    if is_listed:
        # Only one of the two may be said: a missing one is the drawn link's, or the same as the other.
        drawn_down, drawn_up = (link.down, link.up) if link else (up, down)
        down = drawn_down if math.isnan(down) else down
        up = drawn_up if math.isnan(up) else up
    else:
        down, up = (link.down, link.up) if link else (0.0, 0.0)
    if down == 0 or up == 0:
        down = up = 0.0
        link_number, name = NO_LINK, ""
    elif is_listed:
        link_number, name = LISTED_LINK, rates_text(down, up)
    else:
        name = link_name(link) if link else ""
    return SiteClass(
        tier=number,
        down_bytes_s=float(down),
        up_bytes_s=float(up),
        link=name,
        link_number=link_number,
        subscription=subscription,
        has_dish=has_dish,
        store_bytes=float(given.store if math.isnan(store) else store),
    )


def link_name(link: Link) -> str:
    """For reports: as the scenario calls it, or its rates."""
    return link.name or rates_text(link.down, link.up)


def rates_text(down_bytes_s: float, up_bytes_s: float) -> str:
    """`512 kbit/s`, or `2 Mbit/s / 512 kbit/s` where up is another."""
    down, up = _rate_text(down_bytes_s), _rate_text(up_bytes_s)
    return down if down == up else f"{down} / {up}"


def _rate_text(bytes_s: float) -> str:
    bits = bytes_s * 8
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s")):
        if bits >= size:
            return f"{bits / size:g} {unit}"
    return f"{bits / 1e3:g} kbit/s"
