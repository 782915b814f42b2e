"""The local socket's method by which a person sees what comes from a satellite, and what goes to one (SPEC 8, 11)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import msgspec

from cuntong_daemon.catalogue import Catalogue, Database
from cuntong_daemon.config_datacast import BYTES_PER_KBIT, CastSection, DishSection
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.datacast.objects import BundleEntry, Programme
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_, Sentence

from .messages import (
    MAX_PAGE,
    DatacastStatus,
    HeardBundle,
    ReceiverStatus,
    SenderStatus,
    SentBundle,
)
from .server import Handler

if TYPE_CHECKING:  # The `cuntong` command uses this module too, and needs no swarm engine for that.
    from cuntong_daemon.datacast.caster import CastStatus
    from cuntong_daemon.datacast.receiver import Gathered, Signal

Held = Literal["", "wanted", "complete"]
"""What a bundle is to this node."""
_Id = Annotated[str, msgspec.Meta(max_length=100)]
_STATES = ("coming", "waiting", "complete", "")
"""How much a bundle of the programme wants the operator's eye."""

T = TypeVar("T", HeardBundle, SentBundle)


class Receiver(Protocol):
    """What is asked of `DatacastReceiver`."""

    blocks_done: int

    @property
    def signal(self) -> Signal: ...
    @property
    def programme(self) -> Programme | None: ...
    @property
    def gathered(self) -> Mapping[bytes, Gathered]: ...
    @property
    def quota_bytes(self) -> int: ...
    @property
    def problems(self) -> list[Sentence]: ...


class Sender(Protocol):
    """What is asked of `DatacastSender`."""

    status: CastStatus

    @property
    def problems(self) -> list[Sentence]: ...


@dataclass(frozen=True, slots=True)
class Datacast:
    """A node's satellite services, and what must be known to tell of them.

    Attributes:
        cast: `[cast]` of the configuration.
        dish: `[dish]` of it.
        held: What a bundle, by id and infohash, is to this node.
        catalogue_version: Of an authority's verified catalogue here; 0: none.
        now: Of a sender: the clock that its beacons tell, seconds since 1970.
    """

    cast: CastSection
    dish: DishSection
    sender: Sender | None
    receiver: Receiver | None
    held: Callable[[str, bytes], Held]
    catalogue_version: Callable[[str], int]
    now: Callable[[], float] = time.time


