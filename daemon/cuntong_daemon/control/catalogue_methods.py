"""The local socket's methods that only need the catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from cuntong_daemon.catalogue import Catalogue, Database, Entry, Event, Summary
from cuntong_protocol.texts import N_, Sentence, sentence

from .messages import MAX_PAGE, CataloguePage, Detail, EntrySummary, Happening
from .server import Handler

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]

P = TypeVar("P")


class _ListParams(msgspec.Struct, frozen=True):
    prefix: Annotated[str, msgspec.Meta(max_length=100)] = ""
    after: Annotated[str, msgspec.Meta(max_length=100)] = ""
    limit: _Limit = 100


class _SearchParams(msgspec.Struct, frozen=True):
    text: Annotated[str, msgspec.Meta(max_length=1000)]
    limit: _Limit = 50


class _IdParams(msgspec.Struct, frozen=True):
    id: _Id


class _OrderParams(msgspec.Struct, frozen=True):
    id: _Id
    cancel: bool = False


class _EventsParams(msgspec.Struct, frozen=True):
    limit: _Limit = 50
    kind: str | None = None


def catalogue_methods(
    catalogue: Catalogue,
    database: Database,
    *,
    now: Callable[[], datetime],
    working: Callable[[], Mapping[str, str]] = dict,
    on_order: Callable[[str, bool], Awaitable[None]] | None = None,
) -> dict[str, Handler]:
    """`catalogue.list`, `.show`, `.search`, `order` and `events` for a `ControlServer`.

    Args:
        now: Aware wall time, for orders and events.
        working: States of what is being brought now, by bundle id; they go before what is held.
        on_order: Told after an order was stored (True) or taken back (False); it may pass it upwards.
    """

    async def list_page(params: dict[str, Any]) -> CataloguePage:
        wish = _params(params, _ListParams)

        def read() -> CataloguePage:
            found = catalogue.summaries(prefix=wish.prefix, after=wish.after, limit=wish.limit)
            return CataloguePage(
                entries=[_summary(entry, working()) for entry in found],
                total=catalogue.count(),
                next=found[-1].id if len(found) == wish.limit else None,
            )

        return await database.call(read)

    async def search(params: dict[str, Any]) -> CataloguePage:
        wish = _params(params, _SearchParams)
        found = await database.call(catalogue.search, wish.text, wish.limit)
        return CataloguePage(
            entries=[_summary(entry, working()) for entry in found], total=len(found)
        )

    async def show(params: dict[str, Any]) -> Detail:
        wish = _params(params, _IdParams)

        def read() -> Detail:
            entry = catalogue.demand(wish.id)
            summary, state = catalogue.summary(wish.id), catalogue.state(wish.id)
            assert summary is not None  # noqa: S101 - demand found it, and nobody writes meanwhile.
            return _detail(
                entry, _summary(summary, working()), None if state is None else state.reason
            )

        return await database.call(read)

    async def order(params: dict[str, Any]) -> Sentence:
        wish = _params(params, _OrderParams)

        def write() -> Sentence:
            if wish.cancel:
                if catalogue.remove_order(wish.id):
                    said = sentence(
                        "order.cancelled", N_("The order of {id} was taken back."), id=wish.id
                    )
                    catalogue.record_event("order", said, now())
                    return said
                return sentence("order.none", N_("{id} wasn't ordered."), id=wish.id)
            if catalogue.add_order(wish.id, now()):
                said = sentence("order.taken", N_("{id} was ordered."), id=wish.id)
                catalogue.record_event("order", said, now())
                return said
            return sentence("order.again", N_("{id} was ordered before."), id=wish.id)

        said = await database.call(write)
        if on_order is not None and said.code in {"order.taken", "order.cancelled"}:
            await on_order(wish.id, not wish.cancel)
        return said

    async def events(params: dict[str, Any]) -> list[Happening]:
        wish = _params(params, _EventsParams)

        def read() -> list[Event]:
            return catalogue.events(wish.limit, kind=wish.kind)

        return [
            Happening(at=event.at, kind=event.kind, text=event.sentence)
            for event in await database.call(read)
        ]

    return {
        "catalogue.list": list_page,
        "catalogue.search": search,
        "catalogue.show": show,
        "order": order,
        "events": events,
    }


def _params(params: dict[str, Any], kind: type[P]) -> P:
    return msgspec.convert(params, kind)


def _summary(summary: Summary, working: Mapping[str, str]) -> EntrySummary:
    return EntrySummary(
        id=summary.id,
        revision=summary.revision,
        title=summary.title,
        category=summary.category,
        languages=list(summary.languages),
        date=summary.date,
        publisher=summary.id.partition("/")[0],
        payload_size=summary.payload_size,
        content_size=summary.content_size,
        state=working.get(summary.id, summary.state),
        ordered=summary.is_ordered,
    )


def _detail(entry: Entry, summary: EntrySummary, reason: Sentence | None) -> Detail:
    descriptor = entry.descriptor
    return Detail(
        summary=summary,
        file_count=descriptor.file_count,
        infohash=descriptor.infohash.hex(),
        listed_by=list(entry.listed_by),
        metadata=msgspec.to_builtins(descriptor.metadata),
        reason=reason,
    )
