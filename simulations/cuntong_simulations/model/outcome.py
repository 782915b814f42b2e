"""What a run of the model gives (MODEL.md 11); results, reports and the planner's loop read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .country import Bundles, Country

CARRIERS = ("link", "siblings", "satellite", "disk")
"""Bytes received, by how they came."""
CAUSES = ("own-link", "uplink", "content", "off", "sky", "store")
"""What held a wanting node back in a step: its own downlink, its source's uplink (or the hub's), content that its source
doesn't have yet, its computer being off or its calendar closed, waiting for the satellite, no room."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run.

    Attributes:
        done_h: Hours after the start at which each node had each bundle, shape (nodes, bundles), float32; NaN: not by
            the end, or not wanted.
        wants: By class and bundle.
        carried: Bytes received, weighted, shape (classes, carriers, days).
        link_bytes: Bytes over access links, weighted, shape (classes, 2, days): down, up.
        link_room: Bytes that could have gone over them while they were open, the same shape.
        held_back: Weighted node-hours by cause, shape (provinces, classes, causes); provinces as `province_nodes`.
        province_nodes: Node numbers of the provinces, the nation first.
        threads: With which it was computed; `seconds` how long, without compiling.
    """

    country: Country
    bundles: Bundles
    done_h: NDArray[np.float32]
    wants: NDArray[np.bool_]
    carried: NDArray[np.float64]
    link_bytes: NDArray[np.float64]
    link_room: NDArray[np.float64]
    held_back: NDArray[np.float64]
    province_nodes: NDArray[np.int32]
    threads: int
    seconds: float
