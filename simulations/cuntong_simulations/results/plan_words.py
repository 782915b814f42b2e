"""What a plan says, in sentences and rows: for the screen and the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from cuntong_daemon.i18n import _, ngettext
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_protocol.texts import N_
from cuntong_simulations.plan.result import Gain, Shortfall, Way

from . import amounts, words
from .findings import CostLine
from .planned import Planned

LEAST_SHARE = 0.001
"""Of what is needed; less is left out of the words."""
_SHORT = {
    "down": N_("{places} at {kind}: their links carry too little for {releases}; {rate} each, {enough} would do."),
    "up": N_("{places} at {kind}: their uplinks pass on too little of {releases}; {rate}, {enough} would do."),
    "air": N_("{releases} don't fit on the satellite for {places} at {kind}; {rate}, {enough} would do."),
    "batch": N_("Too few disks leave in time for {releases} to {places} at {kind}; batches of {rate}, {enough} would do."),
    "store": N_("{places} at {kind}: the store is too small for {releases}; {rate}, {enough} would do."),
    "none": N_("{places} at {kind}: nothing brings them {releases}; they have no link, and neither satellite nor disks may be used."),
}  # fmt: skip
_GAINS = {
    "down": N_("one Mbit/s more down for each of {places} at {kind}"),
    "up": N_("one Mbit/s more up for each of {places} at {kind}"),
    "air": N_("one Mbit/s more that can be leased of the satellite"),
    "batch": N_("one disk more in each batch"),
    "days": N_("all deadlines one day later"),
}


def verdict(planned: Planned) -> str:
    """Whether there is a plan, and what it costs."""
    if planned.status == "infeasible":
        return _("There is no plan: with what the scenario allows, the deadlines can't be met.")
    if planned.status == "unknown":
        return _("No plan was found in the time; whether there is one isn't known.")
    cost = amounts.money(planned.cost, planned.currency)
    text = _("The cheapest mix costs {cost}.", cost=cost)
    if not planned.currency:
        text = _("The links alone are enough; the scenario gives no prices.")
    elif planned.gap > LEAST_SHARE:
        text = _(
            "This mix costs {cost}; the cheapest one costs at most {gap} less.",
            cost=cost,
            gap=amounts.share(planned.gap),
        )
    if planned.missed_share is not None:
        text = words.in_a_row(
            text,
            _(
                "Replayed in the model it misses {share} of the deadlines.",
                share=amounts.share(planned.missed_share),
            ),
        )
    return text


def needs(way: Way) -> str:
    """What the places of a row need: the question that a planner asks first."""
    parts = []
    is_aired = way.satellite_bytes > LEAST_SHARE * way.need_bytes
    aired = amounts.part(way.satellite_bytes / way.need_bytes)
    if _is_by_link(way):
        if not is_aired:
            return _("the link alone")
        return _("the link alone; {share} comes by satellite anyway", share=aired)
    if is_aired:
        parts.append(
            _("satellite for {share}", share=aired)
            if way.by_satellite == way.places
            else _("satellite to {count} of them", count=amounts.count(way.by_satellite))
        )
    if way.disk_bytes > LEAST_SHARE * way.need_bytes:
        share = amounts.part(way.disk_bytes / way.need_bytes)
        with_disks = way.places - way.without_disks
        parts.append(
            _("disks for {share}", share=share)
            if not way.without_disks
            else _("disks to {count} of them", count=amounts.count(with_disks))
        )
    return _(", ").join(parts) if parts else _("the link alone")


def way_rows(planned: Planned) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the mix: the first three and the last are words, then come figures, of which three are shares.

    Kind of link by kind of link; where the link alone does for every release, in one row.
    """
    heads = [_("Tier"), _("Link"), _("Release"), _("places"), _("volume each"), _("by link"),
             _("satellite"), _("disk"), _("needs")]  # fmt: skip
    kinds: dict[tuple[str, str], list[Way]] = defaultdict(list)
    for way in planned.ways:
        if way.places and way.need_bytes:
            kinds[way.tier, way.link].append(way)
    rows = []
    for tier in TIER_LABELS:
        for kind, ways in kinds.items():
            if kind[0] != tier:
                continue
            if all(_is_by_link(way) for way in ways):
                ways = [_together(ways)]
            rows += [_row(way) for way in ways]
    return heads, rows


