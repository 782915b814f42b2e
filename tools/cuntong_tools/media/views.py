"""What came by post, what is known of other places, and what a receipt says: from the daemon's answers to 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cuntong_daemon.control.media_messages import (
    ImportedBundle,
    ImportedCatalogue,
    ImportedVolume,
    ImportResult,
    ImportState,
    ImportStep,
    MediaStatus,
    PlaceKnown,
    SetSeen,
    TakenReceipt,
)
from cuntong_daemon.i18n import _, ngettext
from cuntong_protocol.media.papers import Statistics
from cuntong_protocol.texts import N_
from cuntong_tools.operate.tables import pairs
from cuntong_tools.output import format_bytes, format_date, format_time, say

MAX_SHOWN = 20
"""Of what went well, in one table; the rest is counted. What didn't is always shown."""
MAX_PLACES = 40
MAX_ORDERS = 10
MAX_RUNS = 30
"""Of numbers of volumes."""

PHASE_NAMES = {
    "waiting": N_("waiting for another import to end"),
    "looking": N_("looking for volumes"),
    "catalogue": N_("checking the catalogue"),
    "reading": N_("reading"),
    "checking": N_("checking what was written"),
}
BUNDLE_STATES: dict[ImportState, str] = {
    "refused": N_("refused"),
    "partial": N_("in part"),
    "unknown": N_("not listed"),
    "complete": N_("complete"),
    "offered": N_("kept for later"),
    "here": N_("was here"),
    "unwanted": N_("not wanted"),
}
"""In the order in which they are shown."""
STATE_STYLES = {"refused": "red", "partial": "yellow", "unknown": "yellow", "complete": "green"}
PROBLEMS = ("refused", "partial", "unknown")

T = TypeVar("T")


# Importing.


def step_texts(step: ImportStep) -> tuple[str, str]:
    """How far an import is: a line for the volume, and one for the bundle, which may be empty."""
    phase = _(PHASE_NAMES.get(step.phase, step.phase))
    name = step.folder
    if step.number and step.count:
        name = _("Volume {number} of {count}", number=step.number, count=step.count)
    volume = _("{volume}: {phase}", volume=name, phase=phase) if name else phase
    return volume, clean(step.title or step.id)


def import_view(result: ImportResult) -> RenderableType:
    """What was found on a medium, and what became of it; what is to do stands at the end, next to the prompt."""
    parts: list[RenderableType] = []
    parts += _first(result.volumes, _volume, lambda volume: volume.problem is not None)
    parts += [_catalogue(catalogue) for catalogue in result.catalogues]
    parts += _first(result.receipts, _found_receipt, lambda receipt: receipt.problem is not None)
    if result.bundles:
        parts += [Text(""), _bundles(result.bundles), Text("")]
        parts.append(Text(_sum(result.bundles)))
    if result.bytes_bad:
        text = _(
            "{read} read; {bad} of it is damaged.",
            read=format_bytes(result.bytes_read),
            bad=format_bytes(result.bytes_bad),
        )
        parts.append(Text(text, "yellow"))
    partial = sum(bundle.state == "partial" for bundle in result.bundles)
    if partial:
        text = ngettext(
            "What {count} bundle still lacks comes by itself: over the network, by satellite or with another volume.",
            "What {count} bundles still lack comes by itself: over the network, by satellite or with another volume.",
            partial,
        )
        parts.append(Text(text))
    parts += [_missing(seen) for seen in result.sets if seen.missing]
    parts += [Text(f"! {say(problem)}", "bold red") for problem in result.problems]
    if result.receipt_file:
        text = _(
            "The receipt was written onto the medium: {file}. Send it back with the medium.",
            file=result.receipt_file,
        )
        parts.append(Text(text))
    elif result.receipt_problem is not None:
        parts.append(
            Text(
                _(
                    "No receipt was written onto the medium: {reason}",
                    reason=say(result.receipt_problem),
                ),
                "yellow",
            )
        )
    return Group(*parts)


