"""libtorrent's alerts as values of our own.

An alert may not be read after the next `pop_alerts`: the interpreter would crash. So everything that is
needed is copied here, at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import libtorrent as lt


@dataclass(frozen=True, slots=True)
class Listening:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ListenFailed:
    port: int
    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    infohash: bytes
    handle: lt.torrent_handle
    error: str


@dataclass(frozen=True, slots=True)
class Removed:
    infohash: bytes


@dataclass(frozen=True, slots=True)
class Flushed:
    """What was received before `flush_cache` has left the process."""

    infohash: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    infohash: bytes


@dataclass(frozen=True, slots=True)
class PieceFinished:
    infohash: bytes


@dataclass(frozen=True, slots=True)
class PieceRefused:
    """A piece arrived whole and didn't match its hash."""

    infohash: bytes
    piece: int


@dataclass(frozen=True, slots=True)
class DiskError:
    """A file couldn't be read or written. `number` is the errno, or 0."""

    infohash: bytes
    file: str
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Inconsistent:
    """Content that passes its v2 check contradicts the v1 hashes of its hybrid torrent, which has stopped."""

    infohash: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    infohash: bytes
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ResumeSaved:
    """What is on the disk now: every write before it has left the process."""

    infohash: bytes
    have: tuple[bool, ...]
    unfinished: dict[int, tuple[bool, ...]]
    down: int
    up: int


@dataclass(frozen=True, slots=True)
class ResumeFailed:
    infohash: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """A torrent's numbers; bytes are payload, rates bytes per second."""

    infohash: bytes
    pieces: int
    bytes_done: int
    down_rate: int
    up_rate: int
    down: int
    up: int
    peers: int


@dataclass(frozen=True, slots=True)
class Updated:
    torrents: tuple[Progress, ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection's payload bytes since it began."""

    host: str
    port: int
    down: int
    up: int


@dataclass(frozen=True, slots=True)
class Wire:
    """Bytes on the wire since the session began, estimated headers of IP, TCP and UDP included."""

    down: int
    up: int


@dataclass(frozen=True, slots=True)
class AlertsLost:
    pass


_INCONSISTENT_HASHES = 217
"""libtorrent's number for it; Python has no name."""

Alert = (
    Listening
    | ListenFailed
    | Added
    | Removed
    | Flushed
    | Finished
    | PieceFinished
    | PieceRefused
    | DiskError
    | Inconsistent
    | Connected
    | ResumeSaved
    | ResumeFailed
    | Updated
    | Wire
    | AlertsLost
)


def translate(alert: lt.alert) -> Alert | None:
    """Copy what matters out of an alert, or None."""
    match alert:
        case lt.piece_finished_alert():
            return PieceFinished(_infohash(alert))
        case lt.peer_connect_alert():
            host, port = alert.endpoint
            return Connected(_infohash(alert), host, port)
        case lt.state_update_alert():
            return Updated(tuple(_progress(status) for status in alert.status))
        case lt.session_stats_alert():
            values = alert.values
            return Wire(
                values["net.recv_bytes"] + values["net.recv_ip_overhead_bytes"],
                values["net.sent_bytes"] + values["net.sent_ip_overhead_bytes"],
            )
        case lt.save_resume_data_alert():
            params = alert.params
            return ResumeSaved(
                params.info_hashes.v2.to_bytes(),
                tuple(params.have_pieces),
                {piece: tuple(blocks) for piece, blocks in params.unfinished_pieces.items()},
                params.total_downloaded,
                params.total_uploaded,
            )
        case lt.save_resume_data_failed_alert():
            return ResumeFailed(_infohash(alert))
        case lt.torrent_finished_alert():
            return Finished(_infohash(alert))
        case lt.hash_failed_alert():
            return PieceRefused(_infohash(alert), alert.piece_index)
        case lt.file_error_alert():
            system = alert.error.category().name() in ("system", "generic")
            return DiskError(
                _infohash(alert),
                alert.filename(),
                alert.error.value() if system else 0,
                alert.error.message(),
            )
        case lt.torrent_error_alert():
            error = alert.error
            if (error.category().name(), error.value()) != ("libtorrent", _INCONSISTENT_HASHES):
                return None  # Disks' errors come as alerts of their own.
            return Inconsistent(_infohash(alert))
        case lt.cache_flushed_alert():
            return Flushed(_infohash(alert))
        case lt.add_torrent_alert():
            error = alert.error
            return Added(
                alert.params.info_hashes.v2.to_bytes(),
                alert.handle,
                error.message() if error.value() else "",
            )
        case lt.torrent_removed_alert():
            return Removed(alert.info_hashes.v2.to_bytes())
        case lt.listen_succeeded_alert():
            return Listening(alert.address, alert.port)
        case lt.listen_failed_alert():
            return ListenFailed(alert.port, alert.error.message())
        case lt.alerts_dropped_alert():
            return AlertsLost()
        case _:
            return None


def _infohash(alert: lt.torrent_alert) -> bytes:
    return alert.handle.info_hashes().v2.to_bytes()


def _progress(status: lt.torrent_status) -> Progress:
    return Progress(
        status.info_hashes.v2.to_bytes(),
        status.num_pieces,
        status.total_done,
        status.download_payload_rate,
        status.upload_payload_rate,
        status.all_time_download,
        status.all_time_upload,
        status.num_peers,
    )


def all_connections(
    torrents: list[tuple[bytes, lt.torrent_handle]],
) -> list[tuple[bytes, tuple[Connection, ...]]]:
    """The connections of these torrents. Blocks on libtorrent's thread: call it in one of your own.

    (`post_peer_info` would not block, but in 2.1.1 Python can't read its answer.)
    """
    found = []
    for infohash, handle in torrents:
        try:
            infos = handle.get_peer_info()
        except RuntimeError:  # The torrent was removed meanwhile.
            continue
        found.append(
            (
                infohash,
                tuple(
                    Connection(*info.ip, info.total_download, info.total_upload) for info in infos
                ),
            )
        )
    return found
