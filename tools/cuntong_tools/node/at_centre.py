"""The commands at the centre above: `accept`, `reject`, `renew`, `remove` and `list`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from cuntong_daemon.control.client import call
from cuntong_daemon.control.sockets import ControlError
from cuntong_daemon.files import write_atomically
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.ca import RENEW_BEFORE
from cuntong_daemon.pki.issued import NodeRecord, install_renewal
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import (
    MAX_REQUEST_BYTES,
    EnrolmentError,
    Refusal,
    Request,
    decode_request,
    encode_refusal,
    fingerprint,
    load_public_key,
    spki_sha256,
)
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import metadata_path
from cuntong_tools.client import data_option
from cuntong_tools.output import console, print_json
from cuntong_tools.secrets import key_ring, keys_option, passphrase_option

from .centre import Centre, check_below, open_centre
from .members import accept, removable, remove, renew, renewable
from .packs import collect, make_pack_record, network_fingerprint
from .showing import DIVISION, FILE, FOLDER, facts, request_facts, say, table


def now_utc() -> datetime:
    return datetime.now(UTC)


@click.command(
    name="accept",
    help=_("Take the node of a REQUEST in, and write its pack.")
    + "\n\n"
    + _("Do this after the acceptance on site. Needs the keys 'ca' and 'enrolment'."),
)
@click.argument("file", metavar="REQUEST", type=FILE)
@keys_option
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar=_("[CODE=]HOST:PORT"),
    help=_("Where the node dials its parent; give it again for further ones, in their order."),
)
@click.option(
    "--name", default="", metavar=_("TEXT"), help=_("The place's name; the site if not given.")
)
@click.option(
    "--receive-only",
    "receives_only",
    is_flag=True,
    help=_("The node only receives, by satellite or disk: it has no way back."),
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar=_("RANGE"),
    help=_("An address range of the VPN, such as 10.0.0.0/8; this centre's if not given."),
)
@click.option(
    "--vpn-shape",
    type=click.Choice(["mesh", "hub"]),
    help=_("How the VPN joins the places below; the tier's usual one if not given."),
)
@click.option(
    "--output",
    type=FOLDER,
    default=".",
    metavar=_("DIR"),
    help=_("Where to write the pack, for example a memory stick; this folder if not given."),
)
@click.option("--yes", "is_sure", is_flag=True, help=_("Don't ask whether all is right."))
@passphrase_option
@data_option
def accept_command(
    paths: DataPaths,
    file: Path,
    keys: tuple[Path, ...],
    addresses: tuple[str, ...],
    name: str,
    receives_only: bool,
    networks: tuple[str, ...],
    vpn_shape: str | None,
    output: Path,
    is_sure: bool,
    passphrase_fd: int | None,
) -> None:
    centre = open_centre(paths)
    request = _read_request(file)
    code = Division(request.code)
    check_below(centre, code)
    record = make_pack_record(
        centre,
        request,
        addresses,
        name=name,
        receives_only=receives_only,
        networks=networks,
        vpn_shape=vpn_shape,
    )
    shown = request_facts(request)
    shown[1:1] = [(_("Before"), _status_before(centre, request))]
    if record.receives_only:
        shown.append((_("Parents"), _("none: it only receives")))
    else:
        parents = ", ".join(f"{parent.code} ({parent.address})" for parent in record.parents)
        shown.append((_("Parents"), parents or _("none")))
    shown.append((_("Networks"), ", ".join(record.networks)))
    shown.append((_("Certificate"), _("15 months, issued by {authority}", authority=centre.code)))
    facts(shown)
    _confirm(_("Is this the node that was accepted on site?"), is_sure)
    pack = accept(
        centre,
        code,
        load_public_key(request.public_key),
        record,
        key_ring(keys, passphrase_fd),
        now=now_utc(),
    )
    target = output / f"{code}.pack"
    write_atomically(target, pack)
    say(_("Accepted {node}. Written: {file}", node=code, file=str(target)))
    say(
        _(
            "The network's fingerprint is {fingerprint}: on the node, 'node enrol' must show the same.",
            fingerprint=_network_fingerprint(centre, code),
        )
    )
    _tell_daemon(paths)


@click.command(name="reject", help=_("Refuse a REQUEST and write a file that tells the node why."))
@click.argument("file", metavar="REQUEST", type=FILE)
@click.option("--reason", required=True, metavar=_("TEXT"), help=_("Why; people there read it."))
@click.option(
    "--output",
    type=FOLDER,
    default=".",
    metavar=_("DIR"),
    help=_("Where to write the refusal; this folder if not given."),
)
@data_option
def reject_command(paths: DataPaths, file: Path, reason: str, output: Path) -> None:
    centre = open_centre(paths)
    request = _read_request(file)
    refusal = Refusal(
        code=request.code,
        spki=spki_sha256(load_public_key(request.public_key)),
        by=str(centre.code),
        at=int(now_utc().timestamp()),
        reason=_one_line(reason),
    )
    target = output / f"{request.code}.refusal"
    write_atomically(target, encode_refusal(refusal).encode())
    say(_("Refused {node}. Written: {file}", node=request.code, file=str(target)))
    say(_("There, 'cuntong node enrol {name}' shows the reason.", name=target.name))


@click.command(
    name="renew",
    help=_("Issue new certificates for nodes.")
    + "\n\n"
    + _(
        "Give the nodes, or --due for all that are due. Certificates last 15 months and are due 90 days before their end. Connected nodes get the new one over the link; others need a pack (--output)."
    ),
)
@click.argument("codes", metavar="[CODE]…", nargs=-1, type=DIVISION)
@click.option("--due", "is_due", is_flag=True, help=_("All nodes that are due."))
@keys_option
@click.option(
    "--output",
    type=FOLDER,
    metavar=_("DIR"),
    help=_("Also write a pack for each node into this folder, for nodes without a link."),
)
@click.option("--yes", "is_sure", is_flag=True, help=_("Don't ask whether all is right."))
@passphrase_option
@data_option
def renew_command(
    paths: DataPaths,
    codes: tuple[Division, ...],
    is_due: bool,
    keys: tuple[Path, ...],
    output: Path | None,
    is_sure: bool,
    passphrase_fd: int | None,
) -> None:
    centre = open_centre(paths)
    now = now_utc()
    if not codes and not is_due:
        raise EnrolmentError(
            "node.renew-what",
            N_("Say which nodes: their codes, or --due for all whose certificates end soon."),
            fault=Fault.USAGE,
        )
    wanted = list(dict.fromkeys((*codes, *(_due(centre, now) if is_due else ()))))
    if not wanted:
        say(_("No certificate ends within {days} days.", days=RENEW_BEFORE.days))
        return
    shown = table(_("Node"), _("Site"), _("Ends"))
    for code in wanted:
        ends = renewable(centre, code).not_valid_after_utc
        shown.add_row(code, _title(centre.issued.record(code)), ends.date().isoformat())
    console().print(shown)
    question = ngettext("Renew this certificate?", "Renew these {count} certificates?", len(wanted))
    _confirm(question, is_sure)
    for renewed in renew(centre, wanted, key_ring(keys, passphrase_fd), now=now):
        if renewed.node == centre.code:
            _renew_own(centre)
        if output is not None:
            write_atomically(output / f"{renewed.node}.pack", renewed.pack)
        say(
            _(
                "Renewed {node} until {date}.",
                node=renewed.node,
                date=renewed.ends.date().isoformat(),
            )
        )
    _tell_daemon(paths)


@click.command(
    name="remove",
    help=_("Remove the node CODE: from now on nobody serves it.")
    + "\n\n"
    + _("To take it in again, accept a request of it."),
)
@click.argument("code", type=DIVISION)
@click.option("--reason", required=True, metavar=_("TEXT"), help=_("Why; people there read it."))
@keys_option
@click.option("--yes", "is_sure", is_flag=True, help=_("Don't ask whether all is right."))
@passphrase_option
@data_option
def remove_command(
    paths: DataPaths,
    code: Division,
    reason: str,
    keys: tuple[Path, ...],
    is_sure: bool,
    passphrase_fd: int | None,
) -> None:
    centre = open_centre(paths)
    line = removable(centre, code)
    reason = _one_line(reason)
    facts(
        [
            (_("Node"), f"{code} {_title(centre.issued.record(code))}".strip()),
            (_("Member since"), line.since.isoformat()),
            (_("Key"), fingerprint(line.spki)),
            (_("Reason"), reason),
        ]
    )
    _confirm(_("Remove this node?"), is_sure)
    remove(centre, code, reason, key_ring(keys, passphrase_fd), now=now_utc())
    say(_("Removed {node}.", node=code))
    _tell_daemon(paths)


@click.command(name="list", help=_("List the nodes that this centre has taken in."))
@click.option("--json", "is_json", is_flag=True, help=_("For programs."))
@data_option
def list_command(paths: DataPaths, is_json: bool) -> None:
    centre = open_centre(paths)
    now = now_utc()
    rows = [_row(centre, code, now) for code in sorted(centre.members.members)]
    if is_json:
        print_json(rows)
        return
    if not rows:
        say(_("No node has been taken in yet. See: cuntong node accept --help"))
        return
    words = {
        "active": _("active"),
        "due": _("renew soon"),
        "expired": _("expired"),
        "removed": _("removed"),
    }
    shown = table(_("Node"), _("Site"), _("Since"), _("Until"), _("State"))
    for row in rows:
        shown.add_row(row["code"], row["title"], row["since"], row["until"], words[row["state"]])
    console().print(shown)
    for row in rows:
        if row["reason"]:
            say(
                _(
                    "{node} was removed on {date}: {reason}",
                    node=row["code"],
                    date=row["since"],
                    reason=row["reason"],
                )
            )


def _read_request(file: Path) -> Request:
    with file.open("rb") as stream:
        data = stream.read(4 * MAX_REQUEST_BYTES + 1)
    return decode_request(data.decode("ascii", "replace"))


def _status_before(centre: Centre, request: Request) -> str:
    line = centre.members.members.get(Division(request.code))
    if line is None:
        return _("new here")
    if not line.is_active:
        return _("removed on {date}: {reason}", date=line.since.isoformat(), reason=line.reason)
    if line.spki != spki_sha256(load_public_key(request.public_key)):
        return _("taken in with ANOTHER KEY, which this one replaces")
    return _("taken in already with this key")


def _due(centre: Centre, now: datetime) -> list[Division]:
    found = []
    for code in centre.issued.codes():
        chain = centre.issued.chain(code)
        line = centre.members.members.get(code)
        is_active = line is not None and line.is_active
        if is_active and chain and chain[0].not_valid_after_utc - now <= RENEW_BEFORE:
            found.append(code)
    return found


def _renew_own(centre: Centre) -> None:
    """A centre's own node needs nobody to bring it its certificate."""
    pem = (centre.issued.folder / f"{centre.code}.pem").read_bytes()
    try:
        install_renewal(centre.paths.keys, pem)
    except EnrolmentError as error:
        if error.code not in {"node.not-enrolled", "node.foreign-certificate"}:
            raise  # Its node may run on another computer.


