"""The shortest time in which anything could distribute a payload: what results are compared with.

Kumar and Ross (2006) for places that can all trade; for hub-and-spoke routing every copy that a place passes to
its children crosses its own uplink, since children have no other way to each other.
"""

from __future__ import annotations

from .topology import Node, Topology


def place_bound_s(topology: Topology, node: Node, payload_bytes: float) -> float:
    """No place is done before the payload has passed the narrowest link on its way."""
    way = [node, *(topology.node(code) for code in topology.above(node.code))]
    codes = [found.code for found in way]
    if topology.source in codes:
        way = way[: codes.index(topology.source)]
    rates = [found.link.down_kbit_s for found in way]
    source = topology.node(topology.source)
    return payload_bytes * 8 / (min([*rates, source.link.up_kbit_s]) * 1000)


def last_bound_s(topology: Topology, payload_bytes: float) -> float:
    """No network is done before its last place can be."""
    receivers = topology.receivers
    source = topology.node(topology.source)
    bits = payload_bytes * 8
    slowest = max((place_bound_s(topology, node, payload_bytes) for node in receivers), default=0.0)
    if topology.routing == "hub":
        fans = (
            len(topology.children(node.code)) * bits / (node.link.up_kbit_s * 1000)
            for node in [source, *receivers]
        )
        return max(slowest, *fans)
    uplinks = source.link.up_kbit_s + sum(node.link.up_kbit_s for node in receivers)
    return max(slowest, len(receivers) * bits / (uplinks * 1000))
