"""What goes over the local socket (SPEC 8): one JSON object a line.

A request is `{"method", "params"}`. Its answer is any number of `{"item": …}` lines, from methods that tell
how far they are, and then one `{"result": …}` or `{"error": sentence, "fault": exit code}`. The structs
below are what the daemon's own methods return; the `cuntong` command reads the same ones.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cuntong_protocol.texts import Sentence

MAX_REQUEST_BYTES = 2 * 1024 * 1024
"""Requests are a method and a few short words, and a receipt of 1 MiB as text."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""A status with a few thousand bundles; longer lists are paged."""
MAX_PAGE = 500
"""Entries in one page of the catalogue or of events: about 300 kB."""


class Request(msgspec.Struct, frozen=True):
    method: str
    params: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an answer; exactly one of `item`, `result` and `error` is there."""

    item: Any | msgspec.UnsetType = msgspec.UNSET
    result: Any | msgspec.UnsetType = msgspec.UNSET
    error: Sentence | msgspec.UnsetType = msgspec.UNSET
    fault: int = 0


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    name: str = ""
    tier: str
    version: str = ""
    uptime_s: int = 0


class ParentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The control link upwards. `since` is seconds since 1970; `refusal` is what the parent said."""

    code: str = ""
    address: str = ""
    state: Literal["none", "connecting", "connected", "refused", "unreachable"] = "none"
    since: int = 0
    fallback: bool = False
    refusal: Sentence | None = None