def is_of_use(result: ImportResult) -> bool:
    """Whether anything on a medium was taken, or was here already."""
    return (
        any(catalogue.state in {"taken", "known", "older"} for catalogue in result.catalogues)
        or any(
            bundle.bytes_taken or bundle.state in {"complete", "here", "offered"}
            for bundle in result.bundles
        )
        or any(receipt.problem is None for receipt in result.receipts)
    )


def _volume(volume: ImportedVolume) -> Text:
    if volume.number and volume.count:
        text = Text(
            _(
                "Volume {number} of {count} from {by}, {date}, set {serial}",
                number=volume.number,
                count=volume.count,
                by=volume.by,
                date=format_date(volume.made_at),
                serial=volume.serial,
            )
        )
    else:
        text = Text(_("Volume {folder}", folder=volume.folder))
    if volume.is_refused:
        text = Text.assemble(text, " ", (_("(refused)"), "red"))
    if volume.problem is not None:
        style = "red" if volume.is_refused else "yellow"
        text = Text.assemble(text, "\n  ", (say(volume.problem), style))
    return text


def _catalogue(catalogue: ImportedCatalogue) -> Text:
    params: dict[str, str | int] = {
        "authority": catalogue.authority,
        "version": catalogue.version,
        "here": catalogue.version_here,
    }
    match catalogue.state:
        case "taken":
            text = Text(_("Catalogue of {authority}: taken, version {version}", **params), "green")
        case "known":
            text = Text(_("Catalogue of {authority}: version {version} was here", **params))
        case "older":
            text = Text(
                _(
                    "Catalogue of {authority}: version {version} is older than {here}, which is here and stays",
                    **params,
                )
            )
        case "foreign":
            text = Text(_("Catalogue of {authority}: not followed here, so left", **params))
        case "refused":
            text = Text(_("Catalogue of {authority}: refused", **params), "red")
    if catalogue.problem is not None:
        style = "red" if catalogue.state == "refused" else "yellow"
        text = Text.assemble(text, "\n  ", (say(catalogue.problem), style))
    return text


def _found_receipt(receipt: TakenReceipt) -> Text:
    if receipt.problem is not None:
        name = receipt.file or receipt.code
        return Text.assemble(
            _("Receipt {file}: not taken", file=name), "\n  ", (say(receipt.problem), "red")
        )
    return Text(
        ngettext(
            "Receipt {number} of {code}: taken, {count} bundle there",
            "Receipt {number} of {code}: taken, {count} bundles there",
            receipt.payloads,
            number=receipt.number,
            code=receipt.code,
        ),
        "green",
    )


def _bundles(bundles: Sequence[ImportedBundle]) -> RenderableType:
    table = _table()
    table.add_column(_("Bundle"), overflow="fold", ratio=1)
    table.add_column(_("State"), no_wrap=True)
    table.add_column(_("Taken"), justify="right", no_wrap=True)
    table.add_column(_("Missing"), justify="right", no_wrap=True)
    order = tuple(BUNDLE_STATES)
    ordered = sorted(bundles, key=lambda bundle: order.index(bundle.state))
    bad = [bundle for bundle in ordered if _is_problem(bundle)]
    good = [bundle for bundle in ordered if not _is_problem(bundle)]
    for bundle in [*bad, *good[:MAX_SHOWN]]:
        state = Text(_(BUNDLE_STATES[bundle.state]), STATE_STYLES.get(bundle.state, ""))
        if bundle.is_in_place:
            state = Text.assemble(state, "\n", _("on the medium"))
        table.add_row(
            _bundle_name(bundle),
            state,
            format_bytes(bundle.bytes_taken) if bundle.bytes_taken else "-",
            format_bytes(bundle.bytes_missing) if bundle.bytes_missing else "-",
        )
    return Group(table, *_more(len(good) - MAX_SHOWN))


