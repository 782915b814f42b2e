"""`cuntong publish`, `revise`, `review`, `promote`, `withdraw`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from cuntong_daemon.authority.documents import Authority
from cuntong_daemon.authority.keys import AuthorityError, KeyRing
from cuntong_daemon.authority.publishing import (
    check_can_be_held,
    check_may_promote,
    check_may_publish,
    check_may_withdraw,
    pending_listings,
    pending_promotion,
    sign_promotion,
    withdraw,
)
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.bundle.descriptor import BundleId, Descriptor
from cuntong_protocol.bundle.metadata import Metadata
from cuntong_protocol.trust.names import PROMOTED, TARGETS, WITHDRAWN
from cuntong_tools.authority.common import (
    confirm,
    now,
    repository_of,
    say,
    show_facts,
    tell_daemon,
    yes_option,
)
from cuntong_tools.client import bundle_argument, data_option
from cuntong_tools.output import format_bytes, progress_bar
from cuntong_tools.secrets import key_ring, keys_option, passphrase_option

from .build import BuildProgress, BuiltBundle, Predecessor
from .publish import Publication, metadata_file, propose_cuts, read_metadata
from .review import candidates, check_descriptor, choose, descriptor_bytes, title_of

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="publish", help=_("Build, sign and list a new bundle from FOLDER."))
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@click.argument("metadata", metavar="[METADATA.toml]", required=False, type=FILE)
@keys_option
@data_option
@passphrase_option
@yes_option
def publish_command(
    folder: Path,
    metadata: Path | None,
    keys: tuple[Path, ...],
    paths: DataPaths,
    passphrase_fd: int | None,
    yes: bool,
) -> None:
    repository = repository_of(paths)
    current = repository.load()
    moment = now()
    said = read_metadata(metadata_file(folder, metadata), folder, current.code)
    bundle_id = BundleId(current.code, moment.strftime("%Y%m"), said.slug)
    check_may_publish(current, str(bundle_id), 1, moment)
    ring = _publisher_ring(current, keys, passphrase_fd)
    with Publication(paths, repository, current) as publication:
        _build_and_sign(publication, current, ring, folder, said, bundle_id, None, yes=yes)
    tell_daemon(paths)


@click.command(name="revise", help=_("Publish the next revision of the bundle ID from FOLDER."))
@bundle_argument()
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@click.argument("metadata", metavar="[METADATA.toml]", required=False, type=FILE)
@keys_option
@data_option
@passphrase_option
@yes_option
def revise_command(
    bundle_id: str,
    folder: Path,
    metadata: Path | None,
    keys: tuple[Path, ...],
    paths: DataPaths,
    passphrase_fd: int | None,
    yes: bool,
) -> None:
    repository = repository_of(paths)
    current = repository.load()
    with Publication(paths, repository, current) as publication:
        before = publication.predecessor(bundle_id)
        check_may_publish(current, bundle_id, before.descriptor.revision + 1, now())
        file = metadata_file(folder, metadata)
        said = before.descriptor.metadata
        if file is not None:
            said = read_metadata(file, folder, current.code)
        ring = _publisher_ring(current, keys, passphrase_fd)
        try:
            _build_and_sign(
                publication,
                current,
                ring,
                folder,
                said,
                before.descriptor.bundle_id,
                before,
                yes=yes,
            )
        except AuthorityError as error:
            if error.code == "revise.unchanged":
                tell_daemon(paths)  # Who was killed right after signing hadn't come to it.
            raise
    tell_daemon(paths)


def _publisher_ring(current: Authority, keys: tuple[Path, ...], descriptor: int | None) -> KeyRing:
    """The sticks, checked before a build that may take an hour."""
    ring = key_ring(keys, descriptor)
    ring.check_quorum(*current.role_keys(TARGETS), TARGETS)
    return ring


def _build_and_sign(
    publication: Publication,
    current: Authority,
    ring: KeyRing,
    folder: Path,
    metadata: Metadata,
    bundle_id: BundleId,
    before: Predecessor | None,
    *,
    yes: bool,
) -> None:
    _propose_cuts(folder, yes=yes)
    with _building() as progress:
        built = publication.build(folder, metadata, bundle_id, before, progress)
    publication.check_changed(built, before)
    _show_bundle(_("To be signed:"), built.descriptor, built)
    confirm(_("Sign and publish this?"), yes=yes)
    signers = ring.quorum(*current.role_keys(TARGETS), TARGETS)
    publication.sign(built, signers, now=now())
    say(_("Published: {id}", id=built.descriptor.id))


def _propose_cuts(folder: Path, *, yes: bool) -> None:
    cuts = propose_cuts(folder)
    if len(cuts) > 1:
        size = format_bytes(sum(cut.size for cut in cuts))
        say(
            _(
                "{folder} has {size}. Several bundles serve those who join late better, for example:",
                folder=str(folder),
                size=size,
            )
        )
        for number, cut in enumerate(cuts, start=1):
            names = cut.names[0] if len(cut.names) == 1 else f"{cut.names[0]} … {cut.names[-1]}"
            say(f"  {number}. {names}  ({format_bytes(cut.size)})")
        confirm(_("Publish it as one bundle all the same?"), yes=yes)


@contextmanager
def _building() -> Iterator[Callable[[BuildProgress], None]]:
    labels = {"hashing": _("Reading"), "packing": _("Packing"), "copying": _("Copying")}
    with progress_bar() as bar:
        tasks = {stage: bar.add_task(label, total=None) for stage, label in labels.items()}

        def show(progress: BuildProgress) -> None:
            bar.update(tasks[progress.stage], completed=progress.done, total=progress.total)

        yield show


def _show_bundle(title: str, descriptor: Descriptor, built: BuiltBundle | None = None) -> None:
    metadata = descriptor.metadata
    audience, licence = metadata.audience, metadata.licence
    everyone = _("everyone below")
    restricted = _("restricted to {scope}", scope=", ".join(licence.scope))
    facts = [
        (
            _("Bundle"),
            _("{id}, revision {revision}", id=descriptor.id, revision=descriptor.revision),
        ),
        (_("Title"), metadata.title),
        (_("Category"), metadata.category),
        (_("Languages"), ", ".join(metadata.languages)),
        (_("For"), ", ".join((*audience.tiers, *audience.scope, *audience.groups)) or everyone),
        (
            _("Licence"),
            (_("open") if licence.kind == "open" else restricted)
            + (f", {licence.until}" if licence.until else ""),
        ),
        (_("Priority"), str(metadata.priority)),
        (
            _("Content"),
            ngettext(
                "{count} file, {size}",
                "{count} files, {size}",
                descriptor.file_count,
                size=format_bytes(descriptor.content_size),
            ),
        ),
        (_("On the link"), format_bytes(descriptor.payload_size)),
        (_("Infohash"), descriptor.infohash.hex()),
    ]
    if metadata.build.hybrid:
        facts.insert(-1, (_("Torrent"), _("hybrid: other people's programs can join too")))
    if built is not None and built.reused_bytes:
        facts.insert(-1, (_("Shared"), format_bytes(built.reused_bytes)))
    show_facts(title, facts)


@click.command(
    name="review",
    help=_("Show what those below publish and could be promoted; with ID, its details."),
)
@bundle_argument(required=False)
@data_option
def review_command(bundle_id: str | None, paths: DataPaths) -> None:
    repository = repository_of(paths)
    current = repository.load()
    pending = pending_promotion(repository, current)
    waiting = {} if pending is None else pending_listings(current, pending)
    found = candidates(paths, required=bundle_id is not None and bundle_id not in waiting)
    if bundle_id is not None:
        listing = choose([bundle_id], found, waiting)[0]
        data = descriptor_bytes(paths, repository, listing)
        _show_bundle(_("A bundle from below:"), check_descriptor(listing, data))
        return
    for bundle, listing in sorted(waiting.items()):
        say(
            _(
                "! {id} (revision {revision}) waits for another reviewer.",
                id=bundle,
                revision=listing.revision,
            )
        )
    open_ones = [it for bundle, it in sorted(found.items()) if bundle not in waiting]
    for listing in open_ones:
        data = descriptor_bytes(paths, repository, listing)
        say(
            f"{listing.id}  {_('revision {revision}', revision=listing.revision)}  {format_bytes(listing.payload_size)}  {title_of(data)}"
        )
    if not waiting and not open_ones:
        say(_("Nothing waits for review."))


@click.command(
    name="promote", help=_("Sign the promotion of bundles from below; without ID, of what waits.")
)
@click.argument("bundle_ids", metavar="[ID]…", nargs=-1)
@click.option("--drop", is_flag=True, help=_("Forget what waits for a second reviewer."))
@keys_option
@data_option
@passphrase_option
@yes_option
def promote_command(
    bundle_ids: tuple[str, ...],
    drop: bool,
    keys: tuple[Path, ...],
    paths: DataPaths,
    passphrase_fd: int | None,
    yes: bool,
) -> None:
    repository = repository_of(paths)
    current = repository.load()
    pending = pending_promotion(repository, current)
    waiting = {} if pending is None else pending_listings(current, pending)
    if drop:
        confirm(
            _("Forget the signature for: {ids}?", ids=", ".join(sorted(waiting)) or "-"), yes=yes
        )
        repository.drop_pending()
        return
    moment = now()
    found = (
        candidates(paths, required=any(it not in waiting for it in bundle_ids))
        if bundle_ids
        else {}
    )
    chosen = choose(bundle_ids or sorted(waiting), found, waiting)
    signed = [(listing, descriptor_bytes(paths, repository, listing)) for listing in chosen]
    for listing, data in signed:
        check_may_promote(current, listing, moment)
        descriptor = check_descriptor(listing, data)
        check_can_be_held(descriptor)
        _show_bundle(_("To be promoted:"), descriptor)
    ring = key_ring(keys, passphrase_fd)
    reviewers, _threshold = current.role_keys(PROMOTED)
    there = {key: name for key, name in reviewers.items() if ring.find(key)} or reviewers
    for key, name in there.items():
        ring.require(key, name)
    confirm(_("Have you looked at it, and shall it be promoted?"), yes=yes)
    signers = [ring.signer(key, name) for key, name in there.items()]
    done = sign_promotion(repository, signed, signers, now=moment)
    if done.is_published:
        say(_("Promoted: {ids}", ids=", ".join(done.bundles)))
        tell_daemon(paths)
    else:
        say(
            _(
                "Kept: {signed} of {needed} signatures. Another reviewer now runs: cuntong promote",
                signed=done.signed,
                needed=done.needed,
            )
        )


@click.command(name="withdraw", help=_("Withdraw the bundle ID everywhere below, for good."))
@bundle_argument()
@click.option("--reason", required=True, help=_("One line; people below will read it."))
@keys_option
@data_option
@passphrase_option
@yes_option
def withdraw_command(
    bundle_id: str,
    reason: str,
    keys: tuple[Path, ...],
    paths: DataPaths,
    passphrase_fd: int | None,
    yes: bool,
) -> None:
    repository = repository_of(paths)
    current = repository.load()
    check_may_withdraw(current, bundle_id, reason)
    ring = key_ring(keys, passphrase_fd)
    ring.check_quorum(*current.role_keys(WITHDRAWN), WITHDRAWN)
    show_facts(
        _("To be withdrawn for good, here and everywhere below:"),
        [(_("Bundle"), bundle_id), (_("Reason"), reason)],
    )
    confirm(_("Withdraw it?"), yes=yes)
    signers = ring.quorum(*current.role_keys(WITHDRAWN), WITHDRAWN)
    withdraw(repository, bundle_id, reason, signers, now=now())
    say(_("Withdrawn: {id}", id=bundle_id))
    tell_daemon(paths)


commands: list[click.Command] = [
    publish_command,
    revise_command,
    review_command,
    promote_command,
    withdraw_command,
]
