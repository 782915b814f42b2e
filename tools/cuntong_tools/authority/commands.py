"""`cuntong authority`: keys, endorsement, rotation (SPEC 4)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click

from cuntong_daemon.authority.endorsement import (
    check_response,
    encode_request,
    encode_response,
    endorse,
    install,
    propose,
    read_request,
    read_response,
    write_file,
)
from cuntong_daemon.authority.keys import AuthorityError, key_id, new_key, sticks_keys, write_key
from cuntong_daemon.authority.publishing import require_endorsed
from cuntong_daemon.authority.rotation import (
    ONLINE,
    collect_signers,
    plan_renewal,
    plan_rotation,
    renew,
    rotate,
)
from cuntong_daemon.authority.setup import create_authority, default_plan
from cuntong_daemon.i18n import _
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import certificate_spki
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.divisions import parse_division
from cuntong_protocol.enrolment import fingerprint
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import MEMBERS, PROMOTED, TARGETS
from cuntong_tools.client import data_option
from cuntong_tools.secrets import (
    key_ring,
    keys_option,
    new_passphrase,
    passphrase_option,
    passphrase_source,
)

from .common import confirm, now, repository_of, say, show_facts, tell_daemon, yes_option
from .status import shown_fingerprint, status

TYPED_CHARS = 6
"""Of the fingerprint: enough that nobody types them without having looked at the paper form."""


@click.group(help=_("Make and keep the authority that publishes for a place."))
def authority() -> None:
    pass


@authority.command(
    name="init", help=_("Make the authority of CODE: keys on the sticks, and a request.")
)
@click.argument("code", metavar="CODE")
@click.option("--name", required=True, help=_("Name of the place, for people."))
@keys_option
@click.option("--root-keys", type=int, help=_("How many root keys; 5, 3 or 2 by tier."))
@click.option(
    "--root-threshold", type=int, help=_("How many of them must sign; 3, 2 or 1 by tier.")
)
@click.option(
    "--reviewers", type=int, default=2, show_default=True, help=_("How many reviewers' keys.")
)
@click.option(
    "--key-type", type=click.Choice(["ed25519", "p256"]), default="ed25519", show_default=True
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=_("Where the request for the parent goes; CODE.authority-request when not given."),
)
@data_option
@passphrase_option
@yes_option
def init(
    code: str,
    name: str,
    keys: tuple[Path, ...],
    root_keys: int | None,
    root_threshold: int | None,
    reviewers: int,
    key_type: str,
    output: Path | None,
    paths: DataPaths,
    passphrase_fd: int | None,
    yes: bool,
) -> None:
    division = parse_division(code)
    repository = repository_of(paths)
    repository.refuse_existing()
    plan = default_plan(
        division, keys, root_keys=root_keys, root_threshold=root_threshold, reviewers=reviewers
    )
    plan.check()
    show_facts(
        _("A new authority:"),
        [
            (_("Place"), f"{name} ({division}, {division.tier.label})"),
            (_("Repository"), str(repository.path)),
            (
                _("Root"),
                _("{threshold} of {keys} keys", threshold=plan.root_threshold, keys=plan.root_keys),
            ),
            (
                _("Promotion"),
                _(
                    "{threshold} of {keys} reviewers",
                    threshold=plan.review_threshold,
                    keys=plan.reviewers,
                ),
            ),
            *((key, str(path)) for key, path in plan.places.items()),
        ],
    )
    confirm(_("Make these keys?"), yes=yes)
    source = passphrase_source(passphrase_fd)
    request = create_authority(
        repository,
        division,
        name,
        plan,
        lambda stick: new_passphrase(
            source, _("New passphrase for the keys in {folder}", folder=str(stick))
        ),
        now=now(),
        key_type="p256" if key_type == "p256" else "ed25519",
    )
    say(_("Fingerprint: {fingerprint}", fingerprint=shown_fingerprint(repository)))
    say(_("Copy it onto the paper form. Keep the sticks in different places."))
    if division.parent is None:
        say(_("The root is in {file}.", file=str(repository.path / "metadata" / "1.root.json")))
    else:
        file = output or Path(f"{division}.authority-request")
        write_file(file, encode_request(request))
        say(_("Take {file} to the authority above: cuntong authority endorse", file=str(file)))


@authority.command(name="endorse", help=_("Vouch for the authority whose REQUEST this is."))
@click.argument("request_file", metavar="REQUEST", type=click.Path(path_type=Path, dir_okay=False))
@keys_option
@click.option("--new-epoch", is_flag=True, help=_("It has lost its keys and starts afresh."))
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help=_("Last day; 15 months from now when not given."),
)
@click.option("--fingerprint", "typed", help=_("From the paper form, instead of typing its end."))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=_("Where the response goes; CODE.authority-response when not given."),
)
@data_option
@passphrase_option
@yes_option
def endorse_command(
    request_file: Path,
    keys: tuple[Path, ...],
    new_epoch: bool,
    until: dt.datetime | None,
    typed: str | None,
    output: Path | None,
    paths: DataPaths,
    passphrase_fd: int | None,
    yes: bool,
) -> None:
    repository = repository_of(paths)
    current = repository.load()
    moment = now()
    require_endorsed(current, moment)
    request = read_request(request_file)
    proposal = propose(
        current,
        request,
        until=None if until is None else until.date(),
        is_new_epoch=new_epoch,
        now=moment,
    )
    ring = key_ring(keys, passphrase_fd)
    targets_keys, threshold = current.role_keys(TARGETS)
    ring.check_quorum(targets_keys, threshold, TARGETS)
    ring.require(current.settings.keys["ca"], "ca")
    show_facts(
        _("{place} will vouch for:", place=current.settings.name),
        [
            (_("Place"), f"{request.name} ({proposal.child}, {proposal.child.tier.label})"),
            (_("Scope"), _("all codes that begin with {scope}", scope=proposal.scope)),
            (_("Epoch"), str(proposal.epoch)),
            (_("Until"), proposal.until.isoformat()),
            (_("Fingerprint"), request.fingerprint),
        ],
    )
    _compare_fingerprint(request.fingerprint, typed, yes=yes)
    confirm(_("Sign this?"), yes=yes)
    signers = ring.quorum(targets_keys, threshold, TARGETS)
    ca_key = ring.private_key(current.settings.keys["ca"], "ca")
    response = endorse(
        repository,
        proposal,
        signers,
        ca_key,
        now=moment,
        sources=[Spool(paths, current.code).read],
    )
    file = output or Path(f"{proposal.child}.authority-response")
    write_file(file, encode_response(response))
    say(_("Take {file} back: cuntong authority install {file}", file=str(file)))
    tell_daemon(paths)


def _compare_fingerprint(expected: str, typed: str | None, *, yes: bool) -> None:
    """The person who compares is what the whole federation hangs on, so `--yes` alone doesn't do."""
    plain = expected.replace("-", "")
    if typed is None and not yes:
        typed = click.prompt(
            _(
                "Type the last {count} characters of the fingerprint on the paper form",
                count=TYPED_CHARS,
            ),
            err=True,
        )
    given = (typed or "").replace("-", "").replace(" ", "").upper()
    if len(given) < TYPED_CHARS or not plain.endswith(given):
        raise AuthorityError(
            "endorse.wrong-fingerprint",
            N_("This isn't the fingerprint of the request ({fingerprint}). Nothing was signed."),
            fingerprint=expected,
        )


