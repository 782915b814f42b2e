"""Where a node keeps what: the one place that knows the layout of the data directory (SPEC 9)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DataPaths:
    """The layout below a node's data directory."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def database(self) -> Path:
        """SQLite: floors, catalogue, orders, torrents. `synchronous=FULL`."""
        return self.root / "state.sqlite"

    @property
    def limits(self) -> Path:
        """What a person said by `cuntong limit` and `cuntong pause`."""
        return self.root / "limits.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def reserve(self) -> Path:
        """A file that only takes up room, given up when the disk is full."""
        return self.root / "reserve"

    @property
    def socket(self) -> Path:
        """The local Unix socket that the `cuntong` command talks to."""
        return self.root / "control.sock"

    @property
    def keys(self) -> Path:
        """The node's private key, certificate chain and trust anchor; mode 0700."""
        return self.root / "keys"

    @property
    def spool(self) -> Path:
        """Unverified TUF metadata, `<authority>/<file>`; filled by link, satellite and disk."""
        return self.root / "spool"

    @property
    def trusted(self) -> Path:
        """Verified TUF metadata, one directory an authority."""
        return self.root / "trusted"

    @property
    def blobs(self) -> Path:
        """Small signed files by SHA-256, checked when written: descriptors, members lists, roots."""
        return self.root / "blobs"

    @property
    def torrents(self) -> Path:
        """`<v2 infohash>.torrent`, checked when written."""
        return self.root / "torrents"

    @property
    def resume(self) -> Path:
        return self.root / "resume"

    @property
    def store(self) -> Path:
        """Payloads, `<v2 infohash>/<torrent name>/…`, read-only once complete."""
        return self.root / "store"

    @property
    def library(self) -> Path:
        """What the public sees, `<bundle id>/…`."""
        return self.root / "library"

    @property
    def authority(self) -> Path:
        """The repository that this centre publishes, if it publishes."""
        return self.root / "authority"

    @property
    def datacast(self) -> Path:
        """What a satellite sender and receiver remember, and symbols on their way into blocks."""
        return self.root / "datacast"

    @property
    def media(self) -> Path:
        """Of disks and discs by post: exports, payloads that wait for their listing, torrents of replaced revisions."""
        return self.root / "media"

    @property
    def incoming(self) -> Path:
        """Payloads that `cuntong publish` built and the daemon takes into the store."""
        return self.root / "incoming"


def default_data_dir() -> Path:
    """`$CUNTONG_DATA`, or `/var/lib/cuntong`."""
    return Path(os.environ.get("CUNTONG_DATA", "/var/lib/cuntong"))
