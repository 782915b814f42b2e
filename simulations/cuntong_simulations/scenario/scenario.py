"""What a scenario says, as it is written in TOML. Reading and checking: `load`."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

import msgspec

from .units import Days, Money, Rate, Share, Size, Span

TierName = Literal["nation", "province", "city", "county", "township", "village"]
Policy = Literal["star", "tree", "swarm", "satellite-first"]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Name = Annotated[str, msgspec.Meta(min_length=1)]
MOST_KINDS = 100
"""Of links or of subscriptions in a tier; real rates, one for each place, come from a file of places."""


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the file."""


class Run(_Table, frozen=True, kw_only=True):
    """`[run]`.

    Attributes:
        start: Local midnight of this day is 0.
        days: How long is simulated.
        step: Divides a day.
        seed: Of everything that is random.
    """

    start: date
    days: Annotated[int, msgspec.Meta(ge=1, le=3660)]
    step: Span = Span(3600.0)
    seed: int = 1
    policy: Policy = "swarm"


class Link(_Table, frozen=True, kw_only=True):
    """One kind of access link of a tier; what `down` and `up` say is the rate of IP packets.

    Attributes:
        name: For reports; if empty, its rates.
        share: Of the tier's places; the shares of a tier add up to 1.
    """

    down: Rate
    up: Rate
    share: Share = Share(1.0)
    name: str = ""


class Subscription(_Table, frozen=True, kw_only=True):
    """What a share of a tier's places chooses; empty lists mean all (as in `config.toml`)."""

    share: Share = Share(1.0)
    categories: list[str] = []
    languages: list[str] = []
    groups: list[str] = []


class Tier(_Table, frozen=True, kw_only=True):
    """`[[tier]]`: the places of one tier.

    Attributes:
        count: In the whole country. They are spread over the places above as evenly as `spread` says.
        spread: 0: the same number below each; 1: as unlike as drawn at random, place by place.
        links: What they are connected by. Drawn by place.
        without_link: Share of places that have no link at all: only sky and disks.
        dish: Share of places with a satellite receiver.
        on: When the computer is on: `always`, or a calendar's name.
        off_days: Share of days on which a computer stays off.
        public: When the public uses the link: a calendar's name; empty: never.
        public_share: What of the link the public takes while it does.
        pause: When nothing may be transferred: a calendar's name.
        window: When transfers are allowed: a calendar's name; empty: always.
        store: Room for bundles; if it isn't given, there is no limit.
    """

    tier: TierName
    count: Count
    links: Annotated[list[Link], msgspec.Meta(min_length=1, max_length=MOST_KINDS)]
    spread: Share = Share(0.0)
    without_link: Share = Share(0.0)
    dish: Share = Share(0.0)
    on: str = "always"
    off_days: Share = Share(0.0)
    public: str = ""
    public_share: Share = Share(1.0)
    pause: str = ""
    window: str = ""
    store: Size = Size(0.0)
    subscriptions: Annotated[list[Subscription], msgspec.Meta(max_length=MOST_KINDS)] = []


class Places(_Table, frozen=True, kw_only=True):
    """`[places]`: real places instead of generated ones.

    Attributes:
        file: CSV or Parquet beside the scenario: `code`, and where it is known `down`, `up`, `dish`, `store`; what isn't
            there is drawn as the tier says. A tier of which the file has places isn't generated, nor is one above it.
    """

    file: Name


class Vpn(_Table, frozen=True, kw_only=True):
    """`[vpn]`: its shape, and which tier has the hubs."""

    shape: Literal["mesh", "hub"] = "mesh"
    hub: TierName = "county"


class Satellite(_Table, frozen=True, kw_only=True):
    """`[satellite]`.

    Attributes:
        rate: Of the broadcast, IP headers included.
        hours: When it sends: a calendar's name.
        code: `fountain`: fresh symbols every time; `carousel`: plain repetition.
        loss: Share of packets lost.
        fade: How long nothing comes; `fades_per_hour` times an hour.
        releases: Which go on the air; empty: all.
    """

    rate: Rate
    hours: str = "always"
    code: Literal["fountain", "carousel"] = "fountain"
    loss: Share = Share(0.0)
    fade: Span = Span(0.0)
    fades_per_hour: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    releases: list[str] = []


