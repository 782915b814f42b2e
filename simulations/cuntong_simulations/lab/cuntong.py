"""This project as a contender: real daemons, enrolled and told to publish with the real commands.

The commands and the network builder live in the tools, which this package doesn't import: whoever assembles
the laboratory hands them in.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cuntong_daemon.i18n import _
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import N_

from .errors import LabError
from .topology import Node, Topology
from .waiting import poll
from .wires import Wires

SLUG = "payload"
START_TOGETHER = 4
"""Daemons; more would only wait for the processor."""
FRESH_S = 120.0
"""Until a tier has its catalogue and its parent."""
LISTED_S = 60.0
"""From the signature until the source's own daemon shows the bundle."""
POLL_S = 0.25
"""How often a daemon is asked: over its local socket it only answers."""


class Network(Protocol):
    """What is needed of `cuntong_tools.demo.network.Network`."""

    def add(self, code: str, name: str, parent: Any = None, **more: Any) -> Any: ...  # noqa: ANN401
    def found(self, place: Any) -> None: ...  # noqa: ANN401
    def enrol(self, place: Any) -> None: ...  # noqa: ANN401
    def run(self, place: Any, *arguments: str) -> str: ...  # noqa: ANN401
    def start(self, *places: Any) -> None: ...  # noqa: ANN401
    def stop(self, *places: Any) -> None: ...  # noqa: ANN401
    def status(self, place: Any) -> Any: ...  # noqa: ANN401


class Cuntong:
    """A network of `cuntongd`.

    Args:
        build: Makes the network: (folder, environment, network=range, vpn_shape=shape).
        tell: Is told how far the preparation is.
    """

    name = "cuntong"

    def __init__(self, build: Callable[..., Network], tell: Callable[[str], None]) -> None:
        self._build = build
        self._tell = tell
        self._places: dict[str, Any] = {}
        self._bundle = ""

    def prepare(self, topology: Topology, folder: Path, seed: int) -> None:
        """Found the authorities and enrol every place, as administrators do it."""
        self._topology = topology
        self._network = self._build(
            folder, None, network=topology.network, vpn_shape=topology.routing
        )
        authorities = {topology.source, topology.nodes[0].code}
        for node in topology.nodes:
            self._places[node.code] = self._network.add(
                node.code,
                node.code,
                self._places.get(node.parent),
                is_authority=node.code in authorities,
                address=node.address,
                settings=node.settings,
            )
        for code, place in self._places.items():
            if code in authorities:
                self._network.found(place)
        for number, place in enumerate(self._places.values(), start=1):
            self._network.enrol(place)
            self._tell(_("{done} of {places} enrolled", done=number, places=len(self._places)))

    def start(self, wires: Wires) -> None:
        """Start the daemons tier by tier, each when those above are ready.

        Raises:
            LabError: `lab.not-ready`.
        """
        tiers = sorted({node.tier for node in self._topology.nodes})
        for tier in tiers:
            nodes = self._topology.of_tier(tier)
            places = [self._places[node.code] for node in nodes]
            for node, place in zip(nodes, places, strict=True):
                place.prefix = wires.namespaces[node.code].prefix
            for at in range(0, len(places), START_TOGETHER):
                self._network.start(*places[at : at + START_TOGETHER])
            deadline = time.monotonic() + FRESH_S
            for node in nodes:
                poll(
                    partial(self._is_ready, node),
                    every_s=POLL_S,
                    deadline=deadline,
                    failure=partial(_not_ready, node),
                )

    def publish(self, content: Path) -> int:
        """`cuntong publish` at the source.

        Raises:
            LabError: `lab.not-listed`.
        """
        source = self._places[self._topology.source]
        metadata = content.parent / "payload.toml"
        metadata.write_text(
            f'title = "Laboratory"\nslug = "{SLUG}"\ndate = "2026-01-01"\ncategory = "laboratory"\n'
        )
        keys = [word for stick in source.sticks for word in ("--keys", str(stick))]
        said = self._network.run(source, "publish", str(content), str(metadata), *keys, "--yes")
        found = re.search(rf"\b[0-9]{{12}}/[0-9]{{6}}/{SLUG}\b", said)
        assert found is not None  # noqa: S101 - the command succeeded, so it has named the bundle.
        self._bundle = found[0]
        sizes: list[int] = []

        def is_listed() -> bool:
            bundles = self._network.status(source).bundles
            sizes.extend(found.bytes_total for found in bundles if found.id == self._bundle)
            return any(sizes)

        poll(
            is_listed,
            every_s=POLL_S,
            deadline=time.monotonic() + LISTED_S,
            failure=lambda: LabError(
                "lab.not-listed",
                N_("{place} has published, but its daemon doesn't list the bundle."),
                place=self._topology.source,
            ),
        )
        return sizes[-1]

    def has_begun(self, code: str) -> bool:
        """Places pass pieces on while they receive: it is everybody's turn at once."""
        return True

    def is_done(self, code: str) -> bool:
        """A bundle's folder appears in the library by one rename, when all of it was verified."""
        return bool((self._places[code].paths.library / self._bundle).is_dir())

    def pids(self) -> dict[str, int]:
        return {code: place.process.pid for code, place in self._places.items() if place.process}

    def stop(self) -> None:
        self._network.stop(*self._places.values())

    def logs(self) -> Sequence[Path]:
        """The daemons' logs."""
        return [place.log for place in self._places.values()]

    def _is_ready(self, node: Node) -> bool:
        place, parent = self._places[node.code], node.parent
        try:
            status = self._network.status(place)
        except CuntongError:
            return False
        # What the places below publish comes when they run.
        relevant = {node.code, *self._topology.above(node.code)}
        known = [found for found in status.authorities if found.code in relevant]
        is_fresh = bool(known) and all(found.state == "fresh" for found in known)
        above = status.parent
        return is_fresh and (not parent or (above.state == "connected" and above.code == parent))


def _not_ready(node: Node) -> LabError:
    return LabError(
        "lab.not-ready",
        N_("{place} has no fresh catalogue or the wrong parent."),
        place=node.code,
    )