def _is_problem(bundle: ImportedBundle) -> bool:
    return bundle.state in PROBLEMS or (bundle.reason is not None and bundle.state != "unwanted")


def _bundle_name(bundle: ImportedBundle) -> Text:
    """The title, and below it the ID in one piece, so that it can be copied; what no catalogue lists has only a hash."""
    identifier = clean(bundle.id or bundle.infohash)
    name = Text(identifier)
    if bundle.title:
        name = Text.assemble(clean(bundle.title), "\n", (identifier, "dim"))
    if bundle.reason is not None:
        name.append(f"\n{say(bundle.reason)}", STATE_STYLES.get(bundle.state, "dim"))
    return name


def _sum(bundles: Sequence[ImportedBundle]) -> str:
    counts = Counter(bundle.state for bundle in bundles)
    said = _(", ").join(
        _("{count} {what}", count=counts[state], what=_(name))
        for state, name in BUNDLE_STATES.items()
        if counts[state]
    )
    return ngettext("{count} bundle: {said}", "{count} bundles: {said}", len(bundles), said=said)


def _missing(seen: SetSeen) -> Text:
    return Text(
        ngettext(
            "Of set {serial} from {by} volume {numbers} is still to come.",
            "Of set {serial} from {by} volumes {numbers} are still to come.",
            len(seen.missing),
            serial=seen.serial,
            by=seen.by or "-",
            numbers=ranges(seen.missing),
        )
    )


# What is known.


def status_view(status: MediaStatus) -> RenderableType:
    """A running import, sets, what is held in place, and other places."""
    rows: list[tuple[str, Text]] = []
    if status.running is None:
        rows.append((_("Import"), Text(_("none is running"))))
    else:
        volume, bundle = step_texts(status.running)
        rows.append((_("Import"), Text(volume, "green")))
        if bundle:
            rows.append(("", Text(bundle)))
        if status.running.bytes_total:
            amount = _(
                "{done} of {total}",
                done=format_bytes(status.running.bytes_done),
                total=format_bytes(status.running.bytes_total),
            )
            rows.append(("", Text(amount)))
    watched = Text(_(", ").join(status.watched))
    if not status.watched:
        watched = Text(_("not set up; [media] watch in config.toml sets it"))
    rows.append((_("By itself from"), watched))
    if status.offers:
        text = ngettext(
            "{count} bundle that isn't listed for this place yet",
            "{count} bundles that aren't listed for this place yet",
            status.offers,
        )
        rows.append((_("Kept"), Text(text)))
    parts: list[RenderableType] = [pairs(rows)]
    if status.sets:
        table = _table()
        for name in (_("Set"), _("From"), _("Date"), _("Imported")):
            table.add_column(name, no_wrap=name != _("Imported"), overflow="fold")
        table.add_column(_("Still to come"), overflow="fold")
        for seen in status.sets:
            table.add_row(
                seen.serial,
                seen.by or "-",
                format_date(seen.made_at) if seen.made_at else "-",
                ranges(seen.imported),
                Text(ranges(seen.missing), "yellow" if seen.missing else ""),
            )
        parts += [Text(""), table]
    if status.in_place:
        table = _table()
        table.add_column(_("Held on a medium"), overflow="fold", ratio=1)
        table.add_column(_("Size"), justify="right", no_wrap=True)
        for held in status.in_place[:MAX_PLACES]:
            where = Text.assemble(clean(held.title or held.id), "\n", (clean(held.folder), "dim"))
            table.add_row(where, format_bytes(held.size))
        parts += [Text(""), table, *_more(len(status.in_place) - MAX_PLACES)]
    if status.places:
        table = _table()
        for name in (_("Place"), _("Known by"), _("Said at")):
            table.add_column(name, no_wrap=True)
        for name in (_("Bundles"), _("Ordered"), _("Free")):
            table.add_column(name, justify="right", no_wrap=True)
        for place in status.places[:MAX_PLACES]:
            table.add_row(
                place.code,
                _how(place),
                format_date(place.at) if place.at else "-",
                _count(place),
                str(max(place.orders_total, len(place.orders)) or "-"),
                format_bytes(place.free) if place.how else "-",
            )
        rest = len(status.places) - MAX_PLACES
        parts += [Text(""), table, *_more_places(rest)]
    return Group(*parts)


