"""The report of a run: one page that a planner can pass on, print, or keep beside the plan."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from cuntong_daemon.i18n import _, show
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.calibration.record import Measured
from cuntong_simulations.page import document, table
from cuntong_simulations.plan.by_hand import Envelope
from cuntong_simulations.scenario.scenario import Scenario

from . import amounts, plan_words, words
from .findings import Findings, Held, Parameter, Reach
from .planned import Planned
from .plots import carrier_plot, completion_plot, drawn_releases, use_plot
from .read import read, read_plan

MOST_MISSES = 15
MOST_REACHES = 16
MOST_LINKS = 10
"""Columns of the map of bottlenecks."""
CAUSE_COLOURS = {
    "own-link": (192, 102, 43),
    "uplink": (163, 38, 42),
    "content": (79, 106, 163),
    "off": (110, 118, 130),
    "sky": (200, 150, 30),
    "store": (122, 79, 163),
}
_STYLE = """
td, th { padding: .2rem .5rem; } table.wrap th { white-space: normal; vertical-align: bottom; } table { font-size: .92rem; }
table.words td:first-child { color: var(--soft); } table.words td:last-child { white-space: normal; }
table.words { margin-top: .8rem; }
table.facts td:last-child { text-align: left; white-space: normal; }
table.facts td:first-child { color: var(--soft); padding-right: 1rem; }
table.map { border-collapse: separate; border-spacing: 2px; font-size: .85rem; }
table.map th { padding: .1rem .3rem; text-align: center; white-space: normal; vertical-align: bottom; font-size: .8rem; }
table.map td { text-align: center; padding: .12rem .3rem; border: 0; min-width: 4.2rem; }
table.map td:first-child, table.map th:first-child { min-width: 0; text-align: left; padding-right: .6rem; }
table.map tr.all td { font-weight: 600; }
.key span { display: inline-block; margin-right: 1rem; white-space: nowrap; }
.key i { display: inline-block; width: .9em; height: .9em; border-radius: 2px; margin-right: .3em; vertical-align: -.1em; }
td.bad { color: var(--bad); font-weight: 600; }
table.words td, table.two td:nth-child(2), table.two th:nth-child(2), table.three td:nth-child(3), table.three th:nth-child(3), table.mix td:last-child, table.mix th:last-child { text-align: left; }
table.mix td:last-child { white-space: normal; } table.facts { margin-top: .8rem; }
table.scenario { font-size: .88rem; } table.scenario td, table.scenario th { text-align: left; }
@media print { details { display: block; } body { max-width: none; } }
"""


def render(findings: Findings, planned: Planned | None = None) -> str:
    """The page, in the language of whoever renders it: no script, nothing from elsewhere.

    Args:
        findings: Of a run.
        planned: The plan that was replayed in it.
    """
    title = words.title(findings.manifest.scenario)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(words.lead(findings))}</p>',
        _plan(planned) if planned is not None else "",
        _verdict(words.verdict(findings), is_bad=findings.missed > 0),
        _arrivals(findings),
        _facts(findings, planned),
        *_sections(findings, planned),
    ]
    return document(title, body, _STYLE)


def render_plan(planned: Planned, scenario: Scenario) -> str:
    """The page of a scenario for which there is no plan, so that nothing was run."""
    title = words.title(scenario)
    body = [
        f"<h1>{escape(title)}</h1>",
        _plan(planned),
        f"<h2>{escape(_('Appendix: the same by hand'))}</h2>{_by_hand(planned)}",
        f"<h2>{escape(_('How far to trust this'))}</h2>{_parameters(planned.calibration, planned.measured)}",
        f"<h2>{escape(_('Assumptions'))}</h2>{_assumptions(scenario)}",
    ]
    return document(title, body, _STYLE)


def render_folder(folder: Path) -> str:
    """The page of what `write` or `write_plan` wrote.

    Raises:
        ResultsError: as `read` and `read_plan`.
    """
    planned = read_plan(folder)
    if planned is not None and planned.scenario is not None:
        return render_plan(planned, planned.scenario)
    return render(read(folder), planned)


def _verdict(text: str, *, is_bad: bool) -> str:
    return f'<p class="verdict{" bad" if is_bad else ""}">{escape(text)}</p>'


def _plan(planned: Planned) -> str:
    """The mix, what it costs, what would make it cheaper; or what stands in the way."""
    parts = [_verdict(plan_words.verdict(planned), is_bad=not planned.ways)]
    if planned.shortfalls:
        lines = "".join(
            f"<li>{escape(plan_words.shortfall_text(one))}</li>" for one in planned.shortfalls
        )
        parts.append(f"<p>{escape(_('What stands in the way:'))}</p><ul>{lines}</ul>")
    if planned.ways:
        parts.append(table(*plan_words.way_rows(planned), "two three mix"))
        rows = [[name, text] for name, text in plan_words.cost_rows(planned)]
        parts.append(table([], rows, "facts"))
    gains = plan_words.gain_rows(planned)
    if gains:
        heads = [_("One more of this"), _("would save")]
        parts.append(f"<details><summary>{escape(_('What would make it cheaper'))}</summary>{table(heads, gains)}</details>")  # fmt: skip
    parts += [f'<p class="note">{escape(show(note))}</p>' for note in planned.notes]
    return "".join(parts)


def _sections(findings: Findings, planned: Planned | None) -> Iterator[str]:
    sections = [
        (_("When places have it"), _completion(findings)),
        (_("What each kind of link can do"), _reaches(findings)),
        (_("Where places wait"), _bottlenecks(findings)),
        (_("How the bytes came"), carrier_plot(findings)),
        (_("Use of the links"), use_plot(findings) + _links(findings)),
        (_("Missed deadlines, worst first"), _misses(findings)),
        # A plan's bill stands on top.
        (_("Cost"), _costs(findings) if planned is None else ""),
        (_("Appendix: the same by hand"), _by_hand(planned) if planned is not None else ""),
        (_("How far to trust this"), _trust(findings)),
        (_("Assumptions"), _assumptions(findings.manifest.scenario)),
    ]
    for heading, html in sections:
        if html:
            yield f"<h2>{escape(heading)}</h2>{html}"


def _arrivals(findings: Findings) -> str:
    shown = words.shown_arrivals(findings)
    rows = [
        [
            words.tier_name(one.tier),
            one.release,
            amounts.count(one.places),
            amounts.estimate(one.end),
            amounts.days(one.deadline_days),
            amounts.estimate(one.due),
            amounts.days(one.p50.value if one.p50 else None),
            amounts.days(one.p90.value if one.p90 else None),
            amounts.days(one.last_days),
            amounts.share(one.missed / one.pairs) if one.pairs else amounts.NOTHING,
        ]
        for one in shown
    ]
    heads = [_("Tier"), _("Release"), _("places"), _("have it at the end"), _("deadline, d"),
             _("have it by then"), _("half, d"), _("90 %, d"), _("last, d"), _("missed")]  # fmt: skip
    note = _("Days are counted from the release; - means not within the run.")
    if len(shown) < sum(one.tier != TIER_LABELS[0] for one in findings.arrivals):
        note = words.in_a_row(_("Of each tier the release that fares worst."), note)
    return table(heads, rows, "two") + f'<p class="note">{escape(note)}</p>'


def _facts(findings: Findings, planned: Planned | None) -> str:
    """Which links bind, what carried the bytes, what misses: a line for each tier."""
    parts = [
        (_("What holds places back"), words.held_back(findings)),
        (_("What carried the bytes"), words.carried(findings)),
        (
            _("What misses its deadline"),
            [("", words.miss_text(one)) for one in words.worst_misses(findings, 3)],
        ),
    ]
    if findings.costs and planned is None:
        parts.append((_("Cost"), [("", words.total_cost(findings))]))
    rows = [
        [heading if place == 0 else "", name, text]
        for heading, found in parts
        for place, (name, text) in enumerate(found)
    ]
    return table([], rows, "words")


def _completion(findings: Findings) -> str:
    left_out = len({one.release for one in findings.arrivals}) - len(drawn_releases(findings))
    html = completion_plot(findings)
    if left_out:
        html += f'<p class="note">{escape(_("{count} releases that fare better are left out; summary.csv has them.", count=left_out))}</p>'
    return html


def _reaches(findings: Findings) -> str:
    """By hand, beside what the model found: whether the link alone could do it."""
    found = [one for one in findings.reaches if one.tier != TIER_LABELS[0]]
    # Tier by tier and link by link; those with a deadline, if there are any.
    found = [one for one in found if one.deadline_days is not None] or found
    links = [*dict.fromkeys((one.tier, one.link) for one in found)]
    is_long = len(found) > MOST_REACHES
    if is_long:
        by_link: dict[tuple[str, str], list[Reach]] = defaultdict(list)
        for one in found:
            by_link[one.tier, one.link].append(one)
        found = [max(rows, key=_hardness) for rows in by_link.values()]
    found.sort(key=lambda one: (TIER_LABELS.index(one.tier), links.index((one.tier, one.link))))
    rows = [
        [
            words.tier_name(one.tier),
            words.link_name(one.link),
            one.release,
            amounts.count(one.places),
            amounts.size(one.volume_bytes),
            amounts.size(one.day_bytes) if one.day_bytes else amounts.NOTHING,
            amounts.days(one.least_days),
            amounts.days(one.deadline_days),
            _need(one),
            amounts.days(one.p50.value if one.p50 else None),
            amounts.share(one.due.value if one.due else None),
        ]
        for one in found
    ]
    heads = [_("Tier"), _("Link"), _("Release"), _("places"), _("volume"), _("link, a day"), _("by hand, d"),
             _("deadline, d"), _("by hand it needs"), _("half had it, d"), _("in time")]  # fmt: skip
    note = _(
        "By hand: what a place wants of the release, divided by what its link can carry in a day with nothing else on it. The model counts everything else too: links above, other releases, siblings, satellite and disks."
    )
    html = f'<p class="note">{escape(note)}</p>' + table(heads, rows, "two three wrap")
    if is_long:
        note = _("Of each kind of link the release that is hardest for it; reach.csv has all.")
        html += f'<p class="note">{escape(note)}</p>'
    return html


def _hardness(one: Reach) -> float:
    """How much of the time until the deadline the link would need."""
    least = math.inf if one.least_days is None else one.least_days
    return least / (one.deadline_days or 1.0)


def _need(one: Reach) -> str:
    if one.deadline_days is None:
        return amounts.NOTHING
    if one.least_days is not None and one.least_days <= one.deadline_days:
        return _("the link alone")
    return _("satellite or disks")


def _bottlenecks(findings: Findings) -> str:
    """Province by kind of link: how long a place waited, and for what most of that time."""
    found = [one for one in findings.held if one.province != "00"]
    total: dict[tuple[str, str], float] = defaultdict(float)
    for one in found:
        total[one.tier, one.link] += one.node_hours
    kept = set(sorted(total, key=lambda kind: -total[kind])[:MOST_LINKS])
    kinds = [kind for kind in total if kind in kept]
    if not kinds:
        return ""
    cells: dict[tuple[str, tuple[str, str]], list[Held]] = defaultdict(list)
    for one in found:
        kind = (one.tier, one.link)
        cells[one.province, kind].append(one)
        cells["", kind].append(one)
    highest = max(_wait_days(cell) for cell in cells.values()) or 1.0
    provinces = sorted({province for province, _kind in cells if province})
    heads = "".join(
        f"<th>{escape(words.tier_name(tier))}<br>{escape(words.link_name(link))}</th>"
        for tier, link in kinds
    )
    rows = []
    for province in ["", *provinces]:
        name = province or _("all")
        html = "".join(_cell(cells.get((province, kind), []), highest) for kind in kinds)
        rows.append(f"<tr{'' if province else ' class=all'}><td>{escape(name)}</td>{html}</tr>")
    present = {one.cause for one in found}
    key = "".join(
        f'<span><i style="background: rgb{CAUSE_COLOURS[cause]}"></i>{escape(_(words.CAUSE_NAMES[cause]))}</span>'
        for cause in CAUSE_COLOURS
        if cause in present
    )
    note = _(
        "Days that a place of each province waited for something it wanted; the colour says for what most of that time, and the darker, the longer."
    )
    more = (
        f'<p class="note">{escape(words.and_more(len(total) - len(kinds)))} (bottlenecks.csv)</p>'
        if len(total) > len(kinds)
        else ""
    )
    return (
        f'<p class="note">{escape(note)}</p><p class="key">{key}</p><div class="scroll"><table class="map">'
        f"<tr><th>{escape(_('Province'))}</th>{heads}</tr>{''.join(rows)}</table></div>{more}"
    )


def _wait_days(cell: Iterable[Held]) -> float:
    """Mean days that a place waited."""
    found = [*cell]
    # Each cause has a row with the same places; without the double ones a province has them once.
    places = sum({one.province: one.places for one in found}.values())
    return sum(one.node_hours for one in found) / places / 24 if places else 0.0


def _cell(cell: list[Held], highest: float) -> str:
    if not cell:
        return "<td></td>"
    by_cause: dict[str, float] = defaultdict(float)
    for one in cell:
        by_cause[one.cause] += one.node_hours
    cause = max(by_cause, key=lambda name: by_cause[name])
    waited = _wait_days(cell)
    red, green, blue = CAUSE_COLOURS[cause]
    depth = 0.12 + 0.88 * waited / highest
    ink = "#fff" if depth > 0.6 else "#1c2430"
    name = _(words.CAUSE_NAMES[cause])
    return (
        f'<td title="{escape(name)}" style="background: rgba({red},{green},{blue},{depth:.2f}); color: {ink}">'
        f"{escape(amounts.days(waited))}</td>"
    )


def _links(findings: Findings) -> str:
    rows = [
        [
            words.tier_name(one.tier),
            words.link_name(one.link),
            amounts.count(one.places),
            amounts.size(one.down_bytes),
            amounts.share(one.down_bytes / one.down_room if one.down_room else None),
            amounts.size(one.up_bytes),
            amounts.share(one.up_bytes / one.up_room if one.up_room else None),
            amounts.share(one.highest_use),
            str(one.highest_day),
        ]
        for one in findings.links
    ]
    heads = [_("Tier"), _("Link"), _("places"), _("down"), _("use"), _("up"), _("use"),
             _("highest use in a day"), _("on day")]  # fmt: skip
    return table(heads, rows, "two")


def _misses(findings: Findings) -> str:
    if not findings.misses:
        return ""
    rows = [
        [
            one.release,
            words.tier_name(one.tier),
            one.province,
            words.link_name(one.link),
            amounts.count(max(1, one.missed)),
            amounts.count(one.pairs),
            amounts.share(one.missed / one.pairs),
        ]
        for one in findings.misses[:MOST_MISSES]
    ]
    heads = [_("Release"), _("Tier"), _("Province"), _("Link"), _("missed"), _("of"), _("share")]
    html = table(heads, rows, "two")
    if len(findings.misses) > MOST_MISSES:
        more = words.and_more(len(findings.misses) - MOST_MISSES)
        html += f'<p class="note">{escape(more)} (misses.csv)</p>'
    return html


def _costs(findings: Findings) -> str:
    costs = findings.manifest.scenario.costs
    if costs is None or not findings.costs:
        return ""
    rows = [
        [
            _(words.COST_NAMES.get(line.item, line.item)),
            f"{line.quantity:,.6g}",
            _(words.UNIT_NAMES.get(line.unit, line.unit)),
            amounts.money(line.price, costs.currency),
            amounts.money(line.cost, costs.currency),
        ]
        for line in findings.costs
    ]
    rows.append([_("together"), "", "", "", words.total_cost(findings)])
    heads = [_("What"), _("quantity"), _("unit"), _("price"), _("cost")]
    source = _("Prices: {source}", source=costs.source)
    return table(heads, rows) + f'<p class="note">{escape(source)}</p>'


def _by_hand(planned: Planned) -> str:
    """Rates times seconds, to be checked with a pocket calculator."""
    rows = [
        [
            words.link_name(one.link),
            one.release,
            amounts.count(one.places),
            amounts.size(one.size_bytes),
            f"{amounts.rate(one.rate)} × {one.goodput:.3f} × {one.open_share * one.days:.4g} d = {amounts.size(one.possible_bytes)}",
            amounts.rate(one.needed_rate) if one.needed_rate is not None else amounts.NOTHING,
            _disks_by_hand(one),
            amounts.money(one.cost, planned.currency) if one.cost is not None else amounts.NOTHING,
        ]
        for one in planned.by_hand
    ]
    heads = [_("Link"), _("Release"), _("places"), _("volume"), _("link until the deadline"), _("enough would be"),
             _("disks each"), _("buying and posting them")]  # fmt: skip
    note = _(
        "One county on its own: what its link carries from the release to the deadline, and what it would need otherwise. Without uplinks above, losses, and other releases at the same time. Places are counted by the scenario's shares; the plan has those that were drawn by them."
    )
    html = f'<p class="note">{escape(note)}</p>' + table(heads, rows, "two wrap")
    broadcasts = {one.release: _broadcast(one, planned.currency) for one in planned.by_hand}
    return html + "".join(f"<p>{escape(text)}</p>" for text in broadcasts.values())


def _broadcast(one: Envelope, currency: str) -> str:
    text = _(
        "Or {release} by satellite to all who have a dish: {size} in {days} days are {rate}.",
        release=one.release,
        size=amounts.size(one.size_bytes),
        days=f"{one.days:g}",
        rate=amounts.rate(one.satellite_rate),
    )
    if one.satellite_cost is None:
        return text
    cost = amounts.money(one.satellite_cost, currency)
    return words.in_a_row(text, _("Leased for the whole run that costs {cost}.", cost=cost))


def _disks_by_hand(one: Envelope) -> str:
    if one.is_enough:
        return _("the link alone")
    return amounts.count(one.disks) if one.disks else _("none to be had")


def _trust(findings: Findings) -> str:
    manifest = findings.manifest
    html = _parameters(manifest.calibration, manifest.measured)
    if manifest.sample_share < 1:
        note = _(
            "Figures with ± are from a sample: the interval is a jackknife over groups of counties. What the sampled counties do to each other through the links above isn't in it; for the slowest places run the whole country."
        )
        html += f"<p>{escape(note)}</p>"
    facts = [
        (_("Scenario"), f"{manifest.file} · SHA-256 {manifest.scenario_sha256[:16]}…"),
        (_("Computed"), _("{when}, in {seconds} s; threads: {threads}", when=manifest.ended_at, seconds=f"{manifest.seconds:.1f}", threads=manifest.threads)),
        (_("Step"), amounts.span(manifest.step_s)),
        (_("Versions"), ", ".join(f"{name} {version}" for name, version in manifest.versions.items() if version)),
    ]  # fmt: skip
    return html + table([], facts, "facts")


def _parameters(parameters: Sequence[Parameter], measured: Measured | None) -> str:
    """The model's parameters, where they come from, and how far they can be trusted."""
    html = f"<p>{escape(words.calibration_note(parameters, measured))}</p>"
    if not parameters:
        return html
    rows = [
        [one.name, words.parameter_value(one), _(words.ORIGIN_NAMES.get(one.origin, one.origin))]
        for one in parameters
    ]
    html += table([_("Parameter"), _("value"), _("from")], rows, "scenario")
    if measured is None or not measured.versions:
        return html
    note = _(
        "Measured with {versions}.",
        versions=", ".join(f"{name} {version}" for name, version in measured.versions.items()),
    )
    return f'{html}<p class="note">{escape(note)}</p>'


