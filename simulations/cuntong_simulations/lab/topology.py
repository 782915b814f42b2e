"""Topologies: the places of a network, the access link of each, and which links a packet crosses.

A place has one access link to an unlimited core. With `mesh` routing a packet goes up the link of the place
it leaves and down the link of the place it is for. With `hub` routing each place has a tunnel to the place
above it and to nobody else, so a packet that passes through a place crosses that place's link twice: down,
and up again.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cuntong_protocol.divisions import Division, DivisionError, Tier

from .files import bad_value, load, parse

Rate = Annotated[float, msgspec.Meta(gt=0, le=10_000_000)]
Loss = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Settings = dict[str, dict[str, int | float | bool | str | list[str]]]


class AccessLink(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of access link, and the places that have it.

    Attributes:
        nodes: Division codes.
        down_kbit_s: Rate of IP packets towards the place; `up_kbit_s` away from it.
        delay_ms: One way, beside serialisation and queueing.
        queue_ms: What waits longer than that is dropped; a queue never holds less than two packets.
        loss: Share of packets that is lost at random in each direction.
        config: Tables for these places' `config.toml`, over those of the laboratory.
    """

    nodes: Annotated[list[str], msgspec.Meta(min_length=1)]
    down_kbit_s: Rate
    up_kbit_s: Rate
    delay_ms: Annotated[float, msgspec.Meta(ge=0, le=10_000)]
    queue_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 250.0
    loss: Loss = 0.0
    config: Settings = {}


class TopologyFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file as it is written.

    Attributes:
        seed: Of all that is random on the links.
        network: The range that places get their addresses from.
        source: Who publishes, and where pages and pings go; the topmost place if not said.
    """

    name: str
    links: Annotated[list[AccessLink], msgspec.Meta(min_length=1)]
    routing: Literal["mesh", "hub"] = "mesh"
    seed: int = 1
    network: str = "10.77.0.0/16"
    source: str = ""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A place of the network; `parent` is empty for the topmost."""

    code: str
    parent: str
    address: str
    link: AccessLink

    @property
    def tier(self) -> Tier:
        return Division(self.code).tier

    @property
    def settings(self) -> Settings:
        """The tables that this place's `config.toml` gets."""
        known = {
            "link_down_kbit_s": int(self.link.down_kbit_s),
            "link_up_kbit_s": int(self.link.up_kbit_s),
        }
        return {**self.link.config, "bandwidth": {**known, **self.link.config.get("bandwidth", {})}}


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """A topology that makes sense: nodes from the top down, one of them the topmost."""

    name: str
    routing: Literal["mesh", "hub"]
    seed: int
    network: str
    source: str
    nodes: list[Node]

    @property
    def receivers(self) -> list[Node]:
        """The places below the source."""
        return [node for node in self.nodes if self.source in self.above(node.code)]

    def node(self, code: str) -> Node:
        return next(node for node in self.nodes if node.code == code)

    def of_tier(self, tier: Tier) -> list[Node]:
        return [node for node in self.nodes if node.tier == tier]

    @property
    def last_tier(self) -> list[Node]:
        """The places of the deepest tier there is."""
        deepest = max(node.tier for node in self.nodes)
        return self.of_tier(deepest)

    def children(self, code: str) -> list[Node]:
        return [node for node in self.nodes if node.parent == code]

    def above(self, code: str) -> list[str]:
        """A place's ancestors, nearest first."""
        found = []
        parent = self.node(code).parent
        while parent:
            found.append(parent)
            parent = self.node(parent).parent
        return found

    def path(self, source: str, target: str) -> list[tuple[str, Literal["up", "down"]]]:
        """The link directions that a packet crosses, in order."""
        if self.routing == "mesh":
            return [(source, "up"), (target, "down")]
        ups, downs = [source, *self.above(source)], [target, *self.above(target)]
        meeting = next(code for code in ups if code in downs)
        hops = [*ups[: ups.index(meeting)], *reversed(downs[: downs.index(meeting) + 1])]
        crossed: list[tuple[str, Literal["up", "down"]]] = [(source, "up")]
        for hub in hops[1:-1]:
            crossed += [(hub, "down"), (hub, "up")]
        return [*crossed, (target, "down")]


def load_topology(path: Path) -> Topology:
    """Read and check a topology.

    Raises:
        LabFileError: as `files.load`.
    """
    return make_topology(load(path, TopologyFile), file=str(path))


def parse_topology(given: dict[str, Any], *, file: str = "topology") -> Topology:
    """A topology from tables, as `load_topology`."""
    return make_topology(parse(given, TopologyFile, file=file), file=file)


def make_topology(written: TopologyFile, *, file: str) -> Topology:
    """Give every place its parent and its address.

    Raises:
        LabFileError: `lab.bad-value`: a code is wrong or there twice, two places have nobody above them, or
            the range is too small.
    """
    links: dict[Division, AccessLink] = {}
    for link in written.links:
        for text in link.nodes:
            try:
                code = Division(text)
            except DivisionError:
                raise bad_value(file, f"links.nodes: {text}") from None
            if code in links:
                raise bad_value(file, f"links.nodes: {text}")
            links[code] = link
    try:
        network = ipaddress.ip_network(written.network)
    except ValueError:
        raise bad_value(file, "network") from None
    if network.num_addresses < len(links) + 2:
        raise bad_value(file, "network")
    nodes = []
    for number, code in enumerate(sorted(links, key=lambda found: (found.tier, found)), start=1):
        parent = code.parent
        while parent is not None and parent not in links:
            parent = parent.parent
        if (parent is None) != (number == 1):
            raise bad_value(file, f"links.nodes: {code}")
        nodes.append(
            Node(
                code=str(code),
                parent=str(parent or ""),
                address=str(network[number]),
                link=links[code],
            )
        )
    source = written.source or nodes[0].code
    if source not in links:
        raise bad_value(file, "source")
    return Topology(
        name=written.name,
        routing=written.routing,
        seed=written.seed,
        network=written.network,
        source=source,
        nodes=nodes,
    )
