"""`cuntong demo`: five real daemons on this machine, from a folder at the centre to two villages."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cuntong_daemon.i18n import _
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_
from cuntong_tools.authority.common import say
from cuntong_tools.output import console, format_bytes, format_percent

from .content import change_one_file, folder_size, make_content
from .network import DemoError, Network, Place

VILLAGE_KBIT_S = 512
VILLAGE_SETTINGS = {"bandwidth": {"down_kbit_s": VILLAGE_KBIT_S, "up_kbit_s": VILLAGE_KBIT_S}}
SLUG = "demo"
POLL_S = 0.25
LINE_INTERVAL_S = 5.0
"""Between two lines where there is no terminal to draw bars on."""
PATIENCE_S = 7200.0
STALL_S = 300.0
"""Nothing anywhere has moved for so long: something is broken."""
MAX_COPY_BYTES = 2_000_000_000
"""A larger folder isn't copied to show a revision of it."""


@click.command(
    name="demo",
    help=_("Show the whole path on this machine: publish a folder, watch it reach two villages.")
    + "\n\n"
    + _("Nothing is left behind, and nothing outside of this machine is talked to."),
)
@click.option(
    "--content",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar=_("DIR"),
    help=_("The folder to publish; made by the demonstration if not given."),
)
@click.option(
    "--keep", is_flag=True, help=_("Leave the network running, and say how to look around.")
)
def demo(content: Path | None, *, keep: bool) -> None:
    screen = console()
    base = Path(tempfile.mkdtemp(prefix="cuntong-demo-"))
    network = Network(base)
    try:
        _Show(network, screen).run(content)
    except CuntongError:
        network.stop(*network.places)
        say(
            _(
                "Everything that was made is still in {folder}, with the daemons' logs.",
                folder=str(base),
            )
        )
        raise
    except BaseException:
        # Ctrl+C and our own mistakes too: no daemon goes on without the demonstration, and nothing is left behind.
        _clear(network)
        raise
    if keep:
        _say_how_to_look(network)
    else:
        _clear(network)


