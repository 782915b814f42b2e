"""What a plan says, in sentences and rows: for the screen and the report."""

from __future__ import annotations

from cuntong_daemon.i18n import _, ngettext
from cuntong_protocol.texts import N_
from cuntong_simulations.plan.result import Gain, Shortfall, Way

from . import amounts, words
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
    if planned.gap > LEAST_SHARE:
        text = _(
            "This mix costs {cost}; the cheapest one costs at most {gap} less.",
            cost=cost,
            gap=amounts.share(planned.gap),
        )
    if planned.missed_share is not None:
        text += " " + _(
            "Replayed in the model it misses {share} of the deadlines.",
            share=amounts.share(planned.missed_share),
        )
    return text


def needs(way: Way) -> str:
    """What the places of a row need: the question that a planner asks first."""
    parts = []
    if way.satellite_bytes > LEAST_SHARE * way.need_bytes:
        parts.append(
            _("satellite for {share}", share=amounts.part(way.satellite_bytes / way.need_bytes))
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
    """Heads and rows of the mix: the first three and the last are words, then come figures, of which three are shares."""
    heads = [_("Tier"), _("Link"), _("Release"), _("places"), _("each needs"), _("by link"),
             _("satellite"), _("disk"), _("needs")]  # fmt: skip
    rows = [
        [
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
        for way in planned.ways
        if way.places and way.need_bytes
    ]
    return heads, rows


def cost_rows(planned: Planned) -> list[tuple[str, str]]:
    """What is bought, and for how much."""
    return [
        (
            _(words.COST_NAMES.get(line.item, line.item)),
            f"{line.quantity:,.4g} {_(words.UNIT_NAMES.get(line.unit, line.unit))} × {amounts.money(line.price, planned.currency)} = {amounts.money(line.cost, planned.currency)}",
        )
        for line in planned.bill
    ]


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
    text = amounts.money(gain.saves, currency)
    if gain.price is None:
        return text
    return _("{saved}, costs {price}", saved=text, price=amounts.money(gain.price, currency))


def _kind(tier: str, link: str) -> str:
    return f"{words.tier_name(tier)} · {words.link_name(link)}" if link else words.tier_name(tier)
