"""What `run` writes down while it measures."""

from __future__ import annotations

from dataclasses import dataclass, field

from .processes import Cost


@dataclass(slots=True)
class Recorder:
    """Moments, on CLOCK_MONOTONIC.

    Attributes:
        began: The foreground started.
        published: The publishing command was started; `commanded`: it returned.
        ended: The last place had everything, or the time was up.
        begun: By division code: its turn came.
        done: By division code: it had everything.
        costs: Of a place's process, at `published` and when the place was done.
        busy: Share of all cores in use from `published` to `ended`.
    """

    began: float = 0.0
    published: float = 0.0
    commanded: float = 0.0
    ended: float = 0.0
    begun: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    costs: dict[str, tuple[Cost, Cost]] = field(default_factory=dict)
    busy: float = 0.0
