"""The same measurement with several contenders, and the table of ratios."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from cuntong_daemon.i18n import _

from .result import Result, percentile
from .summary import pooled_pages


def copies(result: Result) -> float:
    """Copies of the files, as they were on the disk, that left the source."""
    return result.copies_out * result.payload_bytes / max(1, result.content_bytes)


def round_trips(result: Result) -> tuple[float, float]:
    """Milliseconds at p50 and p95 while it went on: the middle of the places without pages, as far as there are any."""
    quiet = [found for found in result.foreground if found.rtt_ms.count and not found.page_s.count]
    found = quiet or [one for one in result.foreground if one.rtt_ms.count]
    return (
        percentile([one.rtt_ms.p50 for one in found], 0.5),
        percentile([one.rtt_ms.p95 for one in found], 0.5),
    )


def table(results: Sequence[Result]) -> Table:
    """A row for each. Ratios are to the first one; those of round trips and pages are of the p95."""
    found = Table(box=None, padding=(0, 1))
    found.add_column(_("Contender"), no_wrap=True)
    for head in (
        _("last, s"),
        _("ratio"),
        _("copies"),
        _("ratio"),
        _("RTT, ms"),
        _("ratio"),
        _("page, s"),
        _("ratio"),
        _("counts"),
    ):
        found.add_column(head, justify="right", no_wrap=True)
    first = results[0]
    for result in results:
        trips = round_trips(result)
        pages = [percentile(pooled_pages(result)[1], share) for share in (0.5, 0.95)]
        first_pages = [percentile(pooled_pages(first)[1], share) for share in (0.5, 0.95)]
        found.add_row(
            result.contender,
            "-" if result.last_s is None else f"{result.last_s:.1f}",
            _ratio(result.last_s or 0.0, first.last_s or 0.0),
            f"{copies(result):.2f}",
            _ratio(copies(result), copies(first)),
            f"{trips[0]:.0f} / {trips[1]:.0f}",
            _ratio(trips[1], round_trips(first)[1]),
            f"{pages[0]:.2f} / {pages[1]:.2f}",
            _ratio(pages[1], first_pages[1]),
            _("yes") if not result.machine.problems else _("NO"),
        )
    return found


def save(result: Result, folder: Path) -> None:
    """One file a contender."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{file_name(result.contender)}.json").write_bytes(msgspec.json.encode(result))


def file_name(contender: str) -> str:
    """A contender's name without what file names can't have or people can't type."""
    return "-".join(re.findall(r"\w+", contender))


def _ratio(value: float, first: float) -> str:
    return f"{value / first:.2f}" if value and first else "-"
