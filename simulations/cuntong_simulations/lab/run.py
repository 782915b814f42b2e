"""One measurement: a network of real daemons on emulated links, a publication, and what came of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cuntong_daemon.i18n import _
from cuntong_protocol.texts import N_

from .analysis import analyse
from .emulator import SAMPLE_S
from .errors import LabError
from .folders import remove_abandoned, working_folder
from .probing import Probes
from .processes import busy_share, cost_of
from .proof import prove
from .recorder import Recorder
from .result import Result
from .scenario import Event, Scenario, chosen, make_payload
from .topology import Node, Topology
from .wires import Wires

POLL_S = 0.1
"""How exactly a completion is known; looking whether a folder exists costs the daemons nothing."""
REST_S = 120.0
QUIET_S = 3.0
"""So long no link carries more than `QUIET_BYTES_S` before anything is measured."""
QUIET_BYTES_S = 2_000


Say = Callable[[str], None]


class Contender(Protocol):
    """Something that can bring a folder from the source to all places."""

    name: str

    def prepare(self, topology: Topology, folder: Path, seed: int) -> None:
        """What can be done before there are links."""

    def start(self, wires: Wires) -> None:
        """Start what has to run in the places, and wait until it is ready."""

    def publish(self, content: Path) -> int:
        """Begin; returns the bytes of the payload on the links. What follows is timed from the call."""

    def has_begun(self, code: str) -> bool:
        """Whether it is a place's turn: what its public sees counts from then on."""

    def is_done(self, code: str) -> bool:
        """Whether a place has all files."""

    def pids(self) -> dict[str, int]:
        """The process to account for at each place, where there is one."""

    def stop(self) -> None:
        """End everything."""


def run(
    topology: Topology,
    scenario: Scenario,
    contender: Contender,
    *,
    seed: int,
    say: Say,
    watch: Callable[[float, int, int], None],
    logs: Path | None = None,
    name: str = "",
) -> Result:
    """Measure; needs a process that `namespaces.isolate` made.

    Args:
        say: Is told what is done now.
        watch: Is told (seconds since the publication, places that are done, places).
        logs: A folder for what the programs in the places wrote, whatever becomes of the run.
        name: Stands in the working folder's name, so that people can tell runs apart.

    Raises:
        LabError: something didn't start, or ended.
    """
    began_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for abandoned in remove_abandoned():
        say(_("Removed what a run that was killed had left: {folder}", folder=str(abandoned)))
    with working_folder(name) as folder:
        content = folder / "content"
        content_bytes = make_payload(scenario.payload, content, seed)
        say(_("The emulator proves itself."))
        proof = prove()
        say(_("Preparing {places} places.", places=len(topology.nodes)))
        contender.prepare(topology, folder / "places", seed)
        wires = Wires(topology)
        try:
            with contextlib.ExitStack() as stack:
                if logs is not None:
                    stack.callback(_keep_logs, folder / "places", logs)
                stack.callback(contender.stop)
                say(_("Starting them."))
                contender.start(wires)
                wait_until_quiet(wires)
                probes = stack.enter_context(Probes(wires, scenario))
                recorder = Recorder()
                recorder.began = time.monotonic()
                if scenario.baseline_s:
                    say(
                        _(
                            "Measuring the public alone for {seconds} s.",
                            seconds=round(scenario.baseline_s),
                        )
                    )
                    wires.wait(scenario.baseline_s)
                say(_("Publishing."))
                payload_bytes = _measure(
                    topology, scenario, contender, wires, content, recorder, watch
                )
                seen = probes.stop()
            drops = wires.kernel_drops()
            wires.stop()
        finally:
            wires.close()
    return analyse(
        topology,
        scenario,
        contender=contender.name,
        seed=seed,
        began_at=began_at,
        content_bytes=content_bytes,
        payload_bytes=payload_bytes,
        recorder=recorder,
        samples=wires.samples,
        seen=seen,
        proof=proof,
        kernel_drops=sum(drops.values()),
    )


