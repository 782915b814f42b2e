"""The figures of a run, as they are stored (`findings.json`), shown and reported.

Everything that a screen or a report needs is here, so that a stored run can be reported again and two runs can be
compared without the model. The hours of each place and bundle are beside it in `completions.parquet`.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec

from cuntong_simulations.calibration.record import Measured
from cuntong_simulations.scenario.scenario import Scenario

VERSION = 1

T = TypeVar("T")


class Estimate(msgspec.Struct, frozen=True):
    """A figure; of a sample, with the ends of its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of the model (MODEL.md 9).

    Attributes:
        origin: Where it comes from: `scenario` (its own), `trial`, or the name of the file with what was measured.
    """

    name: str
    value: float
    origin: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was, so that it can be run again.

    Attributes:
        scenario_sha256: Of the scenario with all that it extends, as `write.digest`.
        sample_share: 1: the whole country.
        node_count, bundle_count: Simulated ones.
        seconds: Of the model, without compiling and reading.
        versions: Of Cuntong, Python and the libraries that calculate.
        measured: Where those parameters come from that aren't the scenario's own; None: not from real daemons.
    """

    version: int = VERSION
    scenario: Scenario
    scenario_sha256: str
    file: str
    ended_at: str
    seed: int
    step_s: float
    policy: str
    sample_share: float
    node_count: int
    bundle_count: int
    threads: int
    seconds: float
    versions: dict[str, str]
    calibration: list[Parameter] = []
    measured: Measured | None = None


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One release in one tier. Places are weighted; days are counted from the release.

    Attributes:
        places: That want it.
        end: Share of them that has all of it at the end of the run.
        deadline_days: Days after the release; None: no deadline.
        due: Share that has it at the deadline; None also when the deadline lies after the end.
        p50, p90, p99: Days until such a share of the places has it; None: not within the run.
        last_days: None: not all have it.
        pairs: Of a place and a bundle with a deadline; `missed` of them; `undecided`: the run ends before.
    """

    release: str
    tier: str
    places: float
    end: Estimate
    deadline_days: float | None
    due: Estimate | None
    p50: Estimate | None
    p90: Estimate | None
    p99: Estimate | None
    last_days: float | None
    pairs: float
    missed: float
    undecided: float


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of link can do with a release, and what its places had.

    Attributes:
        volume_bytes: What a place wants of it, on average.
        day_bytes: What its downlink can carry in a day, on average.
        deadline_days, due, p50: As of `Arrival`.
    """

    release: str
    tier: str
    link: str
    places: float
    volume_bytes: float
    day_bytes: float
    deadline_days: float | None
    due: Estimate | None
    p50: Estimate | None

    @property
    def least_days(self) -> float | None:
        """By hand: the volume over what the link carries in a day, with nothing else on it. None: there is no link."""
        return self.volume_bytes / self.day_bytes if self.day_bytes else None


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the places that want it which have it, at the begin of each day and at the end.

    Attributes:
        release: Empty: everything they want of all releases.
        half_width: Of the 95 % interval; empty: not a sample.
    """

    release: str
    tier: str
    share: list[float]
    half_width: list[float] = []


class LinkUse(msgspec.Struct, frozen=True, kw_only=True):
    """The access links of one kind in one tier; bytes of all days, weighted.

    Attributes:
        down_room: What could have gone over them while they were open.
        highest_day: The day (from 0) of highest use, of the fuller direction; `highest_use` its share of the room.
    """

    tier: str
    link: str
    places: float
    down_bytes: float
    down_room: float
    up_bytes: float
    up_room: float
    highest_day: int
    highest_use: float

    @property
    def use(self) -> float:
        """Share of the room that was used, of the fuller direction."""
        return max(
            self.down_bytes / self.down_room if self.down_room else 0.0,
            self.up_bytes / self.up_room if self.up_room else 0.0,
        )


class DailyUse(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the room of a tier's access links that was used, by day."""

    tier: str
    down: list[float]
    up: list[float]


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a tier received, by how they came."""

    tier: str
    carrier: str
    bytes: float


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """Missed deadlines of one release: pairs of a place and a bundle, weighted.

    Attributes:
        province: Its two digits; "00": the nation.
    """

    release: str
    tier: str
    province: str
    link: str
    pairs: float
    missed: float


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Hours that places waited for a bundle, by what held them back; weighted."""

    province: str
    tier: str
    link: str
    cause: str
    node_hours: float
    places: float


class CostLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the bill: `quantity` of `unit` at `price`."""

    item: str
    quantity: float
    unit: str
    price: float

    @property
    def cost(self) -> float:
        return self.quantity * self.price


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    manifest: Manifest
    arrivals: list[Arrival]
    reaches: list[Reach]
    curves: list[Curve]
    links: list[LinkUse]
    daily: list[DailyUse]
    carried: list[Carried]
    misses: list[Miss]
    held: list[Held]
    costs: list[CostLine]

    @property
    def missed(self) -> float:
        return sum(arrival.missed for arrival in self.arrivals)

    @property
    def pairs(self) -> float:
        return sum(arrival.pairs for arrival in self.arrivals)

    @property
    def missed_share(self) -> float | None:
        """Of all deadlines; None: there are none."""
        return self.missed / self.pairs if self.pairs else None

    @property
    def cost(self) -> float | None:
        """None: the scenario has no prices."""
        return sum(line.cost for line in self.costs) if self.costs else None

    def share_at_end(self, tier: str) -> float | None:
        """Share of a tier's places that had a release at the end, over all releases; None: nobody wants anything."""
        found = [one for one in self.arrivals if one.tier == tier]
        places = sum(one.places for one in found)
        return sum(one.places * one.end.value for one in found) / places if places else None

    @property
    def undecided(self) -> float:
        return sum(arrival.undecided for arrival in self.arrivals)


def encode(value: msgspec.Struct) -> bytes:
    """JSON; units as plain numbers of the base unit."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=1)


def convert(value: object, kind: type[T]) -> T:
    """What `builtins` made.

    Raises:
        msgspec.ValidationError: it didn't.
    """
    return msgspec.convert(value, kind, dec_hook=_unit)


def builtins(value: msgspec.Struct) -> Any:  # noqa: ANN401 - nested dicts and lists.
    """Dicts, lists, strings and numbers."""
    return msgspec.to_builtins(value, enc_hook=_plain)


def _plain(value: object) -> float:
    return float(cast("float", value))


def _unit(kind: type[Any], value: Any) -> Any:  # noqa: ANN401 - msgspec's hook.
    return kind(value)
