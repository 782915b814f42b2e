"""What the planning model says of a laboratory's network."""

from __future__ import annotations

from datetime import date

import numpy as np

from cuntong_protocol.divisions import Division
from cuntong_simulations.lab.topology import Topology
from cuntong_simulations.model.country import Bundles, Country, SiteClass
from cuntong_simulations.model.run import run
from cuntong_simulations.scenario.scenario import (
    Calibration,
    Link,
    Release,
    Run,
    Scenario,
    Tier,
)
from cuntong_simulations.scenario.units import Rate, Size, Span

STEP_S = 2.0
"""A hundredth of the shortest transfer, and it divides a day."""
KBIT = 125.0


def predict(topology: Topology, payload_bytes: float, parameters: Calibration) -> dict[str, float]:
    """Seconds after which each place below the source has the payload, by its code."""
    country, bundles = _country(topology, payload_bytes, parameters)
    found = run(country.scenario, country, bundles, ends_early=True)
    return {
        node.code: float(found.done_h[number, 0]) * 3600
        for number, node in enumerate(topology.nodes)
        if node.code != topology.source
    }


def _country(
    topology: Topology, payload_bytes: float, parameters: Calibration
) -> tuple[Country, Bundles]:
    nodes = (
        topology.nodes
    )  # From the top down, and by code within a tier: children follow each other.
    numbers = {node.code: number for number, node in enumerate(nodes)}
    kinds = sorted({(node.tier, node.link.down_kbit_s, node.link.up_kbit_s) for node in nodes})
    tiers = sorted({node.tier for node in nodes})
    scenario = Scenario(
        name=topology.name,
        # In the laboratory's hub-and-spoke networks every tunnel leads to the place above, and nowhere else.
        run=Run(
            start=date(2027, 1, 1),
            days=1,
            step=Span(STEP_S),
            policy="tree" if topology.routing == "hub" else "swarm",
        ),
        tiers=[
            Tier(
                tier=tier.label,  # type: ignore[arg-type]
                count=len(topology.of_tier(tier)),
                links=[
                    Link(down=Rate(down * KBIT), up=Rate(up * KBIT))
                    for one, down, up in kinds
                    if one == tier
                ],
            )
            for tier in tiers
        ],
        releases=[Release(name="payload", size=Size(payload_bytes))],
        calibration=parameters,
    )
    parents = [numbers[node.parent] if node.parent else -1 for node in nodes]
    children = [parents.count(number) for number in range(len(nodes))]
    first = [parents.index(number) if number in parents else 0 for number in range(len(nodes))]
    country = Country(
        scenario=scenario,
        classes=tuple(
            SiteClass(
                tier=int(tier),
                down_bytes_s=down * KBIT,
                up_bytes_s=up * KBIT,
                link=f"{down:g}/{up:g} kbit/s",
                link_number=-1,
                subscription=-1,
                has_dish=False,
                store_bytes=0.0,
            )
            for tier, down, up in kinds
        ),
        parent=np.array(parents, np.int32),
        first_child=np.array(first, np.int32),
        child_count=np.array(children, np.int32),
        node_class=np.array(
            [kinds.index((it.tier, it.link.down_kbit_s, it.link.up_kbit_s)) for it in nodes],
            np.int32,
        ),
        tier=np.array([int(node.tier) for node in nodes], np.int8),
        province=np.array([_province(topology, node.code, numbers) for node in nodes], np.int32),
        identity=np.arange(len(nodes), dtype=np.int64),
        weight=np.ones(len(nodes)),
        code=np.array([int(node.code) for node in nodes], np.int64),
    )
    bundles = Bundles(
        names=("payload/1",),
        release=np.zeros(1, np.int32),
        size=np.array([payload_bytes]),
        priority=np.array([5], np.int32),
        released_s=np.zeros(1),
        deadline_s=np.full((1, 6), np.nan),
        publisher=np.array([numbers[topology.source]], np.int32),
    )
    return country, bundles


def _province(topology: Topology, code: str, numbers: dict[str, int]) -> int:
    province = Division(code[:2] + "0" * 10)
    return numbers.get(str(province), numbers[topology.source])
