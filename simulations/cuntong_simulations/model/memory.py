"""How much memory a run takes, known before it begins."""

from __future__ import annotations

import resource
from pathlib import Path

from cuntong_protocol.texts import N_

from .errors import ModelError

PROGRAM_BYTES = 190_000_000
"""Python, NumPy and what was compiled before; compiling, once for each version, takes 200 MB more."""
NODE_BYTES = 112
"""Country, tables and state, of a node without its bundles."""
PAIR_BYTES = 8 + 4 + 1 + 0.6
"""Of a node and bundle: bytes had, hour of being done, pending; what its group has together, for those that have one."""
AIR_BYTES = 8 + 1
"""Of a dish and bundle."""
STAR_BYTES = 9 * 8
"""Of a node, where all share one uplink."""
SUM_BYTES = 64 * 12 * 8
"""Of a class in a province: a row of sums in each part."""
STEP_BYTES = 3 * 8
"""Of a bundle and step: what the satellite brings."""
_MEMORY = Path("/proc/meminfo")
_OWN = Path("/proc/self/statm")


def estimate(
    nodes: int,
    bundles: int,
    dishes: int = 0,
    *,
    is_star: bool = False,
    rows: int = 0,
    steps: int = 0,
) -> int:
    """Bytes that a run takes, all in all.

    Args:
        nodes, bundles, dishes: How many there are.
        is_star: All get from the publisher.
        rows: Of the sums: how many classes there are in each province, added up.
        steps: Of the run.
    """
    of_nodes = nodes * (NODE_BYTES + bundles * PAIR_BYTES + is_star * STAR_BYTES)
    of_bundles = bundles * (dishes * AIR_BYTES + steps * STEP_BYTES)
    return PROGRAM_BYTES + round(of_nodes + of_bundles + rows * SUM_BYTES)


def refuse_too_large(needed: int, available: int | None = None) -> None:
    """Say no before anything is computed.

    Args:
        needed: Bytes, as estimated.
        available: What the machine has free; asked for if None.

    Raises:
        ModelError: `sim.too-large`.
    """
    free = available_bytes() if available is None else available
    if free is not None and needed > free:
        raise ModelError(
            "sim.too-large",
            N_("This run takes about {needed} MB of memory, and {available} MB are free; try --quick, or fewer bundles."),
            needed=needed // 1_000_000,
            available=free // 1_000_000,
        )  # fmt: skip


def available_bytes() -> int | None:
    """What is free, or could be at once, or is this program's already; None where nobody tells."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
        own_pages = int(_OWN.read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024 + own_pages * resource.getpagesize()
    return None
