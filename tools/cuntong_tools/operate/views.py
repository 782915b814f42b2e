"""What the operators' commands show: from the daemon's answers to rich renderables, for 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cuntong_daemon.control.messages import (
    AuthorityStatus,
    BundleStatus,
    Detail,
    EntrySummary,
    Happening,
    Status,
    Why,
)
from cuntong_daemon.i18n import _, ngettext
from cuntong_protocol.divisions import Tier
from cuntong_protocol.texts import N_
from cuntong_tools.datacast.views import satellite_rows
from cuntong_tools.output import (
    format_bytes,
    format_date,
    format_duration,
    format_percent,
    format_rate,
    format_time,
    say,
)

from .bandwidth_views import bandwidth_problems, bandwidth_rows
from .tables import pairs

BAR_COLUMNS = 8
MAX_SHOWN = 40
"""Bundles and children in one status; the rest is counted."""

TIER_NAMES = {
    "nation": N_("nation"),
    "province": N_("province"),
    "city": N_("city"),
    "county": N_("county"),
    "township": N_("township"),
    "village": N_("village"),
}
BUNDLE_STATES = {
    "waiting": N_("waiting"),
    "downloading": N_("downloading"),
    "unpacking": N_("unpacking"),
    "complete": N_("complete"),
    "repairing": N_("repairing"),
    "paused": N_("paused"),
    "removing": N_("removing"),
}
PARENT_STATES = {
    "none": N_("no parent: this is the top"),
    "connecting": N_("connecting"),
    "connected": N_("connected"),
    "refused": N_("refused"),
    "unreachable": N_("unreachable"),
}
AUTHORITY_STATES = {
    "fresh": N_("up to date"),
    "stale": N_("stale"),
    "refused": N_("refused"),
    "unknown": N_("not seen yet"),
}
TERM_NAMES = {
    "creator": N_("Creator"),
    "contributor": N_("Contributor"),
    "publisher": N_("Publisher"),
    "subject": N_("Subject"),
    "description": N_("Description"),
    "type": N_("Type"),
    "format": N_("Format"),
    "identifier": N_("Identifier"),
    "source": N_("Source"),
    "relation": N_("Relation"),
    "coverage": N_("Coverage"),
    "rights": N_("Rights"),
}
LICENCE_KINDS = {"open": N_("open"), "restricted": N_("restricted")}
STATE_STYLES = {
    "complete": "green",
    "connected": "green",
    "fresh": "green",
    "refused": "red",
    "paused": "red",
    "unreachable": "yellow",
    "stale": "yellow",
    "repairing": "yellow",
}
# How much a state wants the operator's eye.
_STATE_ORDER = (
    "paused",
    "repairing",
    "downloading",
    "unpacking",
    "removing",
    "waiting",
    "complete",
)


def status_view(status: Status) -> RenderableType:
    """All of a status: problems first, since they ask for something."""
    problems = list(status.problems)
    if status.bandwidth is not None:
        problems += bandwidth_problems(status.bandwidth)
    parts: list[RenderableType] = [Text(f"! {say(problem)}", "bold red") for problem in problems]
    parts.append(_overview(status))
    if status.bundles:
        parts += [Text(""), _bundles(status.bundles)]
    if status.children:
        parts += [Text(""), _children(status)]
    for heading, happenings in (
        (_("Repairs"), status.repairs),
        (_("Notices"), status.notices),
    ):
        if happenings:
            parts += [Text(""), Text(heading, "bold"), events_view(happenings)]
    return Group(*parts)


def why_view(why: Why) -> RenderableType:
    """What was decided about a bundle, and the reasons."""
    heading = _("wanted") if why.wanted else _("not wanted")
    lines = [
        Text(f"{why.id}  {why.title}", "bold"),
        Text(_("This bundle is {what} here.", what=heading)),
    ]
    if why.state:
        lines.append(Text(_("State: {state}", state=_(BUNDLE_STATES.get(why.state, why.state)))))
    lines += [Text(f"- {say(reason)}") for reason in why.reasons]
    return Group(*lines)


def entries_view(entries: Sequence[EntrySummary]) -> RenderableType:
    """The catalogue: the title, and below it the ID in one piece, so that it can be copied."""
    table = _table()
    table.add_column(_("Bundle"), overflow="fold", ratio=1)
    table.add_column(_("Size"), justify="right", no_wrap=True)
    table.add_column(_("State"), no_wrap=True)
    for entry in entries:
        state = _state(entry.state, BUNDLE_STATES) if entry.state else Text("")
        if entry.ordered:
            state = Text.assemble(state, " " if entry.state else "", (_("ordered"), "cyan"))
        name = Text.assemble(entry.title, "\n", (entry.id, "dim"))
        table.add_row(name, format_bytes(entry.content_size), state)
    return table


def detail_view(detail: Detail) -> RenderableType:
    """One bundle with its signed metadata."""
    summary, metadata = detail.summary, detail.metadata
    rows: list[tuple[str, str]] = [
        ("ID", summary.id),
        (_("Title"), summary.title),
        (_("Revision"), str(summary.revision)),
        (_("Date"), summary.date),
        (_("Category"), summary.category),
        (_("Languages"), ", ".join(summary.languages)),
        (
            _("Size"),
            ngettext(
                "{size} in {count} file, {payload} to fetch",
                "{size} in {count} files, {payload} to fetch",
                detail.file_count,
                size=format_bytes(summary.content_size),
                payload=format_bytes(summary.payload_size),
            ),
        ),
        (_("Listed by"), ", ".join(detail.listed_by)),
    ]
    rows += [
        (_(TERM_NAMES.get(name, name)), _words(value))
        for name, value in _dict(metadata.get("terms")).items()
    ]
    audience, licence = _dict(metadata.get("audience")), _dict(metadata.get("licence"))
    release = _dict(metadata.get("release"))
    kind = str(licence.get("kind", "open"))
    tiers = [_(TIER_NAMES.get(tier, tier)) for tier in _list(audience.get("tiers"))]
    rows += [
        (_("For tiers"), ", ".join(tiers)),
        (_("For places"), _words(audience.get("scope"))),
        (_("For groups"), _words(audience.get("groups"))),
        (_("Licence"), _words([_(LICENCE_KINDS.get(kind, kind)), licence.get("text")])),
        (_("Licence until"), _words(licence.get("until"))),
        (_("Release"), _words(release.get("name"))),
        (
            _("Deadlines"),
            ", ".join(
                f"{_(TIER_NAMES.get(tier, tier))} {day}"
                for tier, day in _dict(release.get("deadlines")).items()
            ),
        ),
        (_("State"), _(BUNDLE_STATES.get(summary.state, summary.state)) if summary.state else ""),
        (_("Reason"), say(detail.reason)),
        (_("Infohash"), detail.infohash),
    ]
    return pairs([(name, Text(value)) for name, value in rows if value])


def events_view(happenings: Sequence[Happening]) -> RenderableType:
    """What happened, the latest last, so that it stands next to the prompt."""
    table = Table.grid(padding=(0, 2), expand=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    # The daemon tells the latest first; those of the same second keep their order.
    latest_last = happenings[::-1]
    for happening in sorted(latest_last, key=lambda happening: happening.at):
        table.add_row(format_time(happening.at), say(happening.text))
    return table


def _overview(status: Status) -> RenderableType:
    node, parent, swarm, store = status.node, status.parent, status.swarm, status.store
    tier = _(TIER_NAMES.get(node.tier, node.tier))
    up = _("up for {duration}", duration=format_duration(node.uptime_s))
    title = Text.assemble((f"{node.name} {node.code}".strip(), "bold"), f"  {tier}, {up}")
    rows: list[tuple[str, Text]] = [(_("Node"), title)]
    link = _state(parent.state, PARENT_STATES)
    if parent.state == "none" and node.tier != Tier.NATION.label:
        link = Text(_("none: it only receives"))
    if parent.code:
        link = Text.assemble(link, f"  {parent.code} {parent.address}")
    if parent.since:
        link = Text.assemble(link, "  ", _("since {time}", time=format_time(parent.since)))
    if parent.fallback:
        link = Text.assemble(link, " ", (_("(fall-back)"), "yellow"))
    rows.append((_("Parent"), link))
    if parent.refusal is not None:
        rows.append(("", Text(say(parent.refusal), "red")))
    rows += [
        (_("Authority") if number == 0 else "", _authority(authority))
        for number, authority in enumerate(status.authorities)
    ]
    used = _(
        "{used} used, {free} free", used=format_bytes(store.used), free=format_bytes(store.free)
    )
    if store.quota:
        used += ", " + _("quota {quota}", quota=format_bytes(store.quota))
    rows.append((_("Store"), Text(used)))
    traffic = _(
        "in {down} ({down_rate}), out {up} ({up_rate})",
        down=format_bytes(swarm.down_total),
        down_rate=format_rate(swarm.down_rate),
        up=format_bytes(swarm.up_total),
        up_rate=format_rate(swarm.up_rate),
    )
    rows.append((_("Traffic"), Text(traffic)))
    if status.bandwidth is not None:
        rows += bandwidth_rows(status.bandwidth)
    if status.datacast is not None:
        rows += satellite_rows(status.datacast)
    return pairs(rows)


def _authority(authority: AuthorityStatus) -> Text:
    text = Text.assemble(
        f"{authority.name} {authority.code}".strip(),
        "  ",
        _state(authority.state, AUTHORITY_STATES),
    )
    if authority.stale_since:
        text = Text.assemble(text, " ", _("since {time}", time=format_date(authority.stale_since)))
    elif authority.signed_at:
        text = Text.assemble(text, "  ", _("signed {time}", time=format_time(authority.signed_at)))
    if authority.problem is not None:
        text = Text.assemble(text, "\n", (say(authority.problem), "red"))
    return text


def _bundles(bundles: Sequence[BundleStatus]) -> RenderableType:
    table = _table()
    table.add_column(_("Bundle"), overflow="fold", ratio=1)
    table.add_column(_("State"), no_wrap=True)
    table.add_column("", no_wrap=True, width=BAR_COLUMNS)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column(_("In"), justify="right", no_wrap=True)
    table.add_column(_("Out"), justify="right", no_wrap=True)
    # Within a state the daemon's order stands: it is the queue.
    ordered = sorted(bundles, key=lambda bundle: _STATE_ORDER.index(bundle.state))
    for bundle in ordered[:MAX_SHOWN]:
        name = Text(bundle.title or bundle.id)
        if bundle.revision > 1:
            name.append(f" r{bundle.revision}", "dim")
        if bundle.state != "complete":
            if bundle.title:
                name.append(f"\n{bundle.id}", "dim")
            if bundle.deadline:
                name.append("\n" + _("due {time}", time=format_date(bundle.deadline)), "dim")
            if bundle.reason is not None:
                name.append(f"\n{say(bundle.reason)}", "dim")
        table.add_row(
            name,
            _state(bundle.state, BUNDLE_STATES),
            _bar(bundle.progress),
            format_percent(bundle.progress),
            format_rate(bundle.down_bytes_s),
            format_rate(bundle.up_bytes_s),
        )
    if len(bundles) <= MAX_SHOWN:
        return table
    rest = len(bundles) - MAX_SHOWN
    more = ngettext("and {count} bundle more (--json)", "and {count} bundles more (--json)", rest)
    return Group(table, Text(more, "dim"))


def _children(status: Status) -> RenderableType:
    connected = sum(child.connected for child in status.children)
    heading = ngettext(
        "{count} child, {connected} connected",
        "{count} children, {connected} connected",
        len(status.children),
        connected=connected,
    )
    table = _table()
    table.add_column(_("Child"), no_wrap=True)
    table.add_column(_("Link"), no_wrap=True)
    table.add_column(_("Bundles complete"), justify="right")
    ordered = sorted(status.children, key=lambda child: (child.connected, child.code))
    for child in ordered[:MAX_SHOWN]:
        link = _("connected") if child.connected else _("away")
        style = "green" if child.connected else "yellow"
        table.add_row(child.code, Text(link, style), str(child.bundles_done))
    return Group(Text(heading, "bold"), table)


def _bar(progress: float) -> Text:
    full = int(max(0.0, min(progress, 1.0)) * BAR_COLUMNS)
    return Text.assemble(("━" * full, "green"), ("━" * (BAR_COLUMNS - full), "bright_black"))


def _state(state: str, names: dict[str, str]) -> Text:
    return Text(_(names.get(state, state)), STATE_STYLES.get(state, ""))


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=False)


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[str]:
    return [str(item) for item in value if item] if isinstance(value, list) else []


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_list(value))
    return "" if value is None else str(value)