class _Show:
    """One demonstration."""

    def __init__(self, network: Network, screen: Console) -> None:
        self._network = network
        self._screen = screen
        self._nation = network.add("000000000000", _("National centre"), is_authority=True)
        province = network.add("440000000000", _("Guangdong"), self._nation, is_authority=True)
        self._county = network.add("441900000000", _("Dongguan"), province, is_authority=True)
        self._villages = [
            network.add(code, name, self._county, settings=VILLAGE_SETTINGS)
            for code, name in (
                ("441900003005", _("Lichuan village")),
                ("441900003006", _("Huayuan village")),
            )
        ]
        self._bundle = ""

    def run(self, given: Path | None) -> None:
        began = time.monotonic()
        say(
            _(
                "A nation, a province, a county and two villages, each with its own daemon. The villages' links are held to {rate} kbit/s.",
                rate=VILLAGE_KBIT_S,
            )
        )
        folder, is_ours = self._content(given)
        size = folder_size(folder)
        say(_("Content: {folder}, {size}", folder=str(given or folder), size=format_bytes(size)))
        self._set_up()
        say(_("Set up in {seconds} s.", seconds=round(time.monotonic() - began)))
        self._publish(folder, size)
        if is_ours:
            self._revise(folder)
        else:
            say(_("The folder is too large to copy, so no revision is shown."))
        self._withdraw()
        say(_("All shown, in {seconds} s altogether.", seconds=round(time.monotonic() - began)))

    def _content(self, given: Path | None) -> tuple[Path, bool]:
        """The folder to publish, and whether it may be changed."""
        own = self._network.folder / "content"
        if given is None:
            with self._step(_("Making content: text, pictures, sound")):
                return make_content(own), True
        if folder_size(given) > MAX_COPY_BYTES:
            return given, False
        with self._step(_("Copying the folder, so that a revision can be shown")):
            shutil.copytree(given, own, symlinks=True)
        return own, True

    def _set_up(self) -> None:
        network = self._network
        for place in network.places:
            if place.is_authority:
                with self._step(_("{place}: keys and endorsement", place=place.name)):
                    network.found(place)
        for place in network.places:
            with self._step(_("{place}: request, acceptance, enrolment", place=place.name)):
                network.enrol(place)
        with self._step(_("Starting five daemons")):
            network.start(*network.places)

    def _publish(self, folder: Path, size: int) -> None:
        metadata = self._network.folder / "demo.toml"
        metadata.write_text(
            f'title = "{_("A demonstration")}"\nslug = "{SLUG}"\ndate = "2026-01-01"\n'
            'category = "demonstration"\n',
            encoding="utf-8",
        )
        before = self._traffic()
        with self._step(_("Publishing: packing, hashing, signing")):
            out = self._sign("publish", str(folder), str(metadata))
        found = re.search(rf"\b[0-9]{{12}}/[0-9]{{6}}/{SLUG}\b", out)
        assert found is not None  # noqa: S101 - the command succeeded, so it has named the bundle.
        self._bundle = found[0]
        seconds = self._watch(1)
        self._compare(folder)
        after = self._traffic()
        payload = next(
            found.bytes_total
            for found in self._network.status(self._nation).bundles
            if found.id == self._bundle
        )
        self._table(seconds, size, payload, before, after)

    def _revise(self, folder: Path) -> None:
        changed = change_one_file(folder)
        before = self._traffic()
        with self._step(_("Changing one file ({file}) and revising", file=changed.name[:20])):
            self._sign("revise", self._bundle, str(folder))
        seconds = self._watch(2)
        self._compare(folder)
        after = self._traffic()
        worst = max(
            after[village.code]["down_wire"] - before[village.code]["down_wire"]
            for village in self._villages
        )
        say(
            _(
                "The revision is in both villages after {seconds} s; {size} crossed each village's link.",
                seconds=f"{seconds:.1f}",
                size=format_bytes(worst),
            )
        )

    def _withdraw(self) -> None:
        with self._step(_("Withdrawing")):
            self._sign("withdraw", self._bundle, "--reason", _("end of the demonstration"))
        began = time.monotonic()
        folders = [village.paths.library / self._bundle for village in self._villages]
        self._wait(lambda: not any(folder.exists() for folder in folders))
        say(
            _(
                "The bundle is gone from both villages after {seconds} s.",
                seconds=f"{time.monotonic() - began:.1f}",
            )
        )

    # Parts.

    def _sign(self, *arguments: str) -> str:
        keys = [word for stick in self._nation.sticks for word in ("--keys", str(stick))]
        return self._network.run(self._nation, *arguments, *keys, "--yes")

    def _traffic(self) -> dict[str, dict[str, int]]:
        return {place.code: self._network.ask(place, "traffic") for place in self._network.places}

    @contextlib.contextmanager
    def _step(self, text: str) -> Iterator[None]:
        """Say what is done, and how long it took."""
        began = time.monotonic()
        if self._screen.is_terminal:
            with self._screen.status(text):
                yield
        else:
            yield
        click.echo(f"  ✓ {text}  {time.monotonic() - began:.1f} s")

    def _wait(self, is_done: Callable[[], bool], tick: Callable[[], float] | None = None) -> None:
        """Poll until done; `tick` draws, and returns a number that grows while anything moves."""
        deadline = time.monotonic() + PATIENCE_S
        last, moved_at = -1.0, time.monotonic()
        while not is_done():
            now = time.monotonic()
            if tick is not None and (found := tick()) != last:
                last, moved_at = found, now
            if now > deadline or now - moved_at > STALL_S:
                raise DemoError(
                    "demo.stalled",
                    N_("Nothing moves any more. The daemons' logs are in {folder}."),
                    fault=Fault.OURS,
                    folder=str(self._network.folder),
                )
            time.sleep(POLL_S)

    def _watch(self, revision: int) -> float:
        """Live bars of all places until both villages have it; returns seconds."""
        began = time.monotonic()
        places = self._network.places
        done = {place.code: 0.0 for place in places}
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[share]}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            console=self._screen,
            disable=not self._screen.is_terminal,
        ) as bars:
            tasks = {
                place.code: bars.add_task(f"  {place.name}", total=1.0, share="", rate="")
                for place in places
            }
            next_line = began + LINE_INTERVAL_S

            def tick() -> float:
                nonlocal next_line
                for place in places:
                    share = self._network.progress(place, self._bundle, revision)
                    done[place.code] = share
                    rate = self._network.ask(place, "traffic")["down_bytes_s"]
                    task = tasks[place.code]
                    bars.update(
                        task,
                        completed=share,
                        share=format_percent(share),
                        rate=f"{format_bytes(rate)}/s" if rate and share < 1 else "",
                    )
                    if share == 1:
                        bars.stop_task(task)
                if not self._screen.is_terminal and time.monotonic() >= next_line:
                    next_line += LINE_INTERVAL_S
                    click.echo(
                        "  "
                        + "  ".join(
                            f"{place.name} {format_percent(done[place.code])}" for place in places
                        )
                    )
                return sum(done.values())

            villages = [village.code for village in self._villages]
            self._wait(lambda: all(done[code] == 1 for code in villages), tick)
            tick()
        return time.monotonic() - began

    def _compare(self, folder: Path) -> None:
        """`diff -r` decides."""
        for village in self._villages:
            library = village.paths.library / self._bundle
            found = subprocess.run(
                ["diff", "-r", str(folder), str(library)],
                capture_output=True,
                text=True,
                check=False,
            )
            if found.returncode != 0:
                raise DemoError(
                    "demo.differs",
                    N_("The files at {place} differ from the folder: {difference}"),
                    fault=Fault.OURS,
                    place=village.name,
                    difference=(found.stdout or found.stderr).splitlines()[0],
                )
            click.echo(_("  ✓ diff -r: {place} has exactly these files", place=village.name))

    def _table(
        self,
        seconds: float,
        size: int,
        payload: int,
        before: dict[str, dict[str, int]],
        after: dict[str, dict[str, int]],
    ) -> None:
        def crossed(place: Place, kind: str) -> int:
            return after[place.code][kind] - before[place.code][kind]

        table = Table(box=None, padding=(0, 2), show_header=True)
        table.add_column(_("Place"))
        table.add_column(_("in"), justify="right")
        table.add_column(_("out"), justify="right")
        for place in self._network.places:
            table.add_row(
                place.name,
                format_bytes(crossed(place, "down_wire")),
                format_bytes(crossed(place, "up_wire")),
            )
        say(_("Bytes over each place's link, overhead included:"))
        self._screen.print(table)
        say(
            _(
                "In both villages after {seconds} s. Packing saved {saved}: {payload} instead of {size} on each link.",
                seconds=round(seconds),
                saved=format_percent(1 - payload / size) if size else "-",
                payload=format_bytes(payload),
                size=format_bytes(size),
            )
        )
        say(
            _(
                "Copies that left the nation: {copies}.",
                copies=f"{crossed(self._nation, 'up') / payload:.2f}",
            )
        )


def _clear(network: Network) -> None:
    network.stop(*network.places)
    shutil.rmtree(network.folder, ignore_errors=True)


def _say_how_to_look(network: Network) -> None:
    village = network.places[-1]
    pids = " ".join(str(place.process.pid) for place in network.places if place.process)
    say(_("The network goes on. Each place's data directory:"))
    for place in network.places:
        click.echo(f"  {place.name}: {place.paths.root}")
    say(_("Look around:"))
    for words in ("status --watch", "catalogue list", "events"):
        click.echo(f"  cuntong {words} --data {village.paths.root}")
    say(_("Stop it: kill {pids}; then remove {folder}", pids=pids, folder=str(network.folder)))


commands: list[click.Command] = [demo]
