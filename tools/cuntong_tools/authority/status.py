"""`cuntong authority status`: what is in force, what ends when, what waits."""

from __future__ import annotations

import datetime as dt
from typing import Any

import click

from cuntong_daemon.authority.documents import Authority
from cuntong_daemon.authority.endorsement import REQUEST, read_request
from cuntong_daemon.authority.keys import AuthorityError
from cuntong_daemon.authority.publishing import pending_listings, pending_promotion
from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.authority.rotation import expiries
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import load_chain, network_fingerprint
from cuntong_protocol.divisions import NATION
from cuntong_protocol.trust.custom import format_time
from cuntong_protocol.trust.names import TIMESTAMP
from cuntong_tools.client import data_option
from cuntong_tools.output import print_json

from .common import now, repository_of, say, show_facts

REMIND_BEFORE = dt.timedelta(days=60)
"""Long enough to bring the sticks together."""
TIMESTAMP_ALARM = dt.timedelta(days=3)
"""The daemon signs daily; a village sees "stale" only after 30 days, so tell the centre long before."""


@click.command(name="status", help=_("Show what is in force, what ends when, and what waits."))
@click.option("--json", "as_json", is_flag=True, help=_("As JSON, for programs."))
@data_option
def status(as_json: bool, paths: DataPaths) -> None:
    facts = gather(repository_of(paths), now())
    if as_json:
        print_json(facts)
        return
    _show(facts)


def gather(repository: AuthorityRepository, moment: dt.datetime) -> dict[str, Any]:
    """The status as plain values: dates as texts, reminders as sentences in the user's language.

    Raises:
        AuthorityError: as `AuthorityRepository.load`.
    """
    current = repository.load()
    pending = pending_promotion(repository, current)
    ends = expiries(current)
    endorsement = current.settings.endorsement
    return {
        "code": str(current.code),
        "name": current.settings.name,
        "tier": current.code.tier.label,
        "fingerprint": shown_fingerprint(repository),
        "signed_at": format_time(current.signed_at),
        "versions": {
            "root": current.root.signed.version,
            TIMESTAMP: current.timestamp.signed.version,
            "snapshot": current.snapshot.signed.version,
            **{name: role.signed.version for name, role in current.roles.items()},
        },
        "expires": {name: format_time(end) for name, end in ends.items()},
        "endorsement": None
        if endorsement is None
        else {
            "parent": endorsement.parent,
            "epoch": endorsement.epoch,
            "until": endorsement.until.isoformat(),
        },
        "endorsed": [
            {"code": str(code), **(target.custom or {})}
            for code, target in sorted(current.endorsed().items())
        ],
        "bundles": len(current.listings()),
        "promoted": len(current.promoted()),
        "pending": []
        if pending is None
        else [
            {"id": bundle, "revision": listing.revision, "signed": len(pending.signatures)}
            for bundle, listing in sorted(pending_listings(current, pending).items())
        ],
        "reminders": reminders(current, ends, moment),
    }


def shown_fingerprint(repository: AuthorityRepository) -> str:
    """What stands on the paper form: the nation's is that of the whole network, which every node compares."""
    try:
        if repository.load().code == NATION:
            root = (repository.path / "metadata" / "1.root.json").read_bytes()
            anchor = load_chain((repository.path / "ca.pem").read_bytes())[-1]
            return network_fingerprint(root, anchor)
        return read_request(repository.path / REQUEST).fingerprint
    except AuthorityError:
        return ""


def reminders(current: Authority, ends: dict[str, dt.datetime], moment: dt.datetime) -> list[str]:
    """What somebody should do soon."""
    found = []
    if moment - current.signed_at > TIMESTAMP_ALARM:
        found.append(
            _(
                "The timestamp was signed last on {date}: is the daemon running?",
                date=format_time(current.signed_at),
            )
        )
    soon = [
        name for name, end in ends.items() if name != TIMESTAMP and end - moment < REMIND_BEFORE
    ]
    if soon:
        first = min(ends[name] for name in soon)
        found.append(
            _(
                "{names} end on {date}: bring the sticks together and run cuntong authority renew.",
                names=", ".join(soon),
                date=first.date().isoformat(),
            )
        )
    own = current.settings.endorsement
    if current.code.parent is not None and own is None:
        found.append(_("Not endorsed yet: take the request to the authority above."))
    elif own is not None and own.until - moment.date() < REMIND_BEFORE:
        found.append(
            _(
                "The endorsement by {parent} ends on {date}: ask for a new one.",
                parent=own.parent,
                date=own.until.isoformat(),
            )
        )
    for code, target in sorted(current.endorsed().items()):
        until = dt.date.fromisoformat(target.custom["until"])
        if until - moment.date() < REMIND_BEFORE:
            found.append(
                _(
                    "The endorsement of {child} ends on {date}: inspect it and endorse it again.",
                    child=code,
                    date=until.isoformat(),
                )
            )
    return found


def _show(facts: dict[str, Any]) -> None:
    endorsement = facts["endorsement"]
    rows = [
        (_("Place"), f"{facts['name']} ({facts['code']}, {facts['tier']})"),
        (_("Fingerprint"), facts["fingerprint"]),
        (_("Signed last"), facts["signed_at"]),
        (_("Bundles"), str(facts["bundles"])),
        (_("Promoted"), str(facts["promoted"])),
    ]
    if endorsement:
        rows.append((_("Endorsed by"), f"{endorsement['parent']}, {endorsement['until']}"))
    show_facts(_("Authority"), rows)
    versions = facts["versions"]
    show_facts(
        _("Ends on"),
        [
            (name, f"{end[:10]}" + (f"  (v{versions[name]})" if name in versions else ""))
            for name, end in facts["expires"].items()
        ],
    )
    if facts["endorsed"]:
        show_facts(
            _("Endorses"),
            [
                (
                    child["code"],
                    _("epoch {epoch}, until {date}", epoch=child["epoch"], date=child["until"]),
                )
                for child in facts["endorsed"]
            ],
        )
    for entry in facts["pending"]:
        say(
            ngettext(
                "{id} waits for another reviewer: {count} signature so far.",
                "{id} waits for another reviewer: {count} signatures so far.",
                entry["signed"],
                id=entry["id"],
            )
        )
    for reminder in facts["reminders"]:
        say("! " + reminder)