@authority.command(name="install", help=_("Take over the parent's RESPONSE."))
@click.argument(
    "response_file", metavar="RESPONSE", type=click.Path(path_type=Path, dir_okay=False)
)
@data_option
@yes_option
def install_command(response_file: Path, paths: DataPaths, yes: bool) -> None:
    repository = repository_of(paths)
    current = repository.load()
    response = read_response(response_file)
    anchor = check_response(repository, current, response)
    show_facts(
        _("The response says:"),
        [
            (_("Place"), f"{current.settings.name} ({current.code})"),
            (_("Endorsed by"), response.parent),
            (_("Epoch"), str(response.epoch)),
            (_("Until"), response.until.isoformat()),
            (_("Nation's CA"), fingerprint(certificate_spki(anchor))),
        ],
    )
    confirm(_("Take it over?"), yes=yes)
    install(repository, response, now=now())
    say(_("Installed. This authority may publish until {date}.", date=response.until.isoformat()))
    tell_daemon(paths)


@authority.command(
    name="rotate",
    help=_("Replace one key: online, targets, enrolment, root-1, reviewer-1, …"),
)
@click.argument("name", metavar="KEY")
@keys_option
@click.option(
    "--new",
    "new_stick",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=_("Stick for the new key; the first of --keys when not given."),
)
@data_option
@passphrase_option
@yes_option
def rotate_command(
    name: str,
    keys: tuple[Path, ...],
    new_stick: Path | None,
    paths: DataPaths,
    passphrase_fd: int | None,
    yes: bool,
) -> None:
    repository = repository_of(paths)
    current = repository.load()
    plan = plan_rotation(current, name)
    ring = key_ring(keys, passphrase_fd)
    for role, (role_keys, threshold) in plan.quorums.items():
        ring.check_quorum(role_keys, threshold, role)
    key = new_key()
    file = None if name == ONLINE else _file_for(name, new_stick or keys[0])
    if file is not None:
        _check_other_keys(current.role_keys(_role_of(name)), name, file.parent)
    show_facts(
        _("A new key for {place}:", place=current.settings.name),
        [
            (_("Key"), name),
            (_("File"), str(file) if file else _("on this computer")),
            (_("Signed by"), ", ".join(plan.quorums)),
        ],
    )
    confirm(_("Replace the key?"), yes=yes)
    signers = collect_signers(plan, ring)
    if file is not None:
        passphrase = new_passphrase(
            passphrase_source(passphrase_fd), _("New passphrase for {file}", file=str(file))
        )
        write_key(file, key, passphrase, authority=current.code, name=name)
    try:
        rotate(repository, name, key, signers, now=now())
    except BaseException:
        # Ctrl-C may have come after the change was decided; then the new key must stay.
        after = repository.settle()
        if file is not None and after is not None and after.settings.keys[name] != key_id(key):
            file.unlink(missing_ok=True)
        raise
    say(_("The key {name} is replaced. Destroy the old one.", name=name))
    tell_daemon(paths)


