"""The report's plots."""

from __future__ import annotations

from typing import Any

from cuntong_daemon.i18n import _
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.svg import TIER_COLOURS, svg

from . import amounts
from .findings import Arrival, Curve, Findings
from .words import CARRIER_NAMES

RELEASE_COLOURS = ("#0b6e4f", "#c0662b", "#4f6aa3", "#8a8f2a", "#7a4fa3", "#2b8cbe", "#b0527c", "#6b4c3b")  # fmt: skip
"""More releases than these aren't told apart: the worst are drawn."""
CARRIER_COLOURS = {"link": "#4f6aa3", "siblings": "#23785a", "satellite": "#d79b2f", "disk": "#8b5e3c"}  # fmt: skip
_ROW_IN = 2.3


def drawn_releases(findings: Findings) -> list[str]:
    """The releases of the completion plot, in the scenario's order; the worst ones when there are too many."""
    worst: dict[str, float] = {}
    for one in findings.arrivals:
        ranked = one.due or one.end
        worst[one.release] = min(worst.get(one.release, 1.0), ranked.value)
    kept = sorted(worst, key=lambda release: worst[release])[: len(RELEASE_COLOURS)]
    return [name for name in worst if name in kept]


def completion_plot(findings: Findings) -> str:
    """A picture for each tier: who has each release, by day."""
    releases = drawn_releases(findings)
    tiers = [
        tier
        for tier in TIER_LABELS[1:]
        if any(curve.tier == tier for curve in findings.curves)
    ]  # fmt: skip
    if not tiers:
        return ""
    columns = min(2, len(tiers))
    rows = -(-len(tiers) // columns)

    def draw(found: Any) -> None:  # noqa: ANN401 - matplotlib's axes.
        every = found.ravel() if len(tiers) > 1 else [found]
        for axes, tier in zip(every, tiers, strict=False):
            _completion(axes, findings, tier, releases)
        for axes in every[len(tiers) :]:
            axes.set_visible(False)
        for axes in every[len(tiers) - columns : len(tiers)]:
            start = findings.manifest.scenario.run.start.isoformat()
            axes.set_xlabel(_("days after {start}", start=start))
        figure = every[0].figure
        lines, names = [], []
        for axes in every:
            for line, name in zip(*axes.get_legend_handles_labels(), strict=True):
                if name not in names:
                    lines.append(line)
                    names.append(name)
        figure.legend(lines, names, loc="outside upper center", ncols=5)

    return svg(0.6 + _ROW_IN * rows, draw, rows=rows, columns=columns)


def _completion(axes: Any, findings: Findings, tier: str, releases: list[str]) -> None:  # noqa: ANN401 - matplotlib's axes.
    axes.set_xlim(0, findings.manifest.scenario.run.days)
    arrivals = {one.release: one for one in findings.arrivals if one.tier == tier}
    days_of = {one.name: one.day for one in findings.manifest.scenario.releases}
    for curve in findings.curves:
        if curve.tier != tier or (curve.release and curve.release not in releases):
            continue
        if not curve.release:
            if len(arrivals) > 1:
                _line(axes, curve, "#1c2430", _("everything"), width=1.0, style=(0, (4, 1.5)))
            continue
        colour = RELEASE_COLOURS[releases.index(curve.release)]
        _line(axes, curve, colour, curve.release, width=1.6)
        _deadline(axes, arrivals.get(curve.release), days_of[curve.release], colour)
    axes.plot([], [], "v", color="#5c6775", ms=5, label=_("deadline"))
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_title(_(tier), loc="left", fontweight="bold")
    axes.set_ylabel(_("% of places"))


def _line(axes: Any, curve: Curve, colour: str, label: str, *, width: float, style: Any = "-") -> None:  # noqa: ANN401 - matplotlib's.  # fmt: skip
    share = [one * 100 for one in curve.share]
    days = range(len(share))
    axes.plot(days, share, color=colour, lw=width, ls=style, label=label)
    if curve.half_width:
        low = [one - half * 100 for one, half in zip(share, curve.half_width, strict=True)]
        high = [one + half * 100 for one, half in zip(share, curve.half_width, strict=True)]
        axes.fill_between(days, low, high, color=colour, alpha=0.18, lw=0)


def _deadline(axes: Any, arrival: Arrival | None, day: int, colour: str) -> None:  # noqa: ANN401 - matplotlib's axes.
    """A line down from the top to what is reached: what is missed is what is left of it."""
    if arrival is None or arrival.deadline_days is None:
        return
    at = day + arrival.deadline_days
    if at > axes.get_xlim()[1]:
        return
    reached = arrival.due.value * 100 if arrival.due else 0.0
    axes.plot([at, at], [reached, 100], color=colour, lw=1.0, ls=":")
    axes.plot([at], [101.5], "v", color=colour, ms=5, clip_on=False, zorder=3)


def use_plot(findings: Findings) -> str:
    """By tier and direction: how much of the links' room was used, by day."""

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's axes.
        for one in findings.daily:
            for values, style, label in (
                (one.down, "-", _("{tier}, down", tier=_(one.tier))),
                (one.up, ":", _("{tier}, up", tier=_(one.tier))),
            ):
                if any(values):
                    axes.plot(
                        [day + 0.5 for day in range(len(values))],
                        [value * 100 for value in values],
                        style,
                        color=TIER_COLOURS[one.tier],
                        lw=1.3,
                        label=label,
                    )
        axes.set_xlim(0, findings.manifest.scenario.run.days)
        axes.set_ylim(0, 103)
        axes.set_ylabel(_("% of what the tier's links could carry"))
        axes.set_xlabel(
            _("days after {start}", start=findings.manifest.scenario.run.start.isoformat())
        )
        axes.figure.legend(loc="outside upper center", ncols=6, fontsize=8)

    return svg(3.1, draw) if findings.daily else ""


def carrier_plot(findings: Findings) -> str:
    """A bar for each tier: what its bytes came over."""
    tiers = [tier for tier in TIER_LABELS if any(one.tier == tier for one in findings.carried)]

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's axes.
        for row, tier in enumerate(tiers):
            parts = {one.carrier: one.bytes for one in findings.carried if one.tier == tier}
            total, left = sum(parts.values()), 0.0
            for carrier, colour in CARRIER_COLOURS.items():
                share = parts.get(carrier, 0.0) / total * 100
                axes.barh(row, share, left=left, color=colour, height=0.6)
                if share >= 6:
                    axes.text(left + share / 2, row, f"{share:.0f} %", color="white",
                              ha="center", va="center", fontsize=8)  # fmt: skip
                left += share
            axes.text(101, row, amounts.size(total), va="center")
        present = {one.carrier for one in findings.carried}
        for carrier, colour in CARRIER_COLOURS.items():
            if carrier in present:
                axes.barh([0], [0], color=colour, label=_(CARRIER_NAMES[carrier]))
        axes.set_yticks(range(len(tiers)), [_(tier) for tier in tiers])
        axes.invert_yaxis()
        axes.set_xlim(0, 112)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(_("% of the bytes received"))
        axes.figure.legend(loc="outside upper center", ncols=4)

    return svg(0.9 + 0.42 * len(tiers), draw) if tiers else ""
