"""Torrents from neighbours, and which of them may be used (SPEC 7)."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from cuntong_protocol.bundle.descriptor import parse_bundle_id
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent, decode_torrent
from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_

from .link.fetching import LinkLostError
from .link.session import LinkSession
from .logs import get_logger

log = get_logger("torrents")


async def fetch_torrent(
    sessions: Iterable[LinkSession], infohash: bytes, *, size: int, limit: int
) -> Torrent | None:
    """The torrent from the first neighbour that has it; None when no one has.

    Args:
        size: Of the payload in bytes, as its descriptor states.
        limit: The most bytes that the torrent may have.
    """
    for session in sessions:
        try:
            data = await session.fetch(f"torrents/{infohash.hex()}", limit)
        except LinkLostError:
            continue
        if data is None:
            continue
        try:
            return await trio.to_thread.run_sync(_checked, data, infohash, size)
        except BundleError as error:
            log.warning("torrents.bad", peer=session.peer_code, code=error.code)
    return None


def check_access(torrent: Torrent, *, is_restricted: bool) -> None:
    """A restricted licence and a closed torrent belong together (SPEC 7.6).

    Raises:
        BundleError: `bundle.open-swarm`, `bundle.closed-swarm`.
    """
    if is_restricted and not torrent.is_closed:
        raise BundleError(
            "bundle.open-swarm",
            N_("Its licence is restricted, but everybody could join its swarm. Publish it anew."),
        )
    if torrent.is_closed and not is_restricted:
        raise BundleError(
            "bundle.closed-swarm",
            N_("Its licence is open, but only some could join its swarm. Publish it anew."),
        )


def _checked(data: bytes, infohash: bytes, payload_size: int) -> Torrent:
    torrent = decode_torrent(data, infohash=infohash)
    if torrent.payload_size != payload_size:
        raise BundleError(
            "bundle.payload-mismatch",
            N_("The payload doesn't have the size that its descriptor states."),
        )
    return torrent


def publisher_of(identifier: str) -> Division:
    """Who publishes a bundle, by its id."""
    return parse_bundle_id(identifier).code