class Disks(_Table, frozen=True, kw_only=True):
    """`[disks]`: media by post.

    Attributes:
        size: Of one disk.
        leave: Every so long a batch leaves.
        batch: Disks in it.
        transit_least, transit_most: On the way.
        lost: Share that doesn't arrive; it is sent again after `notice`.
        copy_rate: How fast a place copies one in.
        to: Tiers that get them.
        releases: Which are sent; empty: none, only what the planner decides.
    """

    size: Size
    batch: Count
    copy_rate: Rate
    leave: Span = Span(7 * 86400.0)
    transit_least: Span = Span(3 * 86400.0)
    transit_most: Span = Span(7 * 86400.0)
    lost: Share = Share(0.0)
    notice: Span = Span(14 * 86400.0)
    to: Annotated[list[TierName], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["county"]
    )
    releases: list[str] = []


class Release(_Table, frozen=True, kw_only=True):
    """`[[release]]`: bundles that are published on one day.

    Attributes:
        day: Days after `run.start`.
        bundles: How many.
        size: Of all of them together; `sizes` gives each one's instead.
        deadlines: By tier, days after `day`: 60 or "60 d".
        tiers: Who gets it; as an audience in a descriptor. Empty: all.
        publisher: A division code.
        file: CSV or Parquet beside the scenario with a line for each bundle: `name,size,category,language,priority`.
    """

    name: Name
    day: Annotated[int, msgspec.Meta(ge=0, le=3660)] = 0
    bundles: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    size: Size = Size(0.0)
    sizes: list[Size] = []
    category: str = "general"
    languages: list[str] = msgspec.field(default_factory=lambda: ["zh-Hans"])
    groups: list[str] = []
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5
    deadlines: dict[TierName, Days] = {}
    tiers: list[TierName] = []
    publisher: str = "000000000000"
    file: str = ""


class Costs(_Table, frozen=True, kw_only=True):
    """`[costs]`: none has a default; what isn't given isn't counted, and the planner may not use it.

    Attributes:
        currency: For reports.
        satellite_per_mbit_month: Leased rate.
        link_per_gb: Over the VPN to a county; 0: paid for anyway.
        disk: One disk, `disk_trip` of it being sent and sent back; `parcel` per destination and batch.
        extra_mbit_month: One more Mbit/s of a county's link.
    """

    currency: Name
    source: Name
    satellite_per_mbit_month: Money | None = None
    link_per_gb: Money | None = None
    disk: Money | None = None
    disk_trip: Money | None = None
    parcel: Money | None = None
    extra_mbit_month: Money | None = None


class Calibration(_Table, frozen=True, kw_only=True):
    """`[calibration]`: the model's parameters (MODEL.md 9); what isn't given comes from the measured ones.

    Attributes:
        file: That `cuntong sim calibrate` wrote, beside the scenario; empty: the one that comes with the program.
    """

    file: str = ""
    efficiency: Share | None = None
    thin: Rate | None = None
    startup: Span | None = None
    eta: Share | None = None
    phi: Share | None = None


class Scenario(_Table, frozen=True, kw_only=True):
    """A whole scenario.

    Attributes:
        sources: Where its numbers come from, for the report.
        calendars: Windows such as `"mon-fri 08:00-12:00"`, by name.
    """

    name: Name
    run: Run
    tiers: Annotated[list[Tier], msgspec.Meta(min_length=1)] = msgspec.field(name="tier")
    releases: Annotated[list[Release], msgspec.Meta(min_length=1)] = msgspec.field(name="release")
    title: str = ""
    sources: list[str] = []
    calendars: dict[str, list[str]] = {}
    places: Places | None = None
    vpn: Vpn = Vpn()
    satellite: Satellite | None = None
    disks: Disks | None = None
    costs: Costs | None = None
    calibration: Calibration = Calibration()
