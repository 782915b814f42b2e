"""Why places wait, compiled."""

from __future__ import annotations

from .arrays import (
    ALMOST,
    CONTENT,
    FETCHED,
    HELD,
    OWN_LINK,
    SKY,
    STORE,
    UPLINK,
    Floats,
    Given,
    Settings,
    State,
)
from .compiled import compiled_bare
from .deliveries import is_left_to_sky


@compiled_bare
def cause_of(g: Given, x: Settings, s: State, node: int) -> int:
    """Why nothing can be asked for: all is left to the sky, or none has room; else -1."""
    kind = g.node_class[node]
    if not x.leaves_to_sky and not g.is_tight[kind]:
        return -1
    is_sky, is_full = True, True
    for place in range(g.wanted_count[kind]):
        b = g.order[kind, place]
        if s.pending[b, node] == 0:
            continue
        if not is_left_to_sky(g, s, node, b):
            is_sky = False
        if s.pending[b, node] == FETCHED:
            is_full = False
    if is_sky:
        return SKY
    return STORE if is_full else -1


@compiled_bare
def held_by(why: int, wanted: float, got: float, most: float) -> int:
    """What held a wanting node back."""
    if why >= 0:
        return why
    if got >= most * ALMOST:
        return OWN_LINK
    return UPLINK if got < wanted * ALMOST else CONTENT


@compiled_bare
def hold(g: Given, x: Settings, sums: Floats, node: int, why: int, wanted: float, got: float, most: float) -> None:  # fmt: skip
    """Count what held a wanting node back."""
    sums[g.pair[node], HELD + held_by(why, wanted, got, most)] += g.weight[node] * x.dt / 3600.0