def _role_of(name: str) -> str:
    return {"enrolment": MEMBERS}.get(
        name, PROMOTED if name.startswith("reviewer-") else name.split("-")[0]
    )


def _file_for(name: str, stick: Path) -> Path:
    file = stick / f"{name}.pem"
    number = 2
    while file.exists():
        file = stick / f"{name}.{number}.pem"
        number += 1
    return file


def _check_other_keys(role_keys: tuple[dict[str, str], int], name: str, stick: Path) -> None:
    """A new key mustn't make one stick hold a whole quorum."""
    keys, threshold = role_keys
    there = {file.label.key_id for file in sticks_keys(stick)}
    others = sum(1 for key, owner in keys.items() if key in there and owner != name)
    if threshold > 1 and others + 1 >= threshold:
        raise AuthorityError(
            "rotate.same-stick",
            N_(
                "{folder} would then hold enough keys to sign alone. Name another stick with --new."
            ),
            fault=Fault.USAGE,
            folder=str(stick),
        )


@authority.command(
    name="renew",
    help=_("Yearly: give the root and every role whose keys are there another three years."),
)
@keys_option
@data_option
@passphrase_option
@yes_option
def renew_command(
    keys: tuple[Path, ...], paths: DataPaths, passphrase_fd: int | None, yes: bool
) -> None:
    repository = repository_of(paths)
    current = repository.load()
    ring = key_ring(keys, passphrase_fd)
    wanted = plan_renewal(current, ring)
    moment = now()
    show_facts(
        _("To be renewed:"),
        [
            (_("Place"), f"{current.settings.name} ({current.code})"),
            (_("Today"), moment.date().isoformat()),
            (_("Keys"), ", ".join(sorted(wanted.values()))),
        ],
    )
    confirm(_("Is today's date right, and shall this be signed?"), yes=yes)
    signers = [ring.signer(key, name) for key, name in wanted.items()]
    renewed, left = renew(repository, signers, now=moment)
    say(_("The root lasts until {date}.", date=renewed.root.signed.expires.date().isoformat()))
    if left:
        say(_("Not renewed, their keys weren't there: {roles}.", roles=", ".join(left)))
    tell_daemon(paths)


authority.add_command(status)

commands: list[click.Command] = [authority]
