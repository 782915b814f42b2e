"""`cuntong media export`: volumes onto disks, sticks and discs (SPEC 12.8)."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cuntong_daemon.control.media_messages import Offer, OfferedBundle, PlaceKnown
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import DISC_BYTES
from cuntong_protocol.media.papers import MAX_PLACES
from cuntong_protocol.texts import N_
from cuntong_tools.authority.common import confirm, show_facts, yes_option
from cuntong_tools.client import complete_bundle, connect, data_option
from cuntong_tools.node.showing import DIVISION, say
from cuntong_tools.output import (
    console,
    format_bytes,
    format_date,
    format_rate,
    print_error,
    progress_bar,
)
from cuntong_tools.output import say as in_words
from cuntong_tools.publish.scan import show_path

from .export import Exporter, WrittenVolume, no_room
from .letter import LETTER_FILE
from .medium import Target
from .plan import Wish
from .views import ranges

if TYPE_CHECKING:
    from rich.progress import Progress

OFFER_TIMEOUT_S = 600.0
"""A centre looks through the torrents of all that its places have."""
MAX_SHOWN = 20
"""Places, and bundles that aren't here; the rest is counted."""


@click.command(
    name="export",
    help=_(
        "Write volumes with bundles and the catalogue to TARGET: a mounted stick or disk, or a folder that is burnt or copied later. "
        "Of several TARGETs each gets whole volumes."
    )
    + "\n\n"
    + _(
        "What the places named by --for have already isn't written. Everything is read back and checked. "
        "An export that was interrupted, or that needs more media, goes on when the same command is run again."
    ),
)
@click.argument(
    "targets", metavar=_("TARGET…"), nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--for",
    "places",
    metavar=_("CODE"),
    type=DIVISION,
    multiple=True,
    help=_("For this place: what it lacks, and the catalogue. May be given several times."),
)
@click.option(
    "--bundles",
    metavar=_("ID"),
    multiple=True,
    shell_complete=complete_bundle,
    help=_("Only this bundle. May be given several times."),
)
@click.option("--release", metavar=_("NAME"), default="", help=_("Only bundles of this release."))
@click.option(
    "--catalogue",
    "is_catalogue_only",
    is_flag=True,
    help=_("The catalogue alone, without bundles: for a stick."),
)
@click.option(
    "--volume",
    metavar=_("dvd|bd|SIZE"),
    default="",
    help=_(
        "How large a volume is at most, with all that its file system needs: dvd, bd, or a size such as 25MB or 64GB. As large as TARGET when not given."
    ),
)
@yes_option
@data_option
@click.pass_context
def export(
    context: click.Context,
    targets: tuple[Path, ...],
    places: tuple[Division, ...],
    bundles: tuple[str, ...],
    release: str,
    volume: str,
    paths: DataPaths,
    *,
    is_catalogue_only: bool,
    yes: bool,
) -> None:
    wish = _wish(places, bundles, release, volume, is_catalogue_only=is_catalogue_only)
    is_attended = not yes and sys.stdin.isatty()
    with _Media(targets, paths) as media:
        with Exporter(paths, wish, partial(_ask, paths)) as exporter:
            _choose_plan(exporter, media.targets, yes=yes)
            _show(exporter, media.targets)
            confirm(_("Write this?"), yes=yes)
            written: list[WrittenVolume] = []
            try:
                _write_all(exporter, media, written, is_attended=is_attended)
            except (KeyboardInterrupt, click.Abort):
                say(_("What is written stays. To go on, run the same command again."))
                raise
            finally:
                _show_written(exporter, written)
            _show_left_out(exporter)
    for identifier in exporter.damaged:
        print_error(
            _(
                "{id} is damaged in this node's store and was left out. Run: cuntong verify {id}. The bad pieces are fetched again; then export it once more.",
                id=identifier,
            ),
            "media.damaged-bundle",
        )
    if exporter.damaged:
        context.exit(Fault.CONTENT.value)


# --- What is asked --------------------------------------------------------------------------------


def _wish(
    places: Sequence[Division],
    bundles: Sequence[str],
    release: str,
    volume: str,
    *,
    is_catalogue_only: bool,
) -> Wish:
    if not (places or bundles or release or is_catalogue_only):
        raise click.UsageError(
            _("Say what to export: --for CODE, --bundles ID, --release NAME or --catalogue.")
        )
    if is_catalogue_only and (bundles or release):
        raise click.UsageError(_("--catalogue doesn't go together with --bundles and --release."))
    if len(set(places)) > MAX_PLACES:
        raise click.UsageError(
            _("A volume can be for {limit} places at most: name fewer.", limit=MAX_PLACES)
        )
    return Wish(
        places=tuple(sorted({str(place) for place in places})),
        bundles=tuple(sorted(set(bundles))),
        release=release,
        is_catalogue_only=is_catalogue_only,
        volume=_volume(volume),
    )


