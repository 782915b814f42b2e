"""The few figures that say how a run went."""

from __future__ import annotations

from collections.abc import Iterable

from cuntong_daemon.i18n import _

from .result import Foreground, Result, percentile


def problem_text(problem: str) -> str:
    """Why a run doesn't count."""
    kind, _colon, what = problem.partition(":")
    if kind == "proof":
        return _("The emulator couldn't prove itself: {what}.", what=what.strip())
    if kind == "lateness":
        return _("The emulator was late: the machine was too busy.")
    return _("The kernel dropped packets that the emulator didn't fetch in time.")


def headline(result: Result) -> list[tuple[str, str]]:
    """The few figures that say how it went."""
    rows = [
        (
            _("Last place"),
            _("not within {limit} s", limit=round(result.scenario.limit_s))
            if result.last_s is None
            else _(
                "{seconds} s, {ratio} x the bound of {bound} s",
                seconds=f"{result.last_s:.1f}",
                ratio=f"{result.last_s / result.bound_s:.3f}",
                bound=f"{result.bound_s:.1f}",
            ),
        ),
        (_("Copies out of the source"), f"{result.copies_out:.2f}"),
    ]
    pages = [found for found in result.foreground if found.page_s.count]
    if pages:
        rows.append((_("Page, p50 / p95"), _page_text(result)))
    if any(found.rtt_ms.count for found in result.foreground):
        rows.append((_("RTT added, p50 / p95"), _rtt_text(result)))
    bulk = [found for found in result.foreground if found.idle_bulk_kbit_s]
    if bulk:
        share = percentile([found.bulk_kbit_s / found.idle_bulk_kbit_s for found in bulk], 0.5)
        rows.append((_("Bulk download, of what it gets alone"), f"{share:.3f}"))
    used = [found.used for found in result.completions if _is_last(result, found.tier)]
    if used:
        rows.append(
            (_("Use of the last links, lowest / median"), f"{min(used):.3f} / {percentile(used, 0.5):.3f}")
        )  # fmt: skip
    stall = max((found.longest_stall_s for found in result.completions), default=0.0)
    rows.append((_("Longest stall of a link that was there"), f"{stall:.0f} s"))
    return rows


def pooled_pages(result: Result) -> tuple[list[float], list[float]]:
    """Seconds of all pages of all places: before the publication, and while each place was at it."""
    done = {found.code: found.seconds for found in result.completions}
    idle, during = [], []
    for place in result.foreground:
        end = done.get(place.code)
        for at, seconds in place.pages:
            if seconds < 0:
                continue
            if at + seconds < 0:
                idle.append(seconds)
            elif at >= place.begun_s and (end is None or at < end):
                during.append(seconds)
    return idle, during


def added_rtt_ms(result: Result, *, only: bool | None = None) -> tuple[float, float]:
    """RTT above the idle median at p50 and p95, the middle of all places; `only`: those with pages or without."""
    places: Iterable[Foreground] = (
        found
        for found in result.foreground
        if found.rtt_ms.count and (only is None or only == bool(found.page_s.count))
    )
    added = [
        (found.rtt_ms.p50 - found.idle_rtt_ms.p50, found.rtt_ms.p95 - found.idle_rtt_ms.p50)
        for found in places
    ]
    return percentile([p50 for p50, _p95 in added], 0.5), percentile(
        [p95 for _p50, p95 in added], 0.5
    )


def _page_text(result: Result) -> str:
    idle, during = pooled_pages(result)
    p50, p95 = percentile(during, 0.5), percentile(during, 0.95)
    alone = percentile(idle, 0.5)
    if not alone:
        return f"{p50:.2f} / {p95:.2f} s"
    return _(
        "{middle} / {tail} s, {middle_ratio} / {tail_ratio} x the idle {idle} s",
        middle=f"{p50:.2f}",
        tail=f"{p95:.2f}",
        middle_ratio=f"{p50 / alone:.2f}",
        tail_ratio=f"{p95 / alone:.2f}",
        idle=f"{alone:.2f}",
    )


def _rtt_text(result: Result) -> str:
    p50, p95 = added_rtt_ms(result)
    idle = percentile([found.idle_rtt_ms.p50 for found in result.foreground], 0.5)
    return _(
        "{middle} / {tail} ms over the idle {idle} ms",
        middle=f"{p50:+.0f}",
        tail=f"{p95:+.0f}",
        idle=f"{idle:.0f}",
    )


def _is_last(result: Result, tier: str) -> bool:
    return tier == result.topology.last_tier[0].tier.label