def _row(centre: Centre, code: Division, now: datetime) -> dict[str, Any]:
    line = centre.members.members[code]
    record = centre.issued.record(code)
    days = line.until - now.date()
    if not line.is_active:
        state = "removed"
    elif days < timedelta(0):
        state = "expired"
    else:
        state = "due" if days <= RENEW_BEFORE else "active"
    return {
        "code": str(code),
        "title": _title(record),
        "contact": record.contact,
        "state": state,
        "since": line.since.isoformat(),
        "until": line.until.isoformat(),
        "reason": line.reason,
        "key": fingerprint(line.spki),
        "receives_only": record.receives_only,
    }


def _title(record: NodeRecord) -> str:
    return record.name or record.site


def _network_fingerprint(centre: Centre, code: Division) -> str:
    root = collect(centre, code)[metadata_path(NATION, "root", 1)]
    return network_fingerprint(root, centre.ca_chain[-1])


def _tell_daemon(paths: DataPaths) -> None:
    try:
        call(paths.socket, "authority.changed")
    except ControlError as error:
        if error.code != "control.no-daemon":
            raise
        say(_("No daemon runs here now; it will take this up when it starts."))


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    if not 0 < len(text) <= 300 or not text.isprintable():
        raise EnrolmentError(
            "node.bad-reason",
            N_("The reason must be one line of 1 to 300 characters."),
            fault=Fault.USAGE,
        )
    return text


def _confirm(question: str, is_sure: bool) -> None:
    if not is_sure:
        click.confirm(question, abort=True, err=True)