class AuthorityStatus(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    name: str = ""
    state: Literal["fresh", "stale", "refused", "unknown"] = "unknown"
    stale_since: int | None = None
    signed_at: int | None = None
    problem: Sentence | None = None


class BundleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle that this node holds, fetches or would like to have.

    Attributes:
        state: `waiting` (wanted, not begun), `downloading`, `unpacking`, `complete`, `repairing`, `paused`
            (for example a full disk), `removing`.
        progress: 0 to 1.
        reason: Why it is in this state or place in the queue.
        deadline: Seconds since 1970 for this node's tier, if its release has one.
    """

    id: str
    title: str = ""
    revision: int = 1
    state: Literal[
        "waiting", "downloading", "unpacking", "complete", "repairing", "paused", "removing"
    ]
    progress: float = 0.0
    bytes_done: int = 0
    bytes_total: int = 0
    down_bytes_s: int = 0
    up_bytes_s: int = 0
    peers: int = 0
    reason: Sentence | None = None
    deadline: int | None = None


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    connected: bool = False
    bundles_done: int = 0


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes; `quota` 0 is none."""

    used: int = 0
    quota: int = 0
    free: int = 0


class SwarmStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Payload bytes since the daemon started, and bytes a second now."""

    down_total: int = 0
    up_total: int = 0
    down_rate: int = 0
    up_rate: int = 0


RateKnown = Literal["configured", "measured", "assumed", "unknown"]
"""How the rate of a link is known (SPEC 10.1)."""
GovernorState = Literal["off", "free", "yielding", "learning"]


class ChildBandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """What may be sent to one place below; `limit_kbit_s` 0 is no limit."""

    code: str
    limit_kbit_s: int = 0
    reason: Sentence | None = None
    is_paused: bool = False


class SaidLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit or pause that a person said on this node, whether it holds now or not.

    Attributes:
        down_kbit_s: 0: not limited by this.
        up_kbit_s: The same for sending.
        is_paused: It is a pause.
        until: Seconds since 1970; None: until it is taken back, or a weekly one.
        days: Of a weekly one, on which it begins: `mon` to `sun`.
        hours: Of a weekly one: `08:00-18:00`.
    """

    down_kbit_s: int = 0
    up_kbit_s: int = 0
    is_paused: bool = False
    until: int | None = None
    days: list[str] = []
    hours: str = ""


class BandwidthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `bandwidth`, `limit`, `pause` and `resume`: what may be moved now, and why. 0: no limit, not known.

    Attributes:
        link_down_kbit_s: What the link carries.
        link_down_how: How that is known.
        link_down_reason: The same, for people.
        limit_down_kbit_s: The limit in force; of a paused node, what will hold then.
        limit_down_reason: Why it is that and not more.
        is_paused: Nothing is moved, because somebody or a calendar said so.
        until: When a pause ends, or else when limits or pause change next, seconds since 1970; None: not within two weeks.
        down_kbit_s: What is moved now.
        governor_state: `off` where the link isn't shared.
        target_delay_ms: Of uTP; 0: TCP, or not known.
        children: What may be sent to each place below.
        contradiction: What should be looked at in config.toml.
        time_zone: Of the node's calendar; people's times are shown by it.
        said: What was said on this node by `cuntong limit` and `cuntong pause`.
        problem: What is wrong with the file of that.
    """

    link_down_kbit_s: int = 0
    link_down_how: RateKnown = "unknown"
    link_down_reason: Sentence | None = None
    link_up_kbit_s: int = 0
    link_up_how: RateKnown = "unknown"
    link_up_reason: Sentence | None = None
    limit_down_kbit_s: int = 0
    limit_down_reason: Sentence | None = None
    limit_up_kbit_s: int = 0
    limit_up_reason: Sentence | None = None
    is_paused: bool = False
    pause_reason: Sentence | None = None
    until: int | None = None
    down_kbit_s: int = 0
    up_kbit_s: int = 0
    governor_state: GovernorState = "off"
    governor_reason: Sentence | None = None
    target_delay_ms: int = 0
    children: list[ChildBandwidth] = []
    contradiction: Sentence | None = None
    time_zone: str = ""
    said: list[SaidLimit] = []
    problem: Sentence | None = None


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened: a notice from above, a repair, an event. `at`: seconds since 1970."""

    at: int
    kind: str = ""
    text: Sentence


class HeardBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle of the programme that is received. Times: the sender's clock, seconds since 1970; 0: not known.

    Attributes:
        size: Of its payload, in bytes.
        state: `complete`: it is whole here; `coming`: its blocks are gathered; `waiting`: it is wanted, and its
            manifest or its turn hasn't come yet; empty: this node doesn't want it.
        progress: 0 to 1.
        blocks_done: Blocks that are whole.
        blocks: All of them; 0: not known.
        passes: Complete ones since the sender's session began.
        begins: When the present pass began, or else the next one begins.
        ends: When that is through.
        next: When the one after it begins.
    """

    id: str
    title: str = ""
    size: int = 0
    state: Literal["", "waiting", "coming", "complete"] = ""
    progress: float = 0.0
    blocks_done: int = 0
    blocks: int = 0
    passes: int = 0
    begins: int = 0
    ends: int = 0
    next: int = 0


class ReceiverStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a node hears from a satellite. Packets, bytes and losses count from the start of the reading process.

    Attributes:
        sender: Whom it listens to.
        session: Of the sender; 0: no beacon was heard.
        rate_kbit_s: What the sender sends, by its own word.
        beacon_age_s: Since the last beacon; None: none was heard.
        sender_time: The sender's clock now, seconds since 1970, however wrong the node's own is; 0: not known.
        catalogue: Version of the sender's own catalogue on the air.
        catalogue_here: Of the same here, verified.
        unverified: Symbols whose digest was lost; of these `vouched` got it later.
        dropped: Packets that were of no use, by reason (SPEC 11.9).
        socket_drops: Packets that the kernel dropped because the buffer was full.
        buffer_bytes: Of the socket, the kernel's overhead included.
        gaps: How often nothing came for half a second or more.
        gap_s: How long that lasted, in all.
        silent_s: Since the last packet.
        write_errors: Symbols that the disk refused.
        open_blocks: Blocks that are gathered.
        used_bytes: What their symbols take of `quota_bytes`.
        blocks_done: Blocks of bundles that became whole since the daemon's start.
        bundles_total: In the programme.
        bundles_coming: Of these, gathered now.
        bundles: What is gathered first, then what this node waits for, each by when it comes round; as many as were asked for.
    """

    interface: str
    group: str
    sender: str
    session: int = 0
    rate_kbit_s: int = 0
    beacon_age_s: float | None = None
    sender_time: int = 0
    catalogue: int = 0
    catalogue_here: int = 0
    packets: int = 0
    bytes: int = 0
    symbols: int = 0
    fillers: int = 0
    unverified: int = 0
    vouched: int = 0
    dropped: dict[str, int] = {}
    socket_drops: int = 0
    buffer_bytes: int = 0
    gaps: int = 0
    gap_s: float = 0.0
    silent_s: float = 0.0
    write_errors: int = 0
    open_blocks: int = 0
    used_bytes: int = 0
    quota_bytes: int = 0
    blocks_done: int = 0
    bundles_total: int = 0
    bundles_coming: int = 0
    bundles: list[HeardBundle] = []


class SentBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that this node casts. Times: seconds since 1970, 0: not known.

    Attributes:
        turn: `urgent`, `fresh` (the first pass), `carousel` (repeated), or `waiting` between an urgent one's two slots.
        passes: Complete ones.
        permille: Of the present one.
        begins: When the present pass began, or else the next one begins.
        ends: When that is through.
        next: When the one after it begins.
    """

    id: str
    title: str = ""
    turn: Literal["urgent", "fresh", "carousel", "waiting"] = "carousel"
    passes: int = 0
    permille: int = 0
    begins: int = 0
    ends: int = 0
    next: int = 0


class SenderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a node sends to a satellite; counts are since the sender's start.

    Attributes:
        session: 0: nothing is sent yet.
        rate_kbit_s: IP headers included.
        time: The sender's clock, by which bundles come round; seconds since 1970.
        catalogue: Version of the node's own catalogue on the air.
        packets: Fillers included.
        bytes: Of these, with IP headers.
        fillers: Packets that say nothing, sent where there was nothing else.
        failed: Packets that the system refused.
        behind_ms: The latest that a packet was in the last second.
        lost_ms: Time that was given up, since it couldn't be caught up.
        bundles_total: On the air.
        bundles: The soonest first, as many as were asked for.
    """

    interface: str
    group: str
    session: int = 0
    rate_kbit_s: int = 0
    time: int = 0
    catalogue: int = 0
    packets: int = 0
    bytes: int = 0
    fillers: int = 0
    failed: int = 0
    behind_ms: float = 0.0
    lost_ms: float = 0.0
    bundles_total: int = 0
    bundles: list[SentBundle] = []


class DatacastStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `datacast`; None: this node doesn't receive, or doesn't send."""

    receiver: ReceiverStatus | None = None
    sender: SenderStatus | None = None
    problems: list[Sentence] = []


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `status`. `datacast`: without its bundles; its problems are among `problems`."""

    node: NodeStatus
    parent: ParentStatus = ParentStatus()
    authorities: list[AuthorityStatus] = []
    bundles: list[BundleStatus] = []
    children: list[ChildStatus] = []
    store: StoreStatus = StoreStatus()
    swarm: SwarmStatus = SwarmStatus()
    bandwidth: BandwidthStatus | None = None
    repairs: list[Happening] = []
    notices: list[Happening] = []
    problems: list[Sentence] = []
    datacast: DatacastStatus | None = None


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `why`: what this node decided about a bundle, the deciding reason first."""

    id: str
    title: str = ""
    wanted: bool = False
    state: str = ""
    reasons: list[Sentence] = []


class EntrySummary(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the catalogue."""

    id: str
    revision: int
    title: str
    category: str
    languages: list[str] = []
    date: str = ""
    publisher: str = ""
    payload_size: int = 0
    content_size: int = 0
    state: str = ""
    ordered: bool = False


class CataloguePage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `catalogue.list` and `catalogue.search`; `next` continues a list."""

    entries: list[EntrySummary]
    total: int = 0
    next: str | None = None


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `catalogue.show`: the summary, and all of the signed metadata as it stands."""

    summary: EntrySummary
    file_count: int = 0
    infohash: str = ""
    listed_by: list[str] = []
    metadata: dict[str, Any] = {}
    reason: Sentence | None = None


class VerifyStep(msgspec.Struct, frozen=True, kw_only=True):
    """An item of `verify`: bytes checked so far of one bundle. `bad_pieces` counts what will be fetched again."""

    id: str
    title: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    bad_pieces: int = 0
    is_done: bool = False