def _assumptions(scenario: Scenario) -> str:
    """Every number of the scenario, and whether it was written there or is a default."""
    sources = "".join(f"<li>{escape(source)}</li>" for source in scenario.sources)
    html = (
        f"<p>{escape(_('Sources that the scenario names:'))}</p><ul>{sources}</ul>"
        if sources
        else f'<p class="note">{escape(_("The scenario names no sources for its numbers."))}</p>'
    )
    rows = [*_values(scenario, "")]
    heads = [_("Key"), _("value"), _("from")]
    count = _("All {count} values", count=len(rows))
    return f"{html}<details><summary>{escape(count)}</summary>{table(heads, rows, 'scenario')}</details>"


def _values(given: msgspec.Struct, at: str) -> Iterator[list[str]]:
    for field in msgspec.structs.fields(given):
        value: Any = getattr(given, field.name)
        name = at + field.encode_name
        if value is None or (value in ("", [], {}) and not at):
            continue
        if isinstance(value, msgspec.Struct):
            yield from _values(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
            for place, one in enumerate(value):
                label = getattr(one, "tier", "") or getattr(one, "name", "") or str(place + 1)
                yield from _values(one, f"{name}.{label}.")
        elif value not in ("", [], {}):
            default = field.default if field.default is not msgspec.NODEFAULT else (
                field.default_factory() if field.default_factory is not msgspec.NODEFAULT else msgspec.NODEFAULT
            )  # fmt: skip
            yield [
                name,
                amounts.quantity(value),
                _("default") if value == default else _("scenario"),
            ]
