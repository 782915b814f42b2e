"""How far a sample's figures may be from the whole country's (MODEL.md 10).

Delete-a-group jackknife: Kott, "The Delete-a-Group Jackknife", Journal of Official Statistics 17 (2001), section 2.
Quantiles by inverting the interval of the distribution: Woodruff, "Confidence Intervals for Medians and Other Position
Measures", JASA 47 (1952). What the counties of a sample have to do with each other, through the uplinks above them, isn't
in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuntong_simulations.model.country import Country, Floats

GROUPS = 20
T_95 = 2.093
"""Of Student's distribution with 19 degrees of freedom, both sides."""
MAX_DEPTH = 6
"""Tiers: so often a group is handed down."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Which group each node's county is in.

    Attributes:
        of_node: 0: what is there in any sample (the tiers above, and strata that are counted in full); groups from 1.
        count: How many groups there are.
    """

    of_node: NDArray[np.int8]
    count: int


def groups_of(country: Country) -> Groups | None:
    """Deal the sampled counties out to the groups, in the order of their nodes, which is that of the provinces.

    Returns:
        None when the country isn't a sample, or one of a single county.
    """
    parent_weight = country.weight[np.maximum(country.parent, 0)]
    tops = np.flatnonzero((country.weight != parent_weight) & (country.parent >= 0))
    count = min(GROUPS, len(tops))
    if count < 2:
        return None
    of_node = np.zeros(country.node_count, np.int8)
    of_node[tops] = np.arange(len(tops)) % count + 1
    is_top = np.zeros(country.node_count, np.bool_)
    is_top[tops] = True
    for _depth in range(MAX_DEPTH):
        above = of_node[np.maximum(country.parent, 0)]
        of_node = np.where(is_top | (country.parent < 0), of_node, above)
    return Groups(of_node, count)


def half_width(part: Floats, whole: Floats) -> Floats:
    """Half the 95 % interval of the share `part / whole`.

    Args:
        part: Weighted sums by group, shape (1 + groups, ...); the first is certain.
        whole: Likewise, the same shape or one that broadcasts to it.

    Returns:
        Shape (...); 0 where nothing is counted.
    """
    count = len(part) - 1
    scale = count / (count - 1)

    def share(part: Floats, whole: Floats) -> Floats:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    whole = np.broadcast_to(whole, part.shape)
    estimate = share(part.sum(axis=0), whole.sum(axis=0))
    without = share(
        part[0] + scale * (part[1:].sum(axis=0) - part[1:]),
        whole[0] + scale * (whole[1:].sum(axis=0) - whole[1:]),
    )
    variance = (count - 1) / count * ((without - estimate) ** 2).sum(axis=0)
    found: Floats = T_95 * np.sqrt(variance)
    return found
