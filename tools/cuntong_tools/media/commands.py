"""`cuntong media`: disks and discs by post (SPEC 12)."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from cuntong_daemon.control.client import RemoteError
from cuntong_daemon.control.media_messages import (
    ImportResult,
    ImportStep,
    MadeReceipt,
    MediaStatus,
    PlaceKnown,
    TakenReceipt,
)
from cuntong_daemon.files import write_atomically
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.papers import MAX_RECEIPT_BYTES, Receipt, decode_receipt
from cuntong_protocol.texts import N_, Sentence
from cuntong_tools.client import connect, data_option
from cuntong_tools.node.showing import DIVISION, say
from cuntong_tools.output import console, print_error, print_json, progress_bar, tell_error
from cuntong_tools.output import say as in_words
from cuntong_tools.qr import make_qr

MEDIA_TIMEOUT_S = 600.0
"""A sector that can't be read keeps a drive, and whoever waits for it, busy for minutes."""
MAX_INPUT_CHARS = 16 * MAX_RECEIPT_BYTES
"""Of one file with receipts, or of what is typed."""
PICTURES = (".svg", ".png")

_RECEIPT = re.compile(r"(?=CUNTONG:RECEIPT:)", re.IGNORECASE)

json_option = click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for programs."))
ANY_PATH = click.Path(path_type=Path)


