"""What a run says, in sentences: for the screen and the top of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from cuntong_daemon.i18n import _, ngettext
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_protocol.texts import N_
from cuntong_simulations.calibration.record import Measured
from cuntong_simulations.scenario.scenario import Scenario

from . import amounts
from .findings import Arrival, Findings, Miss, Parameter

CARRIER_NAMES = {
    "link": N_("from above"),
    "siblings": N_("siblings"),
    "satellite": N_("satellite"),
    "disk": N_("disk"),
}
CAUSE_NAMES = {
    "own-link": N_("own link"),
    "uplink": N_("uplink above"),
    "content": N_("not yet above"),
    "off": N_("off or closed"),
    "sky": N_("satellite's turn"),
    "store": N_("store full"),
}
COST_NAMES = {
    "satellite": N_("satellite capacity"),
    "link": N_("VPN traffic to counties"),
    "disk": N_("disks bought"),
    "disk-trip": N_("disks sent and sent back"),
    "parcel": N_("parcels"),
}
UNIT_NAMES = {"disk": N_("disks"), "parcel": N_("pieces"), "Mbit/s·month": N_("Mbit/s·month")}
ORIGIN_NAMES = {"scenario": N_("the scenario's own"), "trial": N_("a trial with libtorrent")}
"""Of the model's parameters."""
NO_LINK = N_("no link")
MOST_ROWS = 12
"""Of the table that has to fit on a screen; more releases are shown by the worst one of each tier."""


def title(scenario: Scenario) -> str:
    return scenario.title or scenario.name


def lead(findings: Findings) -> str:
    """What was computed."""
    manifest = findings.manifest
    run = manifest.scenario.run
    text = _(
        "{days} days from {start}, policy {policy}, seed {seed}, {places} places, {bundles} bundles.",
        days=run.days,
        start=run.start.isoformat(),
        policy=manifest.policy,
        seed=manifest.seed,
        places=amounts.count(manifest.node_count),
        bundles=manifest.bundle_count,
    )
    if manifest.sample_share < 1:
        text = in_a_row(
            text,
            _(
                "A sample of {share} of the counties; ± is half of a 95 % interval, in points.",
                share=amounts.share(manifest.sample_share),
            ),
        )
    return text


def in_a_row(text: str, more: str) -> str:
    """Two sentences; in Chinese there is no space between them."""
    return _("{text} {more}", text=text, more=more)


def verdict(findings: Findings) -> str:
    """Whether deadlines are met."""
    if not findings.pairs:
        return _("No release has a deadline.")
    params = {"pairs": amounts.count(findings.pairs)}
    if findings.missed:
        text = _(
            "{missed} of {pairs} deadlines are missed ({share}): one for each place and bundle.",
            missed=amounts.count(max(1, findings.missed)),
            share=amounts.share(findings.missed / findings.pairs),
            **params,
        )
    elif findings.undecided < findings.pairs:
        text = _("All deadlines are met: {pairs}, one for each place and bundle.", **params) if not findings.undecided else _("No deadline within the run is missed.")  # fmt: skip
    else:
        text = _("All deadlines lie after the end of the run.")
    if findings.undecided and findings.undecided < findings.pairs:
        text = in_a_row(
            text,
            _(
                "{count} lie after the end of the run and aren't met yet.",
                count=amounts.count(max(1, findings.undecided)),
            ),
        )
    return text


def shown_arrivals(findings: Findings) -> list[Arrival]:
    """By tier: every release, or where that is too much the one that fares worst."""
    found = sorted(findings.arrivals, key=lambda one: TIER_LABELS.index(one.tier))
    found = [one for one in found if one.tier != TIER_LABELS[0]] or found
    if len(found) <= MOST_ROWS:
        return found
    by_tier: dict[str, list[Arrival]] = defaultdict(list)
    for one in found:
        by_tier[one.tier].append(one)
    return [min(rows, key=_badness) for rows in by_tier.values()]


def _badness(one: Arrival) -> tuple[float, float, float]:
    return (
        -one.missed / one.pairs if one.pairs else 0.0,
        one.end.value,
        -(one.p90.value if one.p90 else 1e9),
    )