def _is_by_link(way: Way) -> bool:
    """The link alone does, whatever else may come."""
    return way.link_is_enough == way.places and way.disk_bytes <= LEAST_SHARE * way.need_bytes


def _together(ways: Sequence[Way]) -> Way:
    """What the same places get of several releases."""
    if len(ways) == 1:
        return ways[0]
    sums = {
        name: sum(getattr(way, name) for way in ways)
        for name in (
            "need_bytes",
            "link_bytes",
            "satellite_bytes",
            "disk_bytes",
            "disks",
            "parcels",
        )
    }
    return msgspec.structs.replace(ways[0], release=_("all"), **sums)


def _row(way: Way) -> list[str]:
    return [
        words.tier_name(way.tier),
        words.link_name(way.link),
        way.release,
        amounts.count(way.places),
        amounts.size(way.need_bytes / way.places),
        *(
            amounts.part(carried / way.need_bytes)
            for carried in (way.link_bytes, way.satellite_bytes, way.disk_bytes)
        ),
        needs(way),
    ]


def cost_rows(planned: Planned) -> list[tuple[str, str]]:
    """What is bought, and for how much."""
    return [
        (
            _(words.COST_NAMES.get(line.item, line.item)),
            f"{_quantity(line, planned)} × {amounts.money(line.price, planned.currency)} = {amounts.money(line.cost, planned.currency)}",
        )
        for line in planned.bill
    ]


def _quantity(line: CostLine, planned: Planned) -> str:
    if line.item == "satellite" and planned.satellite_mbit_s:
        return _(
            "{rate} Mbit/s × {months} months",
            rate=f"{planned.satellite_mbit_s:.4g}",
            months=f"{line.quantity / planned.satellite_mbit_s:.5g}",
        )
    digits = 0 if line.quantity >= 1000 else 1
    unit = _(words.UNIT_NAMES.get(line.unit, line.unit))
    return f"{line.quantity:,.{digits}f}".removesuffix(".0") + f" {unit}"


def shortfall_text(short: Shortfall) -> str:
    """Which link stands in the way of which releases."""
    amount = {"batch": amounts.count, "store": amounts.size}.get(short.kind, amounts.rate)
    return _(
        _SHORT[short.kind],
        places=ngettext("{number} place", "{number} places", short.places, number=amounts.count(short.places)),
        kind=_kind(short.tier, short.link),
        releases=_(", ").join(short.releases) or _("the releases"),
        rate=amount(short.rate),
        enough=amount(short.enough),
    )  # fmt: skip


def gain_rows(planned: Planned) -> list[tuple[str, str]]:
    """What one more unit of each resource would save, the best first; what saves nothing is left out."""
    return [
        (
            _(
                _GAINS[gain.kind],
                places=amounts.count(gain.places),
                kind=_kind(gain.tier, gain.link),
            ),
            _saves(gain, planned.currency),
        )
        for gain in planned.gains
        if gain.saves > LEAST_SHARE * planned.cost
    ]


def _saves(gain: Gain, currency: str) -> str:
    saved = amounts.money(gain.saves, currency)
    if gain.price is None:
        return _("saves {saved}", saved=saved)
    price = amounts.money(gain.price, currency)
    if gain.price > gain.saves:
        return _("saves {saved}, but costs {price}", saved=saved, price=price)
    return _("saves {saved} and costs {price}", saved=saved, price=price)


def _kind(tier: str, link: str) -> str:
    return f"{words.tier_name(tier)} · {words.link_name(link)}" if link else words.tier_name(tier)