class _Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`id`: this bundle only. `after`: in the order of their ids, those after this one."""

    id: _Id | None = None
    after: _Id | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGE)] = 40


def datacast_methods(
    datacast: Datacast, catalogue: Catalogue, database: Database
) -> dict[str, Handler]:
    """`datacast` for a `ControlServer`; it answers `DatacastStatus`.

    Without `after` those bundles come first that this node gathers or waits for, each group by when it comes round.
    """

    async def show(params: dict[str, Any]) -> DatacastStatus:
        wish = msgspec.convert(params, _Params)
        status = datacast_status(datacast, all_bundles=True)
        receiver, sender = status.receiver, status.sender
        heard = [] if receiver is None else _chosen(receiver.bundles, wish)
        sent = [] if sender is None else _chosen(sender.bundles, wish)
        if wish.id is not None and not heard and not sent:
            raise await database.call(_why_not, datacast, catalogue, wish.id)

        def named() -> tuple[list[HeardBundle], list[SentBundle]]:
            return _titled(catalogue, heard), _titled(catalogue, sent)

        heard, sent = await database.call(named)
        return msgspec.structs.replace(
            status,
            receiver=None if receiver is None else msgspec.structs.replace(receiver, bundles=heard),
            sender=None if sender is None else msgspec.structs.replace(sender, bundles=sent),
        )

    return {"datacast": show}


def datacast_status(datacast: Datacast, *, all_bundles: bool = False) -> DatacastStatus:
    """What is heard and sent now.

    Args:
        datacast: Whose.
        all_bundles: Name every bundle, the most interesting first; titles are empty.
    """
    receiver, sender = datacast.receiver, datacast.sender
    return DatacastStatus(
        receiver=None if receiver is None else _received(datacast, receiver, all_bundles),
        sender=None
        if sender is None
        else sender_status(datacast.cast, sender.status, datacast.now(), with_bundles=all_bundles),
        problems=datacast_problems(datacast),
    )


def datacast_problems(datacast: Datacast) -> list[Sentence]:
    """What an operator should know of both."""
    found: list[Sentence] = []
    for service in (datacast.sender, datacast.receiver):
        if service is not None:
            found += service.problems
    return found


def sender_status(
    section: CastSection, status: CastStatus, now: float, *, with_bundles: bool = True
) -> SenderStatus:
    """What a caster tells, for people.

    Args:
        section: How it was told to send.
        status: What it told last.
        now: The clock that its beacons tell, seconds since 1970.
        with_bundles: Name what is on the air; titles are empty.
    """
    paced = status.paced
    bundles = [
        SentBundle(
            id=bundle.id,
            turn=bundle.turn,  # type: ignore[arg-type]
            passes=bundle.passes,
            permille=bundle.permille,
            begins=bundle.begins,
            ends=bundle.ends,
            next=bundle.next,
        )
        for bundle in (status.bundles if with_bundles else ())
    ]
    return SenderStatus(
        interface=section.interface,
        group=section.group,
        session=status.session,
        rate_kbit_s=status.rate_bytes_s // BYTES_PER_KBIT,
        time=int(now),
        catalogue=status.catalogue,
        packets=paced.packets,
        bytes=paced.bytes,
        fillers=paced.fillers,
        failed=paced.failed,
        behind_ms=paced.behind_ms,
        lost_ms=paced.lost_ms,
        bundles_total=len(status.bundles),
        bundles=sorted(bundles, key=lambda bundle: _place(bundle, now)),
    )


def _received(datacast: Datacast, receiver: Receiver, all_bundles: bool) -> ReceiverStatus:
    signal, programme, gathered = receiver.signal, receiver.programme, receiver.gathered
    beacon, reader = signal.beacon, signal.reader
    # The node's own clock may be years off; the sender's is known up to the way to the satellite and back.
    sender_time = 0.0
    if beacon is not None and signal.heard_s is not None:
        sender_time = beacon.time + signal.heard_s
    on_air = () if programme is None else programme.bundles
    bundles = [_heard(datacast, entry, gathered) for entry in (on_air if all_bundles else ())]
    bundles.sort(key=lambda bundle: (_STATES.index(bundle.state), _place(bundle, sender_time)))
    return ReceiverStatus(
        interface=datacast.dish.interface,
        group=datacast.dish.group,
        sender=datacast.dish.sender,
        session=signal.session,
        rate_kbit_s=0 if beacon is None else beacon.rate_bytes_s // BYTES_PER_KBIT,
        beacon_age_s=None if signal.heard_s is None else round(signal.heard_s, 1),
        sender_time=int(sender_time),
        catalogue=0 if beacon is None else beacon.catalogue,
        catalogue_here=datacast.catalogue_version(datacast.dish.sender),
        packets=reader.packets,
        bytes=reader.bytes,
        symbols=reader.symbols,
        fillers=reader.fillers,
        unverified=reader.unverified,
        vouched=reader.vouched,
        dropped=dict(reader.dropped),
        socket_drops=reader.socket_drops,
        buffer_bytes=reader.buffer_bytes,
        gaps=reader.gaps,
        gap_s=reader.gap_s,
        silent_s=reader.silent_s,
        write_errors=reader.write_errors,
        open_blocks=reader.open_blocks,
        used_bytes=reader.used_bytes,
        quota_bytes=receiver.quota_bytes,
        blocks_done=receiver.blocks_done,
        bundles_total=len(on_air),
        bundles_coming=sum(entry.infohash in gathered for entry in on_air),
        bundles=bundles,
    )


def _heard(
    datacast: Datacast, entry: BundleEntry, gathered: Mapping[bytes, Gathered]
) -> HeardBundle:
    held = datacast.held(entry.id, entry.infohash)
    found = gathered.get(entry.infohash)
    state: Literal["", "waiting", "coming", "complete"] = "waiting" if held == "wanted" else ""
    if held == "complete":
        state = "complete"
    elif found is not None:
        state = "coming"
    return HeardBundle(
        id=entry.id,
        size=entry.size,
        state=state,
        progress=1.0 if held == "complete" else 0.0 if found is None else found.progress,
        blocks_done=0 if found is None else found.blocks_done,
        blocks=0 if found is None else found.blocks,
        passes=entry.passes,
        begins=entry.begins,
        ends=entry.ends,
        next=entry.next,
    )


def _place(bundle: HeardBundle | SentBundle, now: float) -> tuple[float, int, str]:
    """What is on the air comes first, then what comes round sooner; what isn't known last."""
    if bundle.begins <= now < bundle.ends:
        begins: float = 0.0
    elif now < bundle.begins:
        begins = bundle.begins
    else:
        begins = bundle.next if now < bundle.next else math.inf
    return begins, bundle.ends, bundle.id


def _chosen(bundles: Sequence[T], wish: _Params) -> list[T]:
    found: Iterable[T] = bundles
    if wish.id is not None:
        found = [bundle for bundle in bundles if bundle.id == wish.id]
    if wish.after is not None:
        after = wish.after
        found = sorted(
            (bundle for bundle in found if bundle.id > after), key=lambda bundle: bundle.id
        )
    return list(found)[: wish.limit]


def _titled(catalogue: Catalogue, bundles: Sequence[T]) -> list[T]:
    """With their titles. Blocks."""
    found: list[T] = []
    for bundle in bundles:
        summary = catalogue.summary(bundle.id)
        found.append(
            bundle if summary is None else msgspec.structs.replace(bundle, title=summary.title)
        )
    return found


def _why_not(datacast: Datacast, catalogue: Catalogue, identifier: str) -> DatacastError:
    """Why nothing can be said of a bundle. Blocks."""
    receiver = datacast.receiver
    if receiver is None and datacast.sender is None:
        return not_set_up()
    entry = catalogue.bundle(identifier)
    if entry is not None and entry.descriptor.metadata.licence.kind != "open":
        return never_cast(identifier)
    if datacast.sender is None and receiver is not None and receiver.programme is None:
        return DatacastError(
            "datacast.no-programme",
            N_("No programme has come from the satellite yet. See: cuntong datacast status"),
            fault=Fault.TRANSPORT,
        )
    return DatacastError(
        "datacast.not-on-air",
        N_("{id} isn't on the air. What is: cuntong datacast schedule"),
        fault=Fault.USAGE,
        id=identifier,
    )


def not_set_up() -> DatacastError:
    """This node has nothing to do with a satellite."""
    return DatacastError(
        "datacast.not-set-up",
        N_(
            "This node neither receives from a satellite nor sends to one: set [dish] or [cast] in config.toml, then: systemctl restart cuntong"
        ),
        fault=Fault.CONFIG,
    )


def never_cast(identifier: str) -> DatacastError:
    """A restricted licence names who may hold it."""
    return DatacastError(
        "datacast.restricted",
        N_("{id} has a restricted licence and is never cast: whoever has a dish could receive it."),
        fault=Fault.REFUSED,
        id=identifier,
    )
