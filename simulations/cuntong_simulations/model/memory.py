"""How much memory a run takes, known before it begins."""

from __future__ import annotations

from pathlib import Path

from cuntong_protocol.texts import N_

from .errors import ModelError

PROGRAM_BYTES = 300_000_000
"""Python, NumPy, the compiler and what it has compiled."""
NODE_BYTES = 160
"""Country, tables and state, of a node without its bundles."""
PAIR_BYTES = 8 + 4 + 1
"""Bytes had, hour of being done, pending: of a node and bundle."""
AIR_BYTES = 8 + 1
_MEMORY = Path("/proc/meminfo")


def estimate(nodes: int, bundles: int, dishes: int = 0, *, is_star: bool = False) -> int:
    """Bytes that a run takes, all in all."""
    star = 9 * 8 * nodes if is_star else 0
    return PROGRAM_BYTES + star + nodes * (NODE_BYTES + bundles * PAIR_BYTES) + dishes * bundles * AIR_BYTES  # fmt: skip


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
    """What is free, or could be at once; None where nobody tells."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None