def _volume(text: str) -> str:
    """`dvd`, `bd`, a number of bytes, or empty."""
    word = text.strip().lower()
    if not word or word in DISC_BYTES:
        return word
    from cuntong_tools.sizes import parse_size

    return str(parse_size(text))


def _ask(paths: DataPaths, wish: Wish) -> tuple[list[OfferedBundle], Offer]:
    bundles: list[OfferedBundle] = []
    params = {
        "places": list(wish.places),
        "bundles": list(wish.bundles),
        "release": wish.release,
        "catalogue_only": wish.is_catalogue_only,
    }
    with connect(paths, timeout_s=OFFER_TIMEOUT_S) as daemon:
        offer = daemon.follow(OfferedBundle, Offer, "media.offer", params, bundles.append)
    return bundles, offer


def _choose_plan(exporter: Exporter, targets: Sequence[Target], *, yes: bool) -> None:
    """Go on with an unfinished export, or begin anew."""
    outdated = exporter.resume(targets)
    if outdated is not None:
        say(in_words(outdated))
    if exporter.has_plan:
        plan = exporter.plan
        say(
            _(
                "An export of the same was begun on {day}: of {count} volumes {done} are done.",
                day=format_date(plan.made_at),
                count=plan.count,
                done=len(plan.done),
            )
        )
        if yes or click.confirm(_("Go on with it?"), default=True, err=True):
            return
        exporter.give_up(targets)
    if not exporter.bundles:
        _show_left_out(exporter)
    exporter.make_plan(targets)


# --- Media ----------------------------------------------------------------------------------------


class _Media:
    """The targets, which are let go while a person changes media.

    Attributes:
        targets: Those that are open.
    """

    def __init__(self, named: Sequence[Path], paths: DataPaths) -> None:
        # Whoever names a folder twice means it once.
        self._named = list({path.absolute().resolve(): path.absolute() for path in named}.values())
        self._paths = paths
        self._mounts: set[Path] = set()
        self._stack = contextlib.ExitStack()
        self.targets: list[Target] = []

    def __enter__(self) -> _Media:
        self.open()
        self._mounts |= {target.path for target in self.targets if target.is_mount}
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def open(self) -> None:
        """Open all of them.

        Raises:
            MediaError: see `Target`; `media.not-mounted`: there was a medium, and now there is none.
        """
        try:
            self.targets = [self._open(path) for path in self._named]
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path) -> Target:
        target = self._stack.enter_context(Target(path, self._paths))
        # Where a stick was, its empty mount point on the machine's own disk comes to light.
        if path in self._mounts and not target.is_mount:
            raise MediaError(
                "media.not-mounted",
                N_("No medium is mounted at {target} now."),
                target=show_path(path),
                fault=Fault.SYSTEM,
            )
        return target

    def close(self) -> None:
        """Let go of all of them, so that they can be unmounted."""
        self._stack.close()
        self.targets = []


def _write_all(
    exporter: Exporter, media: _Media, written: list[WrittenVolume], *, is_attended: bool
) -> None:
    """Write what fits, ask for more media, and so on; `written` grows."""
    while True:
        assigned = exporter.assign(media.targets)
        for number, target in assigned:
            written.append(_write(exporter, number, target))
        undone = exporter.plan.undone
        if not undone:
            return
        if not assigned and not (written and is_attended):
            target = media.targets[0]
            need = exporter.needed_bytes(undone[0], target)
            raise no_room(undone[0], need, target, target.free_bytes)
        if not is_attended:
            raise MediaError(
                "media.more-volumes",
                N_(
                    "Of {count} volumes these are still to come: {numbers}. Run the same command again with another medium; it goes on from here."
                ),
                count=exporter.plan.count,
                numbers=ranges(undone),
                fault=Fault.SYSTEM,
            )
        _change_media(exporter, media)


def _change_media(exporter: Exporter, media: _Media) -> None:
    """Wait until the next medium is in."""
    undone = exporter.plan.undone
    media.close()
    say(
        _(
            "Of {count} volumes these are still to come: {numbers}. Take the medium out, and put the next one in at the same place.",
            count=exporter.plan.count,
            numbers=ranges(undone),
        )
    )
    while not media.targets:
        click.prompt(
            _("Press Enter when it is in"),
            default="",
            show_default=False,
            prompt_suffix=" … ",
            err=True,
        )
        try:
            media.open()
        except MediaError as error:
            say(in_words(error.sentence))
            continue
        if not exporter.assign(media.targets):
            target = media.targets[0]
            need = exporter.needed_bytes(undone[0], target)
            say(in_words(no_room(undone[0], need, target, target.free_bytes).sentence))
            media.close()


def _write(exporter: Exporter, number: int, target: Target) -> WrittenVolume:
    count = exporter.plan.count
    total = exporter.plan.volumes[number - 1].content_bytes
    with progress_bar() as progress:
        done = exporter.write(number, target, _Bars(progress, number, count, total))
    say(
        _(
            "Volume {number} of {count} is written and verified: {folder}",
            number=number,
            count=count,
            folder=show_path(done.folder),
        )
    )
    return done


