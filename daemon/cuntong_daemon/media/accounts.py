"""Who has what: receipts of this place and of others, what came which way, and what a volume for others should hold.

It owns what is counted; everything is kept in `MediaRecords` (SPEC 12.6 to 12.8).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath

import msgspec
import trio

from cuntong_daemon.clock import NodeClock
from cuntong_daemon.config import Config
from cuntong_daemon.control.media_messages import (
    MadeReceipt,
    Offer,
    OfferedBundle,
    PlaceKnown,
    TakenReceipt,
)
from cuntong_daemon.files import write_atomically
from cuntong_daemon.logs import get_logger
from cuntong_daemon.policy.selection import NodeProfile
from cuntong_daemon.store.errors import StoreError
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.papers import (
    MAX_ORDERS,
    MAX_PROBLEMS,
    MAX_RECEIPT_BYTES,
    SHORT,
    Receipt,
    Statistics,
    Subscriptions,
    receipt_text,
    shortened,
    sign_receipt,
)
from cuntong_protocol.texts import N_, Sentence, sentence

from .importing import Services
from .offering import (
    Destination,
    Wish,
    catalogues_for,
    check_places,
    offered,
    present_at_all,
)
from .receipts import checked_receipt, qr_of
from .records import Place
from .volume import RECEIPT_SUFFIX, VolumeFolder, shown

log = get_logger("media")

COUNT_INTERVAL_S = 600.0
"""What a power cut takes from the statistics."""
MAX_RECEIPT_FILE_BYTES = 2 * MAX_RECEIPT_BYTES
MAX_NAMED_FIRST = 1_000
"""Of what is held: what came last is named first, where a receipt has no room for all."""


class Accounts:
    """See the module."""

    def __init__(
        self,
        config: Config,
        services: Services,
        *,
        clock: NodeClock,
        satellite_bytes: Callable[[], int],
        problems: Callable[[], list[Sentence]],
        record: Callable[[str, Sentence], Awaitable[None]],
    ) -> None:
        """Prepare.

        Args:
            satellite_bytes: Content that came by satellite since the start.
            problems: What is wrong now.
            record: Remembers something for the operator.
        """
        self._config = config
        self._services = services
        self._clock = clock
        self._satellite_bytes = satellite_bytes
        self._problems = problems
        self._record = record
        self._counted: dict[str, int] = {}
        self._holdings: dict[Division, int] = {}

    async def begin(self) -> None:
        """Count from now on; what other places have ordered is needed here again."""
        records, database = self._services.records, self._services.database
        await database.call(records.begin_counting, self.now())
        for identifier in await database.call(records.orders):
            self._services.replicator.demand(identifier)

    def now(self) -> int:
        """Seconds since 1970."""
        return max(0, int(self._clock.now().timestamp()))

    # Receipts.

    async def take_receipt(self, text: str, file: str = "") -> TakenReceipt:
        """Note what a place has, by its receipt.

        Raises:
            MediaError: as `checked_receipt`, and `media.old-receipt`.
            EnrolmentError: `node.removed`.
        """
        services = self._services
        receipt, key = await trio.to_thread.run_sync(
            lambda: checked_receipt(
                text,
                identity=services.identity,
                network=services.network,
                members=services.holder.view.members,
            )
        )
        body = msgspec.msgpack.encode(receipt)
        if not await services.database.call(services.records.take_receipt, receipt, body, key):
            raise MediaError(
                "media.old-receipt",
                N_(
                    "A receipt of {code} that is as new as this one, or newer, was taken before: nothing has changed."
                ),
                fault=Fault.USAGE,
                code=receipt.code,
            )
        for identifier in receipt.orders:
            services.replicator.demand(identifier)
        await self._record(
            "medium",
            sentence(
                "media.receipt-taken",
                N_("Receipt {number} of {code} was taken: it has {count} bundles."),
                number=receipt.number,
                code=receipt.code,
                count=len(receipt.holdings),
            ),
        )
        return TakenReceipt(
            code=receipt.code,
            number=receipt.number,
            payloads=len(receipt.holdings),
            is_all=receipt.is_all,
            orders=list(receipt.orders),
            made_at=receipt.made_at,
            file=file,
        )

    async def make_receipt(self) -> MadeReceipt:
        """A new receipt of this place."""
        services = self._services
        await self.count()
        receipt = await self._receipt()
        identity = services.identity
        fresh = [
            row.infohash
            for row in sorted(
                services.replicator.rows.values(), key=lambda row: row.changed_at, reverse=True
            )[:MAX_NAMED_FIRST]
        ]

        def sign() -> tuple[str, str]:
            text = receipt_text(sign_receipt(receipt, identity.key, identity.chain_der))
            return text, qr_of(receipt, identity, fresh)

        text, qr = await trio.to_thread.run_sync(sign)
        return MadeReceipt(
            code=receipt.code,
            number=receipt.number,
            file=f"{receipt.code}{RECEIPT_SUFFIX}",
            text=text,
            qr=qr,
        )

    async def _receipt(self) -> Receipt:
        services, config = self._services, self._config
        records, database = services.records, services.database
        number = await database.call(records.next_number)
        counters = await database.call(records.counters)
        sets = await database.call(records.sets)
        rows = services.replicator.rows
        usage = await trio.to_thread.run_sync(services.store.usage)
        orders = [identifier for identifier in await services.orders() if identifier not in rows]
        view = services.holder.view
        quota = config.store.quota_bytes
        free = usage.free if not quota else max(0, min(usage.free, quota - usage.used))
        return Receipt(
            code=str(config.division),
            number=number,
            made_at=self.now(),
            proven_time=max(0, int(view.proven_time.timestamp())),
            network=services.network,
            is_all=True,
            held=shortened({row.infohash for row in rows.values()}),
            orders=tuple(orders[:MAX_ORDERS]),
            catalogues={
                str(code): state.versions.get("timestamp", 0)
                for code, state in view.authorities.items()
            },
            sets={known.serial: known.numbers for known in sets},
            subscriptions=Subscriptions(
                categories=config.subscriptions.categories,
                languages=config.subscriptions.languages,
                publishers=config.subscriptions.publishers,
                groups=config.subscriptions.groups,
            ),
            free=free,
            used=usage.used,
            statistics=self._statistics(counters, len(rows)),
        )

    def _statistics(self, counters: Mapping[str, int], bundles: int) -> Statistics:
        return Statistics(
            since=counters.get("since", 0),
            until=self.now(),
            bundles=bundles,
            by_satellite=counters.get("by_satellite", 0),
            by_swarm=counters.get("by_swarm", 0),
            by_medium=counters.get("by_medium", 0),
            sent=counters.get("sent", 0),
            problems=tuple(dict.fromkeys(it.code for it in self._problems()))[:MAX_PROBLEMS],
        )

    async def leave_receipt(self, top: Path) -> tuple[str, Sentence | None]:
        """Put a receipt onto a medium. Returns where it lies, or why it doesn't."""
        made = await self.make_receipt()
        file = top / made.file
        try:
            await trio.to_thread.run_sync(write_atomically, file, made.text.encode())
        except OSError as error:
            return "", sentence(
                "media.no-receipt",
                N_("The receipt couldn't be written onto the medium: {reason}."),
                reason=error.strerror or str(error),
            )
        return shown(file), None

    async def take_file(self, file: Path) -> TakenReceipt | None:
        """A receipt that lies on a medium; None: it is this place's own, or was taken before."""

        def read() -> str:
            with VolumeFolder(file.parent) as folder:
                data = folder.read(PurePosixPath(file.name), MAX_RECEIPT_FILE_BYTES)
            return (data or b"").decode("utf-8", "replace")

        try:
            text = await trio.to_thread.run_sync(read)
            if file.name == f"{self._config.division}{RECEIPT_SUFFIX}":
                return None
            return await self.take_receipt(text, shown(file))
        except OSError as error:
            problem = sentence(
                "media.receipt-unreadable",
                N_("{file} can't be read: {reason}."),
                file=shown(file),
                reason=error.strerror or str(error),
            )
        except CuntongError as error:
            if error.code == "media.old-receipt":
                return None
            problem = error.sentence
        return TakenReceipt(file=shown(file), problem=problem)

    # Offering.

    async def offer(
        self,
        codes: list[Division],
        bundles: frozenset[str],
        release: str,
        *,
        is_catalogue_only: bool,
    ) -> tuple[list[OfferedBundle], Offer]:
        """What a volume for these places should hold.

        Raises:
            MediaError: as `check_places` and `offered`.
        """
        services, own = self._services, self._config.division
        check_places(own, codes)
        await self.count()
        places = [await self._destination(code) for code in codes]
        wish = Wish(places, bundles, release, is_catalogue_only)
        view = services.holder.view
        now = self._clock.now() if view.is_clock_trusted else view.time
        found = await services.database.call(
            lambda: offered(
                services.catalogue, own, services.replicator.rows, wish, max(now, view.time).date()
            )
        )
        present = await trio.to_thread.run_sync(present_at_all, services.paths, places)
        end = Offer(
            code=own,
            name=self._config.node.name,
            network=services.network.hex(),
            places=[place.known for place in places],
            catalogues=catalogues_for(own, codes, await services.keeper.announcements()),
            present=present,
            had=found.had,
            not_for=found.not_for,
            not_here=found.not_here,
        )
        return found.bundles, end

    async def _destination(self, code: Division) -> Destination:
        services = self._services
        place = await services.database.call(services.records.place, code)
        known = PlaceKnown(code=code) if place is None else place_known(place)
        held = place.held if place is not None else frozenset()
        connected = services.neighbours.held_by(code)
        if connected is not None:
            held = frozenset(infohash[:SHORT] for infohash in connected)
            known = msgspec.structs.replace(
                known, how="link", at=self.now(), payloads=len(held), is_all=True
            )
        said = place.receipt if place is not None else None
        profile = NodeProfile(code)
        if said is not None:
            profile = NodeProfile(
                code,
                tuple(said.subscriptions.categories),
                tuple(said.subscriptions.languages),
                tuple(said.subscriptions.groups),
                tuple(said.subscriptions.publishers),
            )
        orders = frozenset(said.orders) if said is not None else frozenset()
        return Destination(known, held, profile, orders)

    # Counting.

    async def run(self) -> None:
        while True:
            await trio.sleep(COUNT_INTERVAL_S)
            await self.count()

    async def count(self) -> None:
        """Write down what has come since the last time, and what the children have."""
        services = self._services
        totals = services.engine.totals
        now = {
            "by_swarm": totals.down,
            "sent": totals.up,
            "by_satellite": self._satellite_bytes(),
        }
        more = {name: value - self._counted.get(name, 0) for name, value in now.items()}
        holdings = services.neighbours.holdings()
        try:
            if any(more.values()):
                await services.database.call(services.records.count, more)
                self._counted = now
            for code, held in holdings.items():
                infohashes = services.neighbours.held_by(code)
                if infohashes is not None and self._holdings.get(code) != held:
                    await services.database.call(
                        services.records.heard, code, infohashes, self.now()
                    )
                    self._holdings[code] = held
        except StoreError as error:
            log.warning("media.not-counted", code=error.code)


def place_known(place: Place, *, most_orders: int = MAX_ORDERS) -> PlaceKnown:
    """What is known of a place, as an operator sees it; with so many of its orders."""
    receipt = place.receipt
    return PlaceKnown(
        code=place.code,
        how=place.how,
        at=place.at,
        payloads=len(place.held),
        number=place.number,
        is_all=place.is_all,
        free=receipt.free if receipt is not None else 0,
        used=receipt.used if receipt is not None else 0,
        orders=list(receipt.orders[:most_orders]) if receipt is not None else [],
        orders_total=len(receipt.orders) if receipt is not None else 0,
        statistics=receipt.statistics if receipt is not None else None,
    )
