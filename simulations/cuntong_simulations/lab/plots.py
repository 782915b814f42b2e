"""The report's plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cuntong_daemon.i18n import _
from cuntong_simulations.svg import TIER_COLOURS, svg

from .result import LinkUse, Result, percentile


def completion_plot(result: Result) -> str:
    """A bar for each place, with its bound."""

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's axes.
        found = sorted(result.completions, key=lambda one: (one.seconds is None, one.seconds or 0))
        for row, one in enumerate(found):
            length = one.seconds if one.seconds is not None else result.scenario.limit_s
            colour = TIER_COLOURS[one.tier]
            axes.barh(row, length, color=colour, height=0.62, alpha=1 if one.seconds else 0.25)
            axes.plot([one.bound_s] * 2, [row - 0.42, row + 0.42], color="#d0342c", lw=1.6)
        axes.plot([], [], color="#d0342c", lw=1.6, label=_("bound"))
        for tier in dict.fromkeys(one.tier for one in found):
            axes.barh([0], [0], color=TIER_COLOURS[tier], label=_(tier))
        axes.set_yticks(range(len(found)), [one.code for one in found], fontsize=7)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(_("seconds since the publication began"))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=6)

    return svg(0.9 + 0.19 * len(result.completions), draw)


def rate_plot(result: Result) -> str:
    """By tier and direction: the median share of the links' rate in use."""

    def value(link: LinkUse, row: tuple[float, float, float, float]) -> float:
        return row[1] / link.rate_kbit_s * 100

    return _by_tier(result, value, _("% of the rate, median of the tier"))


def queue_plot(result: Result) -> str:
    """By tier and direction: the median of the mean queueing delay."""

    def value(_link: LinkUse, row: tuple[float, float, float, float]) -> float:
        return row[2]

    return _by_tier(result, value, _("ms in the queue, median of the tier"))


def _by_tier(
    result: Result,
    value: Callable[[LinkUse, tuple[float, float, float, float]], float],
    label: str,
) -> str:
    tiers = {node.code: node.tier.label for node in result.topology.nodes}

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's axes.
        for tier in dict.fromkeys(tiers.values()):
            for direction, style in (("down", "-"), ("up", ":")):
                links = [
                    link
                    for link in result.links
                    if tiers[link.code] == tier and link.direction == direction and link.series
                ]
                rows = list(zip(*(link.series for link in links), strict=False))
                axes.plot(
                    [row[0][0] for row in rows],
                    [
                        percentile(
                            [value(link, one) for link, one in zip(links, row, strict=True)], 0.5
                        )
                        for row in rows
                    ],
                    style,
                    color=TIER_COLOURS[tier],
                    lw=1.2,
                    label=_("{tier}, down", tier=_(tier))
                    if direction == "down"
                    else _("{tier}, up", tier=_(tier)),
                )
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        axes.set_xlabel(_("seconds since the publication began"))
        axes.legend(ncols=4, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.25))

    return svg(2.9, draw) if any(link.series for link in result.links) else ""


def page_plot(result: Result) -> str:
    """Each page: when it was asked for, and what it took."""
    places = [place for place in result.foreground if place.pages]

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's axes.
        for place in places:
            good = [(at, took) for at, took in place.pages if took >= 0]
            axes.plot(*_columns(good), "o", ms=3.5, label=place.code)
        idle = percentile(
            [place.idle_page_s.p50 for place in places if place.idle_page_s.count], 0.5
        )
        _mark(axes, idle)
        axes.set_ylabel(_("seconds for a page of 100 kB"))
        axes.set_xlabel(_("seconds since the publication began"))
        axes.legend(ncols=4, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.2))

    return svg(2.7, draw) if places else ""


def rtt_plot(result: Result) -> str:
    """The middle of all places' round trips, and the highest."""
    places = [place for place in result.foreground if place.rtts]

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's axes.
        rows: dict[float, list[tuple[float, float]]] = {}
        for place in places:
            for at, middle, highest, _lost in place.rtts:
                rows.setdefault(at, []).append((middle, highest))
        moments = sorted(rows)
        axes.plot(
            moments,
            [percentile([high for _middle, high in rows[at]], 0.5) for at in moments],
            color="#9bc2b3",
            lw=1,
            label=_("highest in 2 s, median of the places"),
        )
        axes.plot(
            moments,
            [percentile([middle for middle, _high in rows[at]], 0.5) for at in moments],
            color=TIER_COLOURS["village"],
            lw=1.3,
            label=_("median"),
        )
        _mark(axes, percentile([place.idle_rtt_ms.p50 for place in places], 0.5))
        axes.set_ylabel(_("round trip, ms"))
        axes.set_xlabel(_("seconds since the publication began"))
        axes.legend(ncols=2, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.15))

    return svg(2.7, draw) if places else ""


def _mark(axes: Any, idle: float) -> None:  # noqa: ANN401 - matplotlib's axes.
    axes.axvline(0, color="#5c6775", lw=0.8)
    if idle:
        axes.axhline(idle, color="#d0342c", lw=1, ls="--", label=_("idle median"))
    axes.set_ylim(bottom=0)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _y in pairs], [y for _x, y in pairs]
