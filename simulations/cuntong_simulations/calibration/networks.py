"""The small networks on which the model is compared with real daemons: the reference networks, and some drawn by seed.

Each payload is as large as its slowest place takes five minutes and a half for, headers and start left out: what a
transfer of a minute measures is mostly its beginning.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from cuntong_simulations.lab.bounds import last_bound_s
from cuntong_simulations.lab.topology import Topology, parse_topology

DRAWN = 5
LEAST_S = 330.0
"""The shortest time in which a network could have everything."""
DELAYS_MS = {"nation": 5, "province": 10, "county": 10, "village": 20}
QUEUE_MS = 250
_VILLAGE_KBIT_S = (256, 384, 512, 768, 1024)
_COUNTY_KBIT_S = (1000, 2000, 4000, 6000)
_PROVINCE_KBIT_S = (4000, 6000, 10000)
_NATION_KBIT_S = (8000, 12000, 20000)
_ASYMMETRY = (1.0, 1.0, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class TestNetwork:
    """A network to be measured and computed.

    Attributes:
        tables: As a topology is written in TOML.
        payload_mb: Of bytes that can't be compressed.
        is_for_fit: Parameters are fitted to it; the others test them.
    """

    tables: dict[str, Any]
    payload_mb: float
    is_for_fit: bool

    @property
    def name(self) -> str:
        return str(self.tables["name"])

    @property
    def topology(self) -> Topology:
        return parse_topology(self.tables, file=self.name)

    @property
    def bound_s(self) -> float:
        """The shortest time in which all places could have everything."""
        return last_bound_s(self.topology, self.payload_mb * 1e6)


def networks(seed: int = 1) -> list[TestNetwork]:
    """R1, R1h, R2 and five that are drawn; every other one is for the fit.

    From the second on: of those drawn with seed 1 that half has the one in which siblings' uplinks decide (D3). The
    other half can't tell what they are worth (`eta`, `phi`).
    """
    tables = [
        _reference("R1", "mesh", 512),
        _reference("R1h", "hub", 512),
        _reference("R2", "mesh", 128),
    ]
    tables += [
        _drawn(f"D{number}", random.Random(f"{seed} {number}"))  # noqa: S311 - has to be repeatable.
        for number in range(1, DRAWN + 1)
    ]
    return [TestNetwork(one, _payload_mb(one), at % 2 == 1) for at, one in enumerate(tables)]


def _payload_mb(tables: dict[str, Any]) -> float:
    seconds_per_mb = last_bound_s(parse_topology(tables, file="network"), 1e6)
    return round(LEAST_S / seconds_per_mb, 1)


def _reference(name: str, routing: str, village_up_kbit_s: int) -> dict[str, Any]:
    counties = ["440101", "440102", "450101", "450102"]
    villages = [f"{county}00100{number}" for county in counties for number in (1, 2, 3)]
    return _tables(
        name,
        routing,
        [
            ("nation", ["0" * 12], 20_000, 20_000),
            ("province", ["440000000000", "450000000000"], 10_000, 10_000),
            ("county", [f"{county}000000" for county in counties], 4_000, 4_000),
            ("village", villages, 512, village_up_kbit_s),
        ],
    )


def _drawn(name: str, chance: random.Random) -> dict[str, Any]:
    """One to three provinces, one to three counties in each, two to five villages in each of these."""
    nation = chance.choice(_NATION_KBIT_S)
    rows: list[tuple[str, list[str], int, int]] = [("nation", ["0" * 12], nation, nation)]
    for province in range(1, chance.randint(1, 3) + 1):
        rate = chance.choice(_PROVINCE_KBIT_S)
        rows.append(("province", [f"{10 + province}0000000000"], rate, rate))
        for county in range(1, chance.randint(1, 3) + 1):
            rate = chance.choice(_COUNTY_KBIT_S)
            code = f"{10 + province}01{county:02}"
            rows.append(
                ("county", [f"{code}000000"], rate, round(rate * chance.choice(_ASYMMETRY)))
            )
            rate = chance.choice(_VILLAGE_KBIT_S)
            villages = [f"{code}001{number:03}" for number in range(1, chance.randint(2, 5) + 1)]
            rows.append(("village", villages, rate, round(rate * chance.choice(_ASYMMETRY))))
    return _tables(name, chance.choice(("mesh", "mesh", "hub")), rows)


def _tables(name: str, routing: str, rows: list[tuple[str, list[str], int, int]]) -> dict[str, Any]:
    return {
        "name": name,
        "routing": routing,
        "links": [
            {
                "nodes": nodes,
                "down_kbit_s": down,
                "up_kbit_s": up,
                "delay_ms": DELAYS_MS[tier],
                "queue_ms": QUEUE_MS,
            }
            for tier, nodes, down, up in rows
        ],
    }
