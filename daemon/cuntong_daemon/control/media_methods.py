"""The local socket's methods for disks and discs by post (SPEC 8, 12)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import trio

from cuntong_daemon.store.errors import disk_error
from cuntong_protocol.divisions import parse_division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.papers import MAX_PLACES
from cuntong_protocol.texts import N_

from .media_messages import ImportResult, ImportStep, MadeReceipt, MediaStatus, TakenReceipt
from .server import Handler, Outcome, Stream

if TYPE_CHECKING:  # The `cuntong` command reads the answers, and needs no swarm engine for that.
    from cuntong_daemon.media.service import Media

STEP_S = 0.2
"""Between two items of a running import."""

_Path = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_Id = Annotated[str, msgspec.Meta(max_length=100)]


class _Import(msgspec.Struct, forbid_unknown_fields=True):
    path: _Path
    in_place: bool = False


class _Eject(msgspec.Struct, forbid_unknown_fields=True):
    path: _Path


class _Status(msgspec.Struct, forbid_unknown_fields=True):
    code: str | None = None


class _Receipt(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class _Offer(msgspec.Struct, forbid_unknown_fields=True):
    places: Annotated[list[str], msgspec.Meta(max_length=MAX_PLACES)] = []
    bundles: Annotated[list[_Id], msgspec.Meta(max_length=5_000)] = []
    release: str = ""
    catalogue_only: bool = False


def media_methods(media: Media) -> dict[str, Handler]:
    """Methods with one answer."""

    async def receipt(params: dict[str, Any]) -> TakenReceipt:
        return await media.accounts.take_receipt(msgspec.convert(params, _Receipt).text)

    async def report(params: dict[str, Any]) -> MadeReceipt:
        del params
        return await media.accounts.make_receipt()

    async def status(params: dict[str, Any]) -> MediaStatus:
        code = msgspec.convert(params, _Status).code
        return await media.status(parse_division(code) if code is not None else None)

    async def eject(params: dict[str, Any]) -> dict[str, int]:
        return {"stopped": await media.eject(_absolute(msgspec.convert(params, _Eject).path))}

    return {
        "media.receipt": receipt,
        "media.report": report,
        "media.status": status,
        "media.eject": eject,
    }


def media_streams(
    media: Media, start: Callable[[Callable[[], Awaitable[None]]], None]
) -> dict[str, Stream]:
    """Methods that tell how far they are.

    Args:
        start: Runs a job until it ends, whoever leaves meanwhile.
    """

    async def run_import(params: dict[str, Any]) -> AsyncIterator[object]:
        asked = msgspec.convert(params, _Import)
        job = _Running(media, _absolute(asked.path), in_place=asked.in_place)
        # It runs beside the request: a client that leaves doesn't stop it half-way.
        start(job.run)
        told: ImportStep | None = None
        while not job.finished.is_set():
            if job.step is not told and job.step is not None:
                told = job.step
                yield told
            elif told is not None:
                yield told  # So that the client knows that somebody is still there.
            with trio.move_on_after(STEP_S):
                await job.finished.wait()
        if job.failure is not None:
            raise job.failure
        yield Outcome(job.result)

    async def offer(params: dict[str, Any]) -> AsyncIterator[object]:
        asked = msgspec.convert(params, _Offer)
        places = list(dict.fromkeys(parse_division(code) for code in asked.places))
        bundles, end = await media.accounts.offer(
            places,
            frozenset(asked.bundles),
            asked.release,
            is_catalogue_only=asked.catalogue_only,
        )
        for bundle in bundles:
            yield bundle
        yield Outcome(end)

    return {"media.import": run_import, "media.offer": offer}


class _Running:
    """An import that was asked for."""

    def __init__(self, media: Media, path: Path, *, in_place: bool) -> None:
        self._media = media
        self._path = path
        self._in_place = in_place
        self.step: ImportStep | None = None
        self.result = ImportResult()
        self.failure: CuntongError | None = None
        self.finished = trio.Event()

    async def run(self) -> None:
        try:
            self.result = await self._media.import_from(
                self._path, in_place=self._in_place, report=self._report
            )
        except CuntongError as error:
            self.failure = error
        except OSError as error:
            self.failure = disk_error(error)
        finally:
            self.finished.set()

    def _report(self, step: ImportStep) -> None:
        self.step = step


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise MediaError(
            "media.relative-path",
            N_("{path} must be an absolute path."),
            fault=Fault.USAGE,
            path=text,
        )
    return path
