"""Scenarios: what is published, who else uses the links, and what happens to them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cuntong_protocol.texts import N_

from .errors import LabFileError
from .files import load
from .topology import Loss, Node, Topology

PAGE_BYTES = 100_000
Seconds = Annotated[float, msgspec.Meta(ge=0, le=100_000)]
Places = Literal["none", "first", "last", "all"] | list[str]
"""Of the deepest tier: nobody, the first or the last of each parent's, everybody; or these codes."""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What is published.

    Attributes:
        random_mb: Megabytes (10^6 bytes) that can't be compressed, the same ones for the same seed.
        folder: Files from here are published too, in the order of their paths.
        folder_mb: At most so much of them.
        files: Into how many files the random bytes are cut.
    """

    random_mb: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 8.0
    folder: str = ""
    folder_mb: float = 1_000_000.0
    files: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 4


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A link becomes different `at_s` seconds after the publication began.

    Attributes:
        nodes: Whose access link.
        share: Of the rates in the topology.
        loss: Share of packets lost at random in each direction.
        outage_s: Nothing passes for so long.
    """

    at_s: Seconds
    nodes: Places = "first"
    share: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None
    loss: Loss | None = None
    outage_s: Seconds = 0.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        pages: Who fetches a page of 100 kB from the source every `page_every_s`.
        bulk: Who downloads from the source as fast as it comes, for `bulk_s`.
        pings: Who pings the source five times a second.
        baseline_s: How long the foreground is measured before anything is published.
        limit_s: The run ends then, finished or not.
    """

    name: str
    payload: Payload = Payload()
    pages: Places = "none"
    page_every_s: Annotated[float, msgspec.Meta(gt=0)] = 15.0
    bulk: Places = "none"
    bulk_s: Seconds = 300.0
    pings: Places = "all"
    baseline_s: Seconds = 60.0
    limit_s: Seconds = 900.0
    events: list[Event] = []


_LONG = Payload(random_mb=24.0)
BUILT_IN: dict[str, Scenario] = {
    found.name: found
    for found in (
        Scenario(name="idle", pings="none", baseline_s=0.0),
        Scenario(name="pages", pages="first"),
        Scenario(name="bulk", bulk="first", payload=_LONG),
        Scenario(
            name="step",
            pings="none",
            baseline_s=0.0,
            events=[Event(at_s=40.0, share=0.5), Event(at_s=80.0, share=1.0)],
        ),
        Scenario(name="loss2", pings="none", baseline_s=0.0, events=[Event(at_s=0.0, loss=0.02)]),
        Scenario(
            name="outages",
            pings="none",
            baseline_s=0.0,
            payload=_LONG,
            events=[Event(at_s=at, outage_s=30.0) for at in (60.0, 360.0, 660.0)],
        ),
    )
}
"""Without a file. `mixed` is a file, because it names the folder its text comes from."""


def load_scenario(name: str) -> Scenario:
    """A built-in scenario by its name, or one from a file.

    Raises:
        LabFileError: as `files.load`; `lab.no-scenario`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not name.endswith(".toml"):
        raise LabFileError(
            "lab.no-scenario",
            N_("There is no scenario {name}; there are {known}, or a TOML file."),
            name=name,
            known=", ".join(BUILT_IN),
        )
    return load(Path(name), Scenario)


def chosen(topology: Topology, places: Places) -> list[Node]:
    """The nodes that a scenario means."""
    if isinstance(places, list):
        return [topology.node(code) for code in places]
    if places == "all":
        return topology.last_tier
    if places == "none":
        return []
    found = {}
    for node in topology.last_tier:
        if places == "last" or node.parent not in found:
            found[node.parent] = node
    return list(found.values())


def make_payload(payload: Payload, folder: Path, seed: int) -> int:
    """Write the files to be published; returns their bytes.

    Raises:
        LabFileError: `lab.no-folder`.
    """
    folder.mkdir(parents=True)
    total = 0
    if payload.folder:
        source = Path(payload.folder)
        if not source.is_dir():
            raise LabFileError(
                "lab.no-folder",
                N_("The payload's folder {folder} isn't there."),
                folder=payload.folder,
            )
        for path in sorted(found for found in source.rglob("*") if found.is_file()):
            size = path.stat().st_size
            if total + size > payload.folder_mb * 1_000_000:
                continue
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            total += size
    generator = random.Random(seed)  # noqa: S311 - has to be repeatable.
    size = int(payload.random_mb * 1_000_000)
    each, more = divmod(size, payload.files)
    for number in range(payload.files):
        own = each + (number < more)
        if own:
            (folder / f"random-{number + 1}.bin").write_bytes(generator.randbytes(own))
            total += own
    return total