class _Bars:
    """One bar for writing, with its speed, and one for reading back."""

    def __init__(self, progress: Progress, number: int, count: int, total: int) -> None:
        self._progress = progress
        self._title = _("Volume {number} of {count}", number=number, count=count)
        self._tasks = {
            "written": progress.add_task(self._title, total=total),
            "checked": progress.add_task(_("Reading back"), total=total),
        }
        self._began = time.monotonic()
        self._written = 0

    def __call__(self, what: Literal["written", "checked"], count: int) -> None:
        self._progress.update(self._tasks[what], advance=count)
        if what == "written":
            self._written += count
            speed = self._written / max(time.monotonic() - self._began, 1e-3)
            title = f"{self._title}, {format_rate(speed)}"
            self._progress.update(self._tasks[what], description=title)


# --- What is shown --------------------------------------------------------------------------------


def _show(exporter: Exporter, targets: Sequence[Target]) -> None:
    """What will be written, for whom, and how much room it takes."""
    plan, offer = exporter.plan, exporter.offer
    undone = [plan.volumes[number - 1] for number in plan.undone]
    bundles = {share.bundle for volume in undone for share in volume.shares}
    facts = [
        (
            _("Bundles"),
            ngettext(
                "{count} bundle, {size}",
                "{count} bundles, {size}",
                len(bundles),
                size=format_bytes(sum(volume.content_bytes for volume in undone)),
            )
            if bundles
            else _("none, the catalogue alone"),
        ),
        (
            _("Volumes"),
            ngettext(
                "{count} volume, needs {size}",
                "{count} volumes, need {size} in all",
                len(undone),
                size=format_bytes(sum(volume.needed_bytes for volume in undone)),
            ),
        ),
    ]
    for target in targets:
        room = _("{size} free", size=format_bytes(target.free_bytes))
        facts.append((_("Target"), f"{show_path(target.path)} ({room})"))
    shown = offer.places[:MAX_SHOWN]
    facts += [(_("For"), f"{place.code}: {_known(place)}") for place in shown]
    if len(offer.places) > len(shown):
        rest = len(offer.places) - len(shown)
        facts.append(("", ngettext("and {count} more", "and {count} more", rest)))
    if not offer.places:
        facts.append((_("For"), _("any place")))
    show_facts(_("To be written:"), facts)
    if len(exporter.assign(targets)) < len(undone):
        say(_("They don't all fit onto what is there: more media are needed."))


def _known(place: PlaceKnown) -> str:
    day = format_date(place.at)
    if place.how == "link":
        return _("what it has is known by its link, of {day}", day=day)
    if place.how == "receipt":
        return _(
            "what it has is known by its receipt {number} of {day}", number=place.number, day=day
        )
    return _("nothing is known of it, so everything goes")


def _show_written(exporter: Exporter, written: Sequence[WrittenVolume]) -> None:
    """What was written now, and where the letters are."""
    if written:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(_("Volume"), no_wrap=True)
        table.add_column(_("Folder"), overflow="fold")
        table.add_column(_("Bundles"), justify="right", no_wrap=True)
        table.add_column(_("Size"), justify="right", no_wrap=True)
        for volume in written:
            table.add_row(
                f"{volume.number}/{exporter.plan.count}",
                show_path(volume.folder),
                str(volume.bundles),
                format_bytes(volume.content_bytes),
            )
        click.echo()
        console().print(table)
        say(
            _(
                "A letter and labels to print are in each folder: {file}. Send the letter along.",
                file=LETTER_FILE,
            )
        )


def _show_left_out(exporter: Exporter) -> None:
    """What wasn't exported, and why."""
    offer = exporter.offer
    if offer.had:
        say(
            ngettext(
                "{count} bundle wasn't exported: the places have it.",
                "{count} bundles weren't exported: the places have them.",
                offer.had,
            )
        )
    if offer.not_for and offer.places:
        say(
            ngettext(
                "{count} bundle wasn't exported: it isn't meant for the places.",
                "{count} bundles weren't exported: they aren't meant for the places.",
                offer.not_for,
            )
        )
    elif offer.not_for:
        say(
            ngettext(
                "{count} bundle wasn't exported: its licence names who may hold it. Say by --for for which places the volumes are.",
                "{count} bundles weren't exported: their licences name who may hold them. Say by --for for which places the volumes are.",
                offer.not_for,
            )
        )
    if offer.not_here:
        say(_("These should go along and aren't complete here:"))
        for bundle in offer.not_here[:MAX_SHOWN]:
            say(f"  {_('{text}', text=f'{bundle.id} {bundle.title}')}")
        rest = len(offer.not_here) - MAX_SHOWN
        if rest > 0:
            say("  " + ngettext("and {count} more", "and {count} more", rest))