def place_view(place: PlaceKnown) -> RenderableType:
    """All that is known of a place, with what it has done."""
    rows = [(_("Place"), place.code), (_("Known by"), _how(place))]
    if place.how:
        rows += [
            (_("Said at"), format_time(place.at)),
            (_("Bundles"), _count(place)),
            (
                _("Store"),
                _(
                    "{used} used, {free} free",
                    used=format_bytes(place.used),
                    free=format_bytes(place.free),
                ),
            ),
        ]
    for number, order in enumerate(place.orders[:MAX_ORDERS]):
        rows.append((_("Ordered") if number == 0 else "", clean(order)))
    if len(place.orders) > MAX_ORDERS:
        rest = len(place.orders) - MAX_ORDERS
        rows.append(("", ngettext("and {count} more", "and {count} more", rest)))
    if place.statistics is not None:
        rows += _statistics(place.statistics)
    return pairs([(name, Text(value)) for name, value in rows])


def _statistics(statistics: Statistics) -> list[tuple[str, str]]:
    came = [
        (_("by satellite"), statistics.by_satellite),
        (_("over the network"), statistics.by_swarm),
        (_("by medium"), statistics.by_medium),
    ]
    period = _(
        "{since} to {until}",
        since=format_date(statistics.since),
        until=format_date(statistics.until),
    )
    rows = [(_("Counted"), period)]
    rows += [
        (_("Came") if number == 0 else "", f"{format_bytes(count)} {how}")
        for number, (how, count) in enumerate(came)
    ]
    rows.append((_("Passed on"), format_bytes(statistics.sent)))
    problems = clean(_(", ").join(statistics.problems)) or _("none")
    return [*rows, (_("Problems"), problems)]


def _how(place: PlaceKnown) -> str:
    if place.how == "link":
        return _("link")
    if place.how == "receipt":
        return _("receipt {number}", number=place.number)
    return _("nothing")


def _count(place: PlaceKnown) -> str:
    if not place.how:
        return "-"
    return str(place.payloads) if place.is_all else f"≥ {place.payloads}"


# Both.


def clean(text: str) -> str:
    """Names from a medium or a receipt, fit for a terminal: anybody may have chosen them."""
    return _("{text}", text=text)


def ranges(numbers: Iterable[int]) -> str:
    """`1, 3-5`; a hyphen alone when there are none, and dots after many."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    said = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    if len(said) > MAX_RUNS:
        said[MAX_RUNS:] = ["…"]
    return ", ".join(said) or "-"


def _first(
    things: Sequence[T], show: Callable[[T], Text], is_problem: Callable[[T], bool]
) -> list[RenderableType]:
    """Every problem, and some of the rest, in their order."""
    parts: list[RenderableType] = []
    shown = 0
    for thing in things:
        if is_problem(thing):
            parts.append(show(thing))
        elif shown < MAX_SHOWN:
            parts.append(show(thing))
            shown += 1
    sound = sum(not is_problem(thing) for thing in things)
    return [*parts, *_more(sound - shown)]


def _more(rest: int) -> list[RenderableType]:
    if rest <= 0:
        return []
    return [Text(ngettext("and {count} more", "and {count} more", rest), "dim")]


def _more_places(rest: int) -> list[RenderableType]:
    if rest <= 0:
        return []
    text = ngettext(
        "and {count} place more: cuntong media status CODE",
        "and {count} places more: cuntong media status CODE",
        rest,
    )
    return [Text(text, "dim")]


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=False)