def _keep_logs(places: Path, logs: Path) -> None:
    """Each place has one file of words, `log` or `cuntongd.log`."""
    logs.mkdir(parents=True, exist_ok=True)
    for log in (*places.glob("*/log"), *places.glob("*/*.log")):
        shutil.copyfile(log, logs / f"{log.parent.name}.log")


def _measure(
    topology: Topology,
    scenario: Scenario,
    contender: Contender,
    wires: Wires,
    content: Path,
    recorder: Recorder,
    watch: Callable[[float, int, int], None],
) -> int:
    """From the publication to the last completion; returns the payload's bytes."""
    changes = _changes(topology, scenario)
    waiting = [node.code for node in topology.receivers]
    places = len(waiting)
    pids = contender.pids()
    before = {code: cost_of(pid) for code, pid in pids.items()}
    wires.restart()
    recorder.published = started = time.monotonic()
    with busy_share() as busy:
        payload_bytes = contender.publish(content)
        recorder.commanded = time.monotonic()
        end = started + scenario.limit_s
        hold = started + (scenario.bulk_s if scenario.bulk != "none" else 0.0)
        while True:
            now = time.monotonic()
            while changes and started + changes[0][0] <= now:
                changes.pop(0)[1](wires)
            for code in waiting:
                if code not in recorder.begun and contender.has_begun(code):
                    recorder.begun[code] = now
            for code in [code for code in waiting if contender.is_done(code)]:
                waiting.remove(code)
                recorder.done[code] = now
                if code in pids:
                    recorder.costs[code] = (before[code], cost_of(pids[code]))
            watch(now - started, places - len(waiting), places)
            if now >= end or (not waiting and now >= hold):
                break
            wires.wait(POLL_S)
    for code, pid in pids.items():
        recorder.costs.setdefault(code, (before[code], cost_of(pid)))
    recorder.ended = time.monotonic()
    recorder.busy = busy.share
    return payload_bytes


Change = tuple[float, Callable[[Wires], None]]


def _changes(topology: Topology, scenario: Scenario) -> list[Change]:
    """What happens to links, in the order of time."""
    found: list[Change] = []
    for event in scenario.events:
        for node in chosen(topology, event.nodes):
            found.append((event.at_s, _changer(node, event)))
            if event.outage_s:
                found.append((event.at_s + event.outage_s, _mender(node)))
    return sorted(found, key=lambda change: change[0])


def _changer(node: Node, event: Event) -> Callable[[Wires], None]:
    def change(wires: Wires) -> None:
        share = event.share
        wires.change(
            node.code,
            "up",
            rate_kbit_s=None if share is None else node.link.up_kbit_s * share,
            loss=event.loss,
            is_down=True if event.outage_s else None,
        )
        wires.change(
            node.code,
            "down",
            rate_kbit_s=None if share is None else node.link.down_kbit_s * share,
            loss=event.loss,
            is_down=True if event.outage_s else None,
        )

    return change


def _mender(node: Node) -> Callable[[Wires], None]:
    def mend(wires: Wires) -> None:
        wires.change(node.code, "up", is_down=False)
        wires.change(node.code, "down", is_down=False)

    return mend


def wait_until_quiet(wires: Wires, limit_s: float = REST_S) -> None:
    """Wait until nothing much has crossed any link for a while.

    Raises:
        LabError: `lab.not-quiet`, `lab.emulator-failed`.
    """
    deadline = time.monotonic() + limit_s
    needed = int(QUIET_S)
    while True:
        wires.wait(SAMPLE_S)
        recent = wires.samples[-needed - 1 :]
        if len(recent) > needed and all(
            now.bytes - before.bytes < QUIET_BYTES_S * needed
            for now, before in zip(recent[-1].directions, recent[0].directions, strict=True)
        ):
            return
        if time.monotonic() > deadline:
            raise LabError(
                "lab.not-quiet", N_("The network didn't come to rest before the measurement.")
            )