class MediaGroup(click.Group):
    """Imports what writes volumes only when that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["export", *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "export":
            module = importlib.import_module("cuntong_tools.media.export_command")
            command: click.Command = module.export
            return command
        return super().get_command(ctx, cmd_name)


@click.group(
    name="media",
    cls=MediaGroup,
    help=_("Disks and discs by post: write volumes, import them, and send receipts back."),
)
def media() -> None:
    pass


@media.command(
    name="import",
    help=_(
        "Import the volumes in PATH: a mounted medium, a folder of it, or a copy. Volumes may come in any order, damaged ones too."
    )
    + "\n\n"
    + _(
        "Everything is checked; what is missing comes later by any other way. An import goes on when this command is stopped; one that was interrupted goes on when it is repeated."
    ),
)
@click.argument("path", metavar=_("PATH"), type=ANY_PATH)
@click.option(
    "--in-place",
    is_flag=True,
    help=_("Leave content on the medium and pass it on from there, as long as it stays mounted."),
)
@click.option(
    "--receipt",
    "receipt_file",
    metavar=_("FILE"),
    type=ANY_PATH,
    help=_("Also write the receipt here, for a medium that can't be written."),
)
@data_option
@json_option
def import_command(
    path: Path, receipt_file: Path | None, paths: DataPaths, *, in_place: bool, as_json: bool
) -> None:
    from .views import import_view, is_of_use

    path = path.absolute()
    params = {"path": str(path), "in_place": in_place}
    with connect(paths, timeout_s=MEDIA_TIMEOUT_S) as daemon:
        try:
            with _bars() as show:
                result = daemon.follow(ImportStep, ImportResult, "media.import", params, show)
        except KeyboardInterrupt:
            click.echo(
                _(
                    "The daemon goes on with the import; see: cuntong media status. To stop it: cuntong media eject {path}",
                    path=str(path),
                ),
                err=True,
            )
            raise
        made = None if receipt_file is None else daemon.call_as(MadeReceipt, "media.report")
    gone = next((it for it in result.problems if it.code == "media.gone"), None)
    if as_json:
        print_json(result)
    else:
        # What ends the command is said at its end.
        rest = [problem for problem in result.problems if problem != gone]
        console().print(import_view(msgspec.structs.replace(result, problems=rest)))
    if made is not None and receipt_file is not None:
        file = _write(made, receipt_file)
        if not as_json:
            say(_("Receipt written: {file}", file=str(file)))
            say(_("Send it back to where the medium came from."))
    elif result.receipt_problem is not None and not as_json:
        say(_("To make one: cuntong media report, or --receipt FILE with the import."))
    if not as_json and any(bundle.is_in_place for bundle in result.bundles):
        say(
            _(
                "What is held on the medium isn't laid out in the library. Before you take it out: cuntong media eject {path}",
                path=str(path),
            )
        )
    if gone is not None:
        raise MediaError(gone.code, gone.template, fault=Fault.SYSTEM, **gone.params)
    if not is_of_use(result):
        raise _nothing_usable(result, path)


@media.command(
    name="report",
    help=_(
        "Write this place's receipt: what it has, lacks and has done. With it the place above knows what to send next."
    ),
)
@click.option(
    "--output",
    metavar=_("FILE|DIR"),
    type=ANY_PATH,
    default=".",
    help=_("Where to write it, for example a memory stick; this folder if not given."),
)
@click.option(
    "--qr",
    "picture",
    metavar=_("FILE"),
    type=ANY_PATH,
    help=_("Also save it as a QR code: FILE.svg or FILE.png."),
)
@data_option
def report_command(output: Path, picture: Path | None, paths: DataPaths) -> None:
    if picture is not None and picture.suffix.lower() not in PICTURES:
        raise click.UsageError(_("--qr takes a file whose name ends with .svg or .png."))
    with connect(paths) as daemon:
        made = daemon.call_as(MadeReceipt, "media.report")
    say(_("Written: {file}", file=str(_write(made, output))))
    if picture is not None:
        _save_qr(made, picture)
    elif sys.stdout.isatty():
        _show_qr(made)
    say(
        _(
            "Bring or send it to the place above; there: cuntong media receipt {file}",
            file=made.file,
        )
    )


@media.command(
    name="receipt",
    help=_(
        "Take receipts that came back, so that the next export is smaller. FILE - is what is typed or scanned: QR scanners type the text."
    ),
)
@click.argument("files", metavar=_("FILE…"), nargs=-1, required=True, type=ANY_PATH)
@data_option
@click.pass_context
def receipt_command(context: click.Context, files: tuple[Path, ...], paths: DataPaths) -> None:
    from .views import place_view

    worst = 0
    for file in files:
        try:
            texts = _receipts_in(file)
        except OSError as error:
            worst = max(worst, tell_error(error))
            continue
        for text in texts:
            try:
                receipt, _signed = decode_receipt(text)
                with connect(paths) as daemon:
                    taken = daemon.call_as(TakenReceipt, "media.receipt", {"text": text})
            except (MediaError, RemoteError) as error:
                _print_about(file, error.sentence)
                worst = max(worst, error.fault.value)
                continue
            if taken.problem is not None:
                _print_about(file, taken.problem)
                worst = max(worst, Fault.CONTENT.value)
                continue
            say(_("Taken: receipt {number} of {code}", number=receipt.number, code=receipt.code))
            console().print(place_view(_place(receipt)))
    context.exit(worst)


@media.command(
    name="status",
    help=_(
        "Show the import that runs, volumes still to come, what is held on mounted media, and what other places have; with CODE, all about that place."
    ),
)
@click.argument("code", metavar="[CODE]", type=DIVISION, required=False)
@data_option
@json_option
def status_command(code: Division | None, paths: DataPaths, *, as_json: bool) -> None:
    from .views import place_view, status_view

    with connect(paths) as daemon:
        answer = daemon.call_as(
            MediaStatus, "media.status", {} if code is None else {"code": str(code)}
        )
    if code is None:
        if as_json:
            print_json(answer)
        else:
            console().print(status_view(answer))
        return
    place = next((place for place in answer.places if place.code == code), None)
    if place is None or not place.how:
        raise MediaError(
            "media.unknown-place",
            N_(
                "Nothing is known of what {code} has: it isn't linked, and no receipt of it came. Ask there for one: cuntong media report"
            ),
            fault=Fault.USAGE,
            code=code,
        )
    if as_json:
        print_json(place)
    else:
        console().print(place_view(place))


@media.command(
    name="eject",
    help=_("Stop everything that uses the medium mounted in PATH, so that it can be taken out."),
)
@click.argument("path", metavar=_("PATH"), type=ANY_PATH)
@data_option
def eject_command(path: Path, paths: DataPaths) -> None:
    path = path.absolute()
    with connect(paths, timeout_s=MEDIA_TIMEOUT_S) as daemon:
        stopped = daemon.call("media.eject", {"path": str(path)})["stopped"]
    if stopped:
        say(
            ngettext(
                "{count} use of {path} was stopped. It can be unmounted now, and taken out then.",
                "{count} uses of {path} were stopped. It can be unmounted now, and taken out then.",
                stopped,
                path=str(path),
            )
        )
    else:
        say(_("Nothing here uses {path}. It can be unmounted, and taken out then.", path=str(path)))


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[ImportStep], None]]:
    """Two lines on a terminal: the volume with all that was read of it, and the bundle that is read now."""
    from .views import step_texts

    with progress_bar() as bars:
        volume = bars.add_task("", total=None)
        bundle = bars.add_task("", visible=False)
        last = ImportStep(phase="waiting")
        before = 0

        def show(step: ImportStep) -> None:
            nonlocal last, before
            if step.folder != last.folder:
                before = 0
            elif step.id != last.id:
                before += last.bytes_done
            last = step
            volume_text, bundle_text = step_texts(step)
            bars.update(volume, description=volume_text, completed=before + step.bytes_done)
            bars.update(
                bundle,
                description=bundle_text,
                completed=step.bytes_done,
                total=step.bytes_total or None,
                visible=bool(bundle_text),
            )

        yield show


def _nothing_usable(result: ImportResult, path: Path) -> MediaError:
    """What to do depends on what was wrong, and if much was, on the worst of it."""
    states = {bundle.state for bundle in result.bundles}
    problems = [
        *(volume.problem for volume in result.volumes),
        *(catalogue.problem for catalogue in result.catalogues),
    ]
    is_broken = any(problem is not None for problem in problems)
    if not is_broken and not states & {"refused", "partial"}:
        if "unknown" in states:
            return MediaError(
                "media.not-listed",
                N_(
                    "No catalogue here lists what lies in {path}. Import a volume with the catalogue, or wait until it comes another way; then repeat this."
                ),
                path=str(path),
            )
        if "unwanted" in states:
            return MediaError(
                "media.not-for-here",
                N_(
                    "Nothing in {path} is for this place; the reasons stand above. To have a bundle all the same: cuntong order ID, and repeat this."
                ),
                path=str(path),
            )
    return MediaError(
        "media.nothing-usable",
        N_(
            "Nothing in {path} could be used; the reasons stand above. Nothing here was changed. Tell the sender, and ask for the volume again."
        ),
        path=str(path),
    )


def _write(made: MadeReceipt, output: Path) -> Path:
    target = output / made.file if output.is_dir() else output
    write_atomically(target, made.text.encode())
    return target


def _save_qr(made: MadeReceipt, picture: Path) -> None:
    if not made.qr:
        raise MediaError(
            "media.no-qr",
            N_("This place's receipt is too long for a QR code; send the file instead."),
            fault=Fault.USAGE,
        )
    code = make_qr(made.qr)
    if code is None:
        raise MediaError(
            "media.qr-not-installed",
            N_(
                "QR codes need one more package. Install it: pip install 'cuntong[qr]'. The receipt's file is written."
            ),
            fault=Fault.CONFIG,
        )
    code.save(picture)
    say(_("Written: {file}", file=str(picture)))
    say(_("A photograph of this QR code can be sent by telephone."))
    _say_what_fits(made)


def _show_qr(made: MadeReceipt) -> None:
    code = make_qr(made.qr) if made.qr else None
    if code is None:
        return
    columns = console().width
    if code.columns > columns:
        say(
            _(
                "As a QR code it needs {width} columns, the window has {columns}; for a picture: cuntong media report --qr receipt.svg",
                width=code.columns,
                columns=columns,
            )
        )
        return
    code.show()
    say(_("A photograph of this QR code can be sent by telephone."))
    _say_what_fits(made)


def _say_what_fits(made: MadeReceipt) -> None:
    """A code that holds only a part is no mistake, but a sender who knows it prefers the file."""
    receipt, _signed = decode_receipt(made.qr)
    if not receipt.is_all:
        count = len(receipt.holdings)
        say(
            ngettext(
                "Only {count} bundle of this place fits into the code; the file has all.",
                "Only {count} bundles of this place fit into the code; the file has all.",
                count,
            )
        )


def _receipts_in(file: Path) -> list[str]:
    """The texts of the receipts in a file, or that are typed, one after the other.

    Raises:
        OSError: it can't be read.
    """
    if str(file) == "-":
        text = _typed() if sys.stdin.isatty() else sys.stdin.read(MAX_INPUT_CHARS)
    else:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            text = lines.read(MAX_INPUT_CHARS)
    found = [part for part in _RECEIPT.split(text) if part.strip()]
    return found or [text]


def _typed() -> str:
    """What a person or a scanner types, until an empty line or Ctrl-D."""
    # A terminal hands over at most 4,095 characters of a line, and QR codes are longer; with readline it doesn't.
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
    click.echo(_("Scan the QR code now. An empty line ends it."), err=True)
    lines: list[str] = []
    with contextlib.suppress(EOFError):
        while line := input("> ").strip():
            lines.append(line)
    return "\n".join(lines)


def _place(receipt: Receipt) -> PlaceKnown:
    return PlaceKnown(
        code=receipt.code,
        how="receipt",
        at=receipt.made_at,
        payloads=len(receipt.holdings),
        number=receipt.number,
        is_all=receipt.is_all,
        free=receipt.free,
        used=receipt.used,
        orders=list(receipt.orders),
        statistics=receipt.statistics,
    )


def _print_about(file: Path, problem: Sentence) -> None:
    print_error(_("{file}: {reason}", file=str(file), reason=in_words(problem)), problem.code)


commands: list[click.Command] = [media]