def tier_name(tier: str) -> str:
    return _(tier)


def link_name(link: str) -> str:
    return _(NO_LINK) if link == amounts.NOTHING else link


def held_back(findings: Findings) -> list[tuple[str, str]]:
    """By tier: what places waited for, most first; with the kind of link that waited most."""
    rows = []
    for tier in TIER_LABELS:
        causes: dict[str, float] = defaultdict(float)
        links: dict[str, float] = defaultdict(float)
        for one in findings.held:
            if one.tier == tier:
                causes[one.cause] += one.node_hours
                links[one.link] += one.node_hours
        if not causes:
            continue
        text = _shares(causes, CAUSE_NAMES)
        if len(links) > 1:
            most = max(links, key=lambda link: links[link])
            text += _("; ") + _(
                "most at {link} ({share})",
                link=link_name(most),
                share=amounts.part(links[most] / sum(links.values())),
            )
        rows.append((tier_name(tier), text))
    return rows


def carried(findings: Findings) -> list[tuple[str, str]]:
    """By tier: how many bytes came, and how."""
    rows = []
    for tier in TIER_LABELS:
        parts = {one.carrier: one.bytes for one in findings.carried if one.tier == tier}
        if parts:
            text = _shares(parts, CARRIER_NAMES, most=3)
            rows.append((tier_name(tier), amounts.size(sum(parts.values())) + _(": ") + text))
    return rows


def worst_misses(findings: Findings, most: int) -> list[Miss]:
    """Where most deadlines are missed."""
    return findings.misses[:most]


def miss_text(miss: Miss) -> str:
    return _(
        "{release}, {tier}, province {province}, {link}: {missed} of {pairs}",
        release=miss.release,
        tier=tier_name(miss.tier),
        province=miss.province,
        link=link_name(miss.link),
        missed=amounts.count(max(1, miss.missed)),
        pairs=amounts.count(miss.pairs),
    )


def total_cost(findings: Findings) -> str:
    costs = findings.manifest.scenario.costs
    currency = costs.currency if costs is not None else ""
    return amounts.money(sum(line.cost for line in findings.costs), currency)


def calibration_note(parameters: Sequence[Parameter], measured: Measured | None) -> str:
    """How far the model's parameters can be trusted."""
    if parameters and all(one.origin == "scenario" for one in parameters):
        return _("The model's parameters are the scenario's own.")
    if measured is None:
        return _("The model's parameters weren't measured with real daemons: nothing says how far these figures are from them.")  # fmt: skip
    return _(
        "The model's parameters were measured with real daemons until {date}; networks: {networks}, repeats on each: {repeats}. On the {tested} networks to which nothing was fitted the model is off by {mean} at most in the mean times of tiers (median {mean_median}) and by {last} in the times of last places (median {last_median}).",
        date=measured.date.isoformat(),
        networks=measured.networks,
        repeats=measured.repeats,
        tested=measured.tested,
        mean=amounts.share(measured.mean_error_largest),
        mean_median=amounts.share(measured.mean_error_median),
        last=amounts.share(measured.last_error_largest),
        last_median=amounts.share(measured.last_error_median),
    )


def parameter_values(parameters: Sequence[Parameter]) -> str:
    """Each with its value; whether it is the scenario's own."""
    return _(", ").join(
        f"{one.name} {parameter_value(one)}"
        + (_(" (the scenario's own)") if one.origin == "scenario" else "")
        for one in parameters
    )


def parameter_value(parameter: Parameter) -> str:
    if parameter.name == "thin":
        return f"{parameter.value * 8e-3:.3g} kbit/s"
    return f"{parameter.value:.3g}" + (" s" if parameter.name == "startup" else "")


def and_more(count: int) -> str:
    return ngettext("and {count} more", "and {count} more", count)


def _shares(parts: dict[str, float], names: dict[str, str], most: int = 2) -> str:
    total = sum(parts.values())
    order: Iterable[str] = sorted(parts, key=lambda name: -parts[name])
    return _(", ").join(
        f"{_(names[name])} {amounts.part(parts[name] / total)}" for name in [*order][:most]
    )
