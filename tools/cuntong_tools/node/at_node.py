"""The commands at the place that becomes a node: `request` and `enrol`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from cuntong_daemon.files import write_atomically
from cuntong_daemon.i18n import _
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import KeyType
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import (
    decode_request,
)
from cuntong_tools.client import data_option

from .enrol import check_pack, enrol, read_pack
from .request import show_qr, write_request
from .showing import DIVISION, FILE, FOLDER, facts, request_facts, say


def now_utc() -> datetime:
    return datetime.now(UTC)


@click.command(
    name="request",
    help=_("Ask the parent to take this computer in as the node CODE.")
    + "\n\n"
    + _("Makes the node's key, which never leaves this computer, and writes CODE.request."),
)
@click.argument("code", type=DIVISION)
@click.option("--site", required=True, metavar=_("TEXT"), help=_("The place and its address."))
@click.option(
    "--contact", default="", metavar=_("TEXT"), help=_("Who is in charge, and telephone.")
)
@click.option(
    "--equipment", default="", metavar=_("TEXT"), help=_("Computer, disks, satellite dish.")
)
@click.option("--link", default="", metavar=_("TEXT"), help=_("Kind and rate of the link."))
@click.option(
    "--output",
    type=FOLDER,
    default=".",
    metavar=_("DIR"),
    help=_("Where to write the request, for example a memory stick; this folder if not given."),
)
@click.option("--qr", "is_qr", is_flag=True, help=_("Also show the request as a QR code."))
@click.option(
    "--qr-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar=_("FILE"),
    help=_("Also save the QR code as a PNG picture."),
)
@click.option(
    "--key-type",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    help=_("The kind of key; keep the default unless the centre says otherwise."),
)
@data_option
def request_command(
    paths: DataPaths,
    code: Division,
    site: str,
    contact: str,
    equipment: str,
    link: str,
    output: Path,
    is_qr: bool,
    qr_file: Path | None,
    key_type: KeyType,
) -> None:
    text = write_request(
        paths,
        code,
        site=site,
        contact=contact,
        equipment=equipment,
        link=link,
        kind=key_type,
        now=now_utc(),
    )
    target = output / f"{code}.request"
    write_atomically(target, text.encode())
    facts(request_facts(decode_request(text)))
    if is_qr or qr_file is not None:
        show_qr(text, qr_file)
    say(_("Written: {file}", file=str(target)))
    say(
        _(
            "Give this file to the parent, and write the key's fingerprint on the application form. When the pack comes back: cuntong node enrol PACK"
        )
    )


@click.command(
    name="enrol",
    help=_("Make this computer the node that a PACK is for.")
    + "\n\n"
    + _("The pack comes from the parent, in answer to the request made on this computer."),
)
@click.argument("file", metavar="PACK", type=FILE)
@click.option(
    "--replace", "is_replacing", is_flag=True, help=_("Replace the enrolment that is here.")
)
@click.option(
    "--nation",
    "expected",
    metavar=_("FINGERPRINT"),
    help=_("The network's fingerprint as the parent saw it; another one is refused."),
)
@click.option("--listen", metavar=_("HOST:PORT"), help=_("Where nodes below dial this one."))
@click.option("--swarm", metavar=_("HOST:PORT"), help=_("Where this node exchanges content."))
@data_option
def enrol_command(
    paths: DataPaths,
    file: Path,
    is_replacing: bool,
    expected: str | None,
    listen: str | None,
    swarm: str | None,
) -> None:
    checked = check_pack(paths, read_pack(file))
    is_renewal = enrol(
        paths,
        checked,
        is_replacing=is_replacing,
        listen=listen,
        swarm=swarm,
        fingerprint=expected,
        clock=now_utc,
    )
    pack = checked.pack
    parents = ", ".join(f"{parent.code} ({parent.address})" for parent in pack.parents)
    facts(
        [
            (_("Node"), f"{pack.code} {pack.name}".strip()),
            (_("Taken in by"), checked.authority),
            (
                _("Parents"),
                _("none: it only receives") if pack.receives_only else parents or _("none"),
            ),
            (_("Certificate"), _("until {date}", date=checked.ends.date().isoformat())),
            (_("Network"), checked.fingerprint),
        ]
    )
    if is_renewal:
        say(_("The certificate was renewed. Restart the daemon: systemctl restart cuntong"))
        return
    say(_("Enrolled. Compare the network's fingerprint with the one the parent saw."))
    say(
        _(
            "Written: {file}. Look through it, then start the daemon: systemctl start cuntong, or cuntongd --data {folder}",
            file=str(paths.config),
            folder=str(paths.root),
        )
    )
